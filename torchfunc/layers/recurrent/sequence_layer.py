"""SequenceLayer: the base of all recurrent layers: states, masks, and what is returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.base.masks import Masks, check_mask
from torchfunc.layers.base.shapes import Shape, Shapes, is_shape
from torchfunc.layers.recurrent.loop import ReturnOptions, States
from torchfunc.structures import leaves

__all__ = ["SequenceLayer"]


class SequenceLayer(Layer):
    """A layer over `(batch, time, ...)`, step by step, with states: its arguments and what it returns.

    With `return_state` it returns a tuple: the output, then the states after the last step.
    A masked step leaves the states as they are and repeats the output of the step before (zeros before the first).

    Args:
        return_sequences: whether to return the output of every step, not only of the last.
        return_state: whether to return the final states, too.
        go_backwards: whether to start at the last step; the sequence comes out in that order.
        stateful: whether each batch starts from the states the last one ended with. The input's batch size must be
            known; `reset_state()` sets the states to zeros. No gradient flows from batch to batch.
        unroll: accepted for compatibility with Keras, without effect.
        zero_output_for_mask: whether masked steps give zeros instead of repeating the output.
        **kwargs: `activity_regularizer`, `name`, `trainable`, `dtype`, `input_shape`.
    """

    supports_masking = True

    def __init__(
        self,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.return_sequences = bool(return_sequences)
        self.return_state = bool(return_state)
        self.go_backwards = bool(go_backwards)
        self.stateful = bool(stateful)
        self.unroll = bool(unroll)
        self.zero_output_for_mask = bool(zero_output_for_mask)

    # What a subclass defines

    def _run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool, returned: ReturnOptions
    ) -> tuple[Tensor, list[Tensor]]:
        """All steps in the order given: the output, of every step or of the last, and the states after the last."""
        raise NotImplementedError

    def _state_shapes(self, sequences_shape: Shape) -> list[Shapes]:
        """The shapes of the states, in the structure in which they are returned."""
        raise NotImplementedError

    def _flat_state_shapes(self, sequences_shape: Shape) -> list[Shapes]:
        return leaves(self._state_shapes(sequences_shape), is_shape)

    def _step_output_shape(self, sequences_shape: Shape) -> Shape:
        """The shape of the output of one step: the first state's by default."""
        return self._state_shapes(sequences_shape)[0]

    def _zero_states(self, sequences: Tensor) -> list[Tensor]:
        return [sequences.new_zeros(shape) for shape in self._flat_state_shapes(tuple(sequences.shape))]

    def _nest(self, states: list[Tensor]) -> Sequence[States]:
        """The states in the structure in which they are returned."""
        return states

    # Running

    def call(
        self, sequences: Tensor, initial_state: States | None = None, mask: Tensor | None = None, training: bool = False
    ) -> Any:
        sequences = self._in_own_dtype(sequences)
        states = self._initial_state(sequences, initial_state)
        if mask is not None:
            self._check_mask(sequences, mask)
            mask = mask.to(torch.bool)
        if self.go_backwards:
            sequences = sequences.flip(1)
            mask = None if mask is None else mask.flip(1)
        returned = ReturnOptions(self.return_sequences, self.return_state or self.stateful, self.zero_output_for_mask)
        output, states = self._run(sequences, states, mask, training, returned)
        if self.stateful:
            # Not written in place: the backward pass of compiled code would read the new values.
            for name, state in zip(self._state_names(len(states)), states, strict=True):
                setattr(self, name, state.detach().to(getattr(self, name).dtype))
        return (output, *self._nest(states)) if self.return_state else output

    def _check_mask(self, inputs: Any, mask: Any) -> None:
        check_mask(mask, inputs.shape[:2], "(batch, time)", self.describe)

    def _in_own_dtype(self, sequences: Tensor) -> Tensor:
        """The inputs in the dtype that the layer computes in."""
        return sequences

    # States

    def _initial_state(self, sequences: Tensor, initial_state: States | None) -> list[Tensor]:
        if initial_state is not None:
            states = leaves(initial_state)
            self._check_states(tuple(sequences.shape), [tuple(state.shape) for state in states])
            return states
        if not self.stateful:
            return self._zero_states(sequences)
        saved = self.states
        assert saved is not None, "a stateful layer that runs is built"
        if saved[0].shape[0] != sequences.shape[0]:
            raise ValueError(
                f"{self.describe()} is stateful and was built for batches of {saved[0].shape[0]}, but got one of "
                f"{sequences.shape[0]}."
            )
        return saved

    def _check_states(self, sequences_shape: Shape, shapes: Sequence[Shape]) -> None:
        expected = self._flat_state_shapes(sequences_shape)
        if len(shapes) != len(expected):
            raise ValueError(f"{self.describe()} takes {_states_text(expected)}, got {len(shapes)}.")
        for shape, each in zip(shapes, expected, strict=True):
            if len(shape) != len(each) or any(
                ours != theirs for ours, theirs in zip(shape, each, strict=True) if None not in (ours, theirs)
            ):
                raise ValueError(f"{self.describe()} takes {_states_text(expected)}, got {tuple(shape)}.")

    def _state_names(self, count: int) -> list[str]:
        return [f"_state_{index}" for index in range(count)]

    @property
    def states(self) -> list[Tensor] | None:
        """The states of a stateful layer after the last batch; None if it is not stateful, or not built yet."""
        if not self.stateful or not hasattr(self, "_state_0"):
            return None
        return [buffer for name, buffer in self._buffers.items() if name.startswith("_state_") and buffer is not None]

    def _add_state_buffers(self, sequences_shape: Shape) -> None:
        batch, _, *rest = sequences_shape
        if batch is None:
            raise ValueError(
                f"{self.describe()} is stateful, so it must know the batch size: Input(..., batch_size=...). "
                f"The input's shape is {tuple(sequences_shape)}."
            )
        shapes = self._flat_state_shapes(sequences_shape)
        if any(None in shape for shape in shapes):
            raise ValueError(
                f"{self.describe()} is stateful, so it must know the shape of its states, but the input's shape is "
                f"{tuple(sequences_shape)}."
            )
        weight = next(self.parameters(), torch.zeros((), dtype=self.dtype))
        example: Any = (batch, 1, *rest)
        states = self._zero_states(weight.detach().new_zeros(example, device="cpu" if weight.is_meta else None))
        for name, state in zip(self._state_names(len(states)), states, strict=True):
            self.register_buffer(name, state.clone(), persistent=False)

    def reset_state(self) -> None:
        """Reset the states of a stateful layer to zeros."""
        for index, state in enumerate(self.states or []):
            setattr(self, f"_state_{index}", torch.zeros_like(state))

    def reset_states(self) -> None:
        """`reset_state`, by the name it had before Keras 3."""
        self.reset_state()

    # Shapes and configuration

    def compute_output_shape(self, sequences_shape: Shape, initial_state_shape: Shapes | None = None) -> Shapes:
        if initial_state_shape is not None:
            self._check_states(sequences_shape, leaves(initial_state_shape, is_shape))
        batch, *rest = self._step_output_shape(sequences_shape)
        output = (batch, sequences_shape[1], *rest) if self.return_sequences else (batch, *rest)
        return (output, *self._state_shapes(sequences_shape)) if self.return_state else output

    def compute_mask(self, inputs: Any, mask: Masks = None) -> Masks:
        mask = mask if self.return_sequences else None
        if not self.return_state:
            return mask
        sequences = inputs[0] if isinstance(inputs, list) else inputs
        return [mask, *(None for _ in self._flat_state_shapes(tuple(sequences.shape)))]

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.stateful,
            "unroll": self.unroll,
            "zero_output_for_mask": self.zero_output_for_mask,
        }


def _states_text(shapes: Sequence[Shape]) -> str:
    if all(shape == shapes[0] for shape in shapes):
        return f"{len(shapes)} initial states of shape {shapes[0]}"
    return f"{len(shapes)} initial states of shapes {', '.join(map(str, shapes))}"
