"""Models as configs, and back: our own, Keras' read by us, ours read by Keras, and clone_model."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_structure

from torchfunc import Input, Layer, layers, optimizers
from torchfunc.layers import Dense, Embedding
from torchfunc.models import GraphModule, Model, Sequential, clone_model
from torchfunc.registry import custom_object_scope, register_serializable
from torchfunc.structures import map_structure

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

A = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
B = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))


class Scale(Layer):
    """A custom layer whose config is what it was made with."""

    def __init__(self, factor, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.activation = activation

    def build(self, input_shape):
        self.gain = self.add_weight((input_shape[-1],), "ones")

    def call(self, inputs):
        return inputs * self.gain * self.factor


@register_serializable("tests")
class Shift(Layer):
    """Registered, with a config of its own."""

    def __init__(self, by=1.0, **kwargs):
        super().__init__(**kwargs)
        self.by = by

    def call(self, inputs):
        return inputs + self.by

    def get_config(self):
        return {**super().get_config(), "by": self.by}


class Named(Model):
    """A model class of a user's."""

    def twice(self, x):
        return 2 * self(x)


def chain():
    x = Input((8,), name="x")
    return Model(x, Dense(2, name="out")(Dense(4, activation="relu")(x)), name="chain")


def branched():
    a, b = Input((8,), name="a"), Input((8,), name="b")
    shared = Dense(4, kernel_regularizer="l2")
    joined = layers.Concatenate()([shared(a), layers.Add()([shared(b), shared(a)])])
    return Model({"a": a, "b": b}, {"z": Dense(1)(joined), "y": layers.Activation("tanh")(joined)})


def functions():
    x = Input((8,))
    y = F.relu(x) + x.mean(dim=-1, keepdim=True) * 2 - 1 / (x.abs() + 1)
    y = torch.cat([y[..., 1:5], y[:, ::2]], dim=-1).to(torch.float64).float()
    y, indices = y.max(dim=1, keepdim=True)
    return Model(x, [y.view(x.size(0), -1) + indices, x.permute((1, 0)).T, torch.where(x > 0, x, 0.5)])


def tensors():
    x = Input((8,))
    out = x * nn.Parameter(torch.full((8,), 2.0)) + torch.arange(8.0)
    return Model(x, [out, out[:, torch.tensor([0, 3])]])


def tied():
    tokens = Input((5,), dtype="int32")
    embedding = Embedding(9, 4, name="output")
    return Model(tokens, F.linear(torch.tanh(embedding(tokens)), embedding.weight))


def tied_within_a_sublayer():
    layer, x = Stacked(), Input((8,))
    return Model(x, F.linear(layer(x), layer.inner.weight))


@register_serializable("tests")
class Stacked(Layer):
    """Has a layer in it, built by the call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Dense(8)

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs)


def masked():
    tokens = Input((None,), dtype="int32")
    return Model(tokens, layers.LSTM(3)(Embedding(9, 4, mask_zero=True)(tokens)))


def intermediate():
    hidden = Dense(8, name="hidden")(Input((8,)))
    return Model(hidden, Dense(2)(torch.relu(hidden)))


def training_recorded():
    x = Input((8,))
    return Model(x, layers.Dropout(0.5)(x, training=False))


def optional():
    x, y = Input((8,), name="x"), Input((8,), name="y", optional=True)
    return Model([x, y], layers.Identity()(x))


def registered():
    x = Input((8,))
    return Model(x, Shift(3.0)(x))


def sequential():
    return Sequential([Input((8,)), Dense(4, activation="relu"), layers.Dropout(0.5), Dense(2)], name="stack")


def nested():
    x = Input((8,))
    inner = Model(x, Dense(8, name="output")(x), name="inner")
    stack = Sequential([Dense(8), Dense(3)], name="stack")
    y = Input((8,))
    return Model(y, [stack(inner(inner(y))), inner(y)], name="outer")


MODELS = {
    function.__name__: function
    for function in (
        *(chain, branched, functions, tensors, tied, tied_within_a_sublayer, masked, intermediate),
        *(training_recorded, optional, registered, sequential, nested),
    )
}


def data_for(model):
    integers = [not value.dtype.is_floating_point for value in model.inputs]
    tokens = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 8, 7, 1]])
    return [tokens if integer else data for integer, data in zip(integers, (A, B), strict=False)]


def through_json(config):
    return json.loads(json.dumps(config))


def run(model):
    return model.eval()(*data_for(model))


@pytest.mark.parametrize("case", MODELS)
def test_there_and_back(case):
    model = MODELS[case]()
    config = through_json(model.get_config())
    twin = type(model).from_config(config)
    assert through_json(twin.get_config()) == config
    assert list(twin.state_dict()) == list(model.state_dict())
    assert len(list(twin.parameters())) == len(list(model.parameters()))
    assert twin.name == model.name
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(run(twin), run(model))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert all(parameter.abs().sum() > 0 for name, parameter in model.named_parameters() if "bias" not in name)


@pytest.mark.parametrize("case", MODELS)
def test_clones_share_nothing(case):
    model = MODELS[case]()
    twin = clone_model(model)
    assert list(twin.state_dict()) == list(model.state_dict())
    originals = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert originals.isdisjoint(tensor.data_ptr() for tensor in twin.state_dict().values())
    assert {id(layer) for layer in model.layers}.isdisjoint(id(layer) for layer in twin.layers)
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(run(twin), run(model))
    assert len(list(twin.parameters())) == len(list(model.parameters()))


def test_json_holds_what_keras_writes():
    config = branched().get_config()
    assert list(config) == ["name", "trainable", "layers", "input_layers", "output_layers"]
    assert config["input_layers"] == {"a": ["a", 0, 0], "b": ["b", 0, 0]}
    assert config["output_layers"] == {"z": ["dense_1", 0, 0], "y": ["activation", 0, 0]}
    dense = next(layer for layer in config["layers"] if layer["name"] == "dense")
    assert (dense["module"], dense["class_name"]) == ("keras.layers", "Dense")
    assert len(dense["inbound_nodes"]) == 3
    history = dense["inbound_nodes"][0]["args"][0]["config"]["keras_history"]
    assert history == ["a", 0, 0]


# Custom classes


def custom():
    x = Input((8,))
    return Model(x, Scale(3.0)(x))


@pytest.mark.parametrize("way", ["custom_objects", "scope", "clone"])
def test_custom_layers(way):
    model = custom()
    config = through_json(model.get_config())
    if way == "custom_objects":
        twin = Model.from_config(config, custom_objects={"Scale": Scale})
    elif way == "scope":
        with custom_object_scope({"Scale": Scale}):
            twin = Model.from_config(config)
    else:
        twin = clone_model(model)
    assert twin.layers[1].factor == 3.0
    assert list(twin.state_dict()) == ["scale.gain"]
    torch.testing.assert_close(twin(A), A * 3)


def test_a_custom_layer_that_is_not_known():
    with pytest.raises(ValueError, match=r"names 'Scale'.*custom_objects"):
        Model.from_config(through_json(custom().get_config()))


def test_a_model_class_of_a_users_own():
    x = Input((8,))
    model = Named(x, Dense(2)(x))
    twin = Named.from_config(through_json(model.get_config()))
    assert isinstance(twin, Named)
    assert isinstance(clone_model(model), Named)
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin.twice(A), model.twice(A))


class WithoutConfig(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(8, width)

    def forward(self, x):
        return self.linear(x)


def _no_config(x):
    return WithoutConfig(2)(x)


def _lambda(x):
    return layers.Lambda(lambda y: y * 2)(x)


@pytest.mark.parametrize(("make", "message"), [(_no_config, "WithoutConfig.*get_config"), (_lambda, "lambda")])
def test_what_cannot_be_written(make, message):
    x = Input((8,))
    model = Model(x, make(x))
    with pytest.raises(ValueError, match=message):
        model.get_config()
    if make is _lambda:
        # What stays in the process need not be written.
        torch.testing.assert_close(clone_model(model)(A), model(A))
    else:
        with pytest.raises(ValueError, match=message):
            clone_model(model)
    assert model(A).shape[0] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: entry.update(class_name="Dense9"), "'Dense9'"),
        (lambda entry: entry["inbound_nodes"][0]["args"][0]["config"].update(keras_history=["gone", 0, 0]), "dense"),
        (lambda entry: entry["inbound_nodes"][0]["args"][0]["config"].update(keras_history=["out", 0, 0]), "dense"),
    ],
)
def test_configs_that_make_no_model(change, message):
    config = through_json(chain().get_config())
    change(config["layers"][1])
    with pytest.raises(ValueError, match=message):
        Model.from_config(config)


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "torch.load", "torch.Tensor.add_", "torch.hub.load"])
def test_only_listed_functions_are_called(target):
    x = Input((8,))
    config = through_json(Model(x, torch.relu(x)).get_config())
    entry = next(layer for layer in config["layers"] if layer["class_name"] == "TorchFunction")
    entry["config"]["target"] = target
    with pytest.raises(ValueError, match=target):
        Model.from_config(config)
    for method in ("__reduce_ex__", "apply_", "no_method_at_all"):
        entry["config"] = {"op": "method", "target": method}
        with pytest.raises(ValueError, match=f"{method}.*not one that a graph may call"):
            Model.from_config(config)


def copies(model):
    """What a config and a clone make of a model, with its weights."""
    for again in (Model.from_config(through_json(model.get_config())), clone_model(model)):
        again.load_state_dict(model.state_dict())
        yield again


def test_a_weight_that_is_used_before_its_layer_is_called():
    dense = layers.Dense(8)
    dense(Input((8,)))
    x = Input((8,))
    model = Model(x, dense(torch.nn.functional.linear(x, dense.weight).tanh()))
    for again in copies(model):
        assert len(list(again.parameters())) == 2
        torch.testing.assert_close(again(A), model(A))


def test_numbers_in_names_that_other_models_have_given():
    x = Input((8,))
    layer = layers.Dense(2)
    assert Model(x, [layers.Dense(3)(x), layer(x)]).layer_names()[-1] == "dense_1"
    alone = Model(x, layer(x))
    assert alone.layer_names()[-1] == "dense_1"
    again = Model.from_config(through_json(alone.get_config()))
    assert again.layer_names()[-1] == "dense_1"
    assert list(again.state_dict()) == list(alone.state_dict())


def test_the_name_of_a_layer_whose_config_has_none():
    class Plain(layers.Layer):
        def call(self, x):
            return x * 2

        def get_config(self):
            return {}

    x, second = Input((8,)), Plain()
    Model(x, [Plain()(x), second(x)])
    model = Model(x, second(x))
    assert model.layer_names()[1:] == ["plain_1"]
    again = Model.from_config(through_json(model.get_config()), custom_objects={"Plain": Plain})
    assert again.layer_names()[1:] == ["plain_1"]


def test_an_input_that_is_one_of_two_outputs_of_a_call():
    x = Input((8,), name="x")
    first, second = torch.chunk(x, 2, -1)
    model = Model([x, first], [first + 1, second + 2])
    given = torch.full((4, 4), 7.0)
    expected = [given + 1, A[:, 4:] + 2]
    torch.testing.assert_close(model(A, given), expected)
    for again in copies(model):
        torch.testing.assert_close(again(A, given), expected)
        assert [value.node.op for value in again.inputs] == ["input", "input"]


def test_a_model_within_a_config_of_keras_ends_in_what_it_ends_in():
    """Keras writes `mask=None` for its call, which says nothing."""
    inner_x, x = keras.Input((8,)), keras.Input((8,))
    inner = keras.Model(inner_x, keras.layers.Dense(3, activation="softmax")(inner_x))
    model = Model.from_config(through_json(keras.Model(x, inner(x)).get_config()))
    assert model.describe_outputs() == [("softmax", False)]


# clone_model


def test_clone_function_and_call_function():
    model = chain()
    twin = clone_model(model, clone_function=lambda layer: layer)
    assert twin.layers[1] is model.layers[1]
    torch.testing.assert_close(twin(A), model(A))
    seen = []

    def call(layer, *args, **kwargs):
        seen.append(layer.name)
        return layer(*args, **kwargs) * 2

    doubled = clone_model(model, clone_function=lambda layer: layer, call_function=call)
    assert seen == ["dense", "out"]
    torch.testing.assert_close(doubled(A), 2 * model.layers[2](2 * model.layers[1](A)))


def test_layers_of_two_clones_in_one_model():
    """Names that nobody gave are no more binding in a clone than in the model it is of."""
    model = chain()
    clones = [clone_model(model) for _ in range(2)]
    firsts = [clone.layers[1] for clone in clones]
    assert [layer.name for layer in firsts] == ["dense", "dense"]
    x = Input((8,))
    both = Model(x, [first(x) for first in firsts])
    assert both.layer_names()[1:] == ["dense", "dense_1"]
    lasts = [clone.layers[2] for clone in clones]
    h = Input(model.layers[2].input_shape[1:])
    with pytest.raises(ValueError, match="'out'"):
        Model(h, [last(h) for last in lasts])


def test_clone_on_given_inputs():
    model = chain()
    fresh = Input((8,), name="fresh")
    twin = clone_model(model, input_tensors=fresh * 2)
    assert twin.inputs[0].shape == (None, 8)
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(Model(fresh, twin.output)(A), model(A * 2))
    stack = sequential()
    torch.testing.assert_close(
        clone_model(stack, input_tensors=Input((8,)), clone_function=lambda x: x)(A * 0), stack(A * 0)
    )


def test_clone_does_what_keras_does_with_new_weights():
    model = chain()
    assert not torch.equal(clone_model(model).layers[1].weight, model.layers[1].weight)
    with pytest.raises(ValueError, match="'inputs'"):
        clone_model(model, inputs=None)
    module = nn.Linear(8, 2)
    with pytest.raises(ValueError, match="Linear has no get_config"):
        clone_model(module)


# Keras


def in_keras_and_here(build):
    """The same model built by Keras and by us."""
    theirs = build(keras.layers, keras.Input, keras.Model, keras.Sequential)
    return theirs, build(layers, Input, Model, Sequential)


def parity_branches(layers, make_input, model, _):
    a, b = make_input((8,), name="a"), make_input((8,), name="b")
    dense = layers.Dense(4, activation="relu")
    left, right = dense(a), dense(b)
    joined = layers.Concatenate()([layers.Add()([left, right]), layers.Subtract()([left, right])])
    return model([a, b], [layers.Dense(2, name="out")(joined), layers.Activation("softmax")(left)])


def parity_dicts(layers, make_input, model, _):
    a, b = make_input((8,), name="u"), make_input((8,), name="v")
    return model({"u": a, "v": b}, {"z": layers.Dense(2)(a), "y": layers.Multiply()([a, b])})


def parity_operators(layers, make_input, model, _):
    a, b = make_input((8,)), make_input((8,))
    x = layers.Dense(8)(a)
    return model([a, b], [x + b, 1.0 - x, 2 * x / (b * b + 1.0), -x, x**2.0, abs(x)])


def parity_images(layers, make_input, model, _):
    x = make_input((8, 8, 3))
    y = layers.Conv2D(4, 3, padding="same", strides=2, activation="relu")(x)
    y = layers.BatchNormalization()(y)
    return model(x, layers.Dense(2)(layers.Flatten()(layers.MaxPooling2D()(y))))


def parity_sequence(layers, make_input, model, _):
    tokens = make_input((5,), dtype="int32")
    return model(tokens, layers.LSTM(3)(layers.Embedding(9, 4, mask_zero=True)(tokens)))


def parity_sequential(layers, make_input, _, sequential):
    return sequential([make_input((8,)), layers.Dense(4, activation="relu"), layers.Dropout(0.5), layers.Dense(2)])


def parity_nested(layers, make_input, model, sequential):
    a, b = make_input((8,)), make_input((8,))
    encoder = model(a, layers.Dense(8)(layers.Dense(8)(a)), name="encoder")
    head = sequential([make_input((8,)), layers.Dense(2)], name="head")
    return model(b, [head(encoder(encoder(b))), encoder(b)])


def parity_masks(layers, make_input, model, _):
    inputs = make_input((4, 1))
    x = layers.ReLU()(inputs)
    masked = layers.Masking()(x)
    one, two = layers.Concatenate()([masked, masked]), layers.Concatenate(axis=1)([masked, x])
    return model(inputs, [layers.GRU(2)(one), layers.GRU(2)(two)])


PARITY = {
    function.__name__.removeprefix("parity_"): function
    for function in (
        *(parity_branches, parity_dicts, parity_operators, parity_images, parity_sequence, parity_sequential),
        *(parity_nested, parity_masks),
    )
}


def keras_data(model):
    generator = np.random.default_rng(0)
    data = []
    for value in model.inputs:
        shape = (4, *value.shape[1:])
        floats = generator.normal(size=shape).astype("float32")
        data.append(generator.integers(0, 9, shape) if "int" in str(value.dtype) else floats)
    return data


def assert_equal_outputs(theirs, ours, data):
    named = {value.name: each for value, each in zip(theirs.inputs, data, strict=True)}
    expected = theirs(named if "u" in named else data if len(data) > 1 else data[0])
    actual = ours.eval()(*data)
    assert keras.tree.map_structure(np.shape, actual) == keras.tree.map_structure(np.shape, expected)
    for a, b in zip(keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), keras.ops.convert_to_numpy(b), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", PARITY)
def test_configs_of_keras_are_read(case):
    theirs, _ = in_keras_and_here(PARITY[case])
    cls = Sequential if case == "sequential" else Model
    ours = cls.from_config(through_json(theirs.get_config()))
    assert [weight.shape for weight in ours.get_weights()] == [weight.shape for weight in theirs.get_weights()]
    ours.set_weights(theirs.get_weights())
    assert_equal_outputs(theirs, ours, keras_data(theirs))


@pytest.mark.parametrize("case", PARITY)
def test_our_configs_are_read_by_keras(case):
    _, ours = in_keras_and_here(PARITY[case])
    cls = keras.Sequential if case == "sequential" else keras.Model
    theirs = cls.from_config(through_json(ours.get_config()))
    theirs.set_weights(ours.get_weights())
    assert_equal_outputs(theirs, ours, keras_data(theirs))


def test_a_keras_operation_that_is_not_known():
    x = keras.Input((8,))
    config = through_json(keras.Model(x, keras.ops.softmax(x)).get_config())
    with pytest.raises(ValueError, match="Keras operation 'Softmax'"):
        Model.from_config(config)


@pytest.mark.parametrize("cls", [Model, GraphModule, Named])
def test_models_drawn_from_a_config_are_graph_modules(cls):
    drawn = chain()
    rebuilt = cls.from_config(through_json(drawn.get_config()))
    assert isinstance(rebuilt, GraphModule)
    assert isinstance(rebuilt, cls)
    assert isinstance(rebuilt, Named) == (cls is Named)
    assert [(node.op, node.name, str(node.target)) for node in rebuilt.graph.nodes] == [
        (node.op, node.name, str(node.target)) for node in drawn.graph.nodes
    ]
    rebuilt.load_state_dict(drawn.state_dict())
    torch.testing.assert_close(rebuilt(A), drawn(A))


class TestContainers:
    @pytest.mark.parametrize(
        "nest",
        [
            lambda a, b, c: (a, b, c),
            lambda a, b, c: [a, (b, c)],
            lambda a, b, c: {"one": (a,), "more": [b, (c,)]},
            lambda a, b, c: ({"one": a}, [b], c),
        ],
    )
    def test_their_types_are_kept(self, nest):
        first, second = Input((2,)), Input((2,))
        outputs = nest(first + second, first - second, first * second)
        model = Model((first, second), outputs)
        wanted = tree_structure(model.predict((np.ones((1, 2)), np.ones((1, 2))), verbose=0))
        assert wanted == tree_structure(map_structure(lambda _: 0, outputs))
        for config in (model.get_config(), json.loads(json.dumps(model.get_config()))):
            twin = Model.from_config(config)
            assert type(twin.input) is tuple
            assert tree_structure(twin.predict((np.ones((1, 2)), np.ones((1, 2))), verbose=0)) == wanted
        for twin in (clone_model(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert tree_structure(twin((np.ones((1, 2)), np.ones((1, 2))))) == wanted

    def test_lists_need_no_more_than_keras_writes(self):
        inputs = Input((2,))
        assert set(Model([inputs], [inputs * 2]).get_config()) == {
            *("name", "trainable", "layers", "input_layers", "output_layers")
        }


class TestClonesAreCompiled:
    def test_as_the_model_is(self):
        model = Sequential([Input((3,)), layers.Dense(1)])
        assert not clone_model(model).compiled
        model.compile(optimizers.Adam(0.25), "mae", metrics=["mse"])
        clone = clone_model(model)
        assert clone.compiled
        assert clone.optimizer is not model.optimizer
        assert float(clone.optimizer.learning_rate) == 0.25
        clone.set_weights(model.get_weights())
        data = np.ones((4, 3)), np.ones((4, 1))
        histories = [each.fit(*data, verbose=0).history for each in (model, clone)]
        assert histories[0] == histories[1]
        assert sorted(histories[0]) == ["loss", "mse"]

    def test_what_has_no_config_is_said(self):
        model = Sequential([Input((3,)), layers.Dense(1)])
        model.compile("sgd", lambda y, p: (y - p).square().mean(-1))
        with pytest.warns(UserWarning, match="clone of model 'sequential' is not compiled"):
            assert not clone_model(model).compiled
