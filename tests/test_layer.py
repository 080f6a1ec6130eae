"""Layers of one's own: weights, building, losses and configs. The reference is the same layer written for Keras."""

import keras
import numpy as np
import pytest
import torch
from example_layers import CustomDense, Lazy
from layer_parity import assert_close, same_config
from torch import nn

from torchfunc.layers.base.layer import Layer
from torchfunc.layers.core import Dense
from torchfunc.layers.input_layer import Input
from torchfunc.layers.normalization.batch import BatchNormalization


class CustomRNN(Layer):
    """The guide's, on torch."""

    def __init__(self, units=32):
        super().__init__()
        self.units = units
        self.projection_1 = Dense(units=units, activation="tanh")
        self.projection_2 = Dense(units=units, activation="tanh")
        self.classifier = Dense(1)

    def call(self, inputs):
        outputs = []
        state = torch.zeros(inputs.shape[0], self.units)
        for t in range(inputs.shape[1]):
            x = inputs[:, t, :]
            h = self.projection_1(x)
            y = h + self.projection_2(state)
            state = y
            outputs.append(y)
        return self.classifier(torch.stack(outputs, axis=1))


class KerasRNN(keras.layers.Layer):
    def __init__(self, units=32):
        super().__init__()
        self.units = units
        self.projection_1 = keras.layers.Dense(units=units, activation="tanh")
        self.projection_2 = keras.layers.Dense(units=units, activation="tanh")
        self.classifier = keras.layers.Dense(1)

    def call(self, inputs):
        outputs = []
        state = keras.ops.zeros(shape=(inputs.shape[0], self.units))
        for t in range(inputs.shape[1]):
            y = self.projection_1(inputs[:, t, :]) + self.projection_2(state)
            state = y
            outputs.append(y)
        return self.classifier(keras.ops.stack(outputs, axis=1))


def values_of(theirs):
    return [variable.value.detach().numpy() for variable in theirs.weights]


# Weights


def test_custom_dense():
    layer, x = CustomDense(10), torch.randn(2, 4)
    assert layer.weights == []
    assert layer(Input((4,))).shape == (None, 10)
    assert list(layer.state_dict()) == ["w", "b"]
    assert [tuple(each.shape) for each in layer.get_weights()] == [(4, 10), (10,)]
    assert torch.equal(layer(x), x @ layer.w + layer.b)
    assert all(isinstance(each, nn.Parameter) for each in layer.trainable_weights)
    twin = CustomDense.from_config(layer.get_config())
    twin(x)
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin(x), layer(x))


def test_custom_rnn_equals_keras():
    x = torch.randn(2, 5, 3)
    ours, theirs = CustomRNN(4), KerasRNN(4)
    expected = theirs(x)
    assert ours(Input(batch_shape=(2, 5, 3))).shape == (2, 5, 1)
    assert all(layer.built for layer in (ours.projection_1, ours.projection_2, ours.classifier))
    assert list(ours.state_dict())[:2] == ["projection_1.weight", "projection_1.bias"]
    ours.set_weights(values_of(theirs))
    expected = theirs(x)
    assert_close(ours(x), expected, 1e-6, "CustomRNN")
    assert ours.count_params() == theirs.count_params()


def test_weights_are_called_after_their_attribute():
    class Named(Layer):
        def __init__(self):
            super().__init__()
            self.early = self.add_weight(shape=(2,), initializer="ones")
            self.count = self.add_weight(initializer="zeros", trainable=False, dtype="int64")
            self.add_weight(shape=(1,), name="by_name")
            self.add_weight(shape=(1,), name="by_name")
            self.add_weight(shape=(1,))

        def call(self, inputs):
            return inputs * self.early

    layer = Named()
    names = ["early", "by_name", "by_name_1", "weight"]
    assert [name for name, _ in layer.named_parameters()] == names
    assert [name for name, _ in layer.named_buffers()] == ["count"]
    assert layer.early is layer.weights[0]
    assert layer.count.dtype == torch.int64
    assert [each.shape for each in layer.get_weights()] == [(2,), (1,), (1,), (1,), ()]
    assert (len(layer.trainable_weights), len(layer.non_trainable_weights), len(layer.variables)) == (4, 1, 5)


def test_assigning_a_weight_twice_keeps_its_first_name():
    class Twice(Layer):
        def build(self, input_shape):
            self.one = self.two = self.add_weight(shape=(2,), initializer="ones")
            self.plain = nn.Parameter(torch.ones(3))

        def call(self, inputs):
            return inputs * self.one * self.two

    layer = Twice()
    layer(torch.ones(1, 2)).sum().backward()
    assert layer.one is layer.two
    assert len(list(layer.parameters())) == 2
    assert [each.shape for each in layer.get_weights()] == [(2,), (3,)]


def test_non_trainable_weights_are_buffers():
    class Mean(Layer):
        def build(self, input_shape):
            self.total = self.add_weight(shape=(input_shape[-1],), initializer="zeros", trainable=False)

        def call(self, inputs, training=None):
            if training:
                self.total.add_(inputs.sum(0))
            return inputs - self.total

    layer = Mean()
    layer(torch.ones(2, 3))
    assert dict(layer.named_buffers())["total"].tolist() == [2.0] * 3
    assert list(layer.state_dict()) == ["total"]
    layer(torch.ones(2, 3), training=False)
    assert layer.total.tolist() == [2.0] * 3
    assert layer.double().total.dtype == torch.float64


def test_dtype_of_weights():
    layer = Dense(2, dtype="float64")
    layer.build((None, 3))
    assert (layer.dtype, layer.weight.dtype) == (torch.float64, torch.float64)
    assert Dense(2, dtype={"config": {"name": "bfloat16"}}).dtype == torch.bfloat16


def test_get_and_set_weights_equal_keras():
    ours, theirs = Dense(3), keras.layers.Dense(3)
    ours.build((None, 4))
    theirs.build((None, 4))
    values = values_of(theirs)
    ours.set_weights(values)
    assert [each.shape for each in ours.get_weights()] == [(4, 3), (3,)]
    assert all(np.array_equal(a, b) for a, b in zip(ours.get_weights(), values, strict=True))
    before = ours.get_weights()
    with pytest.raises(ValueError, match=r"has 2 weights, but set_weights\(\) got 1"):
        ours.set_weights(values[:1])
    with pytest.raises(ValueError, match=r"Weight 1 .*shape \(3,\).*got \(4,\)"):
        ours.set_weights([values[0] + 1, np.zeros(4)])
    assert all(np.array_equal(a, b) for a, b in zip(ours.get_weights(), before, strict=True))
    copies = ours.get_weights()
    copies[0][:] = 7
    assert not (ours.weight == 7).any()


# build


def test_build_gets_each_shape_by_name():
    class Two(Layer):
        def build(self, query_shape, value_shape):
            self.shapes = (query_shape, value_shape)
            self.w = self.add_weight(shape=(query_shape[-1], value_shape[-1]))

        def call(self, query, value, scale=1.0):
            return scale * query @ self.w @ value.mT

    symbolic, eager = Two(), Two()
    assert symbolic(Input((5, 3)), value=Input((7, 4))).shape == (None, 5, 7)
    eager(torch.ones(2, 5, 3), torch.ones(2, 7, 4), scale=2.0)
    assert symbolic.shapes == ((None, 5, 3), (None, 7, 4))
    assert eager.shapes == ((2, 5, 3), (2, 7, 4))
    shapes = {"query_shape": (None, 5, 3), "value_shape": (None, 7, 4)}
    assert symbolic.get_build_config() == {"shapes_dict": shapes}
    twin = Two()
    twin.build_from_config(symbolic.get_build_config())
    assert twin.w.shape == (3, 4)


def test_build_gets_lists_and_dicts_as_they_are():
    class Shapes(Layer):
        def build(self, input_shape):
            self.seen = input_shape

        def call(self, inputs):
            return inputs["a"] if isinstance(inputs, dict) else inputs[0]

    listed, named = Shapes(), Shapes()
    listed([Input((2,)), Input((3,))])
    named({"a": Input((2,)), "b": [Input((3,))]})
    assert listed.seen == [(None, 2), (None, 3)]
    assert named.seen == {"a": (None, 2), "b": [(None, 3)]}


def test_build_runs_once_and_says_so():
    class Once(Layer):
        builds = 0

        def build(self, input_shape):
            type(self).builds += 1

        def call(self, inputs):
            return inputs

    layer = Once()
    assert not layer.built
    layer(Input((3,)))
    assert layer.built
    layer(Input((3,)))
    layer(torch.ones(2, 3))
    assert Once.builds == 1
    by_hand = Once()
    by_hand.build((None, 3))
    assert by_hand.built
    assert by_hand.get_build_config() == {"input_shape": (None, 3)}
    by_hand(torch.ones(2, 3))
    assert Once.builds == 2


def test_sublayers_are_built_by_a_symbolic_call():
    layer = Lazy()
    assert layer(Input((None, 3))).shape == (None, None, 2)
    assert list(layer.state_dict())[:4] == ["first.weight", "first.bias", "second.weight", "second.bias"]
    assert layer.first.get_build_config() == {"input_shape": (None, None, 3)}
    assert not any(tensor.is_meta or hasattr(tensor, "fake_mode") for tensor in layer.weights)
    assert all(each.inbound_nodes == [] for each in (layer.first, layer.second))
    pointers = [tensor.data_ptr() for tensor in layer.weights]
    layer(torch.randn(4, 6, 3))
    assert [tensor.data_ptr() for tensor in layer.weights] == pointers


def test_a_sublayer_made_in_build():
    class Inside(Layer):
        def build(self, input_shape):
            self.inner = Dense(input_shape[-1] * 2)
            self.inner.build(input_shape)

        def call(self, inputs):
            return self.inner(inputs)

    layer = Inside()
    assert layer(Input((3,))).shape == (None, 6)
    assert list(layer.state_dict()) == ["inner.weight", "inner.bias"]


def test_forward_is_taken_as_in_torch():
    class Torch(Layer):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x, *, scale=1.0):
            return self.linear(x) * scale

    layer, x = Torch(), torch.randn(4, 3)
    assert layer(Input((3,)), scale=2.0).shape == (None, 2)
    assert torch.equal(layer(x, scale=2.0), 2 * layer.linear(x))
    assert torch.equal(layer(x.numpy()), layer.linear(x))


# trainable


def test_trainable_reaches_everything_inside():
    layer = Lazy()
    layer(torch.randn(4, 3))
    assert layer.trainable
    layer.trainable = False
    assert layer.trainable_weights == []
    assert not any([layer.first.trainable, layer.norm.trainable, *(p.requires_grad for p in layer.parameters())])
    assert len(layer.non_trainable_weights) == len(layer.weights) == 8
    layer.first.trainable = True
    assert [id(each) for each in layer.trainable_weights] == [id(layer.first.weight), id(layer.first.bias)]
    layer.trainable = True
    assert len(layer.trainable_weights) == 6


def test_trainable_before_build_counts():
    layer = Lazy()
    layer.trainable = False
    layer(Input((3,)))
    assert not any(p.requires_grad for p in layer.parameters())
    frozen = Dense(2, trainable=False)
    frozen.build((None, 3))
    assert frozen.trainable_weights == []
    assert frozen.get_config()["trainable"] is False


# Losses and constraints


@pytest.mark.parametrize("frozen", [False, True])
def test_losses_equal_keras(frozen):
    kwargs = {"kernel_regularizer": "l2", "bias_regularizer": "l1", "activity_regularizer": "l1l2"}
    x = torch.randn(5, 4)
    ours, theirs = Dense(3, **kwargs), keras.layers.Dense(3, **kwargs)
    ours.build((None, 4))
    theirs.build((None, 4))
    values = [np.random.default_rng(0).normal(size=each.shape).astype("float32") for each in theirs.weights]
    ours.set_weights(values)
    theirs.set_weights(values)
    ours.trainable = theirs.trainable = not frozen
    ours(x)
    theirs(x)
    mine, reference = ([loss.item() for loss in layer.losses] for layer in (ours, theirs))
    assert sorted(mine) == pytest.approx(sorted(reference), rel=1e-5)
    assert len(mine) == (1 if frozen else 3)
    ours.clear_losses()
    assert len(ours.losses) == (0 if frozen else 2)


def test_penalties_follow_the_weights_and_carry_gradients():
    layer = Dense(3, kernel_regularizer="l2")
    layer.build((None, 4))
    (before,) = layer.losses
    with torch.no_grad():
        layer.weight.mul_(2)
    (after,) = layer.losses
    assert after.item() == pytest.approx(4 * before.item(), rel=1e-5)
    after.backward()
    assert torch.allclose(layer.weight.grad, 0.02 * layer.weight)


def test_add_loss():
    class Adds(Layer):
        def __init__(self):
            super().__init__()
            self.inner = Dense(2, activity_regularizer="l2")

        def call(self, inputs):
            self.add_loss(inputs.sum())
            self.add_loss([inputs.mean(), 3 * inputs.mean()])
            return self.inner(inputs)

    class Theirs(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.Dense(2, activity_regularizer="l2")

        def call(self, inputs):
            self.add_loss(inputs.sum())
            self.add_loss([inputs.mean(), 3 * inputs.mean()])
            return self.inner(inputs)

    ours, theirs, x = Adds(), Theirs(), torch.randn(4, 3)
    ours(Input((3,)))
    theirs(x)
    assert ours.losses == []
    ours.set_weights(values_of(theirs))
    ours(x)
    assert [loss.item() for loss in ours.losses] == pytest.approx([loss.item() for loss in theirs.losses], rel=1e-5)


def test_constraints_equal_keras():
    kwargs = {"kernel_constraint": "unit_norm", "bias_constraint": "non_neg"}
    ours, theirs = Dense(3, **kwargs), keras.layers.Dense(3, **kwargs)
    ours.build((None, 4))
    theirs.build((None, 4))
    ours.set_weights([np.full((4, 3), 2.0), np.array([-1.0, 0.0, 1.0])])
    for constraint in ours.weight_constraints():
        constraint()
    expected = [theirs.kernel_constraint(torch.full((4, 3), 2.0)), theirs.bias_constraint(torch.tensor([-1.0, 0, 1]))]
    for mine, reference in zip(ours.get_weights(), expected, strict=True):
        assert_close(mine, reference, 1e-6, "constraint")


# Configs


def test_automatic_config():
    class Auto(Layer):
        def __init__(self, units, activation="relu", *, scale=1.0, **kwargs):
            super().__init__(**kwargs)
            self.args = (units, activation, scale)

        def call(self, inputs):
            return inputs

    layer = Auto(3, scale=2.0, name="auto", trainable=False)
    written = layer.get_config()
    assert {key: written[key] for key in ("units", "scale", "name", "trainable")} == {
        "units": 3,
        "scale": 2.0,
        "name": "auto",
        "trainable": False,
    }
    twin = Auto.from_config(written)
    assert (twin.args, twin.name, twin.trainable) == (layer.args, "auto", False)


class OursWithConfig(Layer):
    def call(self, inputs):
        return inputs

    def get_config(self):
        return {**super().get_config(), "more": None}

    @classmethod
    def from_config(cls, config):
        return cls(**{key: value for key, value in config.items() if key != "more"})


class TheirsWithConfig(keras.layers.Layer):
    def get_config(self):
        return {**super().get_config(), "more": None}


@pytest.mark.parametrize("kwargs", [{}, {"trainable": False}, {"dtype": "float64"}, {"activity_regularizer": "l2"}])
def test_config_is_that_of_keras(kwargs):
    expected = TheirsWithConfig(**kwargs).get_config()
    ours = OursWithConfig(**kwargs)
    assert not same_config(ours.get_config(), expected)
    assert not same_config(OursWithConfig.from_config(expected).get_config(), expected)


def test_names():
    assert Dense(3).name == "dense"
    assert BatchNormalization().name == "batch_normalization"
    assert Dense(3, name="mine").name == "mine"
    layer = Dense(3)
    layer.name = "later"
    assert layer.get_config()["name"] == "later"


def test_unknown_constructor_arguments():
    with pytest.raises(ValueError, match="CustomNothing was given arguments it does not take: 'sise'"):
        type("CustomNothing", (Layer,), {})(sise=3)
