"""LayerNormalization, RMSNormalization, GroupNormalization, UnitNormalization against Keras; and torch's kernels."""

import keras
import pytest
import torch
import torch.nn.functional as F
from layer_parity import assert_close, check_layer
from torch import nn

from torchfunc import Input, Model
from torchfunc.layers import (
    Embedding,
    GroupNormalization,
    LayerNormalization,
    RMSNormalization,
    UnitNormalization,
)

PENALTIES = {"beta_regularizer": "l1", "gamma_regularizer": "l2", "gamma_constraint": "non_neg"}
CASES = [
    (LayerNormalization, {}, (4, 5)),
    (LayerNormalization, {}, (2, 3, 5)),
    (LayerNormalization, {"axis": [1, 2]}, (2, 3, 5)),
    (LayerNormalization, {"axis": (-1, -2)}, (2, 3, 4, 5)),
    (LayerNormalization, {"axis": [1, 3]}, (2, 3, 4, 5)),
    (LayerNormalization, {"axis": [1, 2, 3], "epsilon": 0.1}, (2, 3, 4, 5)),
    (LayerNormalization, {"scale": False}, (4, 5)),
    (LayerNormalization, {"center": False}, (4, 5)),
    (LayerNormalization, {"center": False, "scale": False}, (4, 5)),
    (LayerNormalization, {"beta_initializer": "ones", "gamma_initializer": "he_normal", **PENALTIES}, (4, 5)),
    (RMSNormalization, {}, (4, 5)),
    (RMSNormalization, {"epsilon": 0.1}, (2, 3, 5)),
    (RMSNormalization, {"axis": [-2, -1]}, (2, 3, 5)),
    (GroupNormalization, {"groups": 2}, (4, 6)),
    (GroupNormalization, {"groups": 3}, (2, 4, 6)),
    (GroupNormalization, {"groups": 3, "axis": 1}, (2, 6, 4)),
    (GroupNormalization, {"groups": 2, "axis": -2}, (2, 3, 4, 5)),
    (GroupNormalization, {"groups": -1}, (2, 3, 4, 6)),
    (GroupNormalization, {"groups": 1, "axis": 1}, (2, 6, 3, 4)),
    (GroupNormalization, {"groups": 2, "center": False, "epsilon": 0.1}, (2, 3, 4, 6)),
    (GroupNormalization, {"groups": 2, "scale": False}, (2, 3, 2, 2, 6)),
    (GroupNormalization, {"groups": 2, "beta_initializer": "ones", **PENALTIES}, (4, 6)),
    (UnitNormalization, {}, (4, 5)),
    (UnitNormalization, {"axis": 1}, (2, 3, 5)),
    (UnitNormalization, {"axis": (1, -1)}, (2, 3, 4, 5)),
]


@pytest.mark.parametrize(("cls", "kwargs", "shape"), CASES)
def test_parity(cls, kwargs, shape):
    theirs = getattr(keras.layers, cls.__name__)
    unknown = [axis for axis in range(1, len(shape)) if cls is UnitNormalization][:1]
    check_layer(cls, theirs, kwargs, shape, unknown_axes=unknown, fake_run=len(shape) == 3)


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [(LayerNormalization, {}), (RMSNormalization, {}), (GroupNormalization, {"groups": 2}), (UnitNormalization, {})],
)
def test_float64(cls, kwargs):
    """Keras computes in single precision whatever it is asked for; torch's modules, below, do not."""
    check_layer(cls, getattr(keras.layers, cls.__name__), kwargs, (2, 3, 4), dtype="float64", atol=1e-6, fake_run=False)


@pytest.mark.parametrize("cls", [LayerNormalization, RMSNormalization])
@pytest.mark.parametrize(
    ("axis", "shape"), [(1, (2, 3, 4)), ([1, 2], (2, 3, 4, 5)), (-3, (2, 4, 4, 4)), (1, (2, 3, 3))]
)
def test_axes_that_are_not_the_last(cls, axis, shape):
    """Keras hands these to a kernel for the last axes: it fails, or where the sizes fit, normalizes others."""
    x = torch.randn(shape, requires_grad=True)
    layer = cls(axis=axis)
    layer.build(shape)
    with torch.no_grad():
        for weight in layer.weights:
            weight.uniform_(0.5, 1.5)
    axes = [axis] if isinstance(axis, int) else axis
    moved = x.movedim(axes, tuple(range(-len(axes), 0)))
    theirs = getattr(keras.layers, cls.__name__)(axis=list(range(-len(axes), 0)))
    theirs.build(moved.shape)
    theirs.set_weights(layer.get_weights())
    expected = theirs(moved).movedim(tuple(range(-len(axes), 0)), axes)
    assert_close(layer(x), expected, 1e-5, "output")
    direction = torch.randn(shape)
    gradients = [torch.autograd.grad(output, x, direction, retain_graph=True)[0] for output in (layer(x), expected)]
    assert_close(*gradients, 1e-5, "gradient")


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
@pytest.mark.parametrize("kwargs", [{}, {"axis": [1, 3]}, {"scale": False}])
def test_rms_scaling(kwargs):
    with pytest.warns(UserWarning, match="Use RMSNormalization"):
        layer = LayerNormalization(rms_scaling=True, **kwargs)
    theirs = keras.layers.LayerNormalization(rms_scaling=True, **kwargs)
    x = torch.randn(2, 3, 4, 5)
    layer.build(x.shape)
    theirs.build(x.shape)
    values = [torch.randn(weight.shape).numpy() for weight in layer.get_weights()]
    layer.set_weights(values)
    theirs.set_weights(values)
    assert_close(layer(x), theirs(x), 1e-5, "output")
    assert layer.get_config()["rms_scaling"]


TORCH = [
    (LayerNormalization(epsilon=1e-5), nn.LayerNorm(6), (4, 5, 6)),
    (LayerNormalization(axis=[1, 2], epsilon=1e-5), nn.LayerNorm([5, 6]), (4, 5, 6)),
    (RMSNormalization(epsilon=1e-5), nn.RMSNorm(6, eps=1e-5), (4, 5, 6)),
    (GroupNormalization(3, axis=1, epsilon=1e-5), nn.GroupNorm(3, 6), (4, 6, 5)),
]


@pytest.mark.parametrize(("layer", "module", "shape"), TORCH)
def test_state_dict_is_that_of_torch(layer, module, shape):
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    layer.build(shape)
    layer.load_state_dict(module.state_dict())
    x = torch.randn(shape)
    assert_close(layer(x), module(x), 1e-6, "output")
    assert_close(layer.double()(x.double()), module.double()(x.double()), 1e-12, "float64")


@pytest.mark.parametrize(
    ("kernel", "layer", "shape"),
    [
        ("layer_norm", LayerNormalization(axis=1), (2, 3, 4)),
        ("rms_norm", RMSNormalization(), (2, 3, 4)),
        ("group_norm", GroupNormalization(2), (2, 3, 3, 4)),
    ],
)
def test_runs_on_the_fused_kernel_without_a_copy(kernel, layer, shape):
    seen, original = [], getattr(F, kernel)

    def spy(inputs, *args):
        seen.append(inputs.data_ptr())
        return original(inputs, *args)

    x = torch.randn(shape)
    layer.build(shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, kernel, spy)
        layer(x.requires_grad_())
    assert seen == [x.data_ptr()]


def test_a_norm_of_zero():
    x = torch.zeros(1, 3, requires_grad=True)
    output = UnitNormalization()(x)
    output.sum().backward()
    assert torch.equal(output, torch.zeros(1, 3))
    assert torch.isfinite(x.grad).all()


LAYERS = [LayerNormalization(), RMSNormalization(), GroupNormalization(3), UnitNormalization()]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_masks_half_precision_and_integers(layer):
    embedded = Embedding(5, 6, mask_zero=True)(Input((4,), dtype="int64"))
    expected = None if isinstance(layer, RMSNormalization) else embedded.mask
    assert layer(embedded).mask is expected, "Keras' RMSNormalization drops masks"
    x = torch.randn(2, 4, 6)
    half = layer(x.bfloat16())
    assert half.dtype == layer(Input((4, 6), dtype="bfloat16")).dtype == torch.bfloat16
    assert_close(half.float(), layer(x), 0.02, "half")
    numbers = torch.randint(9, (2, 4, 6))
    assert layer(Input((4, 6), dtype="int64")).dtype == torch.float32
    assert torch.equal(layer(numbers), layer(numbers.float()))


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: LayerNormalization(axis=3), (None, 3), r"axis=3 is out of range for an input of shape \(None, 3\)"),
        (lambda: LayerNormalization(axis=[1, -1]), (None, 3), r"axis=\[1, -1\] names an axis .* twice"),
        (lambda: LayerNormalization(axis=1), (None, None, 3), "size of axis 1 .*must be known"),
        (lambda: RMSNormalization(axis=-3), (None, 3), "axis=-3 is out of range"),
        (lambda: UnitNormalization(axis=[1, 2]), (None, 3), r"axis=\[1, 2\] is out of range"),
        (lambda: GroupNormalization(4), (None, 6), "groups=4 must divide the 6 channels"),
        (lambda: GroupNormalization(), (None, 6), "groups=32 must divide the 6 channels"),
        (lambda: GroupNormalization(2, axis=0), (None, 6), "axis=0 is the batch"),
        (lambda: GroupNormalization(2), (None, None), "size of axis -1 .*must be known"),
    ],
)
def test_wrong_inputs(make, shape, message):
    layer = make()
    with pytest.raises(
        ValueError,
        match=rf"(?s)({layer.name}.*{message}|{message}.*{layer.name}|of {type(layer).__name__} '.*must be known)",
    ):
        layer(Input(batch_shape=shape))


def test_wrong_arguments():
    for cls in (LayerNormalization, RMSNormalization, UnitNormalization):
        with pytest.raises(
            TypeError, match=rf"{cls.__name__} takes an integer or a list of integers for axis, got 'x'"
        ):
            cls(axis="x")
    with pytest.raises(TypeError, match="integer for axis"):
        GroupNormalization(axis=[1])
    with pytest.raises(ValueError, match="positive integer or -1 for groups, got 0"):
        GroupNormalization(0)
    layer = LayerNormalization(name="ln")
    layer(Input((4, 3)))
    with pytest.raises(ValueError, match=r"'ln'.*expected axis -1"):
        layer(Input((4, 5)))


def test_weights_train_on_images_that_need_no_gradient():
    layer = GroupNormalization(3)
    x = torch.randn(2, 6, 7, 3)
    layer(x).square().sum().backward()
    expected = layer.weight.grad.clone(), layer.bias.grad.clone()
    layer.zero_grad()
    layer(x.requires_grad_()).square().sum().backward()
    torch.testing.assert_close((layer.weight.grad, layer.bias.grad), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("options", [{}, {"scale": False}])
@pytest.mark.parametrize("kind", [LayerNormalization, GroupNormalization])
def test_model_in_another_precision(kind, options, dtype):
    inputs = Input((5, 4))
    layer = kind(2, **options) if kind is GroupNormalization else kind(**options)
    model, x = Model(inputs, layer(inputs)), torch.randn(3, 5, 4)
    expected = model(x)
    found = model.to(dtype)(x.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)
