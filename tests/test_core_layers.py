"""Dense, Activation, Embedding, Lambda, Identity, TorchModule and Input against Keras and plain torch."""

import copy
import pickle

import keras
import numpy as np
import pytest
import torch
from layer_parity import assert_close, check_layer, same_config
from torch import nn

from torchfunc import Model, Sequential, config, layers
from torchfunc.layers.activation import Activation
from torchfunc.layers.core import Dense, Embedding, Identity, Lambda, TorchModule
from torchfunc.layers.input_layer import Input, InputLayer
from torchfunc.registry import custom_object_scope

DENSE = {
    "units only": {},
    "activation": {"activation": "relu"},
    "softmax": {"activation": "softmax"},
    "no bias": {"use_bias": False},
    "no bias, activation": {"use_bias": False, "activation": "gelu"},
    "initializers": {
        "kernel_initializer": {"class_name": "Constant", "config": {"value": 0.5}},
        "bias_initializer": "ones",
    },
    "penalties": {"kernel_regularizer": "l2", "bias_regularizer": "l1"},
    "activity": {"activity_regularizer": "l1"},
    "constraints": {"kernel_constraint": "non_neg", "bias_constraint": {"class_name": "MaxNorm", "config": {}}},
    "frozen": {"trainable": False},
}


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3), (2, 3, 1, 3)])
@pytest.mark.parametrize("kwargs", DENSE.values(), ids=DENSE)
def test_dense(kwargs, shape):
    frozen = not kwargs.get("trainable", True)
    known = "kernel_initializer" in kwargs
    check_layer(
        Dense,
        keras.layers.Dense,
        {"units": 5, **kwargs},
        shape,
        unknown_axes=(1,) if len(shape) > 2 else (),
        gradients=not frozen,
        randomize=not known,
    )


def test_dense_is_a_linear_layer():
    layer, linear = Dense(4), nn.Linear(3, 4)
    layer.build((None, 3))
    layer.load_state_dict(linear.state_dict())
    x = torch.randn(2, 3)
    assert torch.equal(layer(x), linear(x))
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert list(Dense(4, use_bias=False, input_shape=(3,)).state_dict()) == []


def test_activation_may_be_a_function_or_a_module():
    x = torch.randn(2, 3)
    assert torch.equal(Activation(torch.tanh)(x), torch.tanh(x))
    module = nn.PReLU()
    layer = Activation(module)
    assert torch.equal(layer(x), module(x))
    assert [*layer.parameters()] == [*module.parameters()]
    dense = Dense(3, activation=nn.PReLU())
    dense(x).sum().backward()
    assert dense.activation.weight.grad is not None


@pytest.mark.parametrize("name", ["relu", "softmax", "tanh", "sigmoid", "gelu", "linear", "elu", None])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
def test_activation(name, shape):
    check_layer(Activation, keras.layers.Activation, {"activation": name}, shape, unknown_axes=(1,))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4, 5)])
def test_identity(shape):
    check_layer(Identity, keras.layers.Identity, {}, shape, unknown_axes=(-1,))


WORDS = np.array([[1, 0, 4, 3], [2, 2, 0, 0]])
EMBEDDING = {
    "sizes only": {},
    "mask": {"mask_zero": True},
    "initializer": {"embeddings_initializer": "ones"},
    "penalty": {"embeddings_regularizer": "l2", "activity_regularizer": "l1"},
    "constraint": {"embeddings_constraint": "unit_norm"},
    "frozen": {"trainable": False},
}


@pytest.mark.parametrize("words", [WORDS, WORDS[0], WORDS[..., None], WORDS.astype("int32"), WORDS.astype("float32")])
@pytest.mark.parametrize("kwargs", EMBEDDING.values(), ids=EMBEDDING)
def test_embedding(kwargs, words):
    check_layer(
        Embedding,
        keras.layers.Embedding,
        {"input_dim": 5, "output_dim": 3, **kwargs},
        words,
        unknown_axes=(1,) if words.ndim > 1 else (),
        gradients=kwargs.get("trainable", True),
    )


@pytest.mark.parametrize("as_list", [True, False])
def test_embedding_weights(as_list):
    table = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    layer = Embedding(5, 3, weights=[table] if as_list else table)
    assert torch.equal(layer(torch.from_numpy(WORDS)), torch.from_numpy(table)[WORDS])
    theirs = keras.layers.Embedding(5, 3, weights=[table])
    assert not same_config(layer.get_config(), theirs.get_config())
    with pytest.raises(ValueError, match=r"\(5, 3\)"):
        Embedding(5, 3, weights=table[:4])


def test_embedding_mask():
    words = Input((4,), dtype="int64")
    assert Embedding(5, 3)(words).mask is None
    mask = Embedding(5, 3, mask_zero=True)(words).mask
    assert (mask.shape, mask.dtype) == ((None, 4), torch.bool)
    eager = Embedding(5, 3, mask_zero=True).compute_mask(torch.from_numpy(WORDS))
    reference = keras.layers.Embedding(5, 3, mask_zero=True).compute_mask(WORDS)
    assert torch.equal(eager, reference)


def test_masks_of_arrays():
    values, mask = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32"), WORDS[:2, :3] != 0
    values[0, 2] = 0
    calls = {
        "Embedding": lambda kind: kind(5, 3, mask_zero=True).compute_mask(WORDS),
        "Masking": lambda kind: kind().compute_mask(values),
        "Add": lambda kind: kind().compute_mask([values, values], [mask, ~mask]),
        "Concatenate": lambda kind: kind(1).compute_mask([values, values], [mask, None]),
    }
    for name, call in calls.items():
        np.testing.assert_array_equal(call(getattr(layers, name)), call(getattr(keras.layers, name)))


def double(x):
    return x * 2


def halves(x):
    return x[..., :2], x[..., 2:]


def scaled(x, factor=1.0, training=None):
    return x * factor if training else x


@pytest.mark.parametrize(
    ("function", "kwargs", "shape"),
    [
        (double, {}, (2, 4)),
        (halves, {}, (2, 4)),
        (scaled, {"arguments": {"factor": 3.0}}, (2, 3)),
        (torch.sum, {"arguments": {"dim": -1}}, (2, 3)),
        (double, {"output_shape": (4,)}, (2, 4)),
        (double, {"output_shape": lambda shape: shape}, (2, 4)),
    ],
)
def test_lambda(function, kwargs, shape):
    layer, x = Lambda(function, **kwargs), torch.randn(shape)
    expected = function(x, **kwargs.get("arguments", {}))
    drawn, found = layer(Input(shape[1:])), layer.eval()(x)
    if function is scaled:
        assert torch.equal(found, x)
        assert torch.equal(layer.train()(x), 3 * x)
        return
    if isinstance(expected, tuple):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert [each.shape for each in drawn] == [(None, *each.shape[1:]) for each in expected]
        return
    assert torch.equal(found, expected)
    assert drawn.shape == (None, *expected.shape[1:])
    if function is double:
        theirs = keras.layers.Lambda(function, **kwargs)
        assert tuple(layer.compute_output_shape(shape)) == tuple(theirs(keras.Input(batch_shape=shape)).shape)


def keep_positive(inputs, mask):
    return torch.gt(inputs[..., 0], 0)


def test_lambda_masks():
    x = Input((4, 3))
    x.mask = Input((4,), dtype="bool")
    given = []

    def look(inputs, mask=None):
        given.append(mask)
        return inputs

    assert Lambda(look)(x).mask is None
    assert given
    assert all(mask is not None for mask in given)
    assert Lambda(double, mask=keep_positive)(x).mask.shape == (None, 4)
    fixed = Input((4,), dtype="bool")
    assert Lambda(double, mask=fixed)(x).mask is fixed


def test_lambda_config():
    layer = Lambda(double, output_shape=(4,), arguments={}, name="twice")
    written = layer.get_config()
    assert written["function"]["config"] == "double"
    with pytest.raises(ValueError, match="names 'double'"):
        Lambda.from_config(written)
    with custom_object_scope({"double": double}):
        twin = Lambda.from_config(written)
    assert twin.function is double
    assert twin.get_config() == written
    with pytest.raises(ValueError, match="lambda cannot be written"):
        Lambda(lambda x: x).get_config()
    with pytest.raises(TypeError, match="takes a function, got 3"):
        Lambda(3)


class Counter(nn.Module):
    """Counts its calls, as BatchNorm does."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x, scale=1.0):
        self.calls += 1
        return self.linear(x) * scale


def test_torch_module():
    module, x = Counter(), torch.randn(5, 3)
    layer = TorchModule(module, name="counter")
    drawn = layer(Input((3,)), scale=2.0)
    assert (drawn.shape, drawn.dtype, drawn.name) == ((None, 2), torch.float32, "counter")
    assert module.calls == 0
    assert torch.equal(layer(x, scale=2.0), 2 * module.linear(x))
    assert layer.module is module
    assert list(layer.state_dict()) == ["module.calls", "module.linear.weight", "module.linear.bias"]
    assert module.calls == 1
    layer.trainable = False
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not any(p.requires_grad for p in TorchModule(nn.Linear(2, 2), trainable=False).parameters())
    with pytest.raises(TypeError, match=r"takes a torch.nn.Module, got function"):
        TorchModule(double)


class Nonzero(nn.Module):
    def forward(self, x):
        return x[x > 0].reshape(1, -1)


def test_torch_module_with_an_output_shape():
    with pytest.raises(ValueError, match="output_shape="):
        TorchModule(Nonzero())(Input((3,)))
    assert TorchModule(Nonzero(), output_shape=(None, None))(Input((3,))).shape == (None, None)


@pytest.mark.parametrize("layer", [Dense(3), Embedding(4, 3), Activation("relu"), TorchModule(nn.Linear(4, 3))])
def test_copies(layer):
    x = torch.randint(4, (2, 4)) if isinstance(layer, Embedding) else torch.randn(2, 4)
    expected = layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), expected)


ERRORS = [
    (lambda: Dense(0), "Dense takes a positive integer for units, got 0"),
    (lambda: Dense(2.5), "units, got 2.5"),
    (lambda: Dense(3, units_=1), "Dense was given arguments it does not take: 'units_'"),
    (lambda: Dense(3, lora_rank=2), "lora_rank"),
    (lambda: Dense(3, name="a/b"), "name is a non-empty string"),
    (lambda: Dense(3, name="here")(torch.zeros(3)), "'here'.*min_ndim=2, found ndim=1"),
    (lambda: Dense(3, name="here")(Input(())), "'here'.*min_ndim=2, found ndim=1"),
    (lambda: Dense(3, name="here")(Input((None,))), "axis -1 of the input of Dense 'here'.*must be known"),
    (lambda: Embedding(0, 3), "input_dim, got 0"),
    (lambda: Embedding(3, True), "output_dim, got True"),
    (lambda: Activation("rely"), "rely.*relu"),
]


@pytest.mark.parametrize(("make", "message"), ERRORS)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_another_size_is_refused():
    layer = Dense(3, name="here")
    layer(Input((4,)))
    with pytest.raises(ValueError, match=r"'here'.*axis -1 .*value 4.*\(None, 5\)"):
        layer(Input((5,)))


# Input


@pytest.mark.parametrize(
    ("kwargs", "shape"),
    [
        ({"shape": (3,)}, (None, 3)),
        ({"shape": ()}, (None,)),
        ({"shape": (None, 3)}, (None, None, 3)),
        ({"shape": [3, 4], "batch_size": 2}, (2, 3, 4)),
        ({"batch_shape": (2, 3)}, (2, 3)),
        ({"batch_shape": (None, 3)}, (None, 3)),
        ({"shape": (3,), "dtype": "int32"}, (None, 3)),
        ({"shape": (3,), "optional": True}, (None, 3)),
    ],
)
def test_input(kwargs, shape):
    ours, theirs = Input(**kwargs, name="words"), keras.Input(**kwargs, name="words")
    assert ours.shape == tuple(theirs.shape) == shape
    assert str(ours.dtype) == f"torch.{theirs.dtype}"
    assert ours.name == theirs.name == "words"
    layer, reference = ours.node.target, theirs._keras_history.operation
    assert isinstance(layer, InputLayer)
    assert not same_config({**layer.get_config(), "trainable": 1}, {**reference.get_config(), "trainable": 1})
    again = InputLayer.from_config(reference.get_config())
    assert again.get_config() == {**layer.get_config(), "name": "words"}
    assert again.output.shape == shape


@pytest.mark.parametrize("kwargs", [{"input_shape": (3,)}, {"batch_input_shape": (2, 3)}])
@pytest.mark.filterwarnings("ignore:Argument .* is deprecated")
def test_input_layers_of_old_guides(kwargs):
    assert InputLayer(**kwargs).batch_shape == tuple(keras.layers.InputLayer(**kwargs).batch_shape)


def test_input_takes_a_size_as_a_number_and_follows_floatx():
    assert Input(3).shape == (None, 3)
    try:
        config.set_floatx("float64")
        assert Input((3,)).dtype == torch.float64
    finally:
        config.set_floatx("float32")
    x = Input((3,))
    assert Input(tensor=x) is x


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "needs `shape`"),
        ({"shape": (3,), "batch_shape": (2, 3)}, "not both"),
        ({"batch_size": 4, "batch_shape": (2, 3)}, "not both"),
        ({"shape": (3,), "sparse": True}, "dense tensors"),
        ({"shape": "ab"}, "shape"),
        ({"shape": (2.5,)}, "2.5"),
        ({"shape": (-1,)}, "-1"),
        ({"shape": (3,), "dtype": "float33"}, "'float33' is not a dtype"),
        ({"shape": (3,), "batch_size": 2, "batch_shape": (2, 3)}, "not both"),
    ],
)
def test_input_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Input(**kwargs)


def test_parity_of_a_little_chain():
    words = torch.from_numpy(WORDS)
    ours = [Embedding(5, 3), Dense(4, "relu"), Activation("tanh"), Identity()]
    theirs = [
        keras.layers.Embedding(5, 3),
        keras.layers.Dense(4, "relu"),
        keras.layers.Activation("tanh"),
        keras.layers.Identity(),
    ]
    a = b = words
    for mine, reference in zip(ours, theirs, strict=True):
        b = reference(b)
        mine.build(tuple(a.shape))
        mine.set_weights([variable.value.detach().numpy() for variable in reference.weights])
        a = mine(a)
    assert_close(a, b, 1e-6, "chain")


@pytest.mark.parametrize("given", [None, "tanh", torch.tanh, nn.Tanh()])
def test_an_activation_set_later(given):
    inputs, dense = Input((3,)), Dense(2, activation="relu")
    model = Model(inputs, dense(inputs))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    model(x)
    dense.activation = given
    linear = x @ dense.weight.t() + dense.bias
    expected = linear if given is None else torch.tanh(linear)
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(copy.deepcopy(model)(x), expected)


@pytest.mark.parametrize("make", [layers.SimpleRNN, layers.LSTM, layers.GRU])
def test_an_activation_of_a_recurrent_layer_set_later(make):
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    theirs = getattr(keras.layers, make.__name__)(2, activation=None)
    theirs.build(x.shape)
    ours = make(2)
    ours.build(x.shape)
    ours(torch.tensor(x))
    ours.activation = None
    ours.set_weights([weight.value.detach().numpy() for weight in theirs.weights])
    assert_close(ours(torch.tensor(x)), theirs(x), 1e-6, "outputs")


def test_an_input_layer_of_a_tensor():
    inputs = Input((3,), dtype="float64", batch_size=4)
    layer = layers.InputLayer(input_tensor=inputs)
    assert layer.output is inputs
    assert (layer.batch_shape, layer.dtype) == ((4, 3), torch.float64)
    assert Sequential([layer, Dense(2)]).output_shape == (4, 2)
    assert layers.InputLayer(batch_input_shape=(4, 3)).output.shape == (4, 3)
    with pytest.raises(ValueError, match=r"what Input\(...\) returned for input_tensor"):
        layers.InputLayer(input_tensor=torch.ones(3))
