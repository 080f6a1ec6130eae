"""Every public name of Keras is here, or said to be absent with what to write instead; the page of it is current."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import torchfunc
from torchfunc.absent import ABSENT, ABSENT_NAMESPACES, instead_of

SCRIPT = Path(__file__).parents[1] / "scripts" / "keras_names.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("keras_names", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


names = load()
KERAS = {namespace: names.names_in(module) for namespace, module in names.namespaces()}
ALL = [(namespace, name) for namespace, found in KERAS.items() for name in found]


def test_each_name_is_here_or_absent_and_never_both() -> None:
    assert len(ALL) > 1400
    for namespace, name in ALL:
        said_to_be_absent = instead_of(namespace, name) is not None
        assert names.is_here(namespace, name) != said_to_be_absent, f"{namespace}.{name}"


def test_nothing_is_said_of_what_keras_has_not() -> None:
    for namespace, told in ABSENT.items():
        said = [name for group in told for name in group.split()]
        assert len(said) == len(set(said))
        assert set(said) <= set(KERAS[namespace]), namespace
    assert set(ABSENT_NAMESPACES) <= set(KERAS)


def test_each_says_who_has_it_or_why_nobody() -> None:
    texts = [text for told in ABSENT.values() for text in told.values()] + list(ABSENT_NAMESPACES.values())
    for text in texts:
        assert re.match(r"left to [\w' -]+: .*|not planned: .+", text), text
        assert "{" not in re.sub(r"`[^`]*`", "", text), text


def test_the_page_is_current() -> None:
    """Else run scripts/keras_names.py."""
    assert names.PAGE.read_text(encoding="utf-8") == names.page()


def test_asking_for_an_absent_name_tells_what_to_write() -> None:
    with pytest.raises(AttributeError, match=r"^torchfunc\.layers has no 'StringLookup': left to scikit-learn: `O"):
        torchfunc.layers.StringLookup  # noqa: B018
    with pytest.raises(AttributeError, match=r"^torchfunc has no 'tree': left to optree"):
        torchfunc.tree  # noqa: B018
    with pytest.raises(AttributeError, match=r"^torchfunc\.layers has no 'Densee'\. Did you mean 'Dense'"):
        torchfunc.layers.Densee  # noqa: B018
