"""InputSpec: what a layer requires of its input, checked when it is built or drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from torchfunc.dtypes import DTypeLike, as_dtype
from torchfunc.graph import is_inferring, located

__all__ = ["DeclaredInput", "InputSpec", "check_input"]


class InputSpec:
    """The rank, dtype and sizes a layer takes.

    Args:
        dtype: the dtype the input must have.
        shape: the whole shape, None for any size.
        ndim, min_ndim, max_ndim: the number of axes, the batch axis included.
        axes: sizes of single axes, `{-1: 64}`.
        allow_last_axis_squeeze: an input with one axis of size 1 more or less at the end also fits `shape`.
        name: the input's name in a dict of inputs.
        optional: the input may be None.

    >>> class Images(layers.Layer):
    ...     input_spec = layers.InputSpec(ndim=4, axes={-1: 3})
    ...
    ...     def call(self, inputs):
    ...         return inputs
    >>> Images()(Input((8, 8, 3))).shape
    (None, 8, 8, 3)
    """

    def __init__(
        self,
        dtype: DTypeLike | None = None,
        shape: tuple[int | None, ...] | None = None,
        ndim: int | None = None,
        max_ndim: int | None = None,
        min_ndim: int | None = None,
        axes: Mapping[int, int | None] | None = None,
        allow_last_axis_squeeze: bool = False,
        name: str | None = None,
        optional: bool = False,
    ) -> None:
        self.dtype = None if dtype is None else as_dtype(dtype)
        self.shape = None if shape is None else tuple(shape)
        self.ndim = len(self.shape) if self.shape is not None else ndim
        self.max_ndim = max_ndim
        self.min_ndim = min_ndim
        self.axes = {int(axis): size for axis, size in (axes or {}).items()}
        self.allow_last_axis_squeeze = allow_last_axis_squeeze
        self.name = name
        self.optional = optional

    def problem(self, shape: tuple[int | None, ...], dtype: torch.dtype) -> str | None:
        """What is wrong with an input of this shape and dtype, or None."""
        rank = len(shape)
        if self.ndim is not None and rank != self.ndim and not self.allow_last_axis_squeeze:
            return f"expected ndim={self.ndim}, found ndim={rank}"
        if self.max_ndim is not None and rank > self.max_ndim:
            return f"expected max_ndim={self.max_ndim}, found ndim={rank}"
        if self.min_ndim is not None and rank < self.min_ndim:
            return f"expected min_ndim={self.min_ndim}, found ndim={rank}"
        if self.dtype is not None and dtype != self.dtype:
            return f"expected dtype={self.dtype}, found dtype={dtype}"
        for axis, size in self.axes.items():
            if size is not None and shape[axis] not in (size, None):
                return f"expected axis {axis} of input shape to have value {size}, but received shape {shape}"
        if self.shape is not None:
            expected = self.shape
            if self.allow_last_axis_squeeze:
                expected = expected[:-1] if expected and expected[-1] == 1 else expected
                shape = shape[:-1] if shape and shape[-1] == 1 else shape
            if len(expected) != len(shape) or any(
                theirs is not None and ours is not None and theirs != ours
                for theirs, ours in zip(expected, shape, strict=False)
            ):
                return f"expected shape={self.shape}, found shape={shape}"
        return None


def check_input(spec: InputSpec | Sequence[InputSpec | None], inputs: Any, describe: Callable[[], str]) -> None:
    """Check the first argument of a layer against its `input_spec`.

    Args:
        spec: one `InputSpec`, or a list for a list of inputs.
        inputs: a tensor, or a list or dict of them.
        describe: returns a description of the layer, for an error.

    Raises:
        ValueError: it does not fit, naming the layer, what came and what was expected.

    >>> spec = layers.InputSpec(ndim=2)
    >>> layers.check_input(spec, torch.zeros(4, 3), lambda: "my layer")  # nothing to say
    """
    specs = spec if isinstance(spec, (list, tuple)) else [spec]
    values = list(inputs.values()) if isinstance(inputs, Mapping) else inputs
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    if len(specs) != len(values):
        raise ValueError(located(f"{describe()} takes {len(specs)} inputs, but was called on {len(values)}."))
    for index, (each, value) in enumerate(zip(specs, values, strict=True)):
        if each is None or (value is None and each.optional):
            continue
        shape = tuple(value.shape)
        problem = each.problem(shape, value.dtype)
        if problem:
            raise ValueError(
                located(
                    f"Input {index} of {describe()} is incompatible with the layer: {problem}. "
                    f"Full shape received: {shape}{_advice(problem, len(shape))}"
                )
            )


def _advice(problem: str, rank: int) -> str:
    if "ndim=" in problem:
        wanted = int(problem.partition("ndim=")[2].partition(",")[0])
        axis = ". The batch is one of the axes"
        if wanted == rank + 1:
            return f"{axis}; one that is missing, of channels or steps, is added by x[..., None] or layers.Reshape"
        return axis
    if "to have value" in problem:
        return ". The layer was built for that size: make another one for this input, with weights of its own"
    return ""


class DeclaredInput(nn.Module):
    """A module with an `input_spec`.

    Calls on symbolic tensors, and the first on real ones, are checked against it. One that somebody sets later, or that
    a class of the user's own sets, is checked at each call: the layer's own code does not rely on it.
    """

    built: bool
    _input_spec: InputSpec | Sequence[InputSpec | None] | None = None
    _spec_is_hooked = False

    @property
    def input_spec(self) -> InputSpec | Sequence[InputSpec | None] | None:
        """What the layer requires of its input: an `InputSpec`, or a list of them for a list of inputs."""
        return self._input_spec

    @input_spec.setter
    def input_spec(self, value: InputSpec | Sequence[InputSpec | None] | None) -> None:
        self.declare_input(value)
        manual = self.built or not type(self).__module__.startswith(_PACKAGE)
        if manual and value is not None and not self._spec_is_hooked:
            self.__dict__["_spec_is_hooked"] = True
            self.register_forward_pre_hook(_check_before_call)

    def declare_input(self, spec: InputSpec | Sequence[InputSpec | None] | None) -> None:
        """Set the `input_spec` from the layer's own code once the layer is built."""
        self.__dict__["_input_spec"] = spec

    def describe(self) -> str:
        raise NotImplementedError


_PACKAGE = f"{__name__.partition('.')[0]}."


def _check_before_call(module: Any, args: Sequence[Any]) -> None:
    # (A run on fake tensors has example sizes for the unknown ones.)
    if args and module.input_spec is not None and not is_inferring():
        check_input(module.input_spec, args[0], module.describe)
