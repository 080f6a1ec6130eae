"""RNN: any cell over a sequence. StackedRNNCells: several cells as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from torchfunc.graph import record_input
from torchfunc.graph.torch_internals import hook_tables
from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.layer import Layer, build_sublayers
from torchfunc.layers.base.shapes import Shape, Shapes
from torchfunc.layers.recurrent.cells import RecurrentCell
from torchfunc.layers.recurrent.loop import ReturnOptions, States, run_steps
from torchfunc.layers.recurrent.sequence_layer import SequenceLayer
from torchfunc.registry import deserialize_keras_object, serialize_keras_object
from torchfunc.structures import leaves, map_structure

__all__ = ["RNN", "StackedRNNCells"]

# The length of a state, or lists of those of several, nested as the states are.
StateSize: TypeAlias = "int | Sequence[StateSize]"


class StackedRNNCells(Layer):
    """Cells one after the other as one cell: the output of each is the input of the next.

    Shape: inputs `(batch, ...)`, a list of each cell's states -> output of the last cell, a list of new states.

    Args:
        cells: cells as `RNN` takes them.
        **kwargs: `name`, `trainable`, `dtype`.

    Raises:
        ValueError: one of `cells` has no `state_size`, or cannot be called.

    >>> cells = layers.StackedRNNCells([layers.LSTMCell(16), layers.LSTMCell(8)])
    >>> layers.RNN(cells)(Input((10, 4))).shape
    (None, 8)
    """

    def __init__(self, cells: Sequence[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for cell in cells:
            _check_cell(cell, type(self).__name__)
        self.cells = list(cells)

    @property
    def state_size(self) -> list[StateSize]:
        return [cell.state_size for cell in self.cells]

    @property
    def output_size(self) -> int:
        return _output_size(self.cells[-1])

    def get_initial_state(self, batch_size: int | None = None) -> list[States]:
        """Each cell's states to start from: a tensor for a cell with one, else a list."""
        states = [_initial_states(cell, batch_size or 0, self.dtype) for cell in self.cells]
        return _nest(self.state_size, [state for each in states for state in each])

    def build(self, input_shape: Shape) -> None:
        for cell in self.cells:
            _build_cell(cell, input_shape)
            input_shape = (input_shape[0], _output_size(cell))

    def call(self, inputs: Tensor, states: States) -> tuple[Tensor, States]:
        new_states = []
        for cell, each in zip(self.cells, states, strict=True):
            several = isinstance(each, (list, tuple))
            inputs, new = _call_cell(cell, inputs, list(each) if several else [each])
            new_states.append(new if several else new[0])
        return inputs, new_states

    def compute_output_shape(self, inputs_shape: Shape, states_shape: Shapes | None = None) -> Shapes:
        batch = inputs_shape[0]
        return (batch, self.output_size), [_state_shapes(cell.state_size, batch) for cell in self.cells]

    def get_config(self) -> Config:
        return {**super().get_config(), "cells": [serialize_keras_object(cell) for cell in self.cells]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> StackedRNNCells:
        cells = [deserialize_keras_object(cell, custom_objects) for cell in config["cells"]]
        return cls(cells, **{key: value for key, value in config.items() if key != "cells"})


class RNN(SequenceLayer):
    """A cell, called on one step after the other.

    Shape: `(batch, time, ...)` -> `(batch, output_size)`, or `(batch, time, output_size)` with `return_sequences`; with
    `return_state` a tuple: that, then the states after the last step, in the structure of `state_size`.

    Cells of this package run on torch's kernels where those fit, as their layers do, also when stacked.

    Args:
        cell: `cell(inputs, states)` returns the output and a list of new states, and `cell.state_size` is the length of
            the state, or a list of those of several. It may have `output_size` (else that is the first state's) and
            `get_initial_state(batch_size)` (else zeros). A layer, any `torch.nn.Module`, another object with `call`;
            or a list of cells, which are stacked.
        return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask: see `SequenceLayer`.
        **kwargs: `activity_regularizer`, `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: `cell` has no `state_size`, or cannot be called.

    >>> class Sum(layers.Layer):  # a cell
    ...     state_size = 1
    ...
    ...     def call(self, inputs, states):
    ...         total = states[0] + inputs
    ...         return total, [total]
    >>> layers.RNN(Sum(), return_sequences=True)(torch.tensor([[[1.0], [2.0], [3.0]]])).flatten()
    tensor([1., 3., 6.])
    """

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask, **kwargs)
        if isinstance(cell, (list, tuple)):
            cell = StackedRNNCells(cell)
        _check_cell(cell, type(self).__name__)
        self.cell = cell
        if not self.trainable:
            self.trainable = False

    @property
    def state_size(self) -> list[StateSize]:
        """The length of each state, in the structure in which they are returned."""
        return _as_list(self.cell.state_size)

    def build(self, sequences_shape: Shape, initial_state_shape: Shapes | None = None) -> None:
        batch, _, *rest = sequences_shape
        _build_cell(self.cell, (batch, *rest))
        if self.stateful:
            self._add_state_buffers(sequences_shape)

    def _in_own_dtype(self, sequences: Tensor) -> Tensor:
        cell = self.cell.cells[0] if isinstance(self.cell, StackedRNNCells) else self.cell
        # A cell of the user's own may take integers.
        return cell._in_own_dtype(sequences) if isinstance(cell, RecurrentCell) else sequences

    def _run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool, returned: ReturnOptions
    ) -> tuple[Tensor, list[Tensor]]:
        return _run_cell(self.cell, sequences, states, mask, training, returned)

    def _state_shapes(self, sequences_shape: Shape) -> list[Shapes]:
        return _state_shapes(self.state_size, sequences_shape[0])

    def _step_output_shape(self, sequences_shape: Shape) -> Shape:
        return (sequences_shape[0], _output_size(self.cell))

    def _zero_states(self, sequences: Tensor) -> list[Tensor]:
        dtype = sequences.dtype if sequences.is_floating_point() else self.dtype
        states = _initial_states(self.cell, sequences.shape[0], dtype)
        return [state.to(sequences.device) for state in states]

    def _nest(self, states: list[Tensor]) -> list[States]:
        return _nest(self.state_size, states)

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        dtypes = input_dtypes[:1]
        return self.cell.compute_output_dtype(*dtypes) if isinstance(self.cell, Layer) else self.dtype

    def get_config(self) -> Config:
        return {**super().get_config(), "cell": serialize_keras_object(self.cell)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> RNN:
        cell = deserialize_keras_object(config["cell"], custom_objects)
        return cls(cell, **{key: value for key, value in config.items() if key != "cell"})


def _run_cell(
    cell: Any, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool, returned: ReturnOptions
) -> tuple[Tensor, list[Tensor]]:
    """A cell over all steps. Its states, and the new ones, are a flat list."""
    if isinstance(cell, RecurrentCell) and _runs_only_call(cell, RecurrentCell):
        return cell._run_sequence(sequences, states, mask, training, returned)
    if isinstance(cell, StackedRNNCells) and _runs_only_call(cell, StackedRNNCells):
        # All steps of one cell, then all of the next: the same, and each may run on a kernel.
        finals: list[Tensor] = []
        every = ReturnOptions(True, returned.states, False)
        for index, each in enumerate(cell.cells):
            count = len(leaves(each.state_size))
            own, states = states[:count], states[count:]
            last = index == len(cell.cells) - 1
            sequences, new = _run_cell(each, sequences, own, mask, training, returned if last else every)
            finals += new
        return sequences, finals

    sizes = _as_list(cell.state_size)
    nested = not all(isinstance(size, int) for size in sizes)

    def step(inputs: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, new = _call_cell(cell, inputs, _nest(sizes, states) if nested else list(states))
        return output, leaves(new)

    return run_steps(step, sequences.unbind(1), states, mask, returned)


def _runs_only_call(cell: Layer, base: type[Layer]) -> bool:
    """Whether calling the cell runs the `call` of `base` and nothing else."""
    return type(cell).forward is base.forward and not any(hook_tables(cell))


def _call_cell(cell: Any, inputs: Tensor, states: list[States]) -> tuple[Tensor, list[States]]:
    output, new = cell(inputs, states) if callable(cell) else cell.call(inputs, states)
    return output, list(new) if isinstance(new, (list, tuple)) else [new]


def _check_cell(cell: Any, owner: str) -> None:
    if not callable(cell) and not hasattr(cell, "call"):
        raise ValueError(f"{owner} takes cells that can be called as cell(inputs, states), got {cell!r}.")
    if not hasattr(cell, "state_size"):
        raise ValueError(
            f"{owner} takes cells with a state_size, the length of the state or a list of several, got {cell!r}."
        )
    sizes = leaves(cell.state_size)
    if not sizes or not all(isinstance(size, int) for size in sizes):
        raise ValueError(f"The state_size of a cell is an integer or a list of them, got {cell.state_size!r}.")


def _build_cell(cell: Any, step_shape: Shape) -> None:
    if not isinstance(cell, Layer):
        return
    if not cell.built:
        cell.build_from_shapes({"input_shape": step_shape})
    if any(isinstance(module, Layer) and not module.built for module in cell.modules()):
        # What a cell builds on its first call, it builds now.
        inputs, *states = (
            record_input("placeholder", shape, cell.dtype).outputs
            for shape in (step_shape, *((step_shape[0], size) for size in leaves(cell.state_size)))
        )
        build_sublayers(cell, inputs, _nest(_as_list(cell.state_size), states))


def _initial_states(cell: Any, batch: int, dtype: torch.dtype) -> list[Tensor]:
    if hasattr(cell, "get_initial_state"):
        return leaves(cell.get_initial_state(batch_size=batch))
    return [torch.zeros(batch, size, dtype=dtype) for size in leaves(cell.state_size)]


def _output_size(cell: Any) -> int:
    size = getattr(cell, "output_size", None)
    return leaves(cell.state_size)[0] if size is None else size


# States are nested as `state_size` is, or in a flat list.


def _as_list(state_size: StateSize) -> list[StateSize]:
    return [state_size] if isinstance(state_size, int) else list(state_size)


def _nest(sizes: Sequence[StateSize], states: list[Tensor]) -> list[States]:
    """A flat list of states in the structure of their sizes."""
    following = iter(states)
    return map_structure(lambda _: next(following), sizes)


def _state_shapes(sizes: StateSize, batch: int | None) -> Shapes:
    return map_structure(lambda size: (batch, size), sizes)
