"""Data of any dtype for a model of any dtype: floats are cast to what the input declares, integers stay indices."""

import copy
import pickle

import keras
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import torchfunc
from torchfunc import Input, Model, Sequential, activations, layers, optimizers

X = np.random.default_rng(0).random((8, 3))
Y = np.random.default_rng(1).random((8, 1))


def linear_model(**declared):
    inputs = Input((3,), **declared)
    model = Model(inputs, layers.Dense(1)(inputs))
    # A rate that every dtype holds exactly.
    model.compile(optimizers.SGD(1 / 64), "mse")
    return model


class Rows(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, row):
        return torch.from_numpy(X[row]), torch.from_numpy(Y[row])


def batches():
    while True:
        yield X, Y


FORMS = {
    "array": lambda: ((X, Y), {}),
    "tensor": lambda: ((torch.from_numpy(X), torch.from_numpy(Y)), {}),
    "half": lambda: ((torch.from_numpy(X).half(), torch.from_numpy(Y).half()), {}),
    "loader of arrays": lambda: ((DataLoader(list(zip(X, Y, strict=True)), batch_size=8),), {}),
    "loader of tensors": lambda: ((DataLoader(Rows(), batch_size=8),), {}),
    "dataset": lambda: ((Rows(),), {}),
    "tensor dataset": lambda: ((TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),), {}),
    "generator": lambda: ((batches(),), {"steps_per_epoch": 1}),
}


def expected_after_a_step(weight, bias, x, y):
    """One step of SGD(1 / 64) on the mean squared error, in float64."""
    error = x @ weight.T + bias - y
    gradient = 2 * error / len(x)
    return weight - 1 / 64 * gradient.T @ x, bias - 1 / 64 * gradient.sum(0)


@pytest.mark.parametrize("form", FORMS)
def test_floats_of_any_width_train_a_model(form):
    model = linear_model()
    (weight, bias) = (tensor.detach().double().numpy() for tensor in (model.dense.weight, model.dense.bias))
    x, y = (X.astype("float16"), Y.astype("float16")) if form == "half" else (X, Y)
    wanted, _ = expected_after_a_step(weight, bias, x.astype("float64"), y.astype("float64"))
    args, options = FORMS[form]()
    model.fit(*args, verbose=0, shuffle=False, **options)
    assert model.dense.weight.dtype == torch.float32
    np.testing.assert_allclose(model.dense.weight.detach().numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_model_of_doubles_sees_all_digits(form):
    model = linear_model()
    model.double()
    (weight, bias) = (tensor.detach().numpy() for tensor in (model.dense.weight, model.dense.bias))
    x, y = (X.astype("float16"), Y.astype("float16")) if form == "half" else (X, Y)
    wanted, _ = expected_after_a_step(weight, bias, x.astype("float64"), y.astype("float64"))
    args, options = FORMS[form]()
    model.fit(*args, verbose=0, shuffle=False, **options)
    assert model.dense.weight.dtype == torch.float64
    np.testing.assert_allclose(model.dense.weight.detach().numpy(), wanted, rtol=1e-13)


def test_direct_calls_follow_the_weights():
    model = linear_model()
    x = torch.from_numpy(X)
    single = model(x)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, nn.functional.linear(x.float(), model.dense.weight, model.dense.bias))
    model.double()
    assert model(x).dtype == model(x.float()).dtype == model(X).dtype == torch.float64
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin(X).dtype == torch.float64
        assert twin.predict(X, verbose=0).dtype == np.float64
    model.bfloat16()
    assert model(x).dtype == model(X).dtype == torch.bfloat16
    assert model.predict(X, verbose=0).shape == (8, 1)
    model.float()
    assert model(x).dtype == torch.float32


def test_weights_put_in_place_for_one_call_say_the_dtype():
    model = linear_model()
    weights = {name: weight.double() for name, weight in model.named_parameters()}
    x = torch.from_numpy(X)
    found = torch.func.functional_call(model, weights, (x,))
    torch.testing.assert_close(found, nn.functional.linear(x, weights["dense.weight"], weights["dense.bias"]))
    assert model(x).dtype == torch.float32


def test_a_declared_dtype_holds():
    seconds = Input((1,), dtype="float64")
    model = Model(seconds, layers.Dense(1)((seconds - 1.7e9).float()))
    time = np.array([[1.7e9 + 0.25]])
    wanted = nn.functional.linear(torch.tensor([[0.25]]), model.dense.weight, model.dense.bias)
    torch.testing.assert_close(model(time), wanted)
    np.testing.assert_allclose(model.predict(time, verbose=0), wanted.detach().numpy(), rtol=1e-6)
    with pytest.raises(ValueError, match=r"Input 'input_layer' .*float64.*complex64.*view_as_real"):
        model(torch.zeros(1, 1, dtype=torch.complex64))


class Line(Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, x):
        return self.layer(x)


INTEGERS = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 250]])


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float64", "float32"])
@pytest.mark.parametrize(
    "make", [lambda layer: Sequential([layer]), Line, lambda layer: Sequential([Sequential([layer])])]
)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.Dense(2), (3, 3)),
        (lambda: layers.EinsumDense("ab,bc->ac", 2), (3, 3)),
        (lambda: layers.Conv1D(2, 2), (1, 3, 3)),
        (lambda: layers.Conv1DTranspose(2, 2), (1, 3, 3)),
        (lambda: layers.SeparableConv1D(2, 2), (1, 3, 3)),
        (lambda: layers.LSTM(2), (1, 3, 3)),
        (lambda: layers.RNN(layers.GRUCell(2)), (1, 3, 3)),
        (lambda: layers.BatchNormalization(), (3, 3)),
        (lambda: layers.TimeDistributed(layers.Dense(2)), (1, 3, 3)),
    ],
    ids=lambda value: "" if callable(value) else str(value),
)
def test_any_number_goes_into_a_layer_of_floats(layer, shape, make, dtype):
    data = INTEGERS.reshape(shape).astype(dtype)
    model = make(layer())
    found = model.predict(data, verbose=0)
    np.testing.assert_allclose(found, model.predict(data.astype("float32"), verbose=0), rtol=1e-6)
    model.compile("sgd", "mse")
    model.fit(data, np.zeros_like(found), verbose=0)
    assert np.isfinite(model.predict(data, verbose=0)).all()


def test_the_first_data_being_integers_is_no_reason_to_round_later_floats():
    model = Sequential([layers.Flatten(), layers.Dense(2)])
    pixels = np.arange(8, dtype="uint8").reshape(2, 2, 2)
    model.predict(pixels, verbose=0)
    scaled = pixels / 255
    kernel, bias = model.layers[1].get_weights()
    np.testing.assert_allclose(model.predict(scaled, verbose=0), scaled.reshape(2, 4) @ kernel + bias, rtol=1e-5)


@pytest.mark.parametrize("make", [lambda layer: Sequential([layer]), Line])
@pytest.mark.parametrize("embedding", [layers.Embedding, nn.Embedding])
def test_indices_stay_integers(embedding, make):
    # float32 has no 2**24 + 1.
    table = embedding(2**24 + 2, 1)
    model = make(table)
    model.predict(np.array([[0]]), verbose=0)
    with torch.no_grad():
        table.weight[2**24 + 1] = 7.0
    assert model.predict(np.array([[2**24 + 1]]), verbose=0).item() == 7.0
    assert model.predict(np.array([[3]], "uint16"), verbose=0).shape == (1, 1, 1)


def test_small_integers_and_booleans_for_indices():
    ids = Input((2,), dtype="int32")
    model = Model(ids, torch.nn.Embedding(4, 2)(ids))
    wanted = model.predict(np.array([[0, 1]]), verbose=0)
    for dtype in ("uint8", "int16", "bool", "float64"):
        np.testing.assert_array_equal(model.predict(np.array([[0, 1]], dtype), verbose=0), wanted)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([[2**63 + 1]], "uint64"), r"x holds 9223372036854775809 \(dtype uint64\).*largest integer"),
        (torch.eye(3).to_sparse(), r"x is a sparse tensor.*x\.to_dense"),
        (torch.empty(4, 3, device="meta"), r"x is a tensor on the meta device"),
        (np.ones((4, 3), "complex64"), r"Input 'input_layer'.*takes float32, but was given complex64"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict", "train_on_batch", "predict_on_batch"])
def test_what_cannot_be_reconciled_is_named(method, value, message):
    model = linear_model()
    before = model.get_weights()
    targets = {} if "predict" in method else {"y": np.ones((len(value), 1))}
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(value, **targets)
    assert all(map(np.array_equal, before, model.get_weights()))


class TestNestedInputs:
    def model(self):
        a, b, c = (Input((1,), name=name) for name in "abc")
        return Model({"left": a, "right": [b, (c,)]}, a + 10 * b + 100 * c)

    @pytest.mark.parametrize(
        "nest",
        [
            lambda a, b, c: {"left": a, "right": [b, (c,)]},
            lambda a, b, c: {"right": (b, [c]), "left": a},
            lambda a, b, c: [a, b, c],
            lambda a, b, c: {"c": c, "b": b, "a": a},
        ],
    )
    def test_values_nested_like_the_inputs_or_flat(self, nest):
        model = self.model()
        values = nest(*(np.full((2, 1), number, "float32") for number in (1, 2, 3)))
        assert model(values).flatten().tolist() == [321, 321]
        assert model.predict(values, verbose=0).flatten().tolist() == [321, 321]
        model.compile("sgd", "mse")
        with pytest.warns(UserWarning, match="no weights to train"):
            assert model.fit(values, np.full((2, 1), 320.0), verbose=0).history["loss"] == [1.0]

    def test_another_nesting_is_an_error_that_shows_both(self):
        one = np.ones((2, 1))
        with pytest.raises(ValueError, match=r"inputs nested as \{'left': 'a', 'right': \['b', \('c',\)\]\}, but was"):
            self.model()({"left": one, "right": [one]})

    def test_inputs_of_a_model_in_a_list(self):
        # As snippets that make saliency maps do.
        inputs = Input((3,))
        model = Model(inputs, layers.Dense(1)(layers.Dense(4, name="h")(inputs)))
        both = Model([model.inputs], [model.get_layer("h").output, model.output])
        for given in ([[X]], [X], X):
            assert [each.shape for each in both.predict(given, verbose=0)] == [(8, 4), (8, 1)]

    def test_an_array_in_a_list_in_a_list_is_the_array(self):
        model = linear_model()
        np.testing.assert_array_equal(model.predict([[X]], verbose=0), model.predict(X, verbose=0))
        model.fit([[X]], Y, verbose=0)


WHOLE = torch.arange(-12, 12).reshape(2, 3, 4)
ACTIVATIONS = sorted(
    {
        *("celu", "elu", "exponential", "gelu", "glu", "hard_sigmoid", "hard_silu", "leaky_relu", "log_sigmoid"),
        *(
            "log_softmax",
            "mish",
            "selu",
            "sigmoid",
            "silu",
            "soft_shrink",
            "hard_shrink",
            "softmax",
            "softplus",
            "tanh",
        ),
    }
)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_integers(name):
    ours = getattr(activations, name)(WHOLE)
    theirs = getattr(keras.activations, name)(WHOLE.float())
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "make",
    [
        lambda library: library.layers.Softmax(),
        lambda library: library.layers.LeakyReLU(0.1),
        lambda library: library.layers.ELU(),
        lambda library: library.layers.Activation("gelu"),
    ],
)
def test_activation_layers_of_integers(make):
    expected = make(keras)(WHOLE.float())
    torch.testing.assert_close(make(torchfunc)(WHOLE), expected)
    inputs = Input((3, 4), dtype="int64")
    model = Model(inputs, layers.Dense(1)(make(torchfunc)(inputs)))
    assert model(WHOLE).dtype == torch.float32


@pytest.mark.parametrize("kind", ["Attention", "AdditiveAttention"])
def test_attention_of_integers(kind):
    query = WHOLE % 3
    ours, theirs = getattr(layers, kind)(use_scale=False), getattr(keras.layers, kind)(use_scale=False)
    torch.testing.assert_close(ours([query, query]), theirs([query.float(), query.float()]))
    inputs = Input((3, 4), dtype="int64")
    assert getattr(layers, kind)()([inputs, inputs]).dtype == torch.float32


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dropout(0.5),
        layers.Dropout(0.5, seed=1),
        layers.AlphaDropout(0.5),
        layers.SpatialDropout1D(0.5),
        layers.GaussianDropout(0.5),
        layers.GaussianDropout(0.5, seed=1),
        layers.GaussianNoise(0.5),
    ],
)
def test_noise_on_integers(layer):
    """As in Keras: integers stay what they are in inference, and become floats with noise."""
    assert torch.equal(layer(WHOLE, training=False), WHOLE)
    torch.manual_seed(0)
    noisy = layer(WHOLE, training=True)
    torch.manual_seed(0)
    again = type(layer).from_config(layer.get_config())(WHOLE.float(), training=True)
    assert noisy.dtype == torch.float32
    torch.testing.assert_close(noisy, again)
    assert not torch.equal(noisy, WHOLE.float())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda library: library.layers.BatchNormalization(),
        lambda library: library.layers.BatchNormalization(scale=False),
        lambda library: library.layers.LayerNormalization(),
        lambda library: library.layers.LayerNormalization(scale=False),
        lambda library: library.layers.LayerNormalization(center=False, scale=False),
        lambda library: library.layers.GroupNormalization(2),
        lambda library: library.layers.RMSNormalization(),
    ],
)
def test_normalizations_of_double_inputs(make, training):
    """The weights' precision, in the dtype that came; and the weights get gradients."""
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 4)))
    ours, theirs = make(torchfunc), make(keras)
    options = {"training": training} if isinstance(ours, layers.BatchNormalization) else {}
    result, expected = ours(rows, **options), theirs(rows.float(), **options)
    assert result.dtype == torch.float64
    torch.testing.assert_close(result.float(), expected.detach(), rtol=1e-4, atol=1e-5)
    result.sum().backward() if result.requires_grad else None
    assert all(weight.grad is not None for weight in ours.parameters() if weight.requires_grad)
    for one, other in zip(ours.buffers(), theirs.non_trainable_weights, strict=False):
        torch.testing.assert_close(one, other.value.detach(), rtol=1e-4, atol=1e-5)
