"""The code for CUDA as far as it goes without a card: run on fake tensors that say they are there; no kernel runs.

Reading a value back raises here, as it would stop the host on a card. torch that is built for the CPU alone refuses
`copy_`, autograd and autocast even on such tensors: whole steps are in `test_steps_elsewhere.py`.
"""

import pytest
import torch
from fake_cuda import empty, is_there, moved
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from torchfunc import Input, Model, layers, losses, metrics, optimizers
from torchfunc.layers.recurrent import cudnn


@pytest.fixture(autouse=True)
def fake():
    with FakeTensorMode() as mode, torch.no_grad():
        yield mode


def test_calls_losses_and_metrics_stay_on_the_device_and_read_nothing():
    inputs = Input((8,))
    x = layers.LayerNormalization()(layers.Dense(16, activation="gelu")(inputs))
    model = moved(Model(inputs, layers.Dense(5, activation="softmax")(layers.Dropout(0.5)(x))))
    for training in (True, False):
        outputs = model(empty(4, 8), training=training)
        assert is_there(outputs)
        assert outputs.shape == (4, 5)
    target, weight = empty(4, dtype=torch.int64), empty(4)
    for loss in (losses.SparseCategoricalCrossentropy(), losses.SparseCategoricalCrossentropy(ignore_class=0)):
        assert is_there(loss(target, outputs), loss(target, outputs, weight))
    for metric in (metrics.SparseCategoricalAccuracy(), metrics.SparseCategoricalCrossentropy()):
        metric._variables[:] = [empty(*state.shape) for state in metric._variables]
        vars(metric).update(zip(metric._variable_names, metric._variables, strict=True))
        metric.update_state(target, outputs, weight)
        assert is_there(metric.result())


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_images_keep_their_channels_last(padding):
    inputs = Input((16, 16, 3))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, padding=padding, strides=2, activation="relu")(inputs))
    model = moved(Model(inputs, layers.MaxPooling2D()(x)))
    outputs = model(empty(4, 16, 16, 3), training=False)
    assert is_there(outputs)
    assert outputs.shape == ((4, 4, 4, 8) if padding == "same" else (4, 3, 3, 8))
    if torch.backends.cuda.is_built():
        # Which layout a convolution answers in is known to cuDNN's front only. (Nothing is rearranged on the way.)
        assert outputs.is_contiguous()


@pytest.mark.parametrize("kernel", ["LSTM", "GRU", "SimpleRNN"])
def test_recurrent_layers(kernel):
    inputs = Input((7, 3))
    layer = getattr(layers, kernel)(5, return_sequences=True, return_state=True)
    model = moved(Model(inputs, layer(inputs)))
    outputs = model(empty(4, 7, 3))
    assert is_there(*outputs)
    assert [tuple(each.shape) for each in outputs] == [(4, 7, 5), *[(4, 5)] * (len(outputs) - 1)]


@pytest.mark.parametrize(("kernel", "gates"), [("lstm", 4), ("gru", 3), ("rnn_tanh", 1)])
def test_operators_around_cudnn(kernel, gates):
    # What only cuDNN knows the size of is of an unknown size.
    with FakeTensorMode(shape_env=ShapeEnv()):
        check_operators(kernel, gates)


def check_operators(kernel, gates):
    steps, batch, features, units = 7, 4, 3, 5
    states = [empty(1, batch, units)] * (2 if kernel == "lstm" else 1)
    weights = [empty(gates * units, features), empty(gates * units, units), *[empty(gates * units)] * 2]
    inputs = empty(steps, batch, features)
    outputs, *others = torch.ops.torchfunc.recurrent_cudnn(kernel, inputs, states, weights)
    *finals, reserve, buffer = others
    assert is_there(outputs, *others)
    assert outputs.shape == (steps, batch, units)
    assert [final.shape for final in finals] == [state.shape for state in states]
    gradients = torch.ops.torchfunc.recurrent_cudnn_backward(
        kernel, inputs, states, weights, outputs, reserve, buffer, [outputs, *finals]
    )
    assert is_there(*gradients)
    assert [each.shape for each in gradients] == [each.shape for each in (inputs, *states, *weights)]
    assert set(cudnn._MODES) >= {"lstm", "gru"}


CAPTURED = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "Adam": {"amsgrad": True, "clipnorm": 1.0},
    "AdamW": {"global_clipnorm": 1.0},
    "Adadelta": {"clipvalue": 0.1},
    "Adamax": {},
    "Lion": {},
    "Lamb": {},
}


@pytest.mark.parametrize("name", CAPTURED)
def test_optimizers_in_a_captured_step(name):
    optimizer = getattr(optimizers, name)(0.1, **CAPTURED[name])
    # As while a graph is made.
    optimizer._always_in_graph = True
    weights = [empty(4, 3), empty(3)]
    optimizer.build(weights)
    state = [
        each for each, weight in zip(optimizer.variables, optimizer.served_weights(), strict=True) if weight is not None
    ]
    assert is_there(*state)
    for _ in range(2):
        optimizer.apply([empty(4, 3), empty(3)], weights)
    assert is_there(*weights, *state)
