"""Models made under `torch.device("meta")`, and filled from files: never two copies, no values that nobody wants."""

import numpy as np
import pytest
import torch
from peak_memory import Peak
from torch import nn

from torchfunc import Input, Model, Sequential, layers, random
from torchfunc.models import load_model
from torchfunc.utils import set_random_seed


class Seeded(layers.Layer):
    """Draws from seeds of its own, which no file holds."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = random.SeedGenerator(5)

    def call(self, inputs, training=None):
        return inputs + random.normal((8,), seed=self.seeds) if training else inputs


def keras_model():
    inputs = Input((6,), dtype="int64")
    x = layers.LSTM(8, return_sequences=True)(layers.Embedding(20, 8, mask_zero=True)(inputs))
    x = layers.BatchNormalization()(layers.MultiHeadAttention(2, 4)(x, x))
    x = layers.Normalization(mean=np.arange(8.0), variance=np.ones(8))(layers.Dropout(0.5, seed=3)(x))
    x = layers.SpectralNormalization(layers.Dense(8))(layers.GlobalAveragePooling1D()(x))
    return Model(inputs, layers.Dense(3, activation="softmax")(layers.Dense(8)(x)))


def torch_model():
    inputs = Input((6, 8))
    x = nn.GRU(8, 8, batch_first=True)(nn.LayerNorm(8)(inputs))[0]
    x = Seeded()(x * nn.Parameter(torch.ones(8)) + torch.arange(8.0))
    return Model(inputs, layers.Dense(3)(x[:, -1]))


TOKENS = np.random.default_rng(0).integers(0, 20, (8, 6))
VALUES = np.random.default_rng(0).normal(size=(8, 6, 8))
MODELS = {"keras": (keras_model, TOKENS), "torch": (torch_model, VALUES)}
ENDINGS = {"keras": (".weights.h5", ".safetensors", ".keras", ".torchfunc"), "torch": (".safetensors", ".torchfunc")}


@pytest.fixture(scope="module", params=MODELS)
def stored(request, tmp_path_factory):
    """How to make a model, files of one that was trained, some data, and what it predicts and trains to from there."""
    make, x = MODELS[request.param]
    folder = tmp_path_factory.mktemp("stored")
    set_random_seed(1)
    model = make()
    train(model, x)
    endings = ENDINGS[request.param]
    for ending in endings:
        path = folder / f"model{ending}"
        (model.save_weights if ending in (".weights.h5", ".safetensors") else model.save)(path)
    model.state = {name: value.clone() for name, value in model.state_dict().items()}
    return make, folder, endings, x, model.predict(x, verbose=0), model.state


def train(model, x):
    model.compile("sgd", "mse", jit_compile=False)
    return model.fit(x, np.zeros((8, 3)), shuffle=False, verbose=0).history["loss"]


def on_meta(make):
    with torch.device("meta"):
        model = make()
    assert all(weight.is_meta for weight in model.parameters())
    return model


def filled(make, path, state):
    """The models that come of the ways to fill one that was made on the meta device, or to load one meanwhile."""
    if path is None:
        assigned, emptied = on_meta(make), on_meta(make).to_empty(device="cpu")
        assigned.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)
        emptied.load_state_dict(state)
        return [assigned, emptied]
    found = []
    if path.suffix != ".torchfunc":
        found.append(on_meta(make))
        found[0].load_weights(path)
    if path.suffix in (".keras", ".torchfunc"):
        with torch.device("meta"):
            found.append(load_model(path, custom_objects={"Seeded": Seeded}, compile=False))
    return found


def test_filled_models_are_those_that_were_stored(stored):
    make, folder, endings, x, expected, state = stored
    reference = make()
    reference.load_state_dict(state)
    losses = train(reference, x)
    for ending in (None, *endings):
        for model in filled(make, ending and folder / f"model{ending}", state):
            np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
            # (Seeded layers draw the numbers of a new model.)
            assert train(model, x) == losses


@pytest.mark.parametrize("ending", [".weights.h5", ".safetensors", ".keras", ".torchfunc"])
def test_memory_is_that_of_one_copy(ending, tmp_path):
    def make():
        # (The optimizer of the file has no state yet.)
        return Sequential([Input((256,)), *(layers.Dense(256) for _ in range(8))])

    path = tmp_path / f"model{ending}"
    model = make()
    (model.save_weights if ending in (".weights.h5", ".safetensors") else model.save)(path)
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    with Peak() as peak:
        if ending == ".torchfunc":
            model = load_model(path)
        else:
            model = on_meta(make)
            assert peak.bytes < 0.01 * size
            model.load_weights(path)
    # One weight is in the file's layout, too.
    assert size <= peak.bytes < 1.3 * size


def test_models_without_values_say_so():
    model = on_meta(keras_model)
    model.compile("sgd", "mse")
    calls = (
        lambda: model.fit(TOKENS, np.zeros((8, 3)), verbose=0),
        lambda: model.evaluate(TOKENS, np.zeros((8, 3)), verbose=0),
        lambda: model.predict(TOKENS, verbose=0),
        lambda: model.train_on_batch(TOKENS, np.zeros((8, 3))),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"'embedding\.weight' is on the meta device, where nothing has values"):
            call()


def test_what_a_file_does_not_hold_is_named(tmp_path):
    make, _ = MODELS["torch"]
    model = make()
    model.save_weights(tmp_path / "model.weights.h5")
    half = on_meta(make)
    with pytest.warns(UserWarning, match="holds no values for .*'constant'"):
        half.load_weights(tmp_path / "model.weights.h5")


def test_weights_that_are_one_stay_one(tmp_path):
    def make():
        embedding, head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        head.weight = embedding.weight
        return Sequential([Input((3,), dtype="int64"), embedding, head])

    make().save_weights(tmp_path / "model.safetensors")
    model = on_meta(make)
    model.compile(torch.optim.SGD, "mse")
    model.load_weights(tmp_path / "model.safetensors")
    assert len(list(model.parameters())) == 1
    model.fit(TOKENS[:, :3] % 5, np.zeros((8, 3, 5)), verbose=0)


def test_a_file_that_does_not_fit_changes_nothing(tmp_path):
    Sequential([Input((3,)), layers.Dense(2)]).save_weights(tmp_path / "model.safetensors")
    model = on_meta(lambda: Sequential([Input((3,)), layers.Dense(4)]))
    with pytest.raises(ValueError, match="does not fit this model"):
        model.load_weights(tmp_path / "model.safetensors")
    assert all(weight.is_meta for weight in model.weights)
