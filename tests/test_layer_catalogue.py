"""What holds for every layer there is: float64, torch's compiler and exporter, shapes by formula, copies."""

import copy
import inspect
import pickle

import keras
import pytest
import torch
from layer_examples import EXAMPLES, all_layers
from layer_parity import check_layer

from torchfunc.layers import Lambda, Layer, TorchModule

LAYERS = all_layers()
# Not made from plain arguments, or not called on one input; each has a test file.
WITHOUT_EXAMPLE = {
    "Layer": "a base",
    "InputLayer": "never called",
    "Lambda": "made from a function",
    "TorchModule": "made from a module",
    **dict.fromkeys(("Wrapper", "TimeDistributed", "Bidirectional", "SpectralNormalization"), "made from a layer"),
    **dict.fromkeys(("RNN", "StackedRNNCells"), "made from cells"),
    **dict.fromkeys(("LSTMCell", "GRUCell", "SimpleRNNCell"), "called on an input and states"),
    **dict.fromkeys(("MultiHeadAttention", "GroupedQueryAttention"), "called on a query and a value"),
}
# Whose shape is what a function or module of the user's makes of it.
WITHOUT_FORMULA = {
    "Layer": "the base of users' layers",
    "InputLayer": "is never called",
    "Wrapper": "the base of users' wrappers",
    "Lambda": "the function's, unless output_shape says it",
    "TorchModule": "the module's, unless output_shape says it",
}
examples = pytest.mark.parametrize("name", EXAMPLES)


def made(name):
    """The example's layer in inference mode, and an input."""
    kwargs, inputs = EXAMPLES[name]
    layer = LAYERS[name](**kwargs).eval()
    if isinstance(inputs, list):
        return layer, [torch.randn(shape) for shape in inputs]
    return layer, torch.randn(inputs) if isinstance(inputs, tuple) else torch.from_numpy(inputs)


def test_every_layer_has_an_example():
    assert set(LAYERS) - set(WITHOUT_EXAMPLE) == set(EXAMPLES)


@examples
def test_arguments_are_those_of_keras(name):
    """Names, order and defaults."""
    ours, theirs = (_arguments(each) for each in (LAYERS[name], getattr(keras.layers, name)))
    if name in ("GRU", "LSTM", "SimpleRNN", "Embedding", "LayerNormalization"):
        # Ours write out, at the end, what Keras takes in **kwargs.
        ours = {key: ours[key] for key in ours if key in theirs}
    if name == "Conv3DTranspose":
        # Another order of two arguments; what follows is handed on.
        del ours["arguments"]
        theirs = dict(list(theirs.items())[: len(ours)])
    if name.startswith("AveragePooling"):
        # Keras has a default for MaxPooling only.
        assert ours.pop("pool_size") == 2
        assert theirs.pop("pool_size") is inspect.Parameter.empty
    assert list(ours.items()) == list(theirs.items())


def _arguments(cls):
    found = inspect.signature(cls.__init__).parameters.values()
    named = {each.name: each.default for each in found if each.kind is not inspect.Parameter.VAR_KEYWORD}
    # Arguments of Layer, which some layers write out and others leave in **kwargs.
    of_layer = ("self", "name", "dtype", "trainable", "autocast", "activity_regularizer")
    return {name: _same_for_all_axes(value) for name, value in named.items() if name not in of_layer}


def _same_for_all_axes(default):
    """`(2, 2)` as `2`, which means the same."""
    if isinstance(default, tuple) and len(set(map(_same_for_all_axes, default))) == 1:
        return _same_for_all_axes(default[0])
    return default


# Keras computes a part of these in single precision: square roots of constants, means, the product of Dense.
IN_SINGLE = (
    *("ActivityRegularization", "BatchNormalization", "Dense", "GlobalAveragePooling", "GroupNormalization"),
    *("LayerNormalization", "Normalization", "RMSNormalization", "SimpleRNN", "UnitNormalization"),
)
# For these Keras returns float32, whatever the dtype; that float64 stays is tested below.
NOT_IN_DOUBLE = ("AdditiveAttention", "Attention", "Dot", "Maximum", "Minimum")


@examples
def test_float64(name):
    kwargs, inputs = EXAMPLES[name]
    if name in NOT_IN_DOUBLE:
        x = [torch.randn(shape, dtype=torch.float64) for shape in inputs]
        assert LAYERS[name](**kwargs, dtype="float64")(x).dtype == torch.float64
        return
    atol = 1e-6 if name.startswith(IN_SINGLE) else None
    keras_cls = getattr(keras.layers, name)
    training = False if name.startswith(("Random", "Solarization")) else None
    check_layer(
        LAYERS[name], keras_cls, kwargs, inputs, dtype="float64", atol=atol, training=training, ignore_config=["name"]
    )


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.startswith((*IN_SINGLE, *NOT_IN_DOUBLE))])
def test_double_precision_is_used(name):
    """Differences of 1e-6 steps would be noise if anything were computed in single precision."""
    kwargs, inputs = EXAMPLES[name]
    layer = LAYERS[name](**kwargs, dtype="float64").eval()
    shapes = inputs if isinstance(inputs, list) else [inputs]
    # Away from 0, where Dense's relu and the maximum of two have a kink.
    x = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(lambda *x: layer(list(x) if isinstance(inputs, list) else x[0]), x)


@examples
def test_masks_are_passed_on_as_by_keras(name):
    kwargs, _ = EXAMPLES[name]
    assert LAYERS[name](**kwargs).supports_masking == getattr(keras.layers, name)(**kwargs).supports_masking


@examples
def test_arguments_of_compute_mask_are_called_as_by_keras(name):
    ours, theirs = (inspect.signature(cls.compute_mask) for cls in (LAYERS[name], getattr(keras.layers, name)))
    # (Keras' base class says previous_mask, and its layers mask.)
    assert list(ours.parameters)[2] == list(theirs.parameters)[2].removeprefix("previous_")


@examples
def test_a_layer_without_weights_is_built_by_build_too(name):
    kwargs, shape = EXAMPLES[name]
    layer, theirs = LAYERS[name](**kwargs), getattr(keras.layers, name)(**kwargs)
    if not isinstance(shape, list):
        layer.build(shape)
        theirs.build(shape)
        assert layer.built
        assert theirs.built


@pytest.mark.parametrize("name", sorted(set(LAYERS) - set(WITHOUT_FORMULA)))
def test_shapes_are_formulas(name):
    """So nothing is run, on fake tensors either, when a built-in layer is drawn."""
    assert LAYERS[name].compute_output_shape is not Layer.compute_output_shape
    if name in EXAMPLES:
        assert made(name)[0]._has_shape_formula()


def test_what_users_give_has_a_formula_if_they_say_the_shape():
    for make in (lambda **shape: Lambda(torch.abs, **shape), lambda **shape: TorchModule(torch.nn.ReLU(), **shape)):
        assert not make()._has_shape_formula()
        assert make(output_shape=(None, 3))._has_shape_formula()


@examples
def test_copies(name):
    layer, x = made(name)
    expected = layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), expected)
        assert list(twin.state_dict()) == list(layer.state_dict())
