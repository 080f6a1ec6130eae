"""SimpleRNNCell, LSTMCell and GRUCell: one step of a recurrent layer, for `RNN` or a custom loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchfunc.layers.base.argument_types import ActivationLike, ConstraintLike, InitializerLike, RegularizerLike
from torchfunc.layers.base.checks import known_size
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.shapes import Shape, Shapes, is_shape
from torchfunc.layers.recurrent.step import RecurrentStep
from torchfunc.layers.recurrent.step_formulas import GRUStep, LSTMStep, SimpleRNNStep

__all__ = ["GRUCell", "LSTMCell", "RecurrentCell", "SimpleRNNCell"]


class RecurrentCell(RecurrentStep):
    """A `RecurrentStep` as a layer: `cell(inputs, states)` returns the output and the new states.

    Shape: inputs `(batch, features)`, a list of states `(batch, units)` -> output `(batch, units)`, a list of states.
    A cell with one state also takes and returns it without a list.
    Parameters: `weight_ih`, `weight_hh`, `bias_ih`, as in torch's cells; see the layer of the same name for sizes.

    With dropout every call in training draws new masks; `RNN` draws them once for a sequence.

    Attributes:
        state_size: the length of the state, or a list of those of several.
        output_size: the length of the output.
    """

    weight_ih: nn.Parameter
    weight_hh: nn.Parameter
    bias_ih: nn.Parameter | None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.input_spec = InputSpec(ndim=2)

    @property
    def state_size(self) -> int | list[int]:
        return self.units if self.state_count == 1 else [self.units] * self.state_count

    @property
    def output_size(self) -> int:
        return self.units

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        """Zeros `(batch_size, units)` for each state."""
        like = self.weight_ih if self.built else torch.zeros((), dtype=self.dtype)
        return [like.detach().new_zeros(batch_size or 0, self.units) for _ in range(self.state_count)]

    def build(self, input_shape: Shape) -> None:
        features = known_size(input_shape, -1, self)
        self._build_weights((features, self.units), (self.units, self.units))
        self.input_spec = InputSpec(ndim=2, axes={-1: features})

    def call(
        self, inputs: Tensor, states: Tensor | list[Tensor] | tuple[Tensor, ...], training: bool = False
    ) -> tuple[Tensor, Tensor | list[Tensor]]:
        inputs = self._in_own_dtype(inputs)
        given = list(states) if isinstance(states, (list, tuple)) else [states]
        self._check_states([tuple(state.shape) for state in given])
        input_masks, state_masks = self._draw_masks(inputs, given[0], training)
        new = self._step(self._project_inputs(inputs, input_masks), given, state_masks)
        return new[0], new if isinstance(states, (list, tuple)) else new[0]

    def _check_states(self, shapes: list[Shape]) -> None:
        if len(shapes) != self.state_count or any(shape[1:] != (self.units,) for shape in shapes):
            raise ValueError(
                f"{self.describe()} takes {self.state_count} states of shape (batch, {self.units}), got "
                f"{', '.join(map(str, shapes))}."
            )

    def compute_output_shape(self, inputs_shape: Shape, states_shape: Shapes | None = None) -> Shapes:
        shape = (inputs_shape[0], self.units)
        if states_shape is None:
            return shape, [shape] * self.state_count
        several = not is_shape(states_shape)
        self._check_states([tuple(each) for each in (states_shape if several else [states_shape])])
        return shape, [shape] * self.state_count if several else shape


class SimpleRNNCell(SimpleRNNStep, RecurrentCell):
    """One step of a `SimpleRNN`. See `RecurrentCell`.

    Args:
        units, activation, use_bias, dropout, recurrent_dropout, seed: see `RecurrentStep`.
        kernel_initializer, recurrent_initializer, bias_initializer, kernel_regularizer, recurrent_regularizer,
        bias_regularizer, kernel_constraint, recurrent_constraint, bias_constraint: of the weights, see `WeightedLayer`.
        **kwargs: `name`, `trainable`, `dtype`, `activity_regularizer`.

    >>> output, states = layers.SimpleRNNCell(8)(torch.zeros(2, 4), [torch.zeros(2, 8)])
    >>> output.shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        recurrent_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        recurrent_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        weights = {
            "kernel": (kernel_initializer, kernel_regularizer, kernel_constraint),
            "recurrent": (recurrent_initializer, recurrent_regularizer, recurrent_constraint),
            "bias": (bias_initializer, bias_regularizer, bias_constraint),
        }
        super().__init__(
            units=units,
            activation=activation,
            use_bias=use_bias,
            weights=weights,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            **kwargs,
        )


class LSTMCell(LSTMStep, RecurrentCell):
    """One step of an `LSTM`. The states are h and c. See `RecurrentCell`.

    Args:
        units, activation, use_bias, dropout, recurrent_dropout, seed: see `RecurrentStep`.
        kernel_initializer, recurrent_initializer, bias_initializer, kernel_regularizer, recurrent_regularizer,
        bias_regularizer, kernel_constraint, recurrent_constraint, bias_constraint: of the weights, see `WeightedLayer`.
        recurrent_activation: of the gates.
        unit_forget_bias: whether the forget gate's bias starts at one.
        **kwargs: `name`, `trainable`, `dtype`, `activity_regularizer`.

    >>> output, states = layers.LSTMCell(8)(torch.zeros(2, 4), [torch.zeros(2, 8), torch.zeros(2, 8)])
    >>> output.shape, len(states)
    (torch.Size([2, 8]), 2)
    """

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        recurrent_activation: ActivationLike = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: RegularizerLike = None,
        recurrent_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        recurrent_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        weights = {
            "kernel": (kernel_initializer, kernel_regularizer, kernel_constraint),
            "recurrent": (recurrent_initializer, recurrent_regularizer, recurrent_constraint),
            "bias": (bias_initializer, bias_regularizer, bias_constraint),
        }
        super().__init__(
            units=units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            weights=weights,
            unit_forget_bias=unit_forget_bias,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            **kwargs,
        )


class GRUCell(GRUStep, RecurrentCell):
    """One step of a `GRU`. See `RecurrentCell`.

    Args:
        units, activation, use_bias, dropout, recurrent_dropout, seed: see `RecurrentStep`.
        kernel_initializer, recurrent_initializer, bias_initializer, kernel_regularizer, recurrent_regularizer,
        bias_regularizer, kernel_constraint, recurrent_constraint, bias_constraint: of the weights, see `WeightedLayer`.
        recurrent_activation: of the gates.
        reset_after: whether the reset gate is applied to the projected state, and not to the state before.
        **kwargs: `name`, `trainable`, `dtype`, `activity_regularizer`.

    >>> output, states = layers.GRUCell(8)(torch.zeros(2, 4), [torch.zeros(2, 8)])
    >>> output.shape
    torch.Size([2, 8])
    """

    bias_hh: nn.Parameter | None

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        recurrent_activation: ActivationLike = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        recurrent_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        recurrent_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        weights = {
            "kernel": (kernel_initializer, kernel_regularizer, kernel_constraint),
            "recurrent": (recurrent_initializer, recurrent_regularizer, recurrent_constraint),
            "bias": (bias_initializer, bias_regularizer, bias_constraint),
        }
        super().__init__(
            units=units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            weights=weights,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            reset_after=reset_after,
            seed=seed,
            **kwargs,
        )
