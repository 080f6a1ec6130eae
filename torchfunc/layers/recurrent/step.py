"""Recurrence: the weights and the step that a recurrent cell and the layer over whole sequences have in common."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc import activations, constraints, initializers, regularizers
from torchfunc.layers.base.checks import positive
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.base.weights import IDENTITY, LINEAR, Layout
from torchfunc.layers.recurrent.kernels import run_kernel
from torchfunc.layers.regularization import Dropout

__all__ = ["Recurrence", "Wanted", "project", "run_steps"]


class Wanted(NamedTuple):
    """What a run over a sequence is to give.

    Attributes:
        every: the output of every step, and not only of the last.
        states: the states after the last step.
        zeros: zeros for the output of a masked step, and not the output of the step before.
    """

    every: bool
    states: bool
    zeros: bool


class Recurrence(Layer):
    """One step from states to states, with its weights. Cells run it once, `Recurrent` layers over sequences.

    Args:
        units: the length of the output and of each state.
        activation: of the candidate (and of an LSTM's output): name, callable or module.
        use_bias: whether there are biases.
        kernel_initializer, recurrent_initializer, bias_initializer: on Keras' layout.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties on the weights.
        kernel_constraint, recurrent_constraint, bias_constraint: projections applied after every update.
        dropout: the share of input features that training drops; the same ones at every step.
        recurrent_dropout: the share of the state that training drops on its way into each gate, likewise.
        seed: an integer, for random numbers of the layer's own (see `Dropout`).
        **kwargs: of the next base, and Keras' `implementation`, which is without effect.
    """

    gates: ClassVar[int] = 1
    state_count: ClassVar[int] = 1
    # How Keras' (inputs, gates * units) lies in torch's parameters.
    kernel_layout: ClassVar[Layout] = LINEAR
    # What torch adds to the names of weights in layers over sequences.
    _suffix: ClassVar[str] = ""
    # Where the gates lie side by side in a projection.
    _gate_axis: int = -1
    # Whether training drops other input features for each gate; Keras' layers do only beside recurrent dropout.
    _input_masks_by_gate: ClassVar[bool] = False

    def __init__(
        self,
        *,
        units: int,
        activation: Any,
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
        **kwargs: Any,
    ) -> None:
        kwargs.pop("implementation", None)
        super().__init__(**kwargs)
        self.units = positive(units, "units", type(self).__name__)
        self.activation = activations.get(activation)
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

    # Weights

    def _build_weights(self, kernel_shape: Sequence[int], recurrent_shape: Sequence[int]) -> None:
        """Make all weights; the shapes are of one gate, in Keras' layout."""
        self.add_weight(
            (*kernel_shape[:-1], self.gates * kernel_shape[-1]),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            layout=self.kernel_layout,
            names=("weight_ih" + self._suffix,),
        )
        self.add_weight(
            (*recurrent_shape[:-1], self.gates * recurrent_shape[-1]),
            self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
            layout=self.kernel_layout,
            names=("weight_hh" + self._suffix,),
        )
        self._build_biases()

    def _build_biases(self) -> None:
        self._add_bias((self.gates * self.units,), self.bias_initializer, IDENTITY, ("bias_ih",))

    def _add_bias(self, shape: Sequence[int], initializer: Any, layout: Layout, names: Sequence[str]) -> None:
        """Make the bias, or register it as None."""
        names = [name + self._suffix for name in names]
        if not self.use_bias:
            for name in names:
                self.register_parameter(name, None)
            return
        self.add_weight(
            shape,
            initializer,
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
            layout=layout,
            names=names,
        )

    def _weight(self, name: str) -> Any:
        return getattr(self, name + self._suffix)

    # One step

    # What takes inputs, or a state, through a weight and a bias.
    _apply_inputs: Callable[..., Tensor] = staticmethod(F.linear)
    _apply_state: Callable[..., Tensor] = staticmethod(F.linear)

    def _project_inputs(self, inputs: Tensor, masks: list[Tensor] | None) -> Tensor:
        weights = self._weight("weight_ih"), self._weight("bias_ih")
        return project(inputs, *weights, masks, self._apply_inputs, self._gate_axis)

    def _step(self, projected: Tensor, states: Sequence[Tensor], masks: list[Tensor] | None) -> list[Tensor]:
        """The projected input (batch, gates * units), states, dropout masks for each gate -> new states, h first."""
        raise NotImplementedError

    def _draw_masks(self, inputs: Tensor, state: Tensor, training: bool) -> tuple[Any, Any]:
        """Dropout's masks for inputs and states, shaped like these; None where nothing is dropped."""
        input_masks = state_masks = None
        if training and self._state_dropout is not None:
            state_masks = _dropout_masks(self._state_dropout, state, self.gates)
        if training and self._input_dropout is not None:
            by_gate = self._input_masks_by_gate or state_masks is not None
            input_masks = _dropout_masks(self._input_dropout, inputs, self.gates if by_gate else 1)
        return input_masks, state_masks

    # Whole sequences

    def _kernel(self) -> str | None:
        """The name of torch's kernel that computes the same; None if there is none."""
        return None

    def _kernel_weights(self) -> list[Tensor]:
        """What the kernel takes: two weights, and two biases if any."""
        weights: list[Tensor] = [self._weight("weight_ih"), self._weight("weight_hh")]
        bias = self._weight("bias_ih")
        return weights if bias is None else [*weights, bias, torch.zeros_like(bias)]

    def _hold(self, sequences: Tensor, idle: Tensor, weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Inputs and weights with which the kernel keeps, at `idle` steps, those states that are no outputs."""
        return sequences, weights

    def _run_sequence(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool, wanted: Wanted
    ) -> tuple[Tensor, list[Tensor]]:
        """Run all steps of (batch, time, ...) with torch's kernel if it computes the same, else one by one.

        Returns:
            The output, of every step or of the last, and the states after the last.
        """
        kernel = self._kernel()
        if kernel is None or (training and self._state_dropout is not None):
            return self._run_steps(sequences, states, mask, training, wanted)
        if training and self._input_dropout is not None:
            sequences = sequences * _dropout_masks(self._input_dropout, sequences[:, :1], 1)[0]
        if mask is not None:
            return self._run_kernel_masked(kernel, sequences, states, mask, wanted)
        outputs, states = run_kernel(kernel, sequences, states, self._kernel_weights())
        return outputs if wanted.every else states[0], states

    def _run_kernel_masked(
        self, kernel: str, sequences: Tensor, states: list[Tensor], mask: Tensor, wanted: Wanted
    ) -> tuple[Tensor, list[Tensor]]:
        """Move the steps that count to the front, run the kernel, and fetch each step's output from there.

        This takes masks of any form, and no look at their values: it works on any device without waiting for it.
        """
        order = torch.argsort(mask.to(torch.uint8), dim=1, descending=True, stable=True)
        # How many steps counted up to each step: 0 stands for what was before the first.
        counted = mask.cumsum(1)
        packed, weights = _take_steps(sequences, order), self._kernel_weights()
        if wanted.states and self.state_count > 1:
            idle = torch.arange(mask.shape[1], device=mask.device) >= counted[:, -1:]
            packed, weights = self._hold(packed, idle, weights)
        outputs, finals = run_kernel(kernel, packed, states, weights)
        if wanted.states:
            last = _take_steps(torch.cat([states[0].unsqueeze(1).to(outputs.dtype), outputs], 1), counted[:, -1:])
            finals = [last.squeeze(1), *finals[1:]]
        steps = slice(None) if wanted.every else slice(-1, None)
        output = _take_steps(F.pad(outputs, (0, 0, 1, 0)), counted[:, steps])
        if wanted.zeros:
            output = output * mask[:, steps].unsqueeze(-1)
        return output if wanted.every else output.squeeze(1), finals

    def _run_steps(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool, wanted: Wanted
    ) -> tuple[Tensor, list[Tensor]]:
        input_masks, state_masks = self._draw_masks(sequences[:, :1], states[0], training)
        projected = self._project_inputs(sequences, input_masks)

        def step(inputs: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            new = self._step(inputs, states, state_masks)
            return new[0], new

        return run_steps(step, projected.unbind(1), states, mask, wanted)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": initializers.serialize(self.recurrent_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
            "recurrent_regularizer": regularizers.serialize(self.recurrent_regularizer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": constraints.serialize(self.kernel_constraint),
            "recurrent_constraint": constraints.serialize(self.recurrent_constraint),
            "bias_constraint": constraints.serialize(self.bias_constraint),
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "seed": self.seed,
        }


def run_steps(
    step: Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]],
    inputs: Iterable[Tensor],
    states: list[Tensor],
    mask: Tensor | None,
    wanted: Wanted,
) -> tuple[Tensor, list[Tensor]]:
    """Run steps one by one.

    Args:
        step: `(input, states) -> (output, new states)`.
        inputs: the input of each step, (batch, ...).
        states: the states to start from.
        mask: (batch, time); a step that does not count leaves the states as they are and repeats the last output.
        wanted: what to give.

    Returns:
        The output, of every step (batch, time, ...) or of the last, and the states after the last.
    """
    counts: Iterable[Tensor | None] = itertools.repeat(None) if mask is None else mask.unbind(1)
    output: Tensor | None = None
    outputs = []
    for each, counting in zip(inputs, counts, strict=False):
        new_output, new_states = step(each, states)
        if counting is None:
            output, states = new_output, new_states
        else:
            before = torch.zeros_like(new_output) if wanted.zeros or output is None else output
            output = _choose(counting, new_output, before)
            states = [_choose(counting, new, old) for new, old in zip(new_states, states, strict=True)]
        if wanted.every:
            outputs.append(output)
    assert output is not None, "a sequence has at least one step"
    return torch.stack(outputs, 1) if wanted.every else output, states


def _choose(counting: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(counting.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _take_steps(sequences: Tensor, steps: Tensor) -> Tensor:
    """(batch, time, features), (batch, steps) -> (batch, steps, features)."""
    return sequences.gather(1, steps.unsqueeze(-1).expand(-1, -1, sequences.shape[-1]))


def _dropout_masks(dropout: Dropout, like: Tensor, count: int) -> list[Tensor]:
    return [dropout.call(torch.ones_like(like), training=True) for _ in range(count)]


def project(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    masks: Sequence[Tensor] | None,
    apply: Callable[..., Tensor] = F.linear,
    axis: int = -1,
) -> Tensor:
    """`apply(inputs, weight, bias)`; with several dropout masks, each of them for its own share of the outputs."""
    if masks is None:
        return apply(inputs, weight, bias)
    biases = [None] * len(masks) if bias is None else bias.chunk(len(masks))
    shares = zip(masks, weight.chunk(len(masks)), biases, strict=True)
    return torch.cat([apply(inputs * mask, *share) for mask, *share in shares], axis)
