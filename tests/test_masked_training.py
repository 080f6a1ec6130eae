"""Masks in training: losses, metrics and the weights after a step are Keras', however the mask came to the output."""

import copy
import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import torch
from training_parity import assert_close, copy_weights

from torchfunc import Input, Model, Sequential, layers

CLASSES, ROWS, TIME = 4, 6, 5
RNG = np.random.default_rng(3)
TOKENS = np.array(
    [[1, 2, 3, 0, 0], [4, 5, 6, 1, 2], [3, 0, 2, 0, 1], [0, 0, 0, 0, 0], [6, 0, 0, 0, 0], [2, 2, 1, 5, 0]]
)
FLOATS = np.where(TOKENS[..., None] == 0, 0, RNG.standard_normal((ROWS, TIME, 3))).astype("float32")
TAGS = RNG.integers(0, CLASSES, (ROWS, TIME))
SCORES = RNG.standard_normal((ROWS, 1)).astype("float32")
WEIGHTS = {
    "unweighted": None,
    "per sample": RNG.random(ROWS).astype("float32"),
    "per timestep": RNG.random((ROWS, TIME)).astype("float32"),
}
ENTROPY = "sparse_categorical_crossentropy"
KERAS = SimpleNamespace(Input=keras.Input, Model=keras.Model, Sequential=keras.Sequential, layers=keras.layers)
OURS = SimpleNamespace(Input=Input, Model=Model, Sequential=Sequential, layers=layers)


def embedded(lib):
    tokens = lib.Input((TIME,), dtype="int64", name="tokens")
    return tokens, lib.layers.Embedding(7, 3, mask_zero=True, name="words")(tokens)


def tags(lib, name="tags"):
    return lib.layers.Dense(CLASSES, activation="softmax", name=name)


def tagger(layer):
    """A model that tags each word, with a layer between the words and the tags."""

    def make(lib):
        tokens, x = embedded(lib)
        return lib.Model(tokens, tags(lib)(layer(lib)(x)))

    return make


def sequential(lib):
    words = lib.layers.Embedding(7, 3, mask_zero=True, name="words")
    return lib.Sequential([words, lib.layers.GRU(3, return_sequences=True, name="gru"), tags(lib)])


def masking(lib):
    x = lib.Input((TIME, 3))
    return lib.Model(x, tags(lib)(lib.layers.LSTM(3, return_sequences=True, name="lstm")(lib.layers.Masking()(x))))


def attention(lib):
    tokens, x = embedded(lib)
    return lib.Model(tokens, tags(lib)(lib.layers.MultiHeadAttention(2, 3, name="attention")(x, x)))


def dot_attention(lib):
    tokens, x = embedded(lib)
    return lib.Model(tokens, tags(lib)(lib.layers.Attention(name="attention")([x, x])))


def nested(lib):
    """The mask comes out of one model, and goes through another to the end."""
    tokens, x = embedded(lib)
    encoder = lib.Model(tokens, x, name="encoder")
    h = lib.Input((TIME, 3))
    decoder = lib.Model(h, tags(lib)(lib.layers.LSTM(3, return_sequences=True, name="lstm")(h)), name="decoder")
    outer = lib.Input((TIME,), dtype="int64")
    return lib.Model(outer, decoder(encoder(outer)))


class OwnMask:
    """A layer whose mask leaves out the first timestep."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        return inputs * 2.0

    def compute_mask(self, inputs, mask=None):
        return None if mask is None else mask & (torch.arange(TIME) > 0)


class Drops:
    """A layer that does not pass a mask on."""

    def call(self, inputs):
        return inputs * 2.0


def own(kind):
    """Makes layers of a class of the user's, in either library."""
    classes = [type(kind.__name__, (kind, lib.layers.Layer), {}) for lib in (KERAS, OURS)]
    return lambda lib: classes[lib is OURS]()


MASKS = own(OwnMask)


MODELS = {
    "embedding": tagger(lambda lib: lib.layers.Dense(3, activation="tanh", name="hidden")),
    "LSTM": tagger(lambda lib: lib.layers.LSTM(3, return_sequences=True, name="lstm")),
    "Bidirectional": tagger(
        lambda lib: lib.layers.Bidirectional(lib.layers.GRU(2, return_sequences=True, name="gru"), name="both")
    ),
    "TimeDistributed": tagger(
        lambda lib: lib.layers.TimeDistributed(lib.layers.Dense(3, activation="tanh", name="each"), name="hidden")
    ),
    "Concatenate": tagger(lambda lib: lambda x: lib.layers.Concatenate()([x, lib.layers.Dense(2, name="hidden")(x)])),
    "MultiHeadAttention": attention,
    "Attention": dot_attention,
    "Masking": masking,
    "Sequential": sequential,
    "nested": nested,
    "own compute_mask": tagger(MASKS),
    "dropped": tagger(own(Drops)),
    "Conv1D drops": tagger(lambda lib: lib.layers.Conv1D(3, 2, padding="same", name="hidden")),
}


def pair(make):
    with warnings.catch_warnings():
        # Keras says of nested models that they destroy masks, which they don't; and of layers that do.
        warnings.simplefilter("ignore")
        theirs, mine = make(KERAS), make(OURS)
        x = FLOATS if make is masking else TOKENS
        theirs(x)
        mine(torch.from_numpy(x))
    copy_weights(mine, theirs)
    return mine, theirs, x


def for_keras(weight):
    """Weights as Keras on torch can take them beside a mask: one a timestep, and a copy, since it changes them."""
    if isinstance(weight, dict):
        return {"score": weight["score"].copy(), "tags": for_keras(weight["tags"])}
    return None if weight is None else np.array(np.broadcast_to(weight.reshape(ROWS, -1), (ROWS, TIME)))


def check(mine, theirs, x, y, weight, **settings):
    """Evaluation, a training step, and the weights it leaves behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model in (mine, theirs):
            model.compile("sgd", **settings)
            model.optimizer.learning_rate = 0.5
        for method in ("test_on_batch", "train_on_batch"):
            expected = getattr(theirs, method)(x, y, for_keras(weight), return_dict=True)
            assert_close(getattr(mine, method)(x, y, weight, return_dict=True), expected, rel=1e-5)
    for layer in theirs.layers:
        values = [weight.value.detach().numpy() for weight in layer.weights]
        for ours, value in zip(mine.get_layer(layer.name).get_weights() if values else [], values, strict=True):
            np.testing.assert_allclose(ours, value, rtol=1e-5, atol=1e-6, err_msg=layer.name)


WEIGHTED = ("LSTM", "Attention", "own compute_mask", "dropped")
CASES = [(name, "unweighted") for name in MODELS] + [(name, how) for name in WEIGHTED for how in list(WEIGHTS)[1:]]


@pytest.mark.parametrize(("name", "weight"), CASES)
def test_taggers(name, weight):
    mine, theirs, x = pair(MODELS[name])
    both = ["accuracy", ENTROPY]
    check(mine, theirs, x, TAGS, WEIGHTS[weight], loss=ENTROPY, metrics=both, weighted_metrics=both)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_one_of_two_outputs_is_masked(weight):
    def make(lib):
        tokens, x = embedded(lib)
        h = lib.layers.LSTM(3, return_sequences=True, name="lstm")(x)
        score = lib.layers.Dense(1, name="score")(lib.layers.GlobalMaxPooling1D()(h))
        return lib.Model(tokens, {"score": score, "tags": tags(lib)(h)})

    mine, theirs, x = pair(make)
    given = WEIGHTS[weight]
    check(
        *(mine, theirs, x, {"score": SCORES, "tags": TAGS}),
        None if given is None else {"score": SCORES[:, 0] ** 2, "tags": given},
        loss={"score": "mse", "tags": ENTROPY},
        loss_weights={"score": 0.5, "tags": 2.0},
        metrics={"score": ["mae"], "tags": ["accuracy"]},
        weighted_metrics={"score": ["mae"], "tags": ["accuracy"]},
    )


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_curves(optimizer):
    """`fit` of a tagger that learns to tell odd words from even ones."""

    def make(lib):
        tokens, x = embedded(lib)
        x = lib.layers.Bidirectional(lib.layers.LSTM(3, return_sequences=True, name="lstm"), name="both")(x)
        return lib.Model(tokens, tags(lib)(x))

    mine, theirs, _ = pair(make)
    rng = np.random.default_rng(4)
    words = rng.integers(1, 7, (50, TIME)) * (np.arange(TIME) < rng.integers(1, TIME + 1, (50, 1)))
    curves = []
    for model in (mine, theirs):
        model.compile(optimizer, ENTROPY, metrics=["accuracy"])
        model.optimizer.learning_rate = 0.01
        data = {"validation_data": (words[:20], words[:20] % 2)}
        run = model.fit(words, words % 2, batch_size=8, epochs=5, shuffle=False, verbose=0, **data)
        curves.append(run.history)
    assert list(curves[0]) == list(curves[1])
    for name, values in curves[0].items():
        assert values == pytest.approx(list(map(float, curves[1][name])), rel=1e-4), name
    assert curves[0]["loss"][-1] < 0.8 * curves[0]["loss"][0]


# Not by Keras' `evaluate`: on torch its loss changes the weights in place, by another factor in each batch, before its
# metrics see them.
def test_metrics_over_several_batches():
    mine, theirs, x = pair(MODELS["LSTM"])
    weight = WEIGHTS["per timestep"]
    expected = {
        "accuracy": keras.metrics.SparseCategoricalAccuracy(),
        ENTROPY: keras.metrics.MeanMetricWrapper(keras.losses.sparse_categorical_crossentropy),
    }
    for rows in (slice(0, 4), slice(4, None)):
        y_pred = theirs(x[rows])
        for metric in expected.values():
            metric.update_state(TAGS[rows], y_pred, weight[rows].copy())
    mine.compile("sgd", ENTROPY, weighted_metrics=list(expected))
    found = mine.evaluate(x, TAGS, 4, 0, weight, return_dict=True)
    assert_close({name: found[name] for name in expected}, {name: float(m.result()) for name, m in expected.items()})


def test_masks_are_edges_of_the_graph():
    mine = MODELS["LSTM"](OURS)
    nodes = {node.name: node for node in mine.graph.nodes}
    assert (nodes["ne"].op, nodes["ne"].target, nodes["ne"].args) == ("call_function", torch.ne, (nodes["tokens"], 0))
    assert nodes["lstm"].kwargs == {"mask": nodes["ne"]}
    assert nodes["tags"].kwargs == {}
    assert "mask = ne" in mine.code


def nested_own(lib):
    """A mask with a constant in it, of a layer within a model that is called on a masked tensor."""
    h = lib.Input((TIME, 3))
    inner = lib.Model(h, lib.layers.LSTM(3, return_sequences=True, name="lstm")(MASKS(lib)(h)), name="inner")
    tokens, x = embedded(lib)
    return lib.Model(tokens, tags(lib)(inner(x)))


@pytest.mark.parametrize("copied", [lambda model: model, copy.deepcopy])
def test_constants_in_masks(copied):
    mine, theirs, x = pair(nested_own)
    mine = copied(mine)
    assert list(mine.state_dict()) == [name for name, _ in mine.named_parameters()]
    check(mine, theirs, x, TAGS, None, loss=ENTROPY, metrics=["accuracy"])


class Detected(layers.Layer):
    """Its mask is what another layer makes of its inputs."""

    def __init__(self, detector):
        super().__init__()
        # Out of sight: the layer is no part of this one, nor of a model that has this one.
        self.detectors = lambda: detector

    def call(self, inputs):
        return inputs * 2

    def compute_mask(self, inputs, mask=None):
        return self.detectors()(inputs)[..., 0] > 0


def test_a_mask_of_a_layer_outside_the_model_is_none():
    x = Input((TIME, 3))
    detector = layers.Dense(1, name="detector")
    output = Detected(detector)(x)
    assert output.mask is not None
    model = Model(x, output)
    assert model.describe_outputs() == [(None, False)]
    assert model.layers[1:] == [output.node.target]
    assert list(model.state_dict()) == []
    assert list(model.children()) == [output.node.target]
    # With the layer in it, it has the mask.
    model = Model(x, [output, detector(x)])
    assert model.describe_outputs() == [(None, True), (None, False)]
    values = torch.randn(2, TIME, 3)
    expected = detector(values)[..., 0] > 0
    torch.testing.assert_close(model.forward_for_training(values).masks[0], expected)


def test_a_mask_of_an_input_outside_the_model_is_none():
    tokens = Input((TIME,), dtype="int64")
    x = layers.Embedding(7, 3, mask_zero=True)(tokens)
    model = Model(x, layers.Dense(2)(x))
    assert model.describe_outputs() == [(None, False)]
    model.compile("sgd", "mse")
    values = torch.randn(2, TIME, 3)
    assert model.evaluate(values, model(values).detach(), verbose=0) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", ["own compute_mask", "LSTM"])
def test_calls_for_masks_alone_are_no_part_of_a_copy_either(name):
    mine = MODELS[name](OURS)
    again = copy.deepcopy(mine)
    assert list(map(again.node_name, again.nodes)) == list(map(mine.node_name, mine.nodes))
    assert again.get_config() == mine.get_config()


class TestOverriddenMethods:
    """What a redefined method hands on to Trainer's counts masks and logits in, if it is the model's own output."""

    @staticmethod
    def of(model_class):
        inputs = layers.Input((3, 2))
        hidden = layers.Masking()(inputs)
        outputs = layers.Dense(2, activation="softmax", kernel_initializer="identity")(hidden)
        model = model_class(inputs, outputs)
        model.compile("sgd", "sparse_categorical_crossentropy", weighted_metrics=["accuracy"], jit_compile=False)
        return model

    X = np.array([[[1, 2], [3, 4], [0, 0]], [[5, 6], [0, 0], [0, 0]]], "float32")
    Y = np.ones((2, 3), int)

    def test_they_get_masks(self):
        class Overriding(Model):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                return 2 * super().compute_loss(x, y, y_pred, sample_weight, training)

            def compute_metrics(self, x, y, y_pred, sample_weight=None):
                logs = super().compute_metrics(x, y, y_pred, sample_weight)
                return {**logs, "twice": 2 * logs["accuracy"]}

        plain = self.of(Model).evaluate(self.X, self.Y, verbose=0, return_dict=True)
        found = self.of(Overriding).evaluate(self.X, self.Y, verbose=0, return_dict=True)
        # The steps that are masked are the ones that are wrong.
        assert plain["accuracy"] == 1.0
        assert found["accuracy"] == 1.0
        assert found["twice"] == 2.0
        assert found["loss"] == pytest.approx(2 * plain["loss"])

    def test_they_get_logits(self):
        class Overriding(Model):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                return super().compute_loss(x, y, y_pred, sample_weight, training)

        inputs = layers.Input((2,))
        losses = []
        for model_class in (Model, Overriding):
            model = model_class(inputs, layers.Activation("softmax")(inputs))
            model.compile(None, "sparse_categorical_crossentropy")
            losses.append(model.evaluate(np.array([[50.0, 0.0]]), np.array([1]), verbose=0))
        # Of probabilities, it would be -log(epsilon), 16.1.
        assert losses == [50.0, 50.0]

    def test_other_outputs_have_no_masks(self):
        class Overriding(Model):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                return super().compute_loss(x, y, y_pred + 0.0, sample_weight, training)

            def compute_metrics(self, x, y, y_pred, sample_weight=None):
                return super().compute_metrics(x, y, y_pred + 0.0, sample_weight)

        logs = self.of(Overriding).evaluate(self.X, self.Y, verbose=0, return_dict=True)
        assert logs["accuracy"] == 0.5
