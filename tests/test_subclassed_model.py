"""Models written as classes: structure, building, modes, copies. Their training is tested elsewhere."""

import copy
import pickle

import keras
import numpy as np
import pytest
import torch
from torch import nn

from torchfunc import Input, Layer
from torchfunc.layers import BatchNormalization, Dense, Dropout
from torchfunc.models import GraphModule, Model, Sequential

A = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


class Classifier(Model):
    """Keras' way: layers without sizes, `call`, a training argument."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.hidden = Dense(5, activation="relu")
        self.norm = BatchNormalization()
        self.blocks = [Dense(5), Dense(5)]
        self.dropout = Dropout(0.5)
        self.head = Dense(units)

    def call(self, inputs, training=None):
        x = self.norm(self.hidden(inputs), training=training)
        for block in self.blocks:
            x = block(x)
        if training:
            x = self.dropout(x, training=training)
        return self.head(x)


class Counting(Classifier):
    """Counts how often it really runs."""

    calls = 0

    def call(self, inputs, training=None):
        self.calls += 1
        return super().call(inputs, training=training)


class TorchStyle(Model):
    """torch's way: modules with sizes, `forward`."""

    def __init__(self):
        super().__init__()
        self.stack = nn.Sequential(nn.Linear(8, 5), nn.ReLU())
        self.heads = nn.ModuleDict({"a": nn.Linear(5, 2), "b": nn.Linear(5, 1)})
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        x = self.stack(x) * self.scale
        return {name: head(x) for name, head in self.heads.items()}


class TwoInputs(Model):
    def __init__(self):
        super().__init__()
        self.left, self.right = Dense(3), Dense(3)

    def call(self, inputs, extra=None):
        out = self.left(inputs["a"]) - self.right(inputs["b"])
        return out if extra is None else out + extra


KEYS = ["hidden.weight", "hidden.bias", "head.weight", "head.bias", "blocks.1.weight"]


def test_weights_are_made_by_the_first_call():
    model = Counting()
    assert not model.state_dict()
    assert not model.is_fully_built()
    out = model(A)
    assert out.shape == (4, 3)
    assert model.calls == 1
    assert set(KEYS) < set(model.state_dict())
    assert model.is_fully_built()
    assert isinstance(model, nn.Module)
    assert not isinstance(model, GraphModule)


@pytest.mark.parametrize("way", ["shapes", "inputs", "symbolic"])
def test_building_without_running(way):
    model = Counting()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    if way == "shapes":
        assert model.compute_output_shape((None, 8)) == (None, 3)
    elif way == "inputs":
        model.build_from_inputs(A)
    else:
        assert model(Input((8,))).shape == (None, 3)
    assert set(KEYS) < set(model.state_dict())
    assert model.calls == 0
    assert model.norm.running_mean.abs().sum() == 0
    weights = [parameter.clone() for parameter in model.parameters()]
    again = Classifier()
    torch.set_rng_state(state)
    again.build_from_inputs(A)
    assert len(weights) == len(list(again.parameters()))
    model.build_from_inputs(A)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_what_it_says_of_itself():
    model = Classifier(name="mine")
    model(A)
    assert model.name == "mine"
    assert Classifier().name == "classifier"
    assert [type(layer).__name__ for layer in model.layers] == [
        *("Dense", "BatchNormalization", "Dense", "Dense", "Dropout", "Dense")
    ]  # fmt: skip
    assert model.get_layer(index=0) is model.hidden
    assert model.get_layer("dense") is model.hidden
    with pytest.raises(ValueError, match="no layer called 'nothing'"):
        model.get_layer("nothing")
    assert [type(layer).__name__ for layer in TorchStyle().layers] == ["Sequential", "Linear", "Linear"]
    assert model.count_params() == 8 * 5 + 5 + 4 * 5 + 2 * (5 * 5 + 5) + 5 * 3 + 3


def test_counts_as_keras_does():
    class Theirs(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(5, activation="relu")
            self.norm = keras.layers.BatchNormalization()
            self.blocks = [keras.layers.Dense(5), keras.layers.Dense(5)]
            self.head = keras.layers.Dense(3)

        def call(self, inputs, training=None):
            x = self.norm(self.hidden(inputs), training=training)
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    theirs, ours = Theirs(), Classifier()
    theirs(A.numpy())
    ours(A)
    assert ours.count_params() == theirs.count_params()
    assert [tuple(weight.shape) for weight in ours.get_weights()] == [tuple(weight.shape) for weight in theirs.weights]
    assert len(ours.trainable_weights) == len(theirs.trainable_weights)


def test_torch_style():
    model = TorchStyle()
    out = model(A)
    hidden = model.stack(A) * model.scale
    torch.testing.assert_close(out, {"a": model.heads["a"](hidden), "b": model.heads["b"](hidden)})
    assert "scale" in model.state_dict()
    assert "heads.a.weight" in model.state_dict()


def test_structured_inputs_and_numpy():
    model = TwoInputs()
    inputs = {"a": A.numpy(), "b": A.double().numpy()}
    out = model(inputs)
    torch.testing.assert_close(out, model.left(A) - model.right(A))
    torch.testing.assert_close(model(inputs, extra=1.0), out + 1)


def test_modes():
    model = Classifier()
    model(A)
    assert model.training
    torch.testing.assert_close(model(A, training=False), model.eval()(A))
    assert not torch.equal(model(A, training=True), model(A, training=True))
    assert not any(module.training for module in model.modules())
    model.train()
    model.dropout.eval()
    model(A, training=False)
    assert model.training
    assert not model.dropout.training
    model.trainable = False
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_copies():
    model = Classifier(units=2)
    model(A)
    model.eval()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(A), model(A))
        assert list(twin.state_dict()) == list(model.state_dict())
        with torch.no_grad():
            twin.blocks[0].weight.zero_()
        assert not torch.equal(twin(A), model(A))
    twin = Classifier.from_config(model.get_config())
    assert twin.head.units == 2
    twin(A)
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin.eval()(A), model(A))


def test_within_a_drawn_model():
    inner = Counting()
    x = Input((8,))
    model = Model(x, inner(x) * 2)
    assert model.layers[1] is inner
    assert inner.calls == 0
    model.eval()
    torch.testing.assert_close(model(A), inner(A) * 2)
    assert all(name.startswith("counting.") for name in model.state_dict())
    stack = Sequential([Input((8,)), Classifier(), nn.ReLU()])
    assert stack(A).shape == (4, 3)


def test_torch_tools():
    model = Classifier().eval()
    model(A)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(A), model(A))
    for strict in (True, False):
        torch.testing.assert_close(torch.export.export(model, (A,), strict=strict).module()(A), model(A))
    doubled = {name: tensor * 2 for name, tensor in model.state_dict().items()}
    assert not torch.equal(torch.func.functional_call(model, doubled, (A,)), model(A))
    seen = []
    model.register_forward_hook(lambda *_: seen.append(1))
    model(A)
    model(A.numpy(), training=False)
    assert seen == [1, 1]
    model.double()
    assert model(A.double()).dtype == torch.float64


def test_attributes_before_init_are_an_error():
    class Hasty(Model):
        def __init__(self):
            self.hidden = Dense(3)
            super().__init__()

    with pytest.raises(AttributeError, match="__init__"):
        Hasty()


def test_mistakes():
    class Nothing(Model):
        pass

    with pytest.raises(NotImplementedError, match=r"Nothing.*forward"):
        Nothing()(A)
    model = Classifier()
    with pytest.raises(TypeError, match=r"Classifier.*'wrong'"):
        model(A, wrong=1)
    with pytest.raises(ValueError, match="'colour'"):
        Classifier(colour=1)
    unfit = Counting()
    with pytest.raises(ValueError, match=r"Dense 'dense'.*min_ndim=2.*\(4,\)"):
        unfit(np.ones(4, np.float32))
    assert model(A).shape == (4, 3)


def test_a_layer_made_in_call_is_not_part_of_the_model():
    class Careless(Layer):
        def call(self, x):
            return Dense(2)(x)

    layer = Careless()
    assert layer(A).shape == (4, 2)
    assert not layer.state_dict()


class Drawn(Model):
    """Keras' way to give a graph methods of one's own: `__init__` draws it."""

    def __init__(self, units=3, **kwargs):
        inputs = Input((8,))
        super().__init__(inputs=inputs, outputs=Dense(units)(inputs), **kwargs)
        self.units = units

    def call_count(self):
        return len(self.nodes)


def test_a_class_that_draws_itself():
    model = Drawn(units=2, name="drawn")
    assert isinstance(model, Drawn)
    assert isinstance(model, GraphModule)
    assert model.name == "drawn"
    assert list(model.state_dict()) == ["dense.weight", "dense.bias"]
    expected = A @ model.state_dict()["dense.weight"].T + model.state_dict()["dense.bias"]
    torch.testing.assert_close(model(A), expected)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(twin).__name__ == "Drawn"
        assert (twin.units, twin.call_count()) == (2, 2)
        torch.testing.assert_close(twin(A), model(A))


@pytest.mark.parametrize("outputs", [torch.ones(2), None, "dense"])
def test_what_a_model_cannot_be_drawn_to(outputs):
    with pytest.raises(TypeError, match="outputs of a Model are symbolic tensors"):
        Model(Input((8,)), outputs)
    with pytest.raises(TypeError, match="outputs"):
        Model(Input((8,)))


def test_explicit_names_come_before_numbers():
    class Two(Model):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = Dense(4), Dense(4, name="dense"), Dense(4)

        def call(self, x):
            return self.third(self.second(self.first(x)))

    model = Two()
    assert model.layer_names() == ["dense_1", "dense", "dense_2"]
    assert model.get_layer("dense") is model.second


@pytest.mark.parametrize("first", ["evaluate", "predict"])
def test_weights_made_in_inference_mode_can_be_trained(first):
    class Own(Layer):
        def build(self, input_shape):
            self.factor = torch.nn.Parameter(torch.ones(input_shape[-1]))

        def call(self, x):
            return x * self.factor

    class Late(Model):
        def __init__(self):
            super().__init__()
            self.own, self.dense = Own(), Dense(1)

        def call(self, x):
            return self.dense(self.own(x))

    model, x, y = Late(), np.ones((4, 3), "float32"), np.ones((4, 1), "float32")
    model.compile("sgd", "mse")
    with torch.inference_mode():
        _ = model.evaluate(x, y, verbose=0) if first == "evaluate" else model.predict(x, verbose=0)
    assert not any(weight.is_inference() for weight in model.parameters())
    before = model.own.factor.detach().clone()
    model.fit(x, y, verbose=0)
    assert not torch.equal(model.own.factor, before)


def test_a_call_that_fixes_the_batch_size():
    class Pairs(Model):
        def __init__(self):
            super().__init__()
            self.dense = Dense(2)

        def call(self, inputs):
            return self.dense(inputs.reshape(4, 3))

    model = Pairs()
    model.compile("sgd", "mse")
    history = model.fit(np.ones((8, 3)), np.ones((8, 2)), batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    with pytest.raises(ValueError, match=r"cannot be called on \(None, 3\)"):
        Pairs().build_from_inputs(torch.ones(5, 3))
