"""InputBinding: which argument of a model's call is which input. The one place that matches them."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfunc.dtypes import dtype_name
from torchfunc.errors import did_you_mean
from torchfunc.frames import frame_to_array, is_frame
from torchfunc.graph import SymbolicTensor
from torchfunc.layers import InputLayer
from torchfunc.layers.base.shapes import differ
from torchfunc.modules.input_nesting import arrays_in, is_nested, match_nested
from torchfunc.readable_arrays import readable
from torchfunc.structures import Structure, leaves, map_structure
from torchfunc.tensor_masks import MASK

__all__ = ["InputBinding"]

# Integers of these types index a table as they are; others are cast.
_INDICES = (torch.int64, torch.int32)
_TENSORS = {Tensor}
_dtype, _shape = operator.attrgetter("dtype"), operator.attrgetter("shape")
_INTEGERS = (*_INDICES, torch.int16, torch.int8, torch.uint8)


class InputBinding:
    """The inputs of a model by order, name and key.

    Args:
        structure: the inputs as the model was made with: a tensor, or a list, tuple or dict of tensors.
        names: the inputs' names, in order.
        owner: the model, as messages call it.
    """

    def __init__(self, structure: Any, names: Sequence[str], owner: str) -> None:
        self.names = list(names)
        self.owner = owner
        self.tensors: list[SymbolicTensor] = leaves(structure)
        self._structure = structure
        self._is_nested = is_nested(structure)
        self.keys = self.names if self._is_nested else _keys_of(structure) or self.names
        self._key_set = frozenset(self.keys)
        self.follow(None, None)

    def follow(self, drawn_in: torch.dtype | None, moved_to: torch.dtype | None) -> None:
        """Take floats in another dtype than the inputs declare, if the weights were moved to one.

        Args:
            drawn_in: the weights' float dtype when the model was drawn.
            moved_to: that which they have now, if it is another.
        """
        self._drawn_in = drawn_in
        self.dtypes = [_dtype_of(tensor, moved_to) for tensor in self.tensors]
        self._expected = [
            (_accepted(dtype), tensor.shape, tensor.shape[1:])
            for dtype, tensor in zip(self.dtypes, self.tensors, strict=True)
        ]
        # Where all inputs are alike, as the columns of a table, and only their batch is unknown: what they are.
        first, *others = self._expected
        alike = first[1][:1] == (None,) and None not in first[2] and all(other == first for other in others)
        self._common = (frozenset(first[0]), first[2]) if alike and others else None

    def fits(self, values: Sequence[Any]) -> bool:
        """Whether these are plain tensors, one for each input, that need no conversion and have no masks."""
        if len(values) != len(self._expected):
            return False
        if self._common is not None and not torch.compiler.is_compiling():
            common, without_batch = self._common
            # (One by one, the hundreds of columns of a table take longer than a layer.)
            if set(map(type, values)) != _TENSORS or not set(map(_dtype, values)) <= common:
                return False
            if set(map(getattr, values, repeat(MASK), repeat(None))) != {None}:
                return False
            return {shape[1:] for shape in set(map(_shape, values))} == {without_batch}
        for value, (dtypes, shape, without_batch) in zip(values, self._expected, strict=True):
            if type(value) is not Tensor or value.dtype not in dtypes or getattr(value, MASK, None) is not None:
                return False
            given = value.shape
            # Most often only the batch is unknown.
            if not (given[1:] == without_batch and shape[:1] == (None,)) and differ(given, shape):
                return False
        return True

    def as_given(self, args: Sequence[Any]) -> Sequence[Any] | None:
        """The values of a call in the order of the inputs, where they `fit` as they are; else None."""
        values: Sequence[Any] = args
        if len(args) == 1 and not self._is_nested:
            value, kind = args[0], type(args[0])
            if kind is list or kind is tuple:
                values = value
            elif kind is dict and value.keys() == self._key_set:
                values = [value[key] for key in self.keys]
        if self.fits(values):
            return tuple(values)
        if self._common is None or self._common[1] != (1,):
            return None
        # The columns of a frame.
        values = [v.unsqueeze(-1) if type(v) is Tensor and v.ndim == 1 else v for v in values]
        return tuple(values) if self.fits(values) else None

    def arrange(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The values of a call `model(*args, **kwargs)` in the order of the inputs.

        Takes one for each input, or all in one list, tuple or dict, or by keyword.

        Keys of a dict that no input has are ignored, with a warning.

        Raises:
            ValueError: there are too many or too few, a key is missing, or a keyword is unknown.
        """
        if kwargs:
            keys = self._keys_for(kwargs)[len(args) :]
            return [*args, *self._by_key(kwargs, keys, "keyword arguments")]
        if len(args) == 1 and (len(self.names) != 1 or isinstance(args[0], (list, tuple, Mapping))):
            return self._from_one(args[0])
        if len(args) != len(self.names):
            self._wrong_number(len(args))
        return list(args)

    def _from_one(self, value: Any) -> list[Any]:
        if self._is_nested:
            return self._from_nested(value)
        if isinstance(value, Mapping):
            return self._by_key(value, self._keys_for(value), "keys")
        if not isinstance(value, (list, tuple)):
            self._wrong_number(1)
        if len(value) != len(self.names):
            self._wrong_number(len(value))
        # As in Keras, `[[x]]` is as good as `[x]`.
        return [_only_array(each) for each in value]

    def _from_nested(self, value: Any) -> list[Any]:
        """The values of nested inputs: nested alike, in one list in their order, or by name."""
        if isinstance(value, Mapping) and set(self.names) <= set(value):
            return self._by_key(value, self.names, "keys")
        found = match_nested(self._structure, value)
        if found is None:
            found = [] if isinstance(value, Mapping) else arrays_in(value)
        if len(found) != len(self.names):
            nested = map_structure(dict(zip(self.tensors, self.names, strict=True)).__getitem__, self._structure)
            given = map_structure(lambda leaf: None if leaf is None else type(leaf).__name__, value)
            raise ValueError(f"{self.owner} takes inputs nested as {nested}, but was given {given}.")
        return found

    def _keys_for(self, values: Mapping[str, Any]) -> list[str]:
        """The keys of the dict the model was made with, unless the inputs' names fit better."""
        return self.names if _count(self.names, values) > _count(self.keys, values) else self.keys

    def _by_key(self, values: Mapping[str, Any], keys: Sequence[str], what: str) -> list[Any]:
        missing = [key for key in keys if key not in values]
        if missing:
            optional = {
                key
                for names in (self.keys, self.names)
                for key, tensor in zip(names, self.tensors, strict=True)
                if _is_optional(tensor)
            }
            missing = [key for key in missing if key not in optional]
        known = frozenset(keys)
        unknown = [key for key in values if key not in known]
        if missing or (unknown and what == "keyword arguments"):
            problem = f"missing {missing}" if missing else f"unknown {unknown}"
            hint = did_you_mean(unknown[0], missing or keys) if unknown else ""
            raise ValueError(
                f"{self.owner} takes inputs {list(keys)}, but was given the {what} {list(values)}: {problem}.{hint}"
            )
        if unknown and not torch.compiler.is_compiling():
            # As in Keras: the columns of a table that a model does not use.
            hint = did_you_mean(unknown[0], keys)
            warnings.warn(f"{self.owner} takes inputs {list(keys)}: {unknown} are ignored.{hint}", stacklevel=2)
        return [values.get(key) for key in keys]

    def _wrong_number(self, count: int) -> None:
        raise ValueError(
            f"{self.owner} takes {len(self.names)} inputs ({', '.join(self.names)}), but was given {count}. "
            "Pass one for each input, a list of them, or a dict by name."
        )

    def convert(
        self, values: Sequence[Any], like: Callable[[], Tensor | None], inside: bool = False
    ) -> tuple[Any, ...]:
        """Arrays as tensors, and all values in the dtype and rank that their inputs declare.

        Args:
            values: one for each input, in order.
            like: gives a tensor of the model, for the device of what comes as an array.
            inside: whether this is a call within another model's, whose floats are of the type that was drawn.

        Raises:
            ValueError: a shape or dtype does not fit its input.
        """
        return tuple(
            self._convert(value, tensor, name, like, inside)
            for value, tensor, name in zip(values, self.tensors, self.names, strict=True)
        )

    def _convert(
        self, value: Any, declared: SymbolicTensor, name: str, like: Callable[[], Tensor | None], inside: bool
    ) -> Any:
        if isinstance(value, SymbolicTensor):
            fits = value.dtype.is_floating_point == declared.dtype.is_floating_point
            return self._fit_rank(value if fits else value.to(declared.dtype), declared.shape, name)
        if value is None:
            if _is_optional(declared):
                return None
            raise ValueError(f"Input {name!r} of {self.owner} is None. Declare it as Input(..., optional=True).")
        given = isinstance(value, Tensor)
        value = value if given else self._as_tensor(value, name)
        if inside and value.dtype.is_floating_point and declared.dtype.is_floating_point:
            return self._fit_rank(value, declared.shape, name)
        if not given or value.dtype not in _accepted(declared.dtype):
            weight = like()
            now = None if weight is None or not weight.is_floating_point() else weight.dtype
            # (Weights that a functional call puts in place are not known before.)
            dtype = _dtype_of(declared, None if now is self._drawn_in else now)
            value = value if value.dtype in _accepted(dtype) else self._cast(value, dtype, name)
            if not given and weight is not None:
                value = value.to(weight.device)
        return self._fit_rank(value, declared.shape, name)

    def _as_tensor(self, value: Any, name: str) -> Tensor:
        try:
            value = frame_to_array(value, name) if is_frame(value) else value
            return torch.from_numpy(readable(value)) if isinstance(value, np.ndarray) else torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            kind = f" of dtype {value.dtype}" if isinstance(value, np.ndarray) else ""
            raise ValueError(
                f"Input {name!r} of {self.owner} takes a tensor or an array of numbers, but the "
                f"{type(value).__name__}{kind} that was given cannot be made one: {error}"
            ) from error

    def _cast(self, value: Tensor, dtype: torch.dtype, name: str) -> Tensor:
        if value.dtype.is_complex:
            raise ValueError(
                f"Input {name!r} of {self.owner} takes {dtype_name(dtype)}, but was given {dtype_name(value.dtype)}. "
                "Give real and imaginary parts (`torch.view_as_real`), or declare it as Input(..., dtype='complex64')."
            )
        return value.to(dtype)

    def _fit_rank(self, value: Any, shape: tuple[int | None, ...], name: str) -> Any:
        if value.ndim == len(shape) - 1 and shape[-1] == 1:
            value = value.unsqueeze(-1)
        elif value.ndim == len(shape) + 1 and value.shape[-1] == 1:
            value = value.squeeze(-1)
        if differ(value.shape, shape):
            raise ValueError(
                f"Input {name!r} of {self.owner} expects shape {shape}, but was given {tuple(value.shape)}."
            )
        return value


def _count(keys: Sequence[str], values: Mapping[str, Any]) -> int:
    return sum(key in values for key in keys)


def _keys_of(structure: Structure) -> list[str]:
    if isinstance(structure, Mapping):
        return list(structure)
    return list(getattr(structure, "_fields", ())) if isinstance(structure, tuple) else []


def _only_array(value: Any) -> Any:
    found = arrays_in(value)
    return found[0] if len(found) == 1 else value


def _dtype_of(declared: SymbolicTensor, moved_to: torch.dtype | None) -> torch.dtype:
    """What an input comes in: what it declares, or for floats what the weights were moved to."""
    return moved_to if moved_to is not None and declared.dtype.is_floating_point else declared.dtype


def _accepted(dtype: torch.dtype) -> tuple[torch.dtype, ...]:
    """The dtypes that are taken as they are where an input declares this one."""
    if dtype in _INDICES:
        return _INDICES
    return _INTEGERS if dtype in _INTEGERS else (dtype,)


def _is_optional(tensor: SymbolicTensor) -> bool:
    layer = tensor.node.target
    return isinstance(layer, InputLayer) and layer.optional
