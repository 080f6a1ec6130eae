"""What recurrent layers share: SequenceLayer for all of them, Recurrent for those that torch has a kernel for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from torchfunc import regularizers
from torchfunc.layers.base.checks import known_size
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.recurrent.step import Recurrence, Wanted

__all__ = ["Recurrent", "SequenceLayer"]


class SequenceLayer(Layer):
    """A layer that goes through `(batch, time, ...)` step by step, with states: what it takes and what it gives.

    With `return_state` it gives a tuple: the output, then the states after the last step.
    A masked step leaves the states as they are and repeats the output of the step before (zeros before the first).

    Args:
        return_sequences: whether to return the output of every step, not only of the last.
        return_state: whether to return the final states, too.
        go_backwards: whether to start at the last step; the sequence comes out in that order.
        stateful: whether each batch starts from the states the last one ended with. The input's batch size must be
            known; `reset_state()` starts anew. No gradient flows from batch to batch.
        unroll: taken for Keras' sake, without effect.
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

    # What a subclass says

    def _run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool, wanted: Wanted
    ) -> tuple[Tensor, list[Tensor]]:
        """All steps in the order given: the output, of every step or of the last, and the states after the last."""
        raise NotImplementedError

    def _state_shapes(self, sequences_shape: Shape) -> list[Any]:
        """The shapes of the states, in the structure in which they are returned."""
        raise NotImplementedError

    def _step_output_shape(self, sequences_shape: Shape) -> Shape:
        """The shape of the output of one step: the first state's, unless told otherwise."""
        return self._state_shapes(sequences_shape)[0]

    def _fresh_states(self, sequences: Tensor) -> list[Tensor]:
        shapes: Any = _flat_shapes(self._state_shapes(tuple(sequences.shape)))
        return [sequences.new_zeros(shape) for shape in shapes]

    def _nest(self, states: list[Tensor]) -> list[Any]:
        """The states in the structure in which they are returned."""
        return states

    # Running

    def call(
        self, sequences: Tensor, initial_state: Any = None, mask: Tensor | None = None, training: bool = False
    ) -> Any:
        states = self._initial_state(sequences, initial_state)
        if mask is not None:
            if mask.ndim != 2:
                raise ValueError(f"{self.describe()} takes a mask (batch, time), got one of shape {tuple(mask.shape)}.")
            mask = mask.to(torch.bool)
        if self.go_backwards:
            sequences = sequences.flip(1)
            mask = None if mask is None else mask.flip(1)
        wanted = Wanted(self.return_sequences, self.return_state or self.stateful, self.zero_output_for_mask)
        output, states = self._run(sequences, states, mask, training, wanted)
        if self.stateful:
            # Not written in place: the backward pass of compiled code would read the new values.
            for name, state in zip(self._state_names(len(states)), states, strict=True):
                setattr(self, name, state.detach().to(getattr(self, name).dtype))
        return (output, *self._nest(states)) if self.return_state else output

    # States

    def _initial_state(self, sequences: Tensor, initial_state: Any) -> list[Tensor]:
        if initial_state is not None:
            states = tree_leaves(initial_state)
            self._check_states(tuple(sequences.shape), [tuple(state.shape) for state in states])
            return states
        if not self.stateful:
            return self._fresh_states(sequences)
        kept = self.states
        assert kept is not None, "a stateful layer that runs is built"
        if kept[0].shape[0] != sequences.shape[0]:
            raise ValueError(
                f"{self.describe()} is stateful and was built for batches of {kept[0].shape[0]}, but got one of "
                f"{sequences.shape[0]}."
            )
        return kept

    def _check_states(self, sequences_shape: Shape, shapes: Sequence[Shape]) -> None:
        expected = list(_flat_shapes(self._state_shapes(sequences_shape)))
        if len(shapes) != len(expected):
            raise ValueError(f"{self.describe()} takes {_states_text(expected)}, got {len(shapes)}.")
        for shape, each in zip(shapes, expected, strict=True):
            if len(shape) != len(each) or any(
                have != want for have, want in zip(shape, each, strict=True) if None not in (have, want)
            ):
                raise ValueError(f"{self.describe()} takes {_states_text(expected)}, got {tuple(shape)}.")

    def _state_names(self, count: int) -> list[str]:
        return [f"_state_{index}" for index in range(count)]

    @property
    def states(self) -> list[Tensor] | None:
        """What a stateful layer has kept from the last batch; None if it is not stateful, or not built yet."""
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
        shapes = list(_flat_shapes(self._state_shapes(sequences_shape)))
        if any(None in shape for shape in shapes):
            raise ValueError(
                f"{self.describe()} is stateful, so it must know the shape of its states, but the input's shape is "
                f"{tuple(sequences_shape)}."
            )
        weight = next(self.parameters(), torch.zeros((), dtype=self.dtype))
        example: Any = (batch, 1, *rest)
        states = self._fresh_states(weight.detach().new_zeros(example))
        for name, state in zip(self._state_names(len(states)), states, strict=True):
            self.register_buffer(name, state.clone(), persistent=False)

    def reset_state(self) -> None:
        """Let a stateful layer start from zeros again."""
        for index, state in enumerate(self.states or []):
            setattr(self, f"_state_{index}", torch.zeros_like(state))

    def reset_states(self) -> None:
        """`reset_state`, by the name it had before Keras 3."""
        self.reset_state()

    # Shapes and configuration

    def compute_output_shape(self, sequences_shape: Shape, initial_state_shape: Any = None) -> Any:
        if initial_state_shape is not None:
            self._check_states(sequences_shape, list(_flat_shapes(initial_state_shape)))
        batch, *rest = self._step_output_shape(sequences_shape)
        output = (batch, sequences_shape[1], *rest) if self.return_sequences else (batch, *rest)
        return (output, *self._state_shapes(sequences_shape)) if self.return_state else output

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        mask = previous_mask if self.return_sequences else None
        if not self.return_state:
            return mask
        states = _flat_shapes(self._state_shapes(tuple((inputs[0] if isinstance(inputs, list) else inputs).shape)))
        return [mask, *(None for _ in states)]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.stateful,
            "unroll": self.unroll,
            "zero_output_for_mask": self.zero_output_for_mask,
        }


class Recurrent(Recurrence, SequenceLayer):
    """What SimpleRNN, LSTM and GRU share: a `Recurrence` over whole sequences.

    Shape: `(batch, time, features)` -> `(batch, units)`, or `(batch, time, units)` with `return_sequences`; with
    `return_state` a tuple: that, then the states after the last step, `(batch, units)` each.

    Torch's kernel runs them, masked or not. Python runs the steps one by one, many times slower, with activations
    that the kernel does not know (it knows tanh, for `SimpleRNN` also relu, and sigmoid for gates), and in training
    with `recurrent_dropout`.

    Args:
        units, activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer, kernel_regularizer,
        recurrent_regularizer, bias_regularizer, kernel_constraint, recurrent_constraint, bias_constraint, dropout,
        recurrent_dropout, seed: see `Recurrence`.
        recurrent_activation: of the gates.
        activity_regularizer: a penalty on the output.
        return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask: see `SequenceLayer`.
        use_cudnn: taken for Keras' sake, without effect: torch chooses the kernel.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`, and Keras' `implementation`, likewise without effect.
    """

    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter | None
    _suffix = "_l0"

    def __init__(self, *, use_cudnn: bool | str = "auto", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if use_cudnn not in ("auto", True, False):
            raise ValueError(f"{type(self).__name__} takes 'auto', True or False for use_cudnn, got {use_cudnn!r}.")
        self.use_cudnn = use_cudnn
        self.input_spec = InputSpec(ndim=3)

    def build(self, sequences_shape: Shape, initial_state_shape: Any = None) -> None:
        features = known_size(sequences_shape, -1, self)
        self._build_weights((features, self.units), (self.units, self.units))
        if self.stateful:
            self._add_state_buffers(sequences_shape)
        self.input_spec = InputSpec(ndim=3, axes={-1: features})

    def _run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool, wanted: Wanted
    ) -> tuple[Tensor, list[Tensor]]:
        return self._run_sequence(sequences, states, mask, training, wanted)

    def _state_shapes(self, sequences_shape: Shape) -> list[Any]:
        return [(sequences_shape[0], self.units)] * self.state_count

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
        }


def _flat_shapes(shapes: Any) -> Iterator[Shape]:
    """The shapes of a structure, one after the other."""
    if any(isinstance(each, (list, tuple)) for each in shapes):
        for each in shapes:
            yield from _flat_shapes(each)
    else:
        yield tuple(shapes)


def _states_text(shapes: Sequence[Shape]) -> str:
    if all(shape == shapes[0] for shape in shapes):
        return f"{len(shapes)} initial states of shape {shapes[0]}"
    return f"{len(shapes)} initial states of shapes {', '.join(map(str, shapes))}"
