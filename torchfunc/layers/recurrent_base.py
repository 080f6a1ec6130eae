"""Recurrent: what LSTM and GRU share. Sequences go through torch's kernels where those know the arguments."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfunc import activations, constraints, initializers, regularizers
from torchfunc.layers.input_spec import InputSpec
from torchfunc.layers.kernel import known_size, positive
from torchfunc.layers.layer import Layer
from torchfunc.layers.recurrent_kernels import run_kernel
from torchfunc.layers.regularization import Dropout
from torchfunc.layers.shapes import Shape, is_shape
from torchfunc.layers.weights import Layout

__all__ = ["Recurrent", "project"]

# What the kernels compute; anything else is run step by step.
_TANH = (activations.tanh, torch.tanh, F.tanh)
_SIGMOID = (activations.sigmoid, torch.sigmoid, F.sigmoid)


class Recurrent(Layer):
    """What LSTM and GRU share: arguments, weights, masks, states, and the choice of how to run.

    Shape: `(batch, time, features)` -> `(batch, units)`, or `(batch, time, units)` with `return_sequences`; with
    `return_state` a list: that, then the states after the last step, `(batch, units)` each.

    A masked step leaves the states as they are and repeats the output of the step before (zeros before the first).

    Python runs the steps one by one, many times slower than torch's kernel, with other activations than tanh and
    sigmoid, in training with `recurrent_dropout`, and in an LSTM with a mask that returns or keeps its states.

    Args:
        units: the length of the output and of each state.
        activation: of the candidate (and of an LSTM's output): name, callable or module.
        recurrent_activation: of the gates.
        use_bias: whether there are biases.
        kernel_initializer, recurrent_initializer, bias_initializer: on Keras' layout.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties on the weights.
        activity_regularizer: a penalty on the output.
        kernel_constraint, recurrent_constraint, bias_constraint: projections applied after every update.
        dropout: the share of input features that training drops; the same ones at every step.
        recurrent_dropout: the share of the state that training drops on its way into each gate, likewise.
        seed: an integer, for random numbers of the layer's own (see `Dropout`).
        return_sequences: whether to return the output of every step, not only of the last.
        return_state: whether to return the final states, too.
        go_backwards: whether to start at the last step; the sequence comes out in that order.
        stateful: whether each batch starts from the states the last one ended with. The input's batch size must be
            known; `reset_state()` starts anew. No gradient flows from batch to batch.
        unroll, use_cudnn: taken for Keras' sake, without effect: torch chooses the kernel.
        zero_output_for_mask: whether masked steps give zeros instead of repeating the output.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`, and Keras' `implementation`, likewise without effect.
    """

    supports_masking = True
    gates: ClassVar[int]
    state_count: ClassVar[int]
    # How Keras' (inputs, gates * units) lies in torch's parameters.
    kernel_layout: ClassVar[Layout]
    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter | None

    def __init__(
        self,
        units: int,
        activation: Any,
        recurrent_activation: Any,
        use_bias: bool,
        kernel_initializer: Any,
        recurrent_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        recurrent_regularizer: Any,
        bias_regularizer: Any,
        kernel_constraint: Any,
        recurrent_constraint: Any,
        bias_constraint: Any,
        dropout: float,
        recurrent_dropout: float,
        seed: int | None,
        return_sequences: bool,
        return_state: bool,
        go_backwards: bool,
        stateful: bool,
        unroll: bool,
        use_cudnn: bool | str,
        zero_output_for_mask: bool,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("implementation", None)
        super().__init__(**kwargs)
        self.units = positive(units, "units", type(self).__name__)
        self.activation = activations.get(activation)
        self.recurrent_activation = activations.get(recurrent_activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.recurrent_constraint = constraints.get(recurrent_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.dropout = min(1.0, max(0.0, dropout))
        self.recurrent_dropout = min(1.0, max(0.0, recurrent_dropout))
        self.seed = seed
        self._input_dropout = Dropout(self.dropout, seed=seed) if self.dropout else None
        state_seed = None if seed is None else seed + 1
        self._state_dropout = Dropout(self.recurrent_dropout, seed=state_seed) if self.recurrent_dropout else None
        self.return_sequences = bool(return_sequences)
        self.return_state = bool(return_state)
        self.go_backwards = bool(go_backwards)
        self.stateful = bool(stateful)
        self.unroll = bool(unroll)
        self.zero_output_for_mask = bool(zero_output_for_mask)
        if use_cudnn not in ("auto", True, False):
            raise ValueError(f"{type(self).__name__} takes 'auto', True or False for use_cudnn, got {use_cudnn!r}.")
        self.use_cudnn = use_cudnn
        self.input_spec = InputSpec(ndim=3)

    # Weights

    def build(self, sequences_shape: Shape, initial_state_shape: Any = None) -> None:
        features = known_size(sequences_shape, -1, self)
        size = self.gates * self.units
        self.add_weight(
            (features, size),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            layout=self.kernel_layout,
            names=("weight_ih_l0",),
        )
        self.add_weight(
            (self.units, size),
            self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
            layout=self.kernel_layout,
            names=("weight_hh_l0",),
        )
        self._build_biases(size)
        if self.stateful:
            self._add_state_buffers(sequences_shape)
        self.input_spec = InputSpec(ndim=3, axes={-1: features})

    def _build_biases(self, size: int) -> None:
        """Make the biases of `size` numbers, or register them as None."""
        raise NotImplementedError

    def _add_bias(self, shape: Sequence[int], initializer: Any, layout: Layout, names: Sequence[str]) -> None:
        self.add_weight(
            shape,
            initializer,
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
            layout=layout,
            names=names,
        )

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
        if self._kernel_fits(mask, training):
            if training and self._input_dropout is not None:
                sequences = sequences * _dropout_masks(self._input_dropout, sequences[:, :1], 1)[0]
            if mask is None:
                output, states = self._run_kernel(sequences, states)
            else:
                output, states = self._run_kernel_masked(sequences, states, mask)
        else:
            output, states = self._run_steps(sequences, states, mask, training)
        if self.stateful:
            # Not written in place: the backward pass of compiled code would read the new values.
            for name, state in zip(self._state_names(), states, strict=True):
                setattr(self, name, state.detach())
        return [output, *states] if self.return_state else output

    def _kernel_fits(self, mask: Tensor | None, training: bool) -> bool:
        return (
            self.activation in _TANH
            and self.recurrent_activation in _SIGMOID
            and not (training and self._state_dropout is not None)
            # The kernel gives an LSTM's c after the last step only, not after the last one that counts.
            and (mask is None or self.state_count == 1 or not (self.return_state or self.stateful))
        )

    def _kernel_weights(self) -> list[Tensor]:
        """What the kernel takes: two weights, and two biases if any."""
        raise NotImplementedError

    def _run_kernel(self, sequences: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        outputs, states = run_kernel(sequences, states, self._kernel_weights())
        return outputs if self.return_sequences else states[0], states

    def _run_kernel_masked(self, sequences: Tensor, states: list[Tensor], mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Move the steps that count to the front, run the kernel, and fetch each step's output from there.

        This takes masks of any form and no look at their values.
        """
        order = torch.argsort(mask.to(torch.uint8), dim=1, descending=True, stable=True)
        outputs, _ = run_kernel(_take_steps(sequences, order), states, self._kernel_weights())
        # How many steps counted up to each step: 0 stands for what was before the first.
        counted = mask.cumsum(1)
        final = _take_steps(torch.cat([states[0].unsqueeze(1), outputs], 1), counted[:, -1:])
        wanted = slice(None) if self.return_sequences else slice(-1, None)
        output = _take_steps(F.pad(outputs, (0, 0, 1, 0)), counted[:, wanted])
        if self.zero_output_for_mask:
            output = output * mask[:, wanted].unsqueeze(-1)
        return output if self.return_sequences else output.squeeze(1), [final.squeeze(1)]

    def _run_steps(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        input_masks = state_masks = None
        if training and self._state_dropout is not None:
            state_masks = _dropout_masks(self._state_dropout, states[0], self.gates)
        if training and self._input_dropout is not None:
            # As in Keras: a mask for each gate only together with recurrent dropout.
            input_masks = _dropout_masks(self._input_dropout, sequences[:, :1], self.gates if state_masks else 1)
        projected = project(sequences, self.weight_ih_l0, self.bias_ih_l0, input_masks)
        counts: Iterable[Tensor | None] = itertools.repeat(None) if mask is None else mask.unsqueeze(-1).unbind(1)
        zeros = output = torch.zeros_like(states[0])
        outputs = []
        for step, counting in zip(projected.unbind(1), counts, strict=False):
            new = self._step(step, states, state_masks)
            if counting is None:
                states, output = new, new[0]
            else:
                output = torch.where(counting, new[0], zeros if self.zero_output_for_mask else output)
                states = [torch.where(counting, after, before) for after, before in zip(new, states, strict=True)]
            outputs.append(output)
        return torch.stack(outputs, 1) if self.return_sequences else output, states

    def _step(self, projected: Tensor, states: list[Tensor], masks: list[Tensor] | None) -> list[Tensor]:
        """One step: the projected input (batch, gates * units), states and dropout masks -> new states, h first."""
        raise NotImplementedError

    # States

    def _initial_state(self, sequences: Tensor, initial_state: Any) -> list[Tensor]:
        if initial_state is not None:
            states = list(initial_state) if isinstance(initial_state, (list, tuple)) else [initial_state]
            self._check_states(tuple(sequences.shape), [tuple(state.shape) for state in states])
            return states
        if not self.stateful:
            return [sequences.new_zeros(sequences.shape[0], self.units)] * self.state_count
        kept = [getattr(self, name) for name in self._state_names()]
        if kept[0].shape[0] != sequences.shape[0]:
            raise ValueError(
                f"{self.describe()} is stateful and was built for batches of {kept[0].shape[0]}, but got one of "
                f"{sequences.shape[0]}."
            )
        return kept

    def _check_states(self, sequences_shape: Shape, shapes: Sequence[Shape]) -> None:
        expected = (sequences_shape[0], self.units)
        if len(shapes) != self.state_count:
            raise ValueError(
                f"{self.describe()} takes {self.state_count} initial states of shape {expected}, got {len(shapes)}."
            )
        for shape in shapes:
            if len(shape) != 2 or any(
                have != want for have, want in zip(shape, expected, strict=True) if None not in (have, want)
            ):
                raise ValueError(f"{self.describe()} takes initial states of shape {expected}, got {tuple(shape)}.")

    def _state_names(self) -> list[str]:
        return [f"_state_{index}" for index in range(self.state_count)]

    def _add_state_buffers(self, sequences_shape: Shape) -> None:
        batch = sequences_shape[0]
        if batch is None:
            raise ValueError(
                f"{self.describe()} is stateful, so it must know the batch size: Input(..., batch_size=...). "
                f"The input's shape is {tuple(sequences_shape)}."
            )
        for name in self._state_names():
            self.register_buffer(name, torch.zeros(batch, self.units, dtype=self.dtype), persistent=False)

    def reset_state(self) -> None:
        """Let a stateful layer start from zeros again."""
        if self.stateful and self.built:
            for name in self._state_names():
                setattr(self, name, torch.zeros_like(getattr(self, name)))

    reset_states = reset_state

    # Shapes and configuration

    def compute_output_shape(self, sequences_shape: Shape, initial_state_shape: Any = None) -> Any:
        if initial_state_shape is not None:
            one = is_shape(initial_state_shape)
            self._check_states(sequences_shape, [initial_state_shape] if one else initial_state_shape)
        batch, steps, _ = sequences_shape
        output = (batch, steps, self.units) if self.return_sequences else (batch, self.units)
        return [output, *[(batch, self.units)] * self.state_count] if self.return_state else output

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        mask = previous_mask if self.return_sequences else None
        return [mask, *[None] * self.state_count] if self.return_state else mask

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "recurrent_activation": activations.serialize(self.recurrent_activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": initializers.serialize(self.recurrent_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
            "recurrent_regularizer": regularizers.serialize(self.recurrent_regularizer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
            "kernel_constraint": constraints.serialize(self.kernel_constraint),
            "recurrent_constraint": constraints.serialize(self.recurrent_constraint),
            "bias_constraint": constraints.serialize(self.bias_constraint),
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "seed": self.seed,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.stateful,
            "unroll": self.unroll,
            "zero_output_for_mask": self.zero_output_for_mask,
        }


def _take_steps(sequences: Tensor, steps: Tensor) -> Tensor:
    """(batch, time, features), (batch, steps) -> (batch, steps, features)."""
    return sequences.gather(1, steps.unsqueeze(-1).expand(-1, -1, sequences.shape[-1]))


def _dropout_masks(dropout: Dropout, like: Tensor, count: int) -> list[Tensor]:
    return [dropout.call(torch.ones_like(like), training=True) for _ in range(count)]


def project(inputs: Tensor, weight: Tensor, bias: Tensor | None, masks: Sequence[Tensor] | None) -> Tensor:
    """`inputs @ weight.T + bias`; with several dropout masks, each of them for its own share of the outputs."""
    if masks is None:
        return F.linear(inputs, weight, bias)
    parts = [F.linear(inputs * mask, part) for mask, part in zip(masks, weight.chunk(len(masks)), strict=True)]
    projected = torch.cat(parts, -1)
    return projected if bias is None else projected + bias
