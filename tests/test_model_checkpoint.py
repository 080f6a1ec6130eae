"""Files of weights: what ModelCheckpoint writes in `fit`, `save_weights` and `load_weights`."""

import keras
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from torchfunc import callbacks, layers
from torchfunc.models import Model, load_model

X = np.random.default_rng(0).standard_normal((20, 3)).astype("float32")
Y = X.sum(1, keepdims=True)


def make(units=4):
    inputs = layers.Input((3,))
    x = layers.BatchNormalization()(layers.Dense(units)(inputs))
    model = Model(inputs, layers.Dense(1)(x))
    model.compile("sgd", "mse")
    return model


def same(left, right):
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


class TestModelCheckpoint:
    def test_every_epoch(self, tmp_path):
        model = make()
        path = tmp_path / "new folder" / "{epoch:02d}-{val_loss:.3f}.safetensors"
        checkpoint = callbacks.ModelCheckpoint(path, save_weights_only=True)
        history = model.fit(X, Y, epochs=2, validation_split=0.2, verbose=0, callbacks=checkpoint)
        names = [f"{epoch:02d}-{loss:.3f}.safetensors" for epoch, loss in enumerate(history.history["val_loss"], 1)]
        assert sorted(file.name for file in path.parent.iterdir()) == names
        assert same(dict(sorted(load_file(path.parent / names[1]).items())), dict(sorted(model.state_dict().items())))

    @pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
    def test_weights_as_keras_reads_them(self, tmp_path):
        model, path = make(), tmp_path / "best.weights.h5"
        model.fit(X, Y, verbose=0, callbacks=callbacks.ModelCheckpoint(path, save_weights_only=True))
        parts = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
        twin = keras.Sequential([keras.Input((3,)), *parts])
        drawn = keras.Model(twin.inputs, twin.outputs)
        drawn.load_weights(path)
        np.testing.assert_allclose(drawn.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5, atol=1e-6)

    def test_every_so_many_batches(self, tmp_path):
        checkpoint = callbacks.ModelCheckpoint(
            tmp_path / "{epoch}-{batch}.safetensors", save_weights_only=True, save_freq=3
        )
        make().fit(X, Y, batch_size=5, epochs=2, verbose=0, callbacks=checkpoint)
        assert sorted(file.stem for file in tmp_path.iterdir()) == ["1-3", "2-2"]

    @pytest.mark.parametrize(
        ("arguments", "part"),
        [
            ({"filepath": "model.pt"}, "ends in .*'.torchfunc', got 'model.pt'"),
            (
                {"filepath": "w.pt", "save_weights_only": True},
                r"'\.weights\.h5' .* or '\.safetensors' .*'w\.pt'",
            ),
            ({"filepath": "w.safetensors", "save_weights_only": True, "save_freq": "batch"}, "'batch'"),
            ({"filepath": "w.safetensors", "save_weights_only": True, "save_freq": 0}, "got 0"),
        ],
    )
    def test_mistakes_are_found_before_training(self, arguments, part):
        model = make()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(ValueError, match=part):
            model.fit(X, Y, verbose=0, callbacks=callbacks.ModelCheckpoint(**arguments))
        assert same(model.state_dict(), before)

    def test_a_name_that_is_not_logged(self, tmp_path):
        checkpoint = callbacks.ModelCheckpoint(f"{tmp_path}/{{val_mae}}.safetensors", save_weights_only=True)
        with pytest.raises(ValueError, match="asks for 'val_mae'; there are 'epoch', 'loss'"):
            make().fit(X, Y, verbose=0, callbacks=checkpoint)

    def test_a_folder_in_the_way(self, tmp_path):
        path = tmp_path / "w.safetensors"
        path.mkdir()
        with pytest.raises(IsADirectoryError, match="non-directory filepath"):
            make().fit(X, Y, verbose=0, callbacks=callbacks.ModelCheckpoint(path, save_weights_only=True))

    def test_whole_models(self, tmp_path):
        model, path = make(), tmp_path / "{epoch}.torchfunc"
        model.fit(X, Y, epochs=2, verbose=0, callbacks=callbacks.ModelCheckpoint(path))
        again = load_model(tmp_path / "2.torchfunc")
        assert same(model.state_dict(), again.state_dict())
        assert again.compiled

    def test_a_model_that_cannot_be_saved_is_not_trained(self, tmp_path):
        model = make()
        model.compile("sgd", lambda y_true, y_pred: (y_true - y_pred).square().mean())
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(ValueError, match="lambda cannot be written"):
            model.fit(X, Y, verbose=0, callbacks=callbacks.ModelCheckpoint(tmp_path / "model.torchfunc"))
        assert same(model.state_dict(), before)

    @pytest.mark.parametrize("ending", [".torchfunc", ".keras"])
    def test_training_goes_on_from_a_whole_model(self, tmp_path, ending):
        """As in the guides: the last checkpoint is loaded and fitted on, and ends as one long training does."""

        def fit(model, first, last, *watching):
            return model.fit(
                X, Y, batch_size=5, shuffle=False, epochs=last, initial_epoch=first, verbose=0, callbacks=list(watching)
            ).history

        torch.manual_seed(0)
        model = make()
        model.compile("adam", "mse", metrics=["mae"])
        path = tmp_path / f"model{ending}"
        fit(model, 0, 2, callbacks.ModelCheckpoint(path))
        again = load_model(path)
        assert fit(again, 2, 4) == fit(model, 2, 4)
        assert same(again.state_dict(), model.state_dict())


class TestWeights:
    def test_there_and_back(self, tmp_path):
        model, other = make(), make()
        path = tmp_path / "w.safetensors"
        model.fit(X, Y, verbose=0)
        model.save_weights(path)
        other.load_weights(str(path))
        assert same(model.state_dict(), other.state_dict())
        with pytest.raises(FileExistsError, match="overwrite=False"):
            model.save_weights(path, overwrite=False)

    def test_shared_weights(self, tmp_path):
        model = make()
        model.get_layer("dense").bias.data = model.get_layer("dense").weight.data[:, 0]  # a view
        model.save_weights(tmp_path / "w.safetensors")
        assert torch.equal(load_file(tmp_path / "w.safetensors")["dense.bias"], model.get_layer("dense").bias)

    def test_another_model(self, tmp_path):
        path = tmp_path / "w.safetensors"
        make().save_weights(path)
        model = make(units=5)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(
            ValueError,
            match=r"does not fit this model in 7 of 8 weights: dense\.weight \(\(5, 3\), in the file \(4, 3\)\)",
        ):
            model.load_weights(path)
        assert same(model.state_dict(), before)
        model.load_weights(path, skip_mismatch=True)
        assert torch.equal(model.get_layer("dense_1").bias, load_file(path)["dense_1.bias"])
        assert torch.equal(model.get_layer("dense").bias, before["dense.bias"])

    def test_what_is_no_such_file(self, tmp_path):
        path = tmp_path / "w.safetensors"
        path.write_bytes(b"not at all")
        with pytest.raises(ValueError, match="damaged"):
            make().load_weights(path)
        with pytest.raises(FileNotFoundError):
            make().load_weights(tmp_path / "other.safetensors")

    def test_a_model_without_weights(self, tmp_path):
        class Later(Model):
            def __init__(self):
                super().__init__()
                self.dense = layers.Dense(1)

            def call(self, inputs):
                return self.dense(inputs)

        with pytest.raises(ValueError, match="no weights to save yet"):
            Later().save_weights(tmp_path / "w.safetensors")
        with pytest.raises(ValueError, match="no weights to fill yet"):
            Later().load_weights(tmp_path / "w.safetensors")


class Renaming(nn.Module):
    """Keeps its weight in another form in the state_dict, as quantised modules do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3))
        self.register_state_dict_post_hook(self._halve)
        self.register_load_state_dict_pre_hook(self._double)

    @staticmethod
    def _halve(module, state, prefix, metadata):
        state[f"{prefix}weight"] = state[f"{prefix}weight"] / 2

    @staticmethod
    def _double(module, state, prefix, *others):
        if f"{prefix}weight" in state:
            state[f"{prefix}weight"] = state[f"{prefix}weight"] * 2

    def forward(self, x):
        return x @ self.weight


def test_modules_whose_state_is_made_by_hooks(tmp_path):
    def made():
        inputs = layers.Input((3,))
        return Model(inputs, layers.Dense(1)(Renaming()(inputs)))

    model, other, path = made(), made(), tmp_path / "w.safetensors"
    nn.init.normal_(model.layers[1].weight)
    model.save_weights(path)
    other.load_weights(path)
    assert torch.equal(other.layers[1].weight, model.layers[1].weight)
    with pytest.raises(ValueError, match=r"'renaming\.weight' is made by a hook"):
        model.save(tmp_path / "model.torchfunc")
