"""`.weights.h5`: Keras' files fill our models and ours fill Keras', by path; what does not fit changes nothing."""

import keras
import numpy as np
import pytest
import torch
from keras_models import COMPOSED, data_for, randomize

import torchfunc
from torchfunc import Input, Layer, Model, layers

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

LIBRARIES = {"keras": keras, "ours": torchfunc}


def leaves(outputs):
    if isinstance(outputs, dict):
        outputs = [outputs[name] for name in sorted(outputs)]
    return outputs if isinstance(outputs, list) else [outputs]


def assert_same_predictions(one, other, data):
    found, expected = leaves(one.predict(data, verbose=0)), leaves(other.predict(data, verbose=0))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("writer", LIBRARIES)
@pytest.mark.parametrize("name", COMPOSED)
def test_either_library_reads_what_the_other_wrote(name, writer, tmp_path):
    (reader,) = set(LIBRARIES) - {writer}
    written, filled = COMPOSED[name](LIBRARIES[writer]), COMPOSED[name](LIBRARIES[reader])
    randomize(written)
    written.save_weights(tmp_path / "m.weights.h5")
    filled.load_weights(tmp_path / "m.weights.h5")
    assert_same_predictions(filled, written, data_for(written))


def dense(features=3, units=2):
    x = Input((features,))
    return Model(x, layers.Dense(units, name="head")(layers.Dense(4)(x)))


class TestWhatDoesNotFit:
    @pytest.fixture
    def path(self, tmp_path):
        dense().save_weights(tmp_path / "m.weights.h5")
        return tmp_path / "m.weights.h5"

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (lambda: dense(units=3), r"1 places: layers/dense_1: weight is \(4, 3\), in the file \(4, 2\), bias is"),
            (lambda: dense(features=2), r"layers/dense: weight is \(2, 4\), in the file \(3, 4\)\. skip_mismatch"),
            (lambda: Model(dense().inputs, dense().layers[1](dense().inputs[0])), None),
        ],
    )
    def test_nothing_is_changed(self, path, other, message):
        if message is None:
            x = Input((3,))
            model, message = Model(x, layers.Dense(4)(x)), "layers/dense_1: only in the file"
        else:
            model = other()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            model.load_weights(path)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_the_rest_is_loaded_on_demand(self, path):
        model, whole = dense(units=3), dense()
        whole.load_weights(path)
        head = model.get_layer("head").get_weights()
        with pytest.warns(UserWarning, match="layers/dense_1: .* These are left as they are"):
            model.load_weights(path, skip_mismatch=True)
        np.testing.assert_array_equal(model.layers[1].get_weights()[0], whole.layers[1].get_weights()[0])
        np.testing.assert_array_equal(model.get_layer("head").get_weights()[0], head[0])

    @pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"PK\3\4" + b"x" * 200])
    def test_other_files(self, content, tmp_path):
        (tmp_path / "m.weights.h5").write_bytes(content)
        with pytest.raises(ValueError, match=r"m\.weights\.h5 .*HDF5"):
            dense().load_weights(tmp_path / "m.weights.h5")

    def test_changed_values_are_noticed(self, path):
        content = bytearray(path.read_bytes())
        value = dense()
        value.load_weights(path)
        first = value.layers[1].get_weights()[0].tobytes()
        place = bytes(content).index(first)
        content[place + 3] ^= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match="changed after it was written"):
            value.load_weights(path)


class Scaled(Layer):
    """A layer with a state of its own that is no weight."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = 1.0
        self.inner = layers.Dense(3)

    def call(self, inputs):
        return self.inner(inputs) * self.factor

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["factor"] = np.float32(self.factor)

    def load_own_variables(self, store):
        self.factor = float(store["factor"])


def scaled():
    x = Input((3,))
    return Model(x, layers.Dense(2)(Scaled(name="scaled")(x)))


def test_hooks_of_a_users_layer(tmp_path):
    model, twin = scaled(), scaled()
    model.get_layer("scaled").factor = 2.5
    model.save_weights(tmp_path / "m.weights.h5")
    twin.load_weights(tmp_path / "m.weights.h5")
    assert twin.get_layer("scaled").factor == 2.5
    x = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(model.predict(x, verbose=0), twin.predict(x, verbose=0))


def test_a_hook_that_fails_changes_nothing(tmp_path):
    x = Input((3,))
    inner = layers.Dense(3)
    dense_model = Model(x, layers.Dense(2)(inner(x)))
    dense_model.save_weights(tmp_path / "m.weights.h5")

    class Strict(layers.Dense):
        def load_own_variables(self, store):
            super().load_own_variables(store)
            raise KeyError("vocabulary")

    y = Input((3,))
    model = Model(y, Strict(2, name="strict")(layers.Dense(3)(y)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.save_weights(tmp_path / "m.weights.h5")
    for value in model.parameters():
        value.data += 1
    changed = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"load_own_variables\(\) of layers/strict \(Strict\) failed with KeyError"):
        model.load_weights(tmp_path / "m.weights.h5")
    assert all(torch.equal(value, changed[name]) for name, value in model.state_dict().items())
    assert not any(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def subclassed(lib):
    """Attributes of every kind that Keras looks at, and a property that comes before its layer."""

    class Block(lib.layers.Layer):
        def __init__(self):
            super().__init__()
            self.a, self.zz, self._p = lib.layers.Dense(2), lib.layers.Dense(3), lib.layers.Dense(4)
            self.parts = [lib.layers.Dense(1), [lib.layers.Dense(2)], {"q": lib.layers.Dense(2)}]
            self.stack = lib.Sequential([lib.layers.Dense(2)])
            self.scale = self.add_weight(shape=(2,), initializer="ones", name="scale")

        def call(self, x):
            x = self._p(self.zz(self.a(x)))
            return self.stack(self.parts[2]["q"](self.parts[1][0](self.parts[0](x)))) * self.scale

    class Net(lib.Model):
        def __init__(self):
            super().__init__()
            self._encoder = lib.layers.Dense(4)
            self.first, self.more = lib.layers.Dense(3), [lib.layers.Dense(3), Block()]
            self.zzz = lib.layers.Dense(2)

        @property
        def encoder(self):
            return self._encoder

        @property
        def broken(self):
            raise RuntimeError

        def call(self, x):
            x = self.first(self._encoder(x))
            for layer in self.more:
                x = layer(x)
            return self.zzz(x)

    return Net()


@pytest.mark.parametrize("writer", LIBRARIES)
def test_subclassed_models(writer, tmp_path):
    (reader,) = set(LIBRARIES) - {writer}
    x = np.random.default_rng(0).standard_normal((4, 5)).astype("float32")
    written, filled = subclassed(LIBRARIES[writer]), subclassed(LIBRARIES[reader])
    for model in (written, filled):
        model.predict(x, verbose=0)
    randomize(written)
    written.save_weights(tmp_path / "m.weights.h5")
    filled.load_weights(tmp_path / "m.weights.h5")
    assert_same_predictions(filled, written, x)


def test_modules_of_torch_have_a_place_too(tmp_path):
    def build():
        x = Input((3,))
        return Model(x, torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))(layers.Dense(3)(x)))

    model, twin = build(), build()
    model.save_weights(tmp_path / "m.weights.h5")
    twin.load_weights(tmp_path / "m.weights.h5")
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("writer", LIBRARIES)
def test_other_dtypes(dtype, writer, tmp_path):
    (reader,) = set(LIBRARIES) - {writer}

    def build(lib):
        return lib.Sequential([lib.Input((3,)), lib.layers.Dense(2, dtype=dtype)])

    written, filled = build(LIBRARIES[writer]), build(LIBRARIES[reader])
    written.save_weights(tmp_path / "m.weights.h5")
    filled.load_weights(tmp_path / "m.weights.h5")
    kernels = [
        model.layers[-1].kernel.value.detach()
        if model is (written if writer == "keras" else filled)
        else model.layers[-1].weight.detach().t()
        for model in (written, filled)
    ]
    assert torch.equal(*kernels)
    assert kernels[0].dtype == kernels[1].dtype == getattr(torch, dtype)
