"""ConvLSTM1D, ConvLSTM2D, ConvLSTM3D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from torchfunc import regularizers
from torchfunc.layers.base.argument_types import (
    ActivationLike,
    Config,
    ConstraintLike,
    InitializerLike,
    RegularizerLike,
)
from torchfunc.layers.base.checks import check_output_shape, known_size, positive
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.shapes import Shape, Shapes
from torchfunc.layers.base.spatial import ConvolvingLayer, Windows, pad, same_padding
from torchfunc.layers.base.weights import CONVOLUTION
from torchfunc.layers.recurrent.loop import ReturnOptions
from torchfunc.layers.recurrent.sequence_layer import SequenceLayer
from torchfunc.layers.recurrent.step_formulas import LSTMStep

__all__ = ["ConvLSTM", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"]


class ConvLSTM(LSTMStep, SequenceLayer, ConvolvingLayer):
    """An LSTM over images, whose products with weights are convolutions (Shi et al. 2015, without peepholes).

    Shape: `(batch, time, *positions, channels)` -> `(batch, *new positions, filters)`, with `return_sequences`
    `(batch, time, *new positions, filters)`; with channels_first the channels come before the positions. New
    positions: as of a convolution. The states h and c are `(batch, *new positions, filters)`.
    Parameters: `weight_ih` (4 * filters, channels, *kernel_size), `weight_hh` (4 * filters, filters, *kernel_size),
    `bias_ih` (4 * filters,); gates in torch's order i, f, g, o.

    The inputs of all steps go through one convolution; what depends on the state runs step by step in Python.

    Args:
        filters: the number of output channels.
        kernel_size, strides, dilation_rate: an integer, or one for each spatial axis. Strides and dilation are of the
            input's convolution, and cannot both be above 1.
        padding: of the input's convolution, "valid" or "same".
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        activation, recurrent_activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer,
        unit_forget_bias, kernel_regularizer, recurrent_regularizer, bias_regularizer, activity_regularizer,
        kernel_constraint, recurrent_constraint, bias_constraint, dropout, recurrent_dropout, seed: as of an `LSTM`.
        return_sequences, return_state, go_backwards, stateful: see `SequenceLayer`.
        **kwargs: `unroll`, `zero_output_for_mask`, `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: an argument is out of range.
    """

    kernel_layout = CONVOLUTION
    _input_masks_by_gate = True
    _kernel_function: ClassVar[Callable[..., Tensor]]
    weight_ih: nn.Parameter
    weight_hh: nn.Parameter
    bias_ih: nn.Parameter | None

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
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
        **kwargs: Any,
    ) -> None:
        weights = {
            "kernel": (kernel_initializer, kernel_regularizer, kernel_constraint),
            "recurrent": (recurrent_initializer, recurrent_regularizer, recurrent_constraint),
            "bias": (bias_initializer, bias_regularizer, bias_constraint),
        }
        super().__init__(
            units=positive(filters, "filters", type(self).__name__),
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
            **kwargs,
        )
        self.filters = positive(filters, "filters", type(self).__name__)
        self._set_windows(Windows(kernel_size, strides, padding, data_format, dilation_rate))
        self.input_spec = InputSpec(ndim=self.rank + 3)
        self._gate_axis = -1 - self.rank

    @property
    def cell(self) -> Any:
        """The layer itself, which has the weights and arguments that Keras' layer has in its cell."""
        return self

    def build(self, sequences_shape: Shape, initial_state_shape: Shapes | None = None) -> None:
        axis = -1 if self._channels_last else 2
        channels = known_size(sequences_shape, axis, self)
        check_output_shape(self, sequences_shape)
        kernel_shapes = [(*self.kernel_size, count, self.filters) for count in (channels, self.filters)]
        self._build_weights(*kernel_shapes)
        if self.stateful:
            self._add_state_buffers(sequences_shape)
        self.input_spec = InputSpec(ndim=self.rank + 3, axes={axis: channels})

    def _run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool, returned: ReturnOptions
    ) -> tuple[Tensor, list[Tensor]]:
        if self._channels_last:
            sequences = sequences.movedim(-1, 2)
        states = [self._channels_first_view(state) for state in states]
        output, states = self._run_steps(sequences, states, mask, training, returned)
        if self._channels_last:
            output = output.movedim(self._gate_axis, -1)
        return output, [self._from_channels_first(state) for state in states]

    def _apply_inputs(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        sizes = inputs.shape[:2]
        arguments = (self._extent, self.strides, self.dilation_rate, self.padding == "same")
        return self._convolve(inputs.flatten(0, 1), weight, bias, *arguments).unflatten(0, sizes)

    def _apply_state(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ones = (1,) * self.rank
        return self._convolve(inputs, weight, bias, self.kernel_size, ones, ones, True)

    def _convolve(
        self,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        extent: Sequence[int],
        strides: Sequence[int],
        dilation_rate: Sequence[int],
        padded: bool,
    ) -> Tensor:
        pairs = list(map(same_padding, inputs.shape[2:], extent, strides)) if padded else [(0, 0)] * self.rank
        if any(before != after for before, after in pairs):
            inputs, pairs = pad(inputs, pairs), [(0, 0)] * self.rank
        padding = [before for before, _ in pairs]
        return self._kernel_function(inputs, weight, bias, strides, padding, dilation_rate)

    def _state_shapes(self, sequences_shape: Shape) -> list[Shapes]:
        batch, _, *rest = sequences_shape
        step_shape = (batch, *rest)
        return [self._with_positions(step_shape, self._output_positions(step_shape), self.filters)] * 2

    def get_config(self) -> Config:
        config = super().get_config()
        del config["units"]
        return {
            **config,
            "filters": self.filters,
            **self._windows_config(),
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
        }


class ConvLSTM1D(ConvLSTM):
    """An LSTM over sequences of signals: `(batch, time, steps, channels)`. See `ConvLSTM`.

    >>> layers.ConvLSTM1D(8, 3)(Input((5, 16, 4))).shape
    (None, 14, 8)
    """

    rank = 1
    _kernel_function = staticmethod(F.conv1d)


class ConvLSTM2D(ConvLSTM):
    """An LSTM over sequences of images: `(batch, time, height, width, channels)`. See `ConvLSTM`.

    >>> layers.ConvLSTM2D(8, 3, padding="same", return_sequences=True)(Input((5, 16, 16, 3))).shape
    (None, 5, 16, 16, 8)
    """

    rank = 2
    _kernel_function = staticmethod(F.conv2d)


class ConvLSTM3D(ConvLSTM):
    """An LSTM over sequences of volumes: `(batch, time, depth, height, width, channels)`. See `ConvLSTM`.

    >>> layers.ConvLSTM3D(8, 3)(Input((5, 8, 8, 8, 3))).shape
    (None, 6, 6, 6, 8)
    """

    rank = 3
    _kernel_function = staticmethod(F.conv3d)
