"""Looking into a model: activations, profiles, what notebooks show, tables and curves of the history."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from torchfunc import Input, Model, Sequential, callbacks, layers


@pytest.fixture(scope="module")
def image_model() -> Model:
    torch.manual_seed(0)
    inputs = Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = layers.Dropout(0.5)(layers.BatchNormalization(name="norm")(x))
    x = torch.tanh(layers.Flatten()(x))
    model = Model(inputs, layers.Dense(3, activation="softmax", name="out")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


IMAGES = np.random.default_rng(0).random((5, 8, 8, 3), dtype=np.float32)


def test_activations_are_those_of_models_that_end_there(image_model):
    found = image_model.activations(IMAGES)
    assert list(found) == ["conv", "norm", "dropout", "flatten", "tanh", "out"]
    assert not any(value.requires_grad for value in found.values())
    for name in ("conv", "norm", "out"):
        part = Model(image_model.input, image_model.get_layer(name).output)
        np.testing.assert_allclose(found[name], part.predict(IMAGES, verbose=0), rtol=1e-6)
    # In evaluation mode, which is not the model's own.
    assert image_model.training
    torch.testing.assert_close(found["tanh"], torch.tanh(found["norm"].flatten(1)))


def test_activations_by_name_in_the_order_given(image_model):
    assert list(image_model.activations(torch.from_numpy(IMAGES), ["out", "image", "conv"])) == ["out", "image", "conv"]
    with pytest.raises(ValueError, match=r"no layer called 'cnov'. Did you mean 'conv'\? Its layers are: image, conv"):
        image_model.activations(IMAGES, ["cnov"])


def test_activations_of_a_shared_layer_come_call_by_call():
    a, b = Input((2,), name="a"), Input((2,), name="b")
    shared = layers.Dense(2, name="shared")
    model = Model({"a": a, "b": b}, layers.Add()([shared(a), shared(b)]))
    x = {"a": torch.ones(1, 2), "b": torch.zeros(1, 2)}
    first, second = model.activations(x, ["shared"])["shared"]
    torch.testing.assert_close(first, shared(x["a"]).detach())
    torch.testing.assert_close(second, shared(x["b"]).detach())


class Subclassed(Model):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.drop = nn.Dropout(0.9)
        self.unused = layers.Dense(1)

    def call(self, x):
        return self.drop(self.first(x)), {"again": self.first(x)}


def test_activations_of_a_subclassed_model():
    model = Subclassed()
    x = torch.randn(2, 3)
    found = model.activations(x)
    assert list(found) == ["linear", "dropout"]
    torch.testing.assert_close(found["linear"][1], model.first(x).detach())
    torch.testing.assert_close(found["dropout"], model.first(x).detach())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_profile_counts_calls_and_what_they_keep(image_model):
    weights = {name: value.clone() for name, value in image_model.state_dict().items()}
    profile = image_model.profile(IMAGES, np.array([0, 1, 2, 0, 1]))
    rows = {cost.name: cost for cost in profile.layers}
    assert list(rows) == ["conv", "norm", "dropout", "flatten", "out", "(elsewhere)"]
    assert all(cost.calls == 1 for name, cost in rows.items() if name != "(elsewhere)")
    assert rows["conv"].forward > 0
    assert rows["conv"].backward > 0
    # What batch normalization returns is kept, and the output of its own input's layer is not its own.
    assert rows["norm"].forward_memory >= 5 * 6 * 6 * 4 * 4
    assert rows["out"].backward > 0
    text = str(profile)
    assert "conv (Conv2D)" in text
    assert text.splitlines()[-1].split()[0] == "total"
    assert "<table>" in profile._repr_html_()
    for name, value in image_model.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)
    assert all(weight.grad is None for weight in image_model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in image_model.modules())


def test_a_profile_of_a_shared_layer_without_targets():
    a = Input((4,))
    shared = nn.Linear(4, 4)
    profile = Model(a, shared(shared(a))).profile(torch.ones(3, 4))
    assert [(cost.name, cost.calls) for cost in profile.layers] == [("linear", 2), ("(elsewhere)", 0)]


def test_a_notebook_shows_models_and_symbolic_tensors(image_model):
    bundle = image_model._repr_mimebundle_()
    assert ">conv<" in bundle["image/svg+xml"]
    assert bundle["text/plain"] == repr(image_model)
    assert set(Sequential([layers.Dense(2)])._repr_mimebundle_()) == {"text/plain"}
    text = image_model.output._repr_mimebundle_()["text/plain"]
    assert text.startswith("<SymbolicTensor shape=(None, 3)")
    assert "made at test_inspection.py:" in text


def test_a_misspelt_attribute_suggests_the_nearest(image_model):
    with pytest.raises(AttributeError, match=r"no attribute 'shpae'.* Did you mean 'shape'\?"):
        image_model.output.shpae  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'unsqeeze'.* Did you mean 'unsqueeze'\?"):
        image_model.output.unsqeeze(1)


def test_the_history_is_a_frame():
    model = Sequential([Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32)
    history = model.fit(x, y, epochs=3, validation_data=(x, y), validation_freq=2, verbose=0)
    frame = history.to_frame()
    assert list(frame.columns) == ["loss", "val_loss"]
    assert list(frame.index) == [0, 1, 2]
    assert frame["loss"].tolist() == history.history["loss"]
    assert frame["val_loss"].isna().tolist() == [True, False, True]
    assert isinstance(frame, pd.DataFrame)


def test_live_curves_are_drawn_once_and_then_redrawn(monkeypatch):
    shown = []

    class Handle:
        def update(self, figure):
            shown.append(figure)

    def display(figure, display_id):
        shown.append(figure)
        return Handle()

    monkeypatch.setattr("torchfunc.callbacks.live_plot.in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    model = Sequential([Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32)
    history = model.fit(x, y, epochs=3, validation_split=0.5, verbose=0, callbacks=[callbacks.LivePlot("loss")])
    assert len(shown) == 3
    (axes,) = shown[-1].axes
    assert [line.get_label() for line in axes.lines] == ["training", "validation"]
    assert axes.lines[0].get_ydata().tolist() == history.history["loss"]


def test_live_curves_outside_of_a_notebook_warn():
    model = Sequential([Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="LivePlot draws in notebooks"):
        model.fit(np.ones((4, 2)), np.zeros((4, 1)), verbose=0, callbacks=[callbacks.LivePlot()])
