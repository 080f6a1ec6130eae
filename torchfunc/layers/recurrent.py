"""LSTM and GRU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfunc.layers.recurrent_base import Recurrent, project
from torchfunc.layers.weights import IDENTITY, LINEAR, Layout

__all__ = ["GRU", "LSTM"]


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), as `torch.nn.LSTM` computes it.

    Shape: see `Recurrent`. The states are h and c.
    Parameters: `weight_ih_l0` (4 * units, features), `weight_hh_l0` (4 * units, units), `bias_ih_l0` (4 * units,), as
    in `torch.nn.LSTM`, whose second bias is a constant zero here: one vector, as Keras counts.

    Args:
        unit_forget_bias: whether the forget gate's bias starts at one.
        others: see `Recurrent`.
    """

    gates = 4
    state_count = 2
    kernel_layout = LINEAR

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
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
        super().__init__(
            units,
            activation,
            recurrent_activation,
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            kernel_regularizer,
            recurrent_regularizer,
            bias_regularizer,
            kernel_constraint,
            recurrent_constraint,
            bias_constraint,
            dropout,
            recurrent_dropout,
            seed,
            return_sequences,
            return_state,
            go_backwards,
            stateful,
            unroll,
            use_cudnn,
            zero_output_for_mask,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.unit_forget_bias = bool(unit_forget_bias)

    def _build_biases(self, size: int) -> None:
        if self.use_bias:
            initializer = self._open_forget_gate if self.unit_forget_bias else self.bias_initializer
            self._add_bias((size,), initializer, IDENTITY, ("bias_ih_l0",))
        else:
            self.register_parameter("bias_ih_l0", None)

    def _open_forget_gate(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        first = self.bias_initializer((self.units,), dtype=dtype)
        rest = self.bias_initializer((2 * self.units,), dtype=dtype)
        return torch.cat([first, torch.ones_like(first), rest])

    def _kernel_weights(self) -> list[Tensor]:
        weights: list[Tensor] = [self.weight_ih_l0, self.weight_hh_l0]
        bias = self.bias_ih_l0
        return weights if bias is None else [*weights, bias, torch.zeros_like(bias)]

    def _step(self, projected: Tensor, states: list[Tensor], masks: list[Tensor] | None) -> list[Tensor]:
        h, c = states
        i, f, g, o = (projected + project(h, self.weight_hh_l0, None, masks)).chunk(4, -1)
        c = self.recurrent_activation(f) * c + self.recurrent_activation(i) * self.activation(g)
        return [self.recurrent_activation(o) * self.activation(c), c]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "unit_forget_bias": self.unit_forget_bias}


# Keras orders a GRU's gates z, r, h; torch r, z, n. Swapping the first two goes either way.


def _swap_gates(tensor: Tensor) -> Tensor:
    first, second, third = tensor.chunk(3, -1)
    return torch.cat([second, first, third], -1)


def _swap_one(tensor: Tensor) -> tuple[Tensor, ...]:
    return (_swap_gates(tensor),)


def _kernel_to_torch(tensor: Tensor) -> tuple[Tensor, ...]:
    return (_swap_gates(tensor).t().contiguous(),)


def _kernel_to_keras(tensor: Tensor) -> Tensor:
    return _swap_gates(tensor.t())


def _biases_to_torch(tensor: Tensor) -> tuple[Tensor, ...]:
    return tuple(_swap_gates(row) for row in tensor)


def _biases_to_keras(*tensors: Tensor) -> Tensor:
    return _swap_gates(torch.stack(tensors))


_GRU_BIAS = Layout(_swap_one, _swap_gates)
# Keras (2, 3 * units) <-> torch's two vectors.
_GRU_BIASES = Layout(_biases_to_torch, _biases_to_keras)


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014), as `torch.nn.GRU` computes it.

    Shape: see `Recurrent`. The state is h.
    Parameters: `weight_ih_l0` (3 * units, features), `weight_hh_l0` (3 * units, units), `bias_ih_l0` and `bias_hh_l0`
    (3 * units,), as in `torch.nn.GRU`; without `reset_after` there is no `bias_hh_l0`.

    Args:
        reset_after: whether the reset gate is applied to the projected state (as torch's kernel does), and not to the
            state before it is projected (as first published; this runs step by step in Python, which is much slower).
        others: see `Recurrent`.
    """

    gates = 3
    state_count = 1
    kernel_layout = Layout(_kernel_to_torch, _kernel_to_keras)
    bias_hh_l0: nn.Parameter | None

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
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
        super().__init__(
            units,
            activation,
            recurrent_activation,
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            kernel_regularizer,
            recurrent_regularizer,
            bias_regularizer,
            kernel_constraint,
            recurrent_constraint,
            bias_constraint,
            dropout,
            recurrent_dropout,
            seed,
            return_sequences,
            return_state,
            go_backwards,
            stateful,
            unroll,
            use_cudnn,
            zero_output_for_mask,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.reset_after = bool(reset_after)

    def _build_biases(self, size: int) -> None:
        if self.use_bias and self.reset_after:
            self._add_bias((2, size), self.bias_initializer, _GRU_BIASES, ("bias_ih_l0", "bias_hh_l0"))
            return
        if self.use_bias:
            self._add_bias((size,), self.bias_initializer, _GRU_BIAS, ("bias_ih_l0",))
        else:
            self.register_parameter("bias_ih_l0", None)
        self.register_parameter("bias_hh_l0", None)

    def _kernel_fits(self, mask: Tensor | None, training: bool) -> bool:
        return self.reset_after and super()._kernel_fits(mask, training)

    def _kernel_weights(self) -> list[Tensor]:
        tensors = (self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0)
        return [tensor for tensor in tensors if tensor is not None]

    def _step(self, projected: Tensor, states: list[Tensor], masks: list[Tensor] | None) -> list[Tensor]:
        (h,) = states
        r, z, n = projected.chunk(3, -1)
        if self.reset_after:
            state_r, state_z, state_n = project(h, self.weight_hh_l0, self.bias_hh_l0, masks).chunk(3, -1)
            r = self.recurrent_activation(r + state_r)
            state_n = r * state_n
        else:
            gates_weight, candidate_weight = self.weight_hh_l0.split([2 * self.units, self.units])
            state_r, state_z = project(h, gates_weight, None, masks and masks[:2]).chunk(2, -1)
            r = self.recurrent_activation(r + state_r)
            state_n = project(r * h, candidate_weight, None, masks and masks[2:])
        z = self.recurrent_activation(z + state_z)
        return [z * h + (1 - z) * self.activation(n + state_n)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "reset_after": self.reset_after}
