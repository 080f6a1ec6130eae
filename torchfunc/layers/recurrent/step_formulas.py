"""SimpleRNNStep, LSTMStep and GRUStep: the formula of one step of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfunc import activations
from torchfunc.dtypes import DTypeLike
from torchfunc.layers.base.argument_types import ActivationLike, Config
from torchfunc.layers.base.weights import LINEAR, Layout
from torchfunc.layers.recurrent.step import RecurrentStep, project

__all__ = ["GRUStep", "LSTMStep", "SimpleRNNStep"]

# What the fused kernels compute; other activations run step by step.
_TANH = (activations.tanh, torch.tanh, F.tanh)
_SIGMOID = (activations.sigmoid, torch.sigmoid, F.sigmoid)
_RELU = (activations.relu, torch.relu, F.relu)

# Large enough that its sigmoid is 1, and that of its negative 0, in every float type.
_SATURATED = 1e4


def _is_tanh(activation: ActivationLike) -> bool:
    return activation in _TANH or type(activation) is nn.Tanh


def _is_sigmoid(activation: ActivationLike) -> bool:
    return activation in _SIGMOID or type(activation) is nn.Sigmoid


def _is_relu(activation: ActivationLike) -> bool:
    return activation in _RELU or type(activation) is nn.ReLU


class SimpleRNNStep(RecurrentStep):
    """`h = activation(weight_ih @ x + bias_ih + weight_hh @ h)`. See `RecurrentStep`."""

    def _kernel(self) -> str | None:
        if _is_tanh(self.activation):
            return "rnn_tanh"
        return "rnn_relu" if _is_relu(self.activation) else None

    def _step(self, projected: Tensor, states: Sequence[Tensor], masks: list[Tensor] | None) -> list[Tensor]:
        return [self.activation(projected + project(states[0], self._weight("weight_hh"), None, masks))]


class GatedStep(RecurrentStep):
    """A step with gates. See `RecurrentStep`.

    Args:
        recurrent_activation: of the gates: name, callable or module.
    """

    def __init__(self, *, recurrent_activation: ActivationLike, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recurrent_activation: Any = recurrent_activation

    def _fits_kernel(self) -> bool:
        return _is_tanh(self.activation) and _is_sigmoid(self.recurrent_activation)

    def get_config(self) -> Config:
        return {**super().get_config(), "recurrent_activation": activations.serialize(self.recurrent_activation)}


class LSTMStep(GatedStep):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); the states are h and c. See `RecurrentStep`.

    Args:
        unit_forget_bias: whether the forget gate's bias starts at one.
    """

    gates = 4
    state_count = 2

    def __init__(self, *, unit_forget_bias: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unit_forget_bias = bool(unit_forget_bias)

    def _build_biases(self) -> None:
        initializer = self._open_forget_gate if self.unit_forget_bias else None
        name = "bias_ih" + self._suffix
        self._make_weight("bias", (4 * self.units,), name, initializer=initializer, used=self.use_bias)

    def _open_forget_gate(self, shape: Sequence[int], dtype: DTypeLike | None = None) -> Tensor:
        first = self.bias_initializer((self.units,), dtype=dtype)
        rest = self.bias_initializer((2 * self.units,), dtype=dtype)
        return torch.cat([first, torch.ones_like(first), rest])

    def _kernel(self) -> str | None:
        return "lstm" if self._fits_kernel() else None

    def _freeze_idle_states(
        self, sequences: Tensor, idle: Tensor, weights: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        # The kernel returns c after the last step only. One more input feature, 1 at idle steps and 0 elsewhere, closes
        # the input gate there and opens the forget gate, so that c does not change.
        signs = weights[0].new_tensor([-_SATURATED, _SATURATED, 0.0, 0.0])
        column = signs.repeat_interleave(self.units).unsqueeze(1)
        flag = idle.unsqueeze(-1)
        sequences = torch.cat([sequences.masked_fill(flag, 0.0), flag.to(sequences.dtype)], -1)
        return sequences, [torch.cat([weights[0], column], 1), *weights[1:]]

    def _step(self, projected: Tensor, states: Sequence[Tensor], masks: list[Tensor] | None) -> list[Tensor]:
        h, c = states
        axis = self._gate_axis
        gates = projected + project(h, self._weight("weight_hh"), None, masks, self._apply_state, axis)
        i, f, g, o = gates.chunk(4, axis)
        c = self.recurrent_activation(f) * c + self.recurrent_activation(i) * self.activation(g)
        return [self.recurrent_activation(o) * self.activation(c), c]

    def get_config(self) -> Config:
        return {**super().get_config(), "unit_forget_bias": self.unit_forget_bias}


# Keras orders a GRU's gates z, r, h; torch r, z, n. Swapping the first two converts either way.


def _swap_gates(tensor: Tensor) -> Tensor:
    first, second, third = tensor.chunk(3, -1)
    return torch.cat([second, first, third], -1)


def _swap_one(tensor: Tensor) -> tuple[Tensor, ...]:
    return (_swap_gates(tensor),)


def _kernel_to_torch(tensor: Tensor) -> tuple[Tensor, ...]:
    return LINEAR.to_torch(_swap_gates(tensor))


def _kernel_to_keras(tensor: Tensor) -> Tensor:
    return _swap_gates(LINEAR.to_keras(tensor))


def _biases_to_torch(tensor: Tensor) -> tuple[Tensor, ...]:
    return tuple(_swap_gates(row) for row in tensor)


def _biases_to_keras(*tensors: Tensor) -> Tensor:
    return _swap_gates(torch.stack(tensors))


_GRU_BIAS = Layout(_swap_one, _swap_gates)
# Keras (2, 3 * units) <-> torch's two vectors.
_GRU_BIASES = Layout(_biases_to_torch, _biases_to_keras)


class GRUStep(GatedStep):
    """Gated recurrent unit (Cho et al. 2014); the state is h. See `RecurrentStep`.

    Args:
        reset_after: whether the reset gate is applied to the projected state, and not to the state before.
    """

    gates = 3
    kernel_layout = Layout(_kernel_to_torch, _kernel_to_keras)

    def __init__(self, *, reset_after: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reset_after = bool(reset_after)

    def _build_biases(self) -> None:
        size, names = 3 * self.units, ("bias_ih" + self._suffix, "bias_hh" + self._suffix)
        if self.reset_after:
            self._make_weight("bias", (2, size), names, _GRU_BIASES, used=self.use_bias)
        else:
            self._make_weight("bias", (size,), names[0], _GRU_BIAS, used=self.use_bias)
            self.register_parameter(names[1], None)

    def _kernel(self) -> str | None:
        return "gru" if self.reset_after and self._fits_kernel() else None

    def _kernel_weights(self) -> list[Tensor]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [tensor for tensor in map(self._weight, names) if tensor is not None]

    def _step(self, projected: Tensor, states: Sequence[Tensor], masks: list[Tensor] | None) -> list[Tensor]:
        (h,) = states
        weight = self._weight("weight_hh")
        r, z, n = projected.chunk(3, -1)
        if self.reset_after:
            state_r, state_z, state_n = project(h, weight, self._weight("bias_hh"), masks).chunk(3, -1)
            r = self.recurrent_activation(r + state_r)
            state_n = r * state_n
        else:
            gates_weight, candidate_weight = weight.split([2 * self.units, self.units])
            state_r, state_z = project(h, gates_weight, None, masks and masks[:2]).chunk(2, -1)
            r = self.recurrent_activation(r + state_r)
            state_n = project(r * h, candidate_weight, None, masks and masks[2:])
        z = self.recurrent_activation(z + state_z)
        return [z * h + (1 - z) * self.activation(n + state_n)]

    def get_config(self) -> Config:
        return {**super().get_config(), "reset_after": self.reset_after}
