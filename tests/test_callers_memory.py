"""What a caller hands over, arrays and tensors, is never written to, whatever layers and losses do in place."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torchfunc import Input, Model, Sequential, layers

X = np.linspace(-2, 2, 48).astype("float32").reshape(8, 6)
Y = np.linspace(-1, 1, 8).astype("float32").reshape(8, 1)


class Writing(nn.Module):
    """Somebody's module, which nothing tells that it works in place."""

    def forward(self, x):
        x += 1
        return x.relu_()


class WritingByView(layers.Layer):
    def call(self, inputs):
        inputs.view(-1).mul_(2)
        return inputs


class WithFormula(WritingByView):
    def compute_output_shape(self, input_shape):
        return input_shape


def drawn(*stack):
    inputs = value = Input((6,))
    for layer in stack:
        value = layer(value)
    return Model(inputs, layers.Dense(1)(layers.Flatten()(value)))


class Subclassed(Model):
    def __init__(self):
        super().__init__()
        self.first, self.dense = nn.Hardswish(inplace=True), layers.Dense(1)

    def call(self, inputs):
        return self.dense(self.first(inputs))


class SubclassedWriting(Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, inputs):
        inputs *= 2
        return self.dense(inputs)


MODELS = {
    "relu": lambda: drawn(nn.ReLU(inplace=True)),
    "dropout": lambda: drawn(nn.Dropout(0.5, inplace=True)),
    "sequence": lambda: drawn(nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))),
    "anybody's module": lambda: drawn(Writing()),
    "anybody's layer": lambda: drawn(WritingByView()),
    "a layer with a formula": lambda: drawn(WithFormula()),
    "a lambda": lambda: drawn(layers.Lambda(lambda x: x.clamp_(0, 1))),
    "an activation": lambda: drawn(layers.Activation(nn.ReLU(inplace=True))),
    "a wrapped module": lambda: drawn(layers.TorchModule(Writing(), output_shape=(None, 6))),
    "through views": lambda: drawn(layers.Reshape((3, 2)), layers.Permute((2, 1)), nn.Flatten(), nn.ELU(inplace=True)),
    "through a slice": lambda: sliced(),
    "nested": lambda: drawn(drawn(nn.ReLU(inplace=True))),
    "sequential": lambda: Sequential([nn.SiLU(inplace=True), layers.Dense(1)]),
    "in a sequential": lambda: drawn(Sequential([Input((6,)), nn.CELU(inplace=True)])),
    "subclassed": Subclassed,
    "subclassed, in its call": SubclassedWriting,
}


def sliced():
    inputs = Input((6,))
    return Model(inputs, layers.Dense(1)(nn.LeakyReLU(inplace=True)(inputs[:, 2:])))


@pytest.fixture(params=MODELS)
def model(request):
    model = MODELS[request.param]()
    model(X.copy())
    model.compile("sgd", "mse", jit_compile=False)
    return model


USES = {
    "predict": lambda model, x, y: model.predict(x, batch_size=3, verbose=0),
    "predict_on_batch": lambda model, x, y: model.predict_on_batch(x),
    "evaluate": lambda model, x, y: model.evaluate(x, y, batch_size=3, verbose=0),
    "test_on_batch": lambda model, x, y: model.test_on_batch(x, y),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
    "fit": lambda model, x, y: model.fit(x, y, batch_size=3, epochs=2, shuffle=False, verbose=0),
    "validation": lambda model, x, y: model.fit(
        x.copy() if isinstance(x, np.ndarray) else x.clone(), y, validation_data=(x, y), epochs=2, verbose=0
    ),
    "iterable": lambda model, x, y: model.fit((batch for batch in [(x, y)] * 2), verbose=0),
    "loader": lambda model, x, y: model.evaluate(
        DataLoader(TensorDataset(torch.as_tensor(x), torch.as_tensor(y)), 3), verbose=0
    ),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_data_stay_as_they_are(model, use, kind):
    x, y = kind(X), kind(Y)
    USES[use](model, x, y)
    np.testing.assert_array_equal(np.asarray(x), X)
    np.testing.assert_array_equal(np.asarray(y), Y)


def test_results_are_those_of_a_copy(model):
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        expected = twin(torch.tensor(X)).numpy()
    for _ in range(2):
        np.testing.assert_allclose(model.predict(X, batch_size=3, verbose=0), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(X, np.linspace(-2, 2, 48).astype("float32").reshape(8, 6))


@pytest.mark.parametrize("training", [None, True, False])
@pytest.mark.parametrize("kind", [kind for kind in MODELS if not kind.startswith("subclassed")])
def test_direct_calls(kind, training):
    model = MODELS[kind]()
    for given in (np.array(X), torch.tensor(X)):
        model(given, training=training)
        np.testing.assert_array_equal(np.asarray(given), X)


@pytest.mark.parametrize("layer", [nn.ReLU(inplace=True), Writing()])
def test_copies_of_a_model_keep_their_inputs(layer):
    model = drawn(layer)
    for twin in (
        (copy.deepcopy(model), Model.from_config(model.get_config())) if layer.extra_repr() else [copy.deepcopy(model)]
    ):
        x = torch.tensor(X)
        twin(x)
        np.testing.assert_array_equal(x.numpy(), X)


def test_the_logits_of_a_training_forward():
    """It is another lowered graph, with the same rule."""
    inputs = Input((6,))
    model = Model(inputs, layers.Dense(1, activation="sigmoid")(nn.ReLU(inplace=True)(inputs)))
    model.compile("sgd", "binary_crossentropy", jit_compile=False)
    x = np.array(X)
    model.fit(x, (Y > 0).astype("float32"), batch_size=3, shuffle=False, verbose=0)
    np.testing.assert_array_equal(x, X)


def test_gradients_reach_the_input():
    x = torch.tensor(X, requires_grad=True)
    drawn(nn.ReLU(inplace=True))(x).sum().backward()
    assert ((x.grad != 0) == (x > 0)).all()


def test_other_models_copy_nothing():
    """What a weighted layer of torch or torchfunc makes may be written to."""
    for stack in ([layers.Dense(6), nn.ReLU(inplace=True)], [nn.Linear(6, 6), Writing()], [nn.ReLU(), layers.Dense(2)]):
        assert ".clone()" not in drawn(*stack).code
    assert drawn(nn.ReLU(inplace=True)).code.count(".clone()") == 1


def test_a_loss_and_a_metric_that_write():
    def loss(y_true, y_pred):
        y_true += 1
        return (y_true - y_pred).square().mean(-1)

    def metric(y_true, y_pred):
        return y_true.sub_(y_pred.detach()).abs().mean(-1)

    model = drawn(layers.Dense(2))
    model.compile("sgd", loss, metrics=[metric], jit_compile=False)
    x, y, weights = np.array(X), np.array(Y), np.linspace(0, 1, 8).astype("float32")
    model.fit(x, y, sample_weight=weights, batch_size=3, shuffle=False, epochs=2, verbose=0)
    model.evaluate(x, y, batch_size=3, verbose=0)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)
    np.testing.assert_array_equal(weights, np.linspace(0, 1, 8).astype("float32"))


def test_a_step_that_writes():
    class Noisy(Model):
        def train_step(self, data):
            x, y = data
            x += 1
            y *= 2
            return super().train_step((x, y))

    inputs = Input((6,))
    model = Noisy(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse", jit_compile=False)
    x, y = torch.tensor(X), torch.tensor(Y)
    model.fit(x, y, batch_size=3, shuffle=False, epochs=2, verbose=0)
    assert torch.equal(x, torch.tensor(X))
    assert torch.equal(y, torch.tensor(Y))


def test_a_layer_called_on_an_array():
    x = np.array(X)
    layers.Activation(nn.ReLU(inplace=True))(x)
    np.testing.assert_array_equal(x, X)
