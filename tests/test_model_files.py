"""Whole models in files: `model.save` and `load_model`."""

import functools
import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import torch
import whole_models
from safetensors.torch import load_file
from torch import nn
from torch.utils._pytree import tree_leaves
from whole_models import MODELS, Point, X, Y

from torchfunc import layers, optimizers, saving, utils
from torchfunc.models import Model, Sequential, load_model, model_from_json

OPTIMIZERS = {
    "averages": lambda: optimizers.Adam(0.01, use_ema=True),
    "schedule": lambda: optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 3, 0.9), momentum=0.9),
    "partial": lambda: functools.partial(torch.optim.AdamW, lr=0.01, amsgrad=True),
    "scaled": lambda: optimizers.LossScaleOptimizer(optimizers.RMSprop(0.01, centered=True)),
    "accumulated": lambda: optimizers.Adafactor(0.01, gradient_accumulation_steps=2),
}


def make(optimizer="adam"):
    utils.set_random_seed(0)
    model, x, y = MODELS["simple"]()
    model.compile(optimizer, "mse", metrics=["mae"])
    model.fit(x, y, verbose=0)
    return model


def train_on(model, x, y):
    utils.set_random_seed(5)
    return model.fit(x, y, verbose=0, epochs=2, batch_size=8).history


def assert_same(model, again, x):
    ours, theirs = model.predict(x, verbose=0), again.predict(x, verbose=0)
    assert type(ours) is type(theirs)
    for value, other in zip(tree_leaves(ours), tree_leaves(theirs), strict=True):
        np.testing.assert_array_equal(value, other)
    assert list(model.state_dict()) == list(again.state_dict())
    for (name, value), other in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_trains_on_bit_for_bit(kind, tmp_path):
    utils.set_random_seed(0)
    model, x, y = MODELS[kind]()
    path = tmp_path / "model.torchfunc"
    if y is not None:
        model.compile(OPTIMIZERS["averages"](), "mse")
        train_on(model, x, y)
    model.save(path)
    again = load_model(path, custom_objects={"Point": Point})
    assert type(again) is type(model)
    assert_same(model, again, x)
    assert [weight.requires_grad for weight in model.parameters()] == [w.requires_grad for w in again.parameters()]
    if y is not None:
        assert train_on(again, x, y) == train_on(model, x, y)
        assert_same(model, again, x)
    again.save(path)
    assert_same(model, load_model(path, custom_objects={"Point": Point}), x)


@pytest.mark.parametrize("kind", ["simple", "torch_modules"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_kind_of_optimizer_goes_on_bit_for_bit(kind, optimizer, tmp_path):
    utils.set_random_seed(0)
    model, x, y = MODELS[kind]()
    model.compile(OPTIMIZERS[optimizer](), "mse", metrics=["mae"])
    train_on(model, x, y)
    model.save(tmp_path / "model.torchfunc")
    again = load_model(tmp_path / "model.torchfunc")
    assert train_on(again, x, y) == train_on(model, x, y)
    assert_same(model, again, x)


def test_an_optimizer_of_torch_with_groups_of_weights(tmp_path):
    def fitted():
        utils.set_random_seed(0)
        model, x, y = MODELS["simple"]()
        first, *others = model.parameters()
        groups = [{"params": [first], "lr": 0.5}, {"params": others, "weight_decay": 0.1}]
        model.compile(torch.optim.SGD(groups, lr=0.01, momentum=0.9), "mse")
        train_on(model, x, y)
        return model

    model = fitted()
    model.save(tmp_path / "model.torchfunc")
    again = load_model(tmp_path / "model.torchfunc")
    assert train_on(again, X, Y) == train_on(model, X, Y)
    assert_same(model, again, X)


def test_weights_frozen_after_training(tmp_path):
    """The optimizer still holds their state."""
    model = make()
    model.layers[1].trainable = False
    model.save(tmp_path / "model.torchfunc")
    again = load_model(tmp_path / "model.torchfunc")
    assert not again.layers[1].trainable
    assert train_on(again, X, Y) == train_on(model, X, Y)


def test_what_compile_was_given(tmp_path):
    x = layers.Input((8,))
    model = Model(x, {"a": layers.Dense(3)(x), "b": layers.Dense(1)(x)})
    loss = {"a": nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0])), "b": "huber"}
    model.compile(
        optimizers.Lion(1e-3),
        loss,
        loss_weights={"a": 2.0, "b": 0.5},
        metrics={"a": ["accuracy"], "b": ["mae", whole_models.double_error]},
        weighted_metrics={"b": [whole_models.double_error]},
        steps_per_execution=3,
        precision="bf16-mixed",
    )
    data = X, {"a": np.arange(len(X)) % 3, "b": Y}
    model.fit(*data, verbose=0)
    model.save(tmp_path / "model.torchfunc")
    again = load_model(tmp_path / "model.torchfunc")
    assert again.get_compile_config() == model.get_compile_config()
    assert again.evaluate(*data, verbose=0, return_dict=True) == model.evaluate(*data, verbose=0, return_dict=True)


def test_without_the_optimizer(tmp_path):
    model, path = make(), tmp_path / "model.torchfunc"
    model.save(path, include_optimizer=False)
    assert not load_model(path).compiled
    model.save(path)
    assert load_model(path).compiled
    assert not load_model(path, compile=False).compiled


def test_a_model_that_is_not_built(tmp_path):
    Sequential([layers.Dense(4), layers.Dense(1)]).save(tmp_path / "model.torchfunc")
    again = load_model(tmp_path / "model.torchfunc")
    assert not again.built
    assert again.predict(X, verbose=0).shape == (len(X), 1)


def test_other_precisions_stay(tmp_path):
    model = make().to(torch.bfloat16)
    model.save(tmp_path / "model.torchfunc", include_optimizer=False)
    again = load_model(tmp_path / "model.torchfunc")
    assert all(torch.equal(*pair) for pair in zip(model.weights, again.weights, strict=True))
    assert {weight.dtype for weight in again.weights} == {torch.bfloat16}


def test_the_file_is_a_zip_of_json_and_safetensors(tmp_path):
    path = tmp_path / "model.torchfunc"
    model = make()
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        config = json.loads(archive.read("config.json"))
        archive.extract("model.safetensors", tmp_path)
    assert names == ["metadata.json", "config.json", "model.safetensors", "training.safetensors"]
    assert config["class_name"] == "Functional"
    assert config["compile_config"]["optimizer"]["class_name"] == "Adam"
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_the_end_of_the_name_says_the_format(tmp_path):
    with pytest.raises(ValueError, match=r"ends in .*'\.torchfunc'.*, got 'model\.pt'"):
        make().save("model.pt")
    with pytest.raises(ValueError, match=r"ends in .*'\.torchfunc'.*, got 'model\.pt'"):
        load_model("model.pt")
    with pytest.raises(FileNotFoundError, match=r"no file 'gone\.torchfunc'"):
        saving.load_model("gone.torchfunc")


def test_a_file_is_not_overwritten(tmp_path):
    path = tmp_path / "model.torchfunc"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=False"):
        make().save(path, overwrite=False)
    assert path.read_text() == "mine"


def test_permissions_stay(tmp_path):
    path, model = tmp_path / "model.torchfunc", make()
    model.save(path)
    os.chmod(path, 0o640)
    model.save(path)
    assert os.stat(path).st_mode & 0o777 == 0o640


def test_saving_and_loading_draw_no_random_numbers(tmp_path):
    model = make()
    state = torch.get_rng_state()
    model.save(tmp_path / "model.torchfunc")
    load_model(tmp_path / "model.torchfunc")
    assert torch.equal(torch.get_rng_state(), state)


class Unregistered(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(8, width)

    def forward(self, x):
        return self.linear(x)


class Stateful(nn.Linear):
    def get_config(self):
        return {"in_features": 8, "out_features": 1}

    def get_extra_state(self):
        return {"anything": 1}

    def set_extra_state(self, state):
        pass


@pytest.mark.parametrize(
    ("parts", "compiled", "message"),
    [
        (lambda x: Unregistered(3)(x), {}, "Unregistered cannot be written"),
        (lambda x: layers.Lambda(lambda y: y)(x), {}, "lambda cannot be written"),
        (lambda x: Stateful(8, 1)(x), {}, "_extra_state.*dict, which cannot be written"),
        (lambda x: layers.Dense(1)(x), {"loss": lambda a, b: a - b}, "lambda cannot be written"),
        (lambda x: layers.Dense(1)(x), {"optimizer": lambda weights: torch.optim.SGD(weights)}, None),
        (lambda x: layers.Dense(1)(x), {"optimizer": type("Own", (torch.optim.SGD,), {})}, "Own is not in torch.optim"),
    ],
)
def test_what_cannot_be_saved_is_named_before_anything_is_written(parts, compiled, message, tmp_path):
    x = layers.Input((8,))
    model = Model(x, parts(x))
    if compiled:
        model.compile(**{"optimizer": "sgd", "loss": "mse", **compiled})
    path = tmp_path / "model.torchfunc"
    path.write_text("before")
    if message is None:
        model.save(path)
        assert load_model(path).compiled
        return
    with pytest.raises(ValueError, match=message):
        model.save(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_class_of_the_file_that_is_not_known(tmp_path):
    x = layers.Input((8,))
    Model(x, Stranger()(x)).save(tmp_path / "model.torchfunc")
    with pytest.raises(ValueError, match=r"names 'Stranger'.*custom_objects"):
        load_model(tmp_path / "model.torchfunc")
    again = load_model(tmp_path / "model.torchfunc", custom_objects={"Stranger": Stranger})
    assert isinstance(again.layers[1], Stranger)


class Stranger(layers.Layer):
    def call(self, x):
        return x + 1


def test_there_and_back_through_json():
    model = make()
    again = model_from_json(model.to_json(indent=2))
    assert again.get_config() == model.get_config()
    assert again.get_compile_config() == model.get_compile_config()
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras' own, with new versions of NumPy
def test_json_of_keras_and_for_keras():
    inputs = keras.Input((8,))
    theirs = keras.Model(inputs, keras.layers.Dense(1, activation="tanh")(keras.layers.Dense(4)(inputs)))
    theirs.compile("adam", "mse")
    ours = model_from_json(theirs.to_json())
    assert ours.compiled
    ours.set_weights(theirs.get_weights())
    back = keras.models.model_from_json(ours.to_json())
    back.set_weights(ours.get_weights())
    expected = theirs.predict(X, verbose=0)
    np.testing.assert_allclose(ours.predict(X, verbose=0), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(back.predict(X, verbose=0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", ["[1]", "{", '"a"', '{"class_name": "Dense9", "config": {}}', "[" * 10_000])
def test_json_of_something_else(text):
    with pytest.raises(ValueError, match=r"JSON|config"):
        model_from_json(text)


def test_a_metric_that_has_no_config(tmp_path):
    torchmetrics = pytest.importorskip("torchmetrics")
    model = make()
    model.compile("sgd", "mse", metrics=[torchmetrics.MeanSquaredError()])
    with pytest.raises(ValueError, match=r"metric 'mean_squared_error'.*cannot be written"):
        model.save(tmp_path / "model.torchfunc")
    model.save(tmp_path / "model.torchfunc", include_optimizer=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a card")
def test_a_device_that_is_not_there(tmp_path):
    make().save(tmp_path / "model.torchfunc")
    with pytest.raises(ValueError, match="device 'cuda' cannot be used"):
        load_model(tmp_path / "model.torchfunc", device="cuda")


@pytest.mark.parametrize("value", [b"", b"hello", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_such_file(tmp_path, value):
    path = tmp_path / "model.torchfunc"
    path.write_bytes(value)
    with pytest.raises(ValueError, match=r"model\.torchfunc is no \.torchfunc file of a model, or it is damaged"):
        load_model(path)


def test_in_threads(tmp_path):
    """Saved and loaded at once from many threads: always one whole model or another."""
    models, path = [make(), make()], tmp_path / "model.torchfunc"
    for value, model in enumerate(models):
        nn.init.constant_(model.layers[1].weight, value)
    models[0].save(path)

    def work(number):
        if number % 2:
            models[number // 2 % 2].save(path)
            return None
        return load_model(path).layers[1].weight.unique().tolist()

    with ThreadPoolExecutor(8) as pool:
        found = [values for values in pool.map(work, range(60)) if values is not None]
    assert all(values in ([0.0], [1.0]) for values in found)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow  # 1,500 layers are drawn twice.
def test_long_chains(tmp_path):
    x = outputs = layers.Input((2,))
    for _ in range(1500):
        outputs = layers.Dense(2)(outputs)
    model = Model(x, outputs)
    model.save(tmp_path / "model.torchfunc")
    again = load_model(tmp_path / "model.torchfunc")
    assert len(again.layers) == 1501
    assert torch.equal(again.layers[-1].weight, model.layers[-1].weight)


def test_more_weights_than_the_file_holds(tmp_path):
    """A config that asks for terabytes is refused before anything is allocated."""
    path = tmp_path / "model.torchfunc"
    for layer in (layers.Dense(4), nn.Linear(8, 4)):
        x = layers.Input((8,))
        Model(x, layer(x)).save(path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        for key in (b'"units": 4', b'"out_features": 4'):
            members["config.json"] = members["config.json"].replace(key, key[:-1] + b"400000000000")
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        with pytest.raises(ValueError, match=r"asks for weights of more numbers than the .* in the file"):
            load_model(path)
