"""`.keras`: Keras opens what we write, we open what Keras writes; training goes on; what Keras lacks is refused."""

import contextlib
import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
import torch
from document_models import DOCUMENTS
from keras_models import COMPOSED, data_for, of_layer, operators, randomize
from layer_examples import EXAMPLES

import torchfunc
from torchfunc import Input, Layer, Model, Sequential, layers
from torchfunc.saving import load_model, register_serializable

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

LIBRARIES = {"keras": keras, "ours": torchfunc}
LOAD = {"keras": keras.saving.load_model, "ours": load_model}
writers = pytest.mark.parametrize("writer", LIBRARIES)


def the_other(name):
    (other,) = set(LIBRARIES) - {name}
    return other


def leaves(outputs):
    if isinstance(outputs, dict):
        outputs = [outputs[name] for name in sorted(outputs)]
    return outputs if isinstance(outputs, list) else [outputs]


def assert_same_predictions(one, other, data):
    found, expected = leaves(one.predict(data, verbose=0)), leaves(other.predict(data, verbose=0))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def config_in(path):
    """The config in a file, in which operations are numbered: both libraries give them names of their own."""
    with zipfile.ZipFile(path) as archive:
        text = archive.read("config.json").decode()
    entries = json.loads(text)["config"]["layers"]
    operations = [entry["name"] for entry in entries if entry["module"].startswith("keras.src.ops")]
    for number, name in enumerate(operations):
        text = text.replace(f'"{name}"', f'"operation_{number}"')
    return json.loads(text)


def normal(value):
    """A config without what may differ.

    Keras marks objects that are used twice, says how a layer is built in fewer places, and gives calls `training` and
    the mask that they find at their input anyway; names of unnamed models count on in a process; floats of single
    precision are written with more digits.
    """
    if isinstance(value, list):
        return [normal(item) for item in value]
    if isinstance(value, dict):
        left_out = {"shared_object_id", "build_config", "compile_config", "training", "mask"}
        if "layers" in value:
            left_out.add("name")
        return {key: normal(item) for key, item in value.items() if key not in left_out}
    return float(np.float32(value)) if isinstance(value, float) else value


def differences(one, other, path=""):
    """Where two configs differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = dict.fromkeys([*one, *other])
        return [each for key in keys for each in differences(one.get(key), other.get(key), f"{path}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [each for index, pair in pairs for each in differences(*pair, f"{path}/{index}")]
    return [] if one == other else [(path, one, other)]


def check(build, writer, path):
    """Write a model with one library, open it with the other and write it again: it stays the same."""
    if writer == "keras":
        keras.backend.clear_session()
    written = randomize(build(LIBRARIES[writer]))
    written.save(path)
    opened = LOAD[the_other(writer)](path)
    assert_same_predictions(opened, written, data_for(written))
    again = path.with_name("again.keras")
    opened.save(again)
    assert not differences(normal(config_in(again)), normal(config_in(path)))
    assert_same_predictions(LOAD[writer](again), written, data_for(written))


@writers
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_layer(name, writer, tmp_path):
    check(of_layer(name), writer, tmp_path / "m.keras")


@writers
@pytest.mark.parametrize("name", COMPOSED)
def test_models(name, writer, tmp_path):
    check(COMPOSED[name], writer, tmp_path / "m.keras")


@writers
@pytest.mark.parametrize("name", DOCUMENTS)
def test_models_of_the_guides(name, writer, tmp_path):
    check(DOCUMENTS[name], writer, tmp_path / "m.keras")


@writers
def test_operators(writer, tmp_path):
    check(operators, writer, tmp_path / "m.keras")


OPTIMIZERS = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "Adam": {"amsgrad": True},
    "AdamW": {"weight_decay": 0.01, "use_ema": True},
    "Adamax": {},
    "Nadam": {},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adagrad": {},
    "Adadelta": {"learning_rate": 1.0},
    "Adafactor": {},
    "Ftrl": {},
    "Lion": {},
    "Lamb": {},
    "Muon": {},
}
X = np.random.default_rng(0).standard_normal((40, 3, 4)).astype("float32")
Y = X.sum((1, 2))[:, None] / 4


def trainable(lib):
    """Weights of all layouts: transposed, in two parts, in heads."""
    x = lib.Input((3, 4), name="x")
    y = lib.layers.GRU(4, return_sequences=True, name="gru")(lib.layers.Conv1D(4, 2, padding="same", name="c")(x))
    y = lib.layers.LayerNormalization(name="norm")(lib.layers.MultiHeadAttention(2, 3, name="heads")(y, y))
    return lib.Model(x, lib.layers.Dense(1, name="out")(lib.layers.Flatten(name="flat")(y)))


def simple(lib):
    x = lib.Input((3, 4), name="x")
    y = lib.layers.Dense(3, activation="tanh", name="hidden")(x)
    return lib.Model(x, lib.layers.Dense(1, name="out")(lib.layers.Flatten(name="flat")(y)))


def train(model, steps=20):
    return [
        float(model.train_on_batch(X[start : start + 8], Y[start : start + 8]))
        for start in [8 * (step % 5) for step in range(steps)]
    ]


@writers
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on(name, writer, tmp_path):
    """The next 20 steps are those that the writer itself would have made."""
    # (Adafactor and Muon see matrices, which the weights of convolutions and heads are not in torch's layout.)
    build = trainable if name in ("AdamW", "Adagrad", "RMSprop", "SGD") else simple
    lib = LIBRARIES[writer]
    model = build(lib)
    rng = np.random.default_rng(1)
    model.set_weights([0.3 * rng.standard_normal(each.shape) for each in model.get_weights()])
    model.compile(getattr(lib.optimizers, name)(**{"learning_rate": 0.01, **OPTIMIZERS[name]}), "mse")
    train(model, 7)
    model.save(tmp_path / "m.keras")
    opened = LOAD[the_other(writer)](tmp_path / "m.keras")
    assert int(opened.optimizer.iterations) == 7
    np.testing.assert_allclose(train(opened), train(model), rtol=1e-4)


@writers
def test_settings_of_compile(writer, tmp_path):
    lib = LIBRARIES[writer]
    model = COMPOSED["in_dicts"](lib)
    model.compile(
        lib.optimizers.SGD(lib.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5), clipnorm=1.0),
        {"y": lib.losses.LogCosh(reduction="sum"), "z": "mse"},
        loss_weights={"y": 0.3, "z": 1.0},
        metrics={"y": [lib.metrics.MeanAbsoluteError(name="mae")], "z": ["mse"]},
        steps_per_execution=1,
    )
    data, targets = data_for(model), {"y": np.ones((4, 2)), "z": np.zeros((4, 1))}
    model.fit(data, targets, epochs=2, verbose=0)
    model.save(tmp_path / "m.keras")
    opened = LOAD[the_other(writer)](tmp_path / "m.keras")
    expected = model.evaluate(data, targets, return_dict=True, verbose=0)
    found = opened.evaluate(data, targets, return_dict=True, verbose=0)
    assert found == pytest.approx(expected, rel=1e-5)
    assert float(opened.optimizer.learning_rate) == pytest.approx(0.1 * 0.5**0.2, rel=1e-6)
    assert opened.optimizer.clipnorm == 1.0
    assert not LOAD[the_other(writer)](tmp_path / "m.keras", compile=False).compiled


@writers
def test_without_the_optimizer(writer, tmp_path):
    model = COMPOSED["chain"](LIBRARIES[writer])
    model.compile("adam", "mse")
    model.fit(data_for(model), np.zeros((4, 3)), verbose=0)
    model.save(tmp_path / "m.keras", **({"include_optimizer": False} if writer == "ours" else {}))
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    assert ("optimizer" in weights) == (writer == "keras")
    opened = LOAD[the_other(writer)](tmp_path / "m.keras")
    assert bool(opened.compiled) == (writer == "keras")


@writers
def test_frozen_layers(writer, tmp_path):
    model = COMPOSED["nested"](LIBRARIES[writer])
    model.get_layer("stack").trainable = False
    model.compile("adam", "mse")
    x = data_for(model)
    model.fit(x, [np.zeros((4, 3)), np.zeros((4, 6))], verbose=0)
    model.save(tmp_path / "m.keras")
    opened = LOAD[the_other(writer)](tmp_path / "m.keras")
    assert len(opened.trainable_weights) == len(model.trainable_weights) == 2
    assert_same_predictions(opened, model, x)


@writers
def test_a_sequential_model_without_a_shape(writer, tmp_path):
    lib = LIBRARIES[writer]
    model = lib.Sequential([lib.layers.Dense(3, activation="relu"), lib.layers.Dropout(0.1), lib.layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="not yet been built") if writer == "keras" else contextlib.nullcontext():
        model.save(tmp_path / "m.keras")
    opened = LOAD[the_other(writer)](tmp_path / "m.keras")
    assert not opened.built
    assert [type(layer).__name__ for layer in opened.layers] == ["Dense", "Dropout", "Dense"]
    assert opened.predict(np.ones((2, 5)), verbose=0).shape == (2, 2)


class Net:
    """A model class and a layer class of a user's, for both libraries, registered under one name."""

    def __init__(self, lib, register):
        @register("tests_of_files")
        class Scale(lib.layers.Layer):
            def __init__(self, factor=1.0, **kwargs):
                super().__init__(**kwargs)
                self.factor = factor
                self.inner = lib.layers.Dense(3)

            def build(self, input_shape):
                self.inner.build(input_shape)
                self.gain = self.add_weight(shape=(3,), initializer="ones", name="gain")

            def call(self, x):
                return self.inner(x) * self.gain * self.factor

            def get_config(self):
                return {**super().get_config(), "factor": self.factor}

        @register("tests_of_files")
        class Two(lib.Model):
            def __init__(self, units=4, **kwargs):
                super().__init__(**kwargs)
                self.units = units
                self.first, self.rest = lib.layers.Dense(units, activation="tanh"), [Scale(2.0), lib.layers.Dense(2)]

            def call(self, x):
                x = self.first(x)
                for layer in self.rest:
                    x = layer(x)
                return x

            def get_config(self):
                return {**super().get_config(), "units": self.units}

        self.scale, self.two = Scale, Two


NETS = {
    "keras": Net(keras, keras.saving.register_keras_serializable),
    "ours": Net(torchfunc, register_serializable),
}


@writers
def test_registered_classes(writer, tmp_path):
    x = np.random.default_rng(0).standard_normal((4, 5)).astype("float32")
    model = NETS[writer].two(6)
    model.compile("adam", "mse")
    model.fit(x, np.zeros((4, 2)), epochs=2, verbose=0)
    model.save(tmp_path / "m.keras")
    opened = LOAD[the_other(writer)](tmp_path / "m.keras")
    assert type(opened) is NETS[the_other(writer)].two
    assert_same_predictions(opened, model, x)
    losses = [each.fit(x, np.zeros((4, 2)), epochs=3, verbose=0).history["loss"] for each in (opened, model)]
    np.testing.assert_allclose(*losses, rtol=1e-4)


@writers
def test_registered_layers_in_a_drawn_model(writer, tmp_path):
    def build(lib):
        x = lib.Input((5,))
        return lib.Model(x, NETS["keras" if lib is keras else "ours"].scale(0.5)(x))

    check(build, writer, tmp_path / "m.keras")


class Vocabulary(Layer):
    """A layer with files of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = []

    def call(self, inputs):
        return inputs

    def save_assets(self, dir_path):
        with open(f"{dir_path}/words.txt", "w") as file:
            file.write("\n".join(self.words))

    def load_assets(self, dir_path):
        with open(f"{dir_path}/words.txt") as file:
            self.words = file.read().split("\n")


def test_files_of_layers(tmp_path):
    x = Input((3,))
    layer = Vocabulary(name="vocabulary")
    layer.words = ["a", "b"]
    Model(x, layer(x)).save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        assert archive.read("assets/layers/vocabulary/words.txt") == b"a\nb"
    opened = load_model(tmp_path / "m.keras", {"Vocabulary": Vocabulary})
    assert opened.layers[1].words == ["a", "b"]


def test_constants_are_written_where_they_are_used(tmp_path):
    x = Input((3,))
    model = Model(x, layers.Dense(2)(x * torch.tensor([1.0, 2.0, 3.0])))
    model.save(tmp_path / "m.keras")
    data = np.ones((2, 3), "float32")
    for load in LOAD.values():
        assert_same_predictions(load(tmp_path / "m.keras"), model, data)


def in_a_model(call):
    x = Input((4,), name="x")
    return Model(x, call(layers.Dense(4, name="dense")(x)))


NOT_OF_KERAS = {
    "a module": (lambda x: torch.nn.Linear(4, 2)(x), "Linear 'linear'"),
    "a wrapped module": (lambda x: layers.TorchModule(torch.nn.ReLU(), name="wrapped")(x), "TorchModule 'wrapped'"),
    "a function": (lambda x: torch.relu(x), r"function torch\.relu \('relu'\)"),
    "a method": (lambda x: x.view(-1, 2, 2), r"function view \('view'\)"),
    "a parameter": (lambda x: x * torch.nn.Parameter(torch.ones(4)), r"weight as an argument \('parameter'\)"),
    "a module in a nested model": (lambda x: Sequential([Input((4,)), torch.nn.Linear(4, 2)])(x), "Linear"),
}


@pytest.mark.parametrize("case", NOT_OF_KERAS)
def test_what_keras_does_not_have_is_refused(case, tmp_path):
    call, name = NOT_OF_KERAS[case]
    model = in_a_model(call)
    (tmp_path / "m.keras").write_text("old")
    with pytest.raises(ValueError, match=rf"cannot be saved for Keras, which has no .*{name}.*'\.torchfunc'"):
        model.save(tmp_path / "m.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]
    assert (tmp_path / "m.keras").read_text() == "old"
    model.save(tmp_path / "m.torchfunc")


def test_a_precision_that_keras_does_not_write(tmp_path):
    model = COMPOSED["chain"](torchfunc)
    model.compile("sgd", "mse", precision="bf16-mixed")
    with pytest.warns(UserWarning, match="no place for `compile"):
        model.save(tmp_path / "m.keras")


@writers
def test_weights_alone_are_read_from_a_file_of_a_whole_model(writer, tmp_path):
    written, filled = COMPOSED["chain"](LIBRARIES[writer]), COMPOSED["chain"](LIBRARIES[the_other(writer)])
    written.save(tmp_path / "m.keras")
    filled.load_weights(tmp_path / "m.keras")
    assert_same_predictions(filled, written, data_for(written))


class TestDamage:
    @pytest.fixture
    def path(self, tmp_path):
        COMPOSED["chain"](torchfunc).save(tmp_path / "m.keras")
        return tmp_path / "m.keras"

    def rewrite(self, path, **members):
        """The file with other members: bytes in place of those that are there, None to leave one out."""
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in {**content, **members}.items():
                if data is not None:
                    archive.writestr(name, data)

    @pytest.mark.parametrize(
        ("name", "data", "message"),
        [
            ("config.json", None, "lacks"),
            ("config.json", b"{", "JSON"),
            ("config.json", b"[]", "config is damaged"),
            ("config.json", b"[" * 100_000, "nested too deeply"),
            ("model.weights.h5", None, "lacks"),
            ("model.weights.h5", b"x", "no HDF5 file"),
            ("../outside", b"x", "parts that it should not have"),
            ("assets/../../outside", b"x", "parts that it should not have"),
            ("assets/a\\..\\b", b"x", "parts that it should not have"),
            ("payload.pkl", b"x", "parts that it should not have"),
        ],
    )
    def test_members(self, path, name, data, message):
        self.rewrite(path, **{name: data})
        with pytest.raises(ValueError, match=message):
            load_model(path)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ('"class_name": "Dense"', '"class_name": "Popen"', "not known"),
            ('"module": "keras.layers", "class_name": "Dense"', '"module": "os", "class_name": "system"', "not known"),
            ('"units": 5', '"units": 5000000000', "more numbers than"),
            ('"units": 5', '"units": 50', "incompatible"),
            ('"units": 3', '"units": 4', "does not fit"),
            ('"units": 5', '"units": null', "config cannot be used"),
            ('"activation": "relu"', '"activation": {"class_name": "__lambda__", "config": {"value": ""}}', "lambda"),
            ('"relu"', '{"module": "builtins", "class_name": "function", "config": "eval"}', "not known"),
        ],
    )
    def test_configs(self, path, old, new, message):
        with zipfile.ZipFile(path) as archive:
            config = archive.read("config.json").decode()
        assert old in config
        self.rewrite(path, **{"config.json": config.replace(old, new)})
        with pytest.raises(ValueError, match=message):
            load_model(path)

    @pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
    def test_flipped_bits(self, path, place):
        content = bytearray(path.read_bytes())
        content[int(len(content) * place)] ^= 16
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"m\.keras"):
            load_model(path)
