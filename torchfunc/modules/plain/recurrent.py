"""Recurrent layers with what torch's own do not have: one bias, masks, other activations, dropout of states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfunc.modules.plain.windows import pad_same

__all__ = ["LSTM", "RNN", "ConvLSTMCell", "GRUCell", "LSTMCell", "SimpleRNNCell", "over_steps"]


class LSTM(nn.LSTM):
    """`nn.LSTM` of one layer, batch first, with one bias: the second is a zero that is no parameter."""

    bias_hh_l0: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)
        del self.bias_hh_l0
        self.register_buffer("bias_hh_l0", torch.zeros(4 * hidden_size), persistent=False)


class RNN(nn.RNN):
    """`nn.RNN` of one layer, batch first, with one bias: the second is a zero that is no parameter."""

    bias_hh_l0: Tensor

    def __init__(self, input_size: int, hidden_size: int, nonlinearity: str = "tanh") -> None:
        super().__init__(input_size, hidden_size, nonlinearity=nonlinearity, batch_first=True)
        del self.bias_hh_l0
        self.register_buffer("bias_hh_l0", torch.zeros(hidden_size), persistent=False)


def project(inputs: Tensor, weight: Tensor, bias: Tensor | None, masks: Sequence[Tensor] | None) -> Tensor:
    """`F.linear`; with several dropout masks, each of them for its own share of the outputs."""
    if masks is None:
        return F.linear(inputs, weight, bias)
    biases: Sequence[Tensor | None] = [None] * len(masks) if bias is None else bias.chunk(len(masks))
    shares = zip(masks, weight.chunk(len(masks)), biases, strict=True)
    return torch.cat([F.linear(inputs * mask, part, own) for mask, part, own in shares], -1)


class Cell(nn.Module):
    """The base of cells: `cell(inputs, states)` gives the new states, the first of which is the output.

    Args:
        input_size, hidden_size: the lengths of inputs and of each state.
        activation: of the candidate, and of an LSTM's output.
        bias: whether there is one.
        dropout, recurrent_dropout: the shares of inputs and states that training drops.
        suffix: what the parameters' names end in.
    """

    gates, state_count = 1, 1
    states: list[Tensor]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        bias: bool = True,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        suffix: str = "",
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.activation, self.bias = input_size, hidden_size, activation, bias
        self.dropout, self.recurrent_dropout, self.suffix = dropout, recurrent_dropout, suffix
        sizes = {"weight_ih": (input_size,), "weight_hh": (hidden_size,), **({"bias_ih": ()} if bias else {})}
        for name, rest in sizes.items():
            self.register_parameter(name + suffix, nn.Parameter(torch.zeros(self.gates * hidden_size, *rest)))

    def weight(self, name: str) -> Any:
        """A parameter by its name without the suffix."""
        return getattr(self, name + self.suffix, None)

    def project(self, inputs: Tensor, masks: Sequence[Tensor] | None) -> Tensor:
        """The products of inputs (batch, ..., input_size) with their weights."""
        return project(inputs, self.weight("weight_ih"), self.weight("bias_ih"), masks)

    def draw_masks(
        self, inputs: Tensor, state: Tensor, training: bool
    ) -> tuple[list[Tensor] | None, list[Tensor] | None]:
        """Dropout's masks for inputs and states; None where nothing is dropped."""
        input_masks = state_masks = None
        if training and self.recurrent_dropout:
            state_masks = [F.dropout(torch.ones_like(state), self.recurrent_dropout) for _ in range(self.gates)]
        if training and self.dropout:
            count = 1 if state_masks is None else self.gates
            input_masks = [F.dropout(torch.ones_like(inputs), self.dropout) for _ in range(count)]
        return input_masks, state_masks

    def step(self, projected: Tensor, states: Sequence[Tensor], masks: Sequence[Tensor] | None) -> list[Tensor]:
        """From the projected input and the old states to the new ones."""
        raise NotImplementedError

    def forward(self, inputs: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """(batch, input_size) and the states (batch, hidden_size) -> the output, and the new states."""
        input_masks, state_masks = self.draw_masks(inputs, states[0], self.training)
        new = self.step(self.project(inputs, input_masks), states, state_masks)
        return new[0], new

    def initial_states(self, inputs: Tensor) -> list[Tensor]:
        """Zeros, for inputs (batch, ...)."""
        return [inputs.new_zeros(inputs.shape[0], self.hidden_size) for _ in range(self.state_count)]


class SimpleRNNCell(Cell):
    """`h = activation(W x + U h + b)`. See `Cell`."""

    def step(self, projected: Tensor, states: Sequence[Tensor], masks: Sequence[Tensor] | None) -> list[Tensor]:
        """From the projected input and the old state to the new one."""
        return [self.activation(projected + project(states[0], self.weight("weight_hh"), None, masks))]


class LSTMCell(Cell):
    """Long short-term memory; the states are h and c. See `Cell`.

    Args:
        recurrent_activation: of the gates.
    """

    gates, state_count = 4, 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        recurrent_activation: Callable[[Tensor], Tensor] = torch.sigmoid,
        bias: bool = True,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        suffix: str = "",
    ) -> None:
        super().__init__(input_size, hidden_size, activation, bias, dropout, recurrent_dropout, suffix)
        self.recurrent_activation = recurrent_activation

    def step(self, projected: Tensor, states: Sequence[Tensor], masks: Sequence[Tensor] | None) -> list[Tensor]:
        """From the projected input and the old h and c to the new ones."""
        h, c = states
        i, f, g, o = (projected + project(h, self.weight("weight_hh"), None, masks)).chunk(4, -1)
        c = self.recurrent_activation(f) * c + self.recurrent_activation(i) * self.activation(g)
        return [self.recurrent_activation(o) * self.activation(c), c]


class GRUCell(Cell):
    """Gated recurrent unit. See `Cell`.

    Args:
        recurrent_activation: of the gates.
        reset_after: whether the reset gate is applied to the projected state, and not to the state before.
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        recurrent_activation: Callable[[Tensor], Tensor] = torch.sigmoid,
        bias: bool = True,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        suffix: str = "",
        reset_after: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size, activation, bias, dropout, recurrent_dropout, suffix)
        self.recurrent_activation, self.reset_after = recurrent_activation, reset_after
        if bias and reset_after:
            self.register_parameter("bias_hh" + suffix, nn.Parameter(torch.zeros(3 * hidden_size)))

    def step(self, projected: Tensor, states: Sequence[Tensor], masks: Sequence[Tensor] | None) -> list[Tensor]:
        """From the projected input and the old state to the new one."""
        (h,), weight = states, self.weight("weight_hh")
        r, z, n = projected.chunk(3, -1)
        if self.reset_after:
            state_r, state_z, state_n = project(h, weight, self.weight("bias_hh"), masks).chunk(3, -1)
            state_n = self.recurrent_activation(r + state_r) * state_n
        else:
            gates, candidate = weight.split([2 * self.hidden_size, self.hidden_size])
            state_r, state_z = project(h, gates, None, masks and masks[:2]).chunk(2, -1)
            r = self.recurrent_activation(r + state_r)
            state_n = project(r * h, candidate, None, masks and masks[2:])
        z = self.recurrent_activation(z + state_z)
        return [z * h + (1 - z) * self.activation(n + state_n)]


class ConvLSTMCell(LSTMCell):
    """A step of an LSTM over (batch, channels, *positions), whose products with weights are convolutions.

    Args:
        input_size, hidden_size: the channels of inputs and of each state.
        kernel_size: for each spatial axis; of the inputs' convolution also stride, padding and dilation.
        padding: "valid" or "same".
        others: see `LSTMCell`.
    """

    weight_ih: Tensor
    weight_hh: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        padding: str = "valid",
        dilation: tuple[int, ...] = (1,),
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        recurrent_activation: Callable[[Tensor], Tensor] = torch.sigmoid,
        bias: bool = True,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size, activation, recurrent_activation, bias, dropout, recurrent_dropout)
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        for name, channels in (("weight_ih", input_size), ("weight_hh", hidden_size)):
            self.register_parameter(name, nn.Parameter(torch.zeros(4 * hidden_size, channels, *kernel_size)))

    def convolve(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution of the inputs."""
        function: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[len(self.kernel_size) - 1]
        if self.padding == "same":
            extent = [(size - 1) * step + 1 for size, step in zip(self.kernel_size, self.dilation, strict=True)]
            inputs = pad_same(inputs, extent, self.stride)
        return function(inputs, weight, bias, self.stride, 0, self.dilation)

    def project(self, inputs: Tensor, masks: Sequence[Tensor] | None) -> Tensor:
        """The convolutions of all steps (batch, time, channels, *positions) at once."""
        weight, bias, sizes = self.weight_ih, getattr(self, "bias_ih", None), inputs.shape[:2]
        if masks is None:
            return self.convolve(inputs.flatten(0, 1), weight, bias).unflatten(0, sizes)
        biases: Sequence[Tensor | None] = [None] * 4 if bias is None else bias.chunk(4)
        shares = zip(masks, weight.chunk(4), biases, strict=True)
        parts = [self.convolve((inputs * mask).flatten(0, 1), part, own) for mask, part, own in shares]
        return torch.cat(parts, 1).unflatten(0, sizes)

    def draw_masks(
        self, inputs: Tensor, state: Tensor, training: bool
    ) -> tuple[list[Tensor] | None, list[Tensor] | None]:
        """Dropout's masks for each gate, of inputs and states; None where nothing is dropped."""

        def draw(like: Tensor, share: float) -> list[Tensor] | None:
            dropped = training and share
            return [F.dropout(torch.ones_like(like), share) for _ in range(4)] if dropped else None

        state_masks = draw(state, self.recurrent_dropout)
        return draw(inputs, self.dropout), state_masks

    def step(self, projected: Tensor, states: Sequence[Tensor], masks: Sequence[Tensor] | None) -> list[Tensor]:
        """From the projected input and the old h and c to the new ones."""
        h, c = states
        rank = len(self.kernel_size)
        function: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
        shares = [(h, self.weight_hh)]
        if masks is not None:
            shares = [(h * mask, part) for mask, part in zip(masks, self.weight_hh.chunk(4), strict=True)]
        products = [function(pad_same(each, self.kernel_size, (1,) * rank), weight) for each, weight in shares]
        i, f, g, o = (projected + torch.cat(products, 1)).chunk(4, 1)
        c = self.recurrent_activation(f) * c + self.recurrent_activation(i) * self.activation(g)
        return [self.recurrent_activation(o) * self.activation(c), c]

    def initial_states(self, inputs: Tensor) -> list[Tensor]:
        """Zeros, for inputs (batch, time, channels, *positions)."""
        with torch.no_grad():
            one = self.convolve(inputs[:, 0], self.weight_ih, None)
        return [torch.zeros_like(one[:, : self.hidden_size]) for _ in range(2)]


def choose(counts: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Of two tensors (batch, ...) the first where `counts` (batch,) is True, the second elsewhere."""
    return torch.where(counts.reshape(-1, *[1] * (new.ndim - 1)), new, old)


@torch.fx.wrap
def over_steps(
    cell: Cell,
    sequences: Tensor,
    states: Sequence[Tensor] | None = None,
    mask: Tensor | None = None,
    *,
    return_state: bool = False,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    stateful: bool = False,
    training: bool | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """Run a cell over the steps of (batch, time, ...).

    Args:
        cell: the cell.
        sequences: the inputs.
        states: the states to start from; zeros by default.
        mask: (batch, time); a step that is False leaves the states as they are and repeats the output before it.
        return_state: whether to return a tuple of the outputs and the final states.
        go_backwards: whether to start at the last step; the outputs come in that order.
        zero_output_for_mask: whether masked steps give zeros.
        stateful: whether to start from the states that the last call ended with, kept in `cell.states`.
        training: whether to drop inputs and states; the cell's mode by default.

    Returns:
        The output of every step (batch, time, ...).
    """
    if states is None:
        kept = getattr(cell, "states", None) if stateful else None
        states = cell.initial_states(sequences) if kept is None else kept
    states = list(states)
    if go_backwards:
        sequences, mask = sequences.flip(1), None if mask is None else mask.flip(1)
    input_masks, state_masks = cell.draw_masks(
        sequences[:, :1], states[0], cell.training if training is None else training
    )
    outputs: list[Tensor] = []
    for step, projected in enumerate(cell.project(sequences, input_masks).unbind(1)):
        new = cell.step(projected, states, state_masks)
        output = new[0]
        if mask is not None:
            counts = mask[:, step].bool()
            before = torch.zeros_like(output) if zero_output_for_mask or not outputs else outputs[-1]
            output = choose(counts, output, before)
            new = [choose(counts, each, old) for each, old in zip(new, states, strict=True)]
        outputs.append(output)
        states = new
    if stateful:
        cell.states = [state.detach() for state in states]
    stacked = torch.stack(outputs, 1)
    return (stacked, *states) if return_state else stacked
