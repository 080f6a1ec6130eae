"""Activations, initializers, regularizers and constraints: every name that Keras knows stands for the same here."""

import inspect

import keras
import pytest
from keras.src import activations as keras_activations
from keras.src import constraints as keras_constraints
from keras.src import initializers as keras_initializers
from keras.src import regularizers as keras_regularizers

from torchfunc import activations, constraints, initializers, regularizers

FAMILIES = {
    "activations": (activations, keras_activations.ALL_OBJECTS_DICT),
    "constraints": (constraints, keras_constraints.ALL_OBJECTS_DICT),
    "initializers": (initializers, keras_initializers.ALL_OBJECTS_DICT),
    "regularizers": (regularizers, keras_regularizers.ALL_OBJECTS_DICT),
}
# Keras also lists the base classes. Its tables are made of sets; sorted, they are the same in every process.
BASES = ("constraint", "initializer", "regularizer")
NAMES = [
    (family, name) for family, (_, known) in FAMILIES.items() for name in sorted(known) if name.lower() not in BASES
]


def test_there_are_thirty_activations():
    assert len({activations.get(name) for family, name in NAMES if family == "activations"}) == 30


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_every_name_is_known(family, name):
    ours, known = FAMILIES[family]
    found = ours.get(name)
    kind = found if family == "activations" else type(found)
    assert kind.__name__ == getattr(known[name], "__name__", name)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_that_keras_exports_is_exported(family):
    theirs = {name for name in dir(getattr(keras, family)) if not name.startswith("_")}
    assert theirs <= set(dir(FAMILIES[family][0]))


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_arguments_are_those_of_keras(family, name):
    """Names, order and defaults."""
    ours, known = FAMILIES[family]
    found, reference = ours.get(name), known[name]
    mine = _arguments(found if family == "activations" else type(found))
    theirs = _arguments(reference)
    assert list(mine.items()) == list(theirs.items())


def _arguments(function):
    found = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {each.name: each.default for each in found if each.kind not in kinds}
