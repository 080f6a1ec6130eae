"""InputBinding: which argument of a model's call is which input. The one place that matches them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfunc.graph import SymbolicTensor
from torchfunc.layers import InputLayer
from torchfunc.layers.base.shapes import differ
from torchfunc.registry import did_you_mean

__all__ = ["InputBinding"]


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
        self.keys = list(structure) if isinstance(structure, Mapping) else self.names
        self.tensors: list[SymbolicTensor] = (
            list(structure.values())
            if isinstance(structure, Mapping)
            else list(structure)
            if isinstance(structure, (list, tuple))
            else [structure]
        )

        self._expected = [(t.dtype.is_floating_point, t.shape, t.shape[1:]) for t in self.tensors]

    def fits(self, values: Sequence[Any]) -> bool:
        """Whether these are plain tensors, one for each input, that need no conversion."""
        if len(values) != len(self._expected):
            return False
        for value, (floats, shape, without_batch) in zip(values, self._expected, strict=True):
            if type(value) is not Tensor or value.is_floating_point() != floats:
                return False
            given = value.shape
            # Most often only the batch is unknown.
            if not (given[1:] == without_batch and shape[:1] == (None,)) and differ(given, shape):
                return False
        return True

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
        if isinstance(value, Mapping):
            return self._by_key(value, self._keys_for(value), "keys")
        if not isinstance(value, (list, tuple)):
            self._wrong_number(1)
        if len(value) != len(self.names):
            self._wrong_number(len(value))
        return list(value)

    def _keys_for(self, values: Mapping[str, Any]) -> list[str]:
        """The keys of the dict the model was made with, unless the inputs' names fit better."""
        return self.names if _count(self.names, values) > _count(self.keys, values) else self.keys

    def _by_key(self, values: Mapping[str, Any], keys: Sequence[str], what: str) -> list[Any]:
        optional = {
            key
            for names in (self.keys, self.names)
            for key, tensor in zip(names, self.tensors, strict=True)
            if _is_optional(tensor)
        }
        missing = [key for key in keys if key not in values and key not in optional]
        unknown = [key for key in values if key not in keys]
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

    def convert(self, values: Sequence[Any], like: Callable[[], Tensor | None]) -> tuple[Any, ...]:
        """Arrays as tensors, of the kind (integer or float) and rank their inputs declare.

        Args:
            values: one for each input, in order.
            like: gives a tensor of the model, for the device and float type of what comes as an array.

        Raises:
            ValueError: a shape does not fit its input.
        """
        return tuple(
            self._convert(value, tensor, name, like)
            for value, tensor, name in zip(values, self.tensors, self.names, strict=True)
        )

    def _convert(self, value: Any, declared: SymbolicTensor, name: str, like: Callable[[], Tensor | None]) -> Any:
        floats = declared.dtype.is_floating_point
        if isinstance(value, SymbolicTensor):
            fits = value.dtype.is_floating_point == floats
            return self._fit_rank(value if fits else value.to(declared.dtype), declared.shape, name)
        if value is None:
            if _is_optional(declared):
                return None
            raise ValueError(f"Input {name!r} of {self.owner} is None. Declare it as Input(..., optional=True).")
        given = isinstance(value, Tensor)
        if not given:
            value = torch.from_numpy(value) if isinstance(value, np.ndarray) else torch.as_tensor(value)
        if value.dtype.is_floating_point != floats or (floats and not given):
            # A model moved to another float type takes its inputs in that type.
            weight = like()
            follow = floats and weight is not None and weight.dtype.is_floating_point
            value = value.to(weight.dtype if follow and weight is not None else declared.dtype)
        if not given:
            weight = like()
            value = value if weight is None else value.to(weight.device)
        return self._fit_rank(value, declared.shape, name)

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


def _is_optional(tensor: SymbolicTensor) -> bool:
    layer = tensor.node.target
    return isinstance(layer, InputLayer) and layer.optional
