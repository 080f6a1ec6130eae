"""SimpleRNN, LSTM and GRU, and RecurrentLayer, their base."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from torchfunc import regularizers
from torchfunc.layers.base.argument_types import (
    ActivationLike,
    Config,
    ConstraintLike,
    InitializerLike,
    RegularizerLike,
)
from torchfunc.layers.base.checks import known_size
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.shapes import Shape, Shapes
from torchfunc.layers.recurrent.loop import ReturnOptions
from torchfunc.layers.recurrent.sequence_layer import SequenceLayer
from torchfunc.layers.recurrent.step import RecurrentStep
from torchfunc.layers.recurrent.step_formulas import GRUStep, LSTMStep, SimpleRNNStep

__all__ = ["GRU", "LSTM", "RecurrentLayer", "SimpleRNN"]


class RecurrentLayer(RecurrentStep, SequenceLayer):
    """The base of SimpleRNN, LSTM and GRU: a `RecurrentStep` over whole sequences.

    Shape: `(batch, time, features)` -> `(batch, units)`, or `(batch, time, units)` with `return_sequences`; with
    `return_state` a tuple: that, then the states after the last step, `(batch, units)` each.

    Torch's kernel runs them, masked or not. Python runs the steps one by one, many times slower, with activations
    that the kernel does not know (it knows tanh, for `SimpleRNN` also relu, and sigmoid for gates), and in training
    with `recurrent_dropout`.

    Args:
        units, activation, use_bias, dropout, recurrent_dropout, seed: see `RecurrentStep`.
        kernel_initializer, recurrent_initializer, bias_initializer, kernel_regularizer, recurrent_regularizer,
        bias_regularizer, kernel_constraint, recurrent_constraint, bias_constraint: of the weights, see `WeightedLayer`.
        recurrent_activation: of the gates.
        activity_regularizer: a penalty on the output.
        return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask: see `SequenceLayer`.
        use_cudnn: accepted for compatibility with Keras, without effect: torch chooses the kernel.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`, and Keras' `implementation`, also without effect.
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

    @property
    def cell(self) -> Any:
        """The layer itself, which has the weights and arguments that Keras' layer has in its cell."""
        return self

    def build(self, sequences_shape: Shape, initial_state_shape: Shapes | None = None) -> None:
        features = known_size(sequences_shape, -1, self)
        self._build_weights((features, self.units), (self.units, self.units))
        if self.stateful:
            self._add_state_buffers(sequences_shape)
        self.input_spec = InputSpec(ndim=3, axes={-1: features})

    def _run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool, returned: ReturnOptions
    ) -> tuple[Tensor, list[Tensor]]:
        return self._run_sequence(sequences, states, mask, training, returned)

    def _state_shapes(self, sequences_shape: Shape) -> list[Shapes]:
        return [(sequences_shape[0], self.units)] * self.state_count

    def _zero_states(self, sequences: Tensor) -> list[Tensor]:
        return [sequences.new_zeros(sequences.shape[0], self.units) for _ in range(self.state_count)]

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
        }


class SimpleRNN(SimpleRNNStep, RecurrentLayer):
    """A recurrent layer without gates: `h = activation(W x + U h + b)`, as `torch.nn.RNN` computes it.

    Shape: see `RecurrentLayer`. The state is h.
    Parameters: `weight_ih_l0` (units, features), `weight_hh_l0` (units, units), `bias_ih_l0` (units,), as in
    `torch.nn.RNN`, whose second bias is a constant zero here: one vector, as Keras counts.

    Args: see `RecurrentLayer`. As in Keras, the config leaves `seed` out.

    >>> layers.SimpleRNN(8)(Input((None, 4))).shape
    (None, 8)
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
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        recurrent_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        zero_output_for_mask: bool = False,
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
            activity_regularizer=activity_regularizer,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            seed=seed,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )

    def get_config(self) -> Config:
        config = super().get_config()
        del config["seed"]
        return config


class LSTM(LSTMStep, RecurrentLayer):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), as `torch.nn.LSTM` computes it.

    Shape: see `RecurrentLayer`. The states are h and c.
    Parameters: `weight_ih_l0` (4 * units, features), `weight_hh_l0` (4 * units, units), `bias_ih_l0` (4 * units,), as
    in `torch.nn.LSTM`, whose second bias is a constant zero here: one vector, as Keras counts.

    Args:
        unit_forget_bias: whether the forget gate's bias starts at one.
        others: see `RecurrentLayer`.

    >>> layers.LSTM(8)(Input((None, 4))).shape
    (None, 8)
    >>> output, h, c = layers.LSTM(8, return_sequences=True, return_state=True)(Input((10, 4)))
    >>> output.shape, h.shape, c.shape
    ((None, 10, 8), (None, 8), (None, 8))
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
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        recurrent_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | str = "auto",
        zero_output_for_mask: bool = False,
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
            activity_regularizer=activity_regularizer,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            use_cudnn=use_cudnn,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )


class GRU(GRUStep, RecurrentLayer):
    """Gated recurrent unit (Cho et al. 2014), as `torch.nn.GRU` computes it.

    Shape: see `RecurrentLayer`. The state is h.
    Parameters: `weight_ih_l0` (3 * units, features), `weight_hh_l0` (3 * units, units), `bias_ih_l0` and `bias_hh_l0`
    (3 * units,), as in `torch.nn.GRU`; without `reset_after` there is no `bias_hh_l0`.

    Args:
        reset_after: whether the reset gate is applied to the projected state (as torch's kernel does), and not to the
            state before it is projected (as first published; this runs step by step in Python, which is much slower).
        others: see `RecurrentLayer`.

    >>> layers.GRU(8, return_sequences=True)(Input((10, 4))).shape
    (None, 10, 8)
    """

    bias_hh_l0: nn.Parameter | None

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
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        recurrent_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: bool | str = "auto",
        zero_output_for_mask: bool = False,
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
            activity_regularizer=activity_regularizer,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            reset_after=reset_after,
            use_cudnn=use_cudnn,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
