"""Arrays that torch itself refuses or warns of are taken wherever an array is, and mean what they hold."""

import numpy as np
import pytest
import torch

from torchfunc import Input, Model, Sequential, activations, constraints, layers, losses, metrics, ops

PLAIN = np.random.default_rng(0).random((6, 4), dtype="float32")


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


KINDS = {
    "read-only": read_only,
    "backwards": lambda array: array[::-1].copy()[::-1],
    "mirrored": lambda array: array[:, ::-1].copy()[:, ::-1],
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "broadcast": lambda array: np.broadcast_to(array[0], array.shape),
    "mirrored doubles": lambda array: array[:, ::-1].astype("float64")[:, ::-1],
}
INPUTS = Input((4,))
DENSE = layers.Dense(4, kernel_initializer="ones")
MODEL = Model(INPUTS, DENSE(INPUTS))
MODEL.compile("sgd", "mse")
DOORS = {
    "model": lambda array: MODEL(array),
    "layer": lambda array: layers.Rescaling(2.0)(array),
    "sequential": lambda array: Sequential([Input((4,)), layers.Rescaling(2.0)])(array),
    "predict": lambda array: MODEL.predict(array, verbose=0),
    "evaluate": lambda array: MODEL.evaluate(array, array, verbose=0),
    "constant of a graph": lambda array: Model(INPUTS, INPUTS * array[:1])(PLAIN),
    "constant of an operation": lambda array: Model(INPUTS, ops.multiply(INPUTS, array[:1]))(PLAIN),
    "operation": lambda array: ops.matmul(array, ops.transpose(array)),
    "tensor of a dtype": lambda array: ops.convert_to_tensor(array, "float32"),
    "activation": lambda array: activations.tanh(array),
    "constraint": lambda array: constraints.UnitNorm()(array),
    "loss": lambda array: losses.MeanSquaredError()(array, PLAIN),
    "metric": lambda array: metrics.MeanSquaredError()(array, PLAIN),
    "adapt": lambda array: adapted(array),
    "set_weights": lambda array: set_weights(array),
    "assign": lambda array: layer_of_weights().kernel.assign(array[:4]),
    "assign to a parameter": lambda array: layer_of_weights().weight.assign(array[:4]),
    "assign_add": lambda array: layer_of_weights().kernel.assign_add(array[:4]),
}


def adapted(array):
    layer = layers.Normalization()
    layer.adapt(array)
    return layer.mean


def layer_of_weights():
    layer = layers.Dense(4, use_bias=False, kernel_initializer="ones")
    layer.build((None, 4))
    return layer


def set_weights(array):
    layer = layer_of_weights()
    layer.set_weights([array[:4]])
    return layer.get_weights()[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("door", DOORS)
def test_what_it_holds_is_read(door, kind):
    array = KINDS[kind](PLAIN)
    expected = DOORS[door](np.array(array, dtype="float32"))
    torch.testing.assert_close(torch.as_tensor(DOORS[door](array)), torch.as_tensor(expected), check_dtype=False)
