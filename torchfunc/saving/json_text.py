"""JSON in files: tuples stay tuples, no key is there twice, nothing is nested without end, and errors say so."""

from __future__ import annotations

import json
from typing import Any

from torchfunc.registry import serialize_named_tuple

__all__ = ["parse_json", "write_json"]

# How a tuple is written: as an object with this one key.
_TUPLE = "$tuple"


def write_json(value: Any) -> str:
    """Nested lists, tuples, dicts with texts as keys, and plain values as JSON.

    Raises:
        ValueError: there is something else in it, or it is nested too deeply.
    """
    try:
        return json.dumps(_with_tuples(value))
    except TypeError as error:
        raise ValueError(f"A config holds what cannot be written to a file: {error}.") from error
    except RecursionError:
        raise ValueError("The config is nested too deeply to be written to a file.") from None


def _with_tuples(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _with_tuples(serialize_named_tuple(value))
    if isinstance(value, tuple):
        return {_TUPLE: [_with_tuples(item) for item in value]}
    if isinstance(value, list):
        return [_with_tuples(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return value


def parse_json(text: bytes | str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is not JSON, an object has a key twice, or it is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"its JSON is damaged ({error})") from error


def _distinct(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its JSON has a key twice")
    if found.keys() == {_TUPLE} and isinstance(found[_TUPLE], list):
        return tuple(found[_TUPLE])
    return found
