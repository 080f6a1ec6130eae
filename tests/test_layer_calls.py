"""Layers of one's own: calls on real and symbolic tensors, shapes, nodes, copies, input specs and masks."""

import copy
import pickle

import keras
import numpy as np
import pytest
import torch
from example_layers import CustomDense, Lazy, layer_of
from keras.src.layers.input_spec import assert_input_compatibility
from layer_parity import assert_close
from torch import nn

from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.core import Dense, Embedding
from torchfunc.layers.input_layer import Input
from torchfunc.layers.merging import Add
from torchfunc.layers.normalization.batch import BatchNormalization
from torchfunc.layers.regularization import Dropout
from torchfunc.models import Model

# Calling


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("given", [None, True, False])
def test_training_is_resolved(mode, given):
    seen = []

    def call(self, inputs, training=None):
        seen.append(training)
        return inputs

    layer = layer_of(call).train(mode)
    layer(torch.ones(2), training=given)
    layer(torch.ones(2)) if given is None else layer(torch.ones(2), training=given)
    assert seen == [mode if given is None else given] * 2
    assert layer.training == mode


def test_training_for_one_call_reaches_what_is_inside():
    class Outer(Layer):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Dropout(0.5), Dropout(0.5))

        def call(self, inputs):
            return self.inner(inputs)

    layer, x = Outer(), torch.ones(100, 10)
    layer.inner[0].eval()
    assert torch.equal(layer(x, training=False), x)
    assert [module.training for module in layer.modules()] == [True, True, False, True]
    assert (layer.eval()(x, training=True) == 0).float().mean() > 0.6
    assert not any(module.training for module in layer.modules())


def test_the_mode_is_restored_after_an_error():
    def call(self, inputs):
        raise KeyError("oops")

    layer = layer_of(call)
    with pytest.raises(KeyError):
        layer(torch.ones(2), training=False)
    assert layer.training


def test_numpy_inputs():
    layer = layer_of(lambda self, inputs: inputs)
    for dtype, expected in (("float64", torch.float32), ("float32", torch.float32), ("int64", torch.int64)):
        assert layer(np.ones(2, dtype)).dtype == expected
    assert [each.dtype for each in layer([np.ones(2), np.ones(2, "int32")])] == [torch.float32, torch.int32]


def test_custom_layers_compile_whole():
    torch._dynamo.reset()
    layer, x = Lazy(), torch.randn(6, 3)
    layer(x)
    for mode in (False, True):
        layer.train(mode)
        twin = copy.deepcopy(layer)
        compiled = torch.compile(twin, fullgraph=True, backend="eager")
        torch.manual_seed(0)
        expected = layer(x)
        torch.manual_seed(0)
        assert_close(compiled(x), expected, 1e-6, "compiled")
    assert_close(twin.norm.running_mean, layer.norm.running_mean, 1e-6, "buffers")


# Shapes


def test_the_output_shape_is_found_by_a_fake_run():
    class Pools(Layer):
        def call(self, inputs):
            a, b = inputs
            return {"mean": a.mean(1), "both": [torch.cat([a, b], 1), b.argmax(-1)]}

    layer = Pools()
    outputs = layer([Input((None, 3)), Input((5, 3))])
    assert outputs["mean"].shape == (None, 3)
    assert outputs["both"][0].shape == (None, None, 3)
    assert (outputs["both"][1].shape, outputs["both"][1].dtype) == ((None, 5), torch.int64)
    shapes = layer.compute_output_shape([(None, None, 3), (None, 5, 3)])
    assert shapes["mean"] == (None, 3)
    assert list(map(tuple, shapes["both"])) == [(None, None, 3), (None, 5)]
    assert CustomDense(7).compute_output_shape((None, 4, 3)) == (None, 4, 7)


def test_a_formula_of_ones_own_is_used():
    class Formula(Layer):
        def call(self, inputs):
            raise AssertionError("not to be run")

        def compute_output_shape(self, input_shape):
            return (*input_shape[:-1], 9)

    assert Formula()(Input((4, 3))).shape == (None, 4, 9)


def test_a_call_that_fails_names_the_layer_and_the_line():
    layer = layer_of(lambda self, inputs: inputs @ torch.ones(5, 2))
    layer.name = "broken"
    with pytest.raises(ValueError, match=r"Made 'broken' cannot be called on \(None, 3\)[\s\S]*test_layer_calls.py"):
        layer(Input((3,)))


def test_wrong_arguments_name_the_layer():
    with pytest.raises(TypeError, match="Dense 'here' was called wrongly"):
        Dense(3, name="here")(torch.ones(2, 3), size=3)
    with pytest.raises(TypeError, match="Dense 'here' was called wrongly"):
        Dense(3, name="here")(Input((3,)), size=3)


# Nodes


def test_node_introspection():
    a, b = Input((4, 5), name="a"), Input((8, 5), name="b")
    dense = Dense(3, name="shared")
    with pytest.raises(AttributeError, match="shared has never been called"):
        _ = dense.output
    first = dense(a)
    assert dense.input is a
    assert dense.output is first
    assert (dense.input_shape, dense.output_shape) == ((None, 4, 5), (None, 4, 3))
    second = dense(b)
    assert [dense.get_input_at(i) for i in (0, 1)] == [a, b]
    assert [dense.get_output_at(i) for i in (0, 1)] == [first, second]
    assert [dense.get_input_shape_at(i) for i in (0, 1)] == [(None, 4, 5), (None, 8, 5)]
    assert [dense.get_output_shape_at(i) for i in (0, 1)] == [(None, 4, 3), (None, 8, 3)]
    for what in ("input", "output"):
        with pytest.raises(AttributeError) as caught:
            getattr(dense, what)
        # Word for word what the guide shows.
        assert str(caught.value) == (
            f'Layer shared has multiple inbound nodes, hence the notion of "layer {what}" is ill-defined. '
            f"Use `get_{what}_at(node_index)` instead."
        )
        with pytest.raises(AttributeError, match="multiple inbound nodes with different"):
            getattr(dense, f"{what}_shape")
    with pytest.raises(ValueError, match="node 2 of layer shared, which has 2"):
        dense.get_output_at(2)


def test_shapes_of_several_equal_nodes():
    dense = Dense(3)
    dense(Input((5,)))
    dense(Input((5,)))
    assert (dense.input_shape, dense.output_shape) == ((None, 5), (None, 3))


def test_nodes_of_layers_on_several_tensors():
    a, b = Input((3,)), Input((3,))
    layer = Add()
    layer([a, b])
    assert list(layer.input) == [a, b]
    assert layer.input_shape == [(None, 3), (None, 3)]

    def call(self, query, value):
        return query, value

    two = layer_of(call)
    outputs = two(a, value=b)
    assert list(two.input) == [a, b]
    assert list(two.output) == list(outputs)
    assert two.output_shape == [(None, 3), (None, 3)]


# Copies


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_new_layers(duplicate):
    layer, x = Lazy(), torch.randn(4, 3)
    output = layer(Input((3,)))
    layer.add_loss(x.sum())
    layer.eval()
    twin = duplicate(layer)
    assert torch.equal(twin(x), layer(x))
    assert (twin.inbound_nodes, twin.losses) == ([], [])
    assert layer.output is output
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in layer.parameters()}
    assert twin.get_config() == layer.get_config()
    assert not twin.training


def test_a_symbolic_tensor_cannot_be_pickled_by_itself():
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Dense(3)(Input((3,))))


# Symbolic calls leave no trace


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("seen", torch.zeros(()))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.seen.add_(1)
        return torch.rand_like(x) + self.linear(x)


class Everything(Layer):
    def __init__(self):
        super().__init__()
        self.parts = nn.Sequential(Counts(), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.norm, self.dropout, self.seeded = BatchNormalization(), Dropout(0.5), Dropout(0.5, seed=3)

    def call(self, inputs):
        return self.seeded(self.dropout(self.norm(self.parts(inputs))))


@pytest.mark.parametrize("mode", [True, False])
def test_symbolic_calls_change_nothing(mode):
    layer, hooked = Everything(), []
    layer.register_forward_hook(lambda *args: hooked.append(args))
    layer.train()
    layer(torch.randn(4, 3)).sum().backward()
    layer.train(mode)
    layer.parts[1].train(not mode)
    tensors = [*layer.parameters(), *layer.buffers()]
    before = [tensor.clone() for tensor in tensors]
    gradients = [None if p.grad is None else p.grad.clone() for p in layer.parameters()]
    modes = [module.training for module in layer.modules()]
    generator, calls, versions = torch.get_rng_state(), layer.parts[0].calls, [tensor._version for tensor in tensors]
    assert layer(Input((3,))).shape == (None, 3)
    assert layer(Input((3,)), training=not mode).shape == (None, 3)
    assert layer.compute_output_shape((None, 3)) == (None, 3)
    assert all(now is then for now, then in zip([*layer.parameters(), *layer.buffers()], tensors, strict=True))
    assert all(torch.equal(now, then) for now, then in zip(tensors, before, strict=True))
    assert [tensor._version for tensor in tensors] == versions
    assert all(
        (p.grad is None and then is None) or torch.equal(p.grad, then)
        for p, then in zip(layer.parameters(), gradients, strict=True)
    )
    assert [module.training for module in layer.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert (layer.parts[0].calls, len(hooked)) == (calls, 1)


# Input specs


SPECS = [
    ({"ndim": 3}, (None, 3), "expected ndim=3, found ndim=2"),
    ({"min_ndim": 3}, (None, 3), "min_ndim=3, found ndim=2"),
    ({"max_ndim": 1}, (None, 3), "max_ndim=1, found ndim=2"),
    ({"axes": {-1: 4}}, (None, 3), "axis -1 of input shape to have value 4"),
    ({"shape": (None, 4)}, (None, 3), r"expected shape=\(None, 4\), found shape=\(\w+, 3\)"),
    ({"shape": (None, 4, 5)}, (None, 4), "expected shape=|expected ndim=3"),
    ({"dtype": "int64"}, (None, 3), "dtype"),
]


@pytest.mark.parametrize(("spec", "shape", "message"), SPECS)
def test_input_spec_errors(spec, shape, message):
    layer = layer_of(lambda self, inputs: inputs)
    layer.name, layer.input_spec = "picky", InputSpec(**spec)
    for value in (Input(batch_shape=shape), torch.zeros([size or 2 for size in shape])):
        with pytest.raises(ValueError, match=message) as caught:
            layer(value)
        assert "Made 'picky'" in str(caught.value)
    if "dtype" not in spec:
        theirs = type("Theirs", (keras.layers.Layer,), {"call": lambda self, inputs: inputs})()
        theirs.input_spec = keras.layers.InputSpec(**spec)
        with pytest.raises(ValueError, match="incompatible with the layer"):
            theirs(keras.Input(batch_shape=shape))


@pytest.mark.parametrize(
    ("fits", "refuses"),
    [
        ({"ndim": 3}, {"ndim": 2}),
        ({"min_ndim": 3}, {"min_ndim": 4}),
        ({"max_ndim": 3}, {"max_ndim": 2}),
        ({"axes": {1: 4, -1: 1}}, {"axes": {1: 4, -1: 2}}),
        ({"axes": {0: 7, 1: None}}, {"axes": {0: 7, 1: 5}}),
        ({"shape": (None, 4), "allow_last_axis_squeeze": True}, {"shape": (None, 4)}),
        ({"shape": (2, None, 1)}, {"shape": (2, None, 2)}),
        (
            {"shape": (None, 4, 1), "allow_last_axis_squeeze": True},
            {"shape": (None, 5), "allow_last_axis_squeeze": True},
        ),
        ({"dtype": "float32"}, {"dtype": "int32"}),
    ],
)
def test_input_specs_that_fit(fits, refuses):
    x = Input(batch_shape=(None, 4, 1))
    theirs = keras.Input(batch_shape=(None, 4, 1))
    layer = layer_of(lambda self, inputs: inputs)
    layer.input_spec = InputSpec(**fits)
    assert layer(x).shape == x.shape
    assert_input_compatibility(keras.layers.InputSpec(**fits), theirs, "layer")
    layer.input_spec = InputSpec(**refuses)
    with pytest.raises(ValueError, match=r"Input 0 of .* is incompatible with the layer: expected"):
        layer(x)
    with pytest.raises(ValueError, match="incompatible with the layer"):
        assert_input_compatibility(keras.layers.InputSpec(**refuses), theirs, "layer")


def test_input_spec_of_several_inputs():
    layer = layer_of(lambda self, inputs: inputs[0])
    layer.input_spec = [InputSpec(ndim=2), None]
    layer([Input((3,)), Input((3, 4))])
    with pytest.raises(ValueError, match="takes 2 inputs, but was called on 1"):
        layer([Input((3,))])


# Masks


class MaskedMean(Layer):
    """The mean over the steps that count."""

    def call(self, inputs, mask=None):
        if mask is None:
            return inputs.mean(1)
        weights = mask.unsqueeze(-1).to(inputs.dtype)
        return (inputs * weights).sum(1) / weights.sum(1)


def embedded(**kwargs):
    return Embedding(5, 3, **kwargs)(Input((6,), dtype="int64"))


def test_a_custom_layer_gets_the_mask():
    x = embedded(mask_zero=True)
    layer = MaskedMean()
    output = layer(x)
    assert output.node.kwargs["mask"] is x.mask
    assert output.mask is None
    assert "mask" not in MaskedMean()(embedded()).node.kwargs
    explicit = Input((6,), dtype="bool")
    assert MaskedMean()(x, mask=explicit).node.kwargs["mask"] is explicit
    words = torch.tensor([[1, 2, 0, 0, 0, 0]])
    vectors = torch.randn(1, 6, 3)
    assert_close(layer(vectors, mask=words != 0), vectors[:, :2].mean(1), 1e-6, "masked mean")


def test_masks_pass_where_supported():
    x = embedded(mask_zero=True)

    def call(self, inputs):
        return inputs * 2

    def compute_mask(self, inputs, previous_mask):
        return None if previous_mask is None else torch.logical_not(previous_mask)

    assert layer_of(call)(x).mask is None
    assert layer_of(call, supports_masking=True)(x).mask is x.mask
    turned = layer_of(call, compute_mask=compute_mask)(x).mask
    assert turned.shape == (None, 6)
    assert turned is not x.mask
    assert Dense(3)(x).mask is x.mask


# Losses added in a call


def test_a_model_forgets_the_losses_of_its_last_call():
    """As in Keras: each outermost call starts anew, and a submodel called twice in it adds twice."""
    inner = Input((4,))
    sub = Model(inner, Dense(3, activity_regularizer="l2")(inner))
    outer = Input((4,))
    model = Model(outer, [sub(outer), sub(outer * 2)])
    x = torch.ones(2, 4)
    for _ in range(2):
        model(x)
        assert len(model.losses) == 2
        sum(model.losses).backward()
    weight = sub.layers[1].weight
    outputs = (x @ weight.t(), 2 * x @ weight.t())
    expected = sum(0.01 * output.square().sum() / 2 for output in outputs)
    torch.testing.assert_close(sum(model.losses), expected)


def test_a_layer_called_by_hand_forgets_the_losses_of_its_last_call():
    dense = Dense(2, kernel_initializer="ones", activity_regularizer="l2")
    for _ in range(3):
        dense(torch.ones(2, 3))
        # Source: 0.01 * the sum of 2 * 2 squares of 3, by sample.
        assert [round(loss.item(), 6) for loss in dense.losses] == [0.18]


def test_a_custom_layer_called_by_hand_keeps_all_losses_of_a_call():
    class Twice(Layer):
        def __init__(self):
            super().__init__()
            self.dense = Dense(3, activity_regularizer="l2")

        def call(self, inputs):
            self.add_loss(inputs.sum())
            self.add_loss([inputs.mean(), inputs.max()])
            return self.dense(self.dense(inputs))

    layer = Twice()
    for _ in range(3):
        layer(torch.ones(2, 3))
        assert len(layer.losses) == 5
    # The layer within it, called by itself, starts anew as well.
    layer.dense(torch.ones(2, 3))
    assert len(layer.losses) == 4
