"""The first value that is no finite number: `compile(check_nan=True)` and `TerminateOnNaN` say where it comes from."""

from __future__ import annotations

import json
import math
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from torchfunc import Input, Model, callbacks, layers, optimizers
from torchfunc.models import clone_model, load_model

ROWS = np.linspace(0.1, 1, 32, dtype="float32").reshape(8, 4)
TARGETS = np.ones((8, 1), "float32")


def drawn(middle=None, **compiled):
    inputs = Input((4,), name="features")
    x = layers.BatchNormalization(name="norm")(layers.Dense(3, name="hidden")(inputs))
    x = x if middle is None else middle(x)
    model = Model(inputs, layers.Dense(1, name="price")(x))
    model.compile(**{"optimizer": optimizers.Adam(0.01), "loss": "mse", "check_nan": True, **compiled})
    return model


def with_odd(array, place, value):
    array = array.copy()
    array[place] = value
    return array


def fit(model, x=ROWS, y=TARGETS, **options):
    return model.fit(x, y, batch_size=2, shuffle=False, verbose=0, **options)


DATA = {
    "an input": ({"x": with_odd(ROWS, (5, 2), np.nan)}, r"loss is nan. Input 'features' holds nan at \[1, 2\]\."),
    "a target": ({"y": with_odd(TARGETS, (4, 0), np.inf)}, r"loss is inf. y holds inf at \[0, 0\]\."),
    "a weight of a sample": (
        {"sample_weight": with_odd(np.ones(8), 5, np.nan)},
        r"loss is nan. sample_weight holds nan at \[1\]\.",
    ),
}


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", DATA)
def test_data(name, steps):
    data, message = DATA[name]
    model = drawn(steps_per_execution=steps)
    with pytest.raises(ValueError, match=message) as caught:
        fit(model, **data)
    assert f"This was in batch {2 if steps == 1 else 0} of the training" in caught.value.__notes__[0]
    # The two steps before it were made, and nothing of the third.
    expected = drawn(check_nan=False)
    expected.set_weights(drawn().get_weights())
    assert int(model.optimizer.iterations) == 2
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert math.isfinite(fit(model).history["loss"][0])


def test_a_step_that_is_undone_leaves_no_trace():
    torch.manual_seed(0)
    checked, other = drawn(), drawn(check_nan=False)
    other.set_weights(checked.get_weights())
    with pytest.raises(ValueError, match="holds nan"):
        fit(checked, x=with_odd(ROWS, (5, 2), np.nan))
    fit(other, ROWS[:4], TARGETS[:4])
    for one, two in zip(
        [*checked.weights, *checked.optimizer.variables], [*other.weights, *other.optimizer.variables], strict=True
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_runs_without_nan_are_the_same():
    torch.manual_seed(0)
    checked, other = drawn(), drawn(check_nan=False)
    other.set_weights(checked.get_weights())
    assert fit(checked, epochs=2).history == fit(other, epochs=2).history
    assert checked.evaluate(ROWS, TARGETS, verbose=0) == other.evaluate(ROWS, TARGETS, verbose=0)


def test_a_call_that_makes_them_of_numbers():
    model = drawn(lambda x: torch.log(x * 0.0 - 1.0))
    message = r"loss is nan. No value of the batch's data is to blame: 'log' \(a call, drawn at test_first_nan.py:.*\) "
    with pytest.raises(
        ValueError, match=message + r"makes nan at \[0, 0\], .* and 3 more, from values between -1 and -1"
    ):
        fit(model)
    with pytest.raises(ValueError, match=r"'log' \(a call"):
        model.evaluate(ROWS, TARGETS, verbose=0)
    with pytest.raises(ValueError, match=r"'log' \(a call"):
        model.train_on_batch(ROWS, TARGETS)


def test_a_layer_of_a_model_that_is_not_drawn():
    class Root(nn.Module):
        def forward(self, x):
            return torch.sqrt(x - 10.0)

    class Net(Model):
        def __init__(self):
            super().__init__(name="net")
            self.first, self.last = nn.Sequential(nn.Linear(4, 3), Root()), nn.Linear(3, 1)

        def call(self, x):
            return self.last(self.first(x))

    model = Net()
    model.compile("sgd", "mse", check_nan=True)
    with pytest.raises(ValueError, match=r"to blame: Root 'first.1' makes nan at \[0, 0\].* from values between -?\d"):
        fit(model)


def test_a_loss():
    model = drawn(loss=lambda y, p: torch.log(p[:, 0] * 0.0) * y[:, 0])
    with pytest.raises(ValueError, match=r"computes is finite, but the loss of the output 'price' \(.*\) is -inf"):
        fit(model)


def test_a_gradient():
    # The square root's gradient at 0 is infinite, times 0: NaN.
    model = drawn(lambda x: torch.sqrt(x * 0.0))
    with pytest.raises(ValueError, match=r"An update makes weights .* a gradient.*clipnorm.* is as it was before"):
        fit(model)
    assert all(torch.isfinite(value).all() for value in model.parameters())


def test_the_setting_is_kept_but_in_keras_files(tmp_path):
    model = drawn(optimizer="sgd")
    assert model.get_compile_config()["check_nan"] is True
    assert "check_nan" not in drawn(check_nan=False).get_compile_config()
    model.save(tmp_path / "model.torchfunc")
    for again in (load_model(tmp_path / "model.torchfunc"), clone_model(model)):
        assert again.get_compile_config()["check_nan"] is True
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert "check_nan" not in json.loads(archive.read("config.json"))["compile_config"]
    assert "check_nan" not in load_model(tmp_path / "model.keras").get_compile_config()
    with pytest.raises(ValueError, match="`check_nan` is True or False, got 'yes'"):
        drawn(check_nan="yes")


def test_terminate_on_nan_says_where_it_comes_from(capsys):
    model = drawn(check_nan=False)
    fit(model, x=with_odd(ROWS, (5, 2), np.nan), callbacks=[callbacks.TerminateOnNaN()])
    assert (
        "Batch 2: Invalid loss, terminating training. Input 'features' holds nan at [1, 2]" in capsys.readouterr().out
    )
    model = drawn(check_nan=False)
    with pytest.raises(RuntimeError, match=r"encountered at batch 2. .*immediately. y holds inf at \[0, 0\]\.$"):
        fit(model, y=with_odd(TARGETS, (4, 0), np.inf), callbacks=[callbacks.TerminateOnNaN(raise_error=True)])
    model = drawn(lambda x: torch.log(x * 0.0 - 1.0), check_nan=False)
    fit(model, callbacks=[callbacks.TerminateOnNaN()])
    assert "weight 'hidden.weight' holds nan at [0, 0]" in (out := capsys.readouterr().out)
    assert "`compile(check_nan=True)` stops before" in out
