"""Names that are not there are answered with what may be meant; errors of others keep all that is theirs."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest
import torch
from torch import nn

import torchfunc
from torchfunc import Input, Model, Sequential, callbacks, layers, ops, optimizers
from torchfunc.errors import add_note


def missing(action, name):
    with pytest.raises(AttributeError) as caught:
        action()
    message = str(caught.value)
    assert repr(name) in message
    # Python adds nothing of its own, which would say it twice.
    shown = "".join(traceback.format_exception_only(caught.value))
    assert shown.count("Did you mean") == message.count("Did you mean")
    return message.partition("Did you mean ")[2]


def functional():
    inputs = Input((4,))
    return Model(inputs, layers.Dense(2, name="hidden")(inputs))


class Subclassed(Model):
    def call(self, inputs):
        return inputs


OBJECTS = {
    "functional": (functional, "sumary", "summary"),
    "sequential": (lambda: Sequential([layers.Dense(2)]), "predcit", "predict"),
    "subclassed": (Subclassed, "evalaute", "evaluate"),
    "a layer in a model": (functional, "hiden", "hidden"),
    "layer": (lambda: layers.Dense(3), "unitz", "units"),
    "weight": (lambda: layers.Dense(3), "wieght_ih", None),
    "symbolic tensor": (lambda: Input((3,)), "shpae", "shape"),
    "optimizer": (lambda: optimizers.Adam(), "learing_rate", "learning_rate"),
    "wrapped optimizer": (lambda: optimizers.LossScaleOptimizer(optimizers.SGD()), "inner_optimiser", "inner"),
    "history": (lambda: callbacks.History(), "hsitory", "history"),
    "callback": (lambda: callbacks.EarlyStopping(), "pateince", "patience"),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_attributes(name):
    make, asked, meant = OBJECTS[name]
    subject = make()
    found = missing(lambda: getattr(subject, asked), asked)
    assert (meant is None) or f"'{meant}" in found
    assert not hasattr(subject, asked)
    assert getattr(subject, asked, None) is None


@pytest.mark.parametrize(
    ("module", "asked", "meant"),
    [
        (torchfunc, "Modle", "Model"),
        (layers, "Desne", "Dense"),
        (torchfunc.losses, "MeanSquareError", "MeanSquaredError"),
        (torchfunc.metrics, "Acuracy", "Accuracy"),
        (optimizers, "Adamm", "Adam"),
        (callbacks, "EarlyStoping", "EarlyStopping"),
        (torchfunc.utils, "to_categoricl", "to_categorical"),
        (ops, "sofmax", "softmax"),
    ],
)
def test_names_of_modules(module, asked, meant):
    assert f"'{meant}'" in missing(lambda: getattr(module, asked), asked)


def test_copies_and_pickles_are_as_ever():
    for subject in (optimizers.Adam(0.5), callbacks.EarlyStopping(patience=7), layers.Dense(3)):
        for again in (copy.deepcopy(subject), pickle.loads(pickle.dumps(subject))):
            assert type(again) is type(subject)
    with pytest.raises(AttributeError) as caught:
        _ = layers.Dense(3).unitz
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, AttributeError)
    assert str(again) == str(caught.value)


def test_what_a_property_raises_is_not_taken_for_a_missing_attribute():
    class Odd(layers.Layer):
        @property
        def size(self):
            raise AttributeError("no size yet")

    with pytest.raises(AttributeError, match=r"^no size yet$"):
        _ = Odd().size


@pytest.mark.parametrize("value", [lambda: nn.Parameter(torch.ones(2)), lambda: layers.Dense(2), lambda: 3])
def test_a_forgotten_super_init_is_told(value):
    class Forgetful(layers.Layer):
        def __init__(self):
            self.held = value()

        def call(self, inputs):
            return inputs

    with pytest.raises(AttributeError, match=r"Forgetful .*`super\(\).__init__\(\)` late or not at all"):
        Forgetful()(Input((2,)))


class Split(layers.Layer):
    def call(self, inputs):
        return {"left": inputs}["right"]


class Own(Exception):
    pass


class Raising(nn.Module):
    def forward(self, inputs):
        raise Own("mine")


@pytest.mark.parametrize(("module", "error"), [(Split(name="split"), KeyError), (Raising(), Own)])
def test_errors_of_a_users_code_keep_type_and_traceback(module, error):
    with pytest.raises(error) as caught:
        Model(x := Input((4,), name="x"), module(x))
    (note,) = caught.value.__notes__
    assert "\n" not in note
    assert note.startswith(type(module).__name__)
    assert "(None, 4)" in note
    assert "at test_suggestions.py" in note
    assert "Model(x :=" in note
    assert traceback.extract_tb(caught.value.__traceback__)[-1].filename == __file__


def test_a_part_that_does_not_fit_is_named():
    class Net(Model):
        def __init__(self):
            super().__init__(name="net")
            self.blocks = nn.Sequential(nn.Linear(4, 3), nn.Linear(5, 1))

        def call(self, inputs):
            return self.blocks(inputs)

    with pytest.raises(ValueError, match=r"'net' cannot be called on \(None, 4\).*failed in Linear 'blocks.1'.*3\)"):
        Net()(Input((4,)))


class Silent(BaseException):
    """As errors are in Python 3.10, where they take no notes."""

    add_note = None


def test_notes_where_python_knows_of_none():
    error = Silent("what")
    add_note(error, "where")
    assert str(error) == "what\nwhere"
    assert error.__notes__ == ["where"]
    other = Silent("a", 1)
    add_note(other, "where")
    assert other.args == ("a", 1)
