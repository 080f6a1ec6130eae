"""What all messages to users have in common: suggestions for what is misspelt, and lines added to others' errors."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from torchfunc.absent import instead_of

__all__ = ["MissingAttribute", "SuggestsAttributes", "add_note", "did_you_mean", "suggest_names"]


def did_you_mean(name: Any, known: Iterable[Any], most: int = 3) -> str:
    """A sentence for messages that offers what is spelled like `name`, with a space before it; else nothing."""
    names = [str(each) for each in known]
    near = [
        found
        for spelling in (str(name), str(name).lower())
        for found in difflib.get_close_matches(spelling, names, most)
    ]
    return f" Did you mean {' or '.join(map(repr, dict.fromkeys(near)))}?" if near else ""


def add_note(error: BaseException, note: str) -> None:
    """Add a line to an error that somebody else raised; its type, its message and its traceback stay its own.

    Python 3.10 shows no notes: there the line also goes behind the message, where that is one text.
    """
    add = getattr(error, "add_note", None)
    if add is not None:
        add(note)
        return
    error.__notes__ = [*getattr(error, "__notes__", ()), note]
    if len(error.args) == 1 and str(error) == error.args[0]:
        error.args = (f"{error.args[0]}\n{note}",)


class MissingAttribute(AttributeError):
    """An attribute that is not there. What it may have been meant to be is looked for when the message is read.

    Args:
        message: what is missing.
        name: the attribute.
        known: gives the names of those that there are.
    """

    def __init__(self, message: str, name: str, known: Callable[[], Iterable[str]]) -> None:
        # (Without an object, Python does not add a suggestion of its own.)
        super().__init__(message, name=name, obj=None)
        self._known = known

    def __str__(self) -> str:
        name = str(self.name)
        private = name.startswith("_")
        known = (each for each in self._known() if each.startswith("_") == private)
        return f"{self.args[0]}{did_you_mean(name, known, most=1)}"

    def __reduce__(self) -> Any:
        return AttributeError, (str(self),)


class SuggestsAttributes:
    """Objects that say, when they are asked for an attribute they lack, which one may be meant."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise MissingAttribute(
                f"{type(self).__name__!r} object has no attribute {name!r}.", name, partial(dir, self)
            )


def suggest_names(module: ModuleType) -> None:
    """Let a module say, when it is asked for a name it lacks, what to write instead or which one may be meant."""
    module.__getattr__ = partial(_no_such_name, module)  # type: ignore[method-assign]


def _no_such_name(module: ModuleType, name: str) -> NoReturn:
    instead = instead_of(module.__name__.partition(".")[2], name)
    if instead is not None:
        raise MissingAttribute(f"{module.__name__} has no {name!r}: {instead}.", name, tuple)
    raise MissingAttribute(f"{module.__name__} has no {name!r}.", name, lambda: getattr(module, "__all__", dir(module)))
