"""SpectralNormalization against Keras, step by step; and what it does that Keras does not."""

import copy

import keras
import numpy as np
import pytest
import torch
from layer_parity import assert_close, same_config
from torch import nn

from torchfunc import Input, layers
from torchfunc.layers import SpectralNormalization

WRAPPED = {
    "Dense": ((4,), (3, 5)),
    "Dense of a sequence": ((4,), (3, 6, 5)),
    "Conv2D": ((4, 3), (2, 6, 6, 2)),
    "Conv1DTranspose": ((4, 3), (2, 6, 2)),
    "DepthwiseConv2D": ((3,), (2, 6, 6, 2)),
}


def both(name, arguments, shape, **kwargs):
    """Our layer and Keras', built, with the same weights."""
    name = name.split()[0]
    ours = SpectralNormalization(getattr(layers, name)(*arguments), **kwargs)
    theirs = keras.layers.SpectralNormalization(getattr(keras.layers, name)(*arguments), **kwargs)
    ours.build(shape)
    theirs.build(shape)
    rng = np.random.default_rng(0)
    values = [rng.normal(size=value.shape).astype("float32") for value in ours.get_weights()]
    ours.set_weights(values)
    theirs.set_weights(values)
    return ours, theirs


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("name", WRAPPED)
def test_parity_over_steps(name, iterations):
    arguments, shape = WRAPPED[name]
    ours, theirs = both(name, arguments, shape, power_iterations=iterations)
    for step in range(3):
        x, direction = torch.randn(shape, requires_grad=True), torch.randn(ours.compute_output_shape(shape))
        actual, expected = ours(x, training=True), theirs(x, training=True)
        assert_close(actual, expected, 1e-5, f"step {step}")
        own_kernel, kernel = ours.layer.weight, theirs.layer.kernel.value
        gradients = torch.autograd.grad(actual, [x, own_kernel], direction)
        references = torch.autograd.grad(expected, [x, kernel], direction)
        assert_close(gradients[0], references[0], 1e-5, f"gradient of the input, step {step}")
        own = ours._kernel.layout.to_keras(gradients[1])
        assert_close(own, references[1], 1e-5, f"gradient of the kernel, step {step}")
        for mine, reference in zip(ours.get_weights(), theirs.weights, strict=True):
            assert_close(mine, reference.value, 1e-5, f"weights after step {step}")
    assert_close(ours(x, training=False), theirs(x, training=False), 1e-5, "inference")
    assert not same_config(
        {**ours.get_config(), "layer": None}, {**theirs.get_config(), "layer": None}, ignore=["build_config"]
    )
    assert not same_config(ours.layer.get_config(), theirs.layer.get_config())
    for config in (ours.get_config(), theirs.get_config()):
        again = SpectralNormalization.from_config(config)
        assert (again.power_iterations, type(again.layer)) == (iterations, type(ours.layer))
    assert ours.count_params() == theirs.count_params()


def test_the_largest_singular_value_becomes_one():
    layer = SpectralNormalization(layers.Dense(4), power_iterations=50)
    layer(torch.randn(2, 6), training=True)
    assert torch.linalg.matrix_norm(layer.layer.weight, 2).item() == pytest.approx(1, abs=1e-4)


def test_called_twice_before_backward():
    """A discriminator sees real and false samples; Keras on torch has changed the first graph's kernel by then."""
    layer, x = SpectralNormalization(layers.Dense(4)), torch.randn(2, 6, requires_grad=True)
    loss = layer(x, training=True).square().sum() + layer(x, training=True).square().sum()
    loss.backward()
    assert torch.isfinite(layer.layer.weight.grad).all()
    assert list(layer.state_dict()) == ["vector_u", "layer.weight", "layer.bias"]


def test_zeros_and_inference_change_nothing():
    layer, x = SpectralNormalization(layers.Dense(4, kernel_initializer="zeros")), torch.randn(2, 6)
    layer.build((None, 6))
    before = copy.deepcopy(layer.state_dict())
    assert torch.equal(layer(x, training=True), torch.zeros(2, 4))
    layer.eval()(x)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_embeddings():
    """Keras casts the vectors to the dtype of the words."""
    layer = SpectralNormalization(layers.Embedding(5, 3, mask_zero=True), power_iterations=50)
    words = Input((None,), dtype="int64")
    vectors = layer(words)
    assert (vectors.shape, vectors.dtype, vectors.mask) == ((None, None, 3), torch.float32, None)
    output = layer(torch.tensor([[1, 2, 0]]), training=True)
    assert torch.equal(output[0, 0], layer.layer.weight[1])
    assert torch.linalg.matrix_norm(layer.layer.weight, 2).item() == pytest.approx(1, abs=1e-4)


def test_compiled_whole_and_exported():
    torch._dynamo.reset()
    layer = SpectralNormalization(layers.Conv2D(4, 3))
    layer.build((None, 6, 6, 2))
    twin = copy.deepcopy(layer)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        x = torch.randn(2, 6, 6, 2)
        outputs = compiled(x), layer(x)
        assert_close(*outputs, 1e-6, "output")
        for output in outputs:
            output.square().sum().backward()
        assert_close(twin.layer.weight.grad, layer.layer.weight.grad, 1e-5, "gradient")
        for mine, reference in zip(twin.get_weights(), layer.get_weights(), strict=True):
            assert_close(mine, reference, 1e-6, "weights")
    program = torch.export.export(layer.eval(), (x,))
    assert_close(program.module()(x), layer(x), 1e-6, "exported")


def test_errors():
    for wrong in (layers.BatchNormalization(), layers.SeparableConv1D(3, 2), nn.Linear(3, 2)):
        with pytest.raises(ValueError, match=rf"a layer with a kernel or embeddings, got {type(wrong).__name__}"):
            SpectralNormalization(wrong)
    with pytest.raises(ValueError, match="positive integer for power_iterations, got 0"):
        SpectralNormalization(layers.Dense(3), power_iterations=0)
    layer = SpectralNormalization(layers.Dense(3), name="sn")
    layer(Input((4,)))
    with pytest.raises(ValueError, match=r"'sn'.*expected axis -1"):
        layer(Input((5,)))
