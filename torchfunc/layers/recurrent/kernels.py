"""Torch's fused RNN, LSTM and GRU kernels, callable wherever a layer runs.

Run as they are, they are `torch.lstm`, `torch.gru`, `torch.rnn_tanh` and `torch.rnn_relu`. torch.compile either
refuses those or unrolls them over time (torch 2.13: a TypeError for an LSTM that is trained, a minute of compiling for
a GRU over 50 steps), so compiled code and fake runs see one operator instead. torch.export uses torch's own
operators, so that an exported program needs nothing of this package; only for an unknown number of steps, which they
do not take, it uses ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc.graph import FakeTensor, autograd_in_operator, is_exporting
from torchfunc.layers.recurrent.cudnn import cudnn_fits, run_cudnn, run_cudnn_operator

__all__ = ["run_kernel"]

_HAS_ONEDNN = torch.backends.mkldnn.is_available()
# oneDNN's number for an LSTM, an argument of these operators.
_ONEDNN_LSTM = 2
_KERNELS = {"gru": torch.gru, "rnn_tanh": torch.rnn_tanh, "rnn_relu": torch.rnn_relu}


def run_kernel(
    kernel: str, inputs: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Run a whole sequence through one of torch's kernels.

    Args:
        kernel: "lstm", "gru", "rnn_tanh" or "rnn_relu".
        inputs: (batch, time, features).
        states: the initial h, and for an LSTM c: (batch, units) each.
        weights: weight_ih, weight_hh, and bias_ih, bias_hh if there are biases, laid out as in `torch.nn.LSTM`.

    Returns:
        The output of every step (batch, time, units), and the states after the last (batch, units).
    """
    # (For "meta" torch has no autocast, and raises when asked.)
    if not inputs.is_meta and torch.is_autocast_enabled(inputs.device.type) and inputs.dtype != torch.float64:
        # As autocast itself does for torch.lstm, but not for our operators.
        dtype = torch.get_autocast_dtype(inputs.device.type)
        inputs, *states = (tensor.to(dtype) for tensor in (inputs, *states))
        weights = [weight.to(dtype) for weight in weights]
    if not _needs_operator(inputs):
        outputs, *states = _run(kernel, inputs, states, weights)
    elif kernel == "lstm" and _onednn_fits(inputs):
        if len(weights) == 2:
            zeros = inputs.new_zeros(weights[0].shape[0])
            weights = [*weights, zeros, zeros]
        # The layout oneDNN needs; here it is made once for both passes.
        steps_first = inputs.transpose(0, 1).contiguous()
        h, c = (state.unsqueeze(0).contiguous() for state in states)
        outputs, h, c, _ = _lstm_onednn(steps_first, h, c, weights)
        outputs, states = outputs.transpose(0, 1), [h.squeeze(0), c.squeeze(0)]
    elif torch.compiler.is_compiling() and torch.is_grad_enabled() and cudnn_fits(inputs):
        outputs, *states = run_cudnn_operator(kernel, inputs, states, weights)
    else:
        outputs, *states = _recurrent(kernel, inputs, states, weights)
    return outputs, list(states)


def _needs_operator(inputs: Tensor) -> bool:
    if is_exporting():
        return not isinstance(inputs.shape[1], int)
    return torch.compiler.is_compiling() or isinstance(inputs, FakeTensor)


def _onednn_fits(inputs: Tensor) -> bool:
    return (
        inputs.device.type == "cpu"
        and inputs.dtype == torch.float32
        # The size of its workspace is unknown, so neither a fake run nor an exported program can use it.
        and torch.compiler.is_compiling()
        and not is_exporting()
        and _HAS_ONEDNN
    )


def _run(kernel: str, inputs: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """The kernel itself: outputs, then final states."""
    if not is_exporting() and cudnn_fits(inputs):
        return run_cudnn(kernel, inputs, states, weights)
    hx = [state.unsqueeze(0) for state in states]
    options = (len(weights) == 4, 1, 0.0, torch.is_grad_enabled(), False, True)
    if kernel == "lstm":
        outputs, *finals = torch.lstm(inputs, hx, list(weights), *options)
    else:
        outputs, *finals = _KERNELS[kernel](inputs, hx[0], list(weights), *options)
    # (While torch.export of torch 2.11 traces this, they have an axis more.)
    return [outputs, *(final.reshape(state.shape) for final, state in zip(finals, states, strict=True))]


# For any device and dtype: one operator, whose backward pass runs the forward pass again.


@torch.library.custom_op("torchfunc::recurrent", mutates_args=())
def _recurrent(kernel: str, inputs: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    return [result.contiguous() for result in _run(kernel, inputs, states, weights)]


@_recurrent.register_fake
def _(kernel: str, inputs: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    batch, steps, _ = inputs.shape
    units = weights[1].shape[1]
    return [inputs.new_empty(batch, steps, units), *(inputs.new_empty(batch, units) for _ in states)]


@torch.library.custom_op("torchfunc::recurrent_backward", mutates_args=())
def _recurrent_backward(
    kernel: str, inputs: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], gradients: Sequence[Tensor]
) -> list[Tensor]:
    # Autograd is switched off inside an operator; this needs it for the forward pass it repeats.
    with autograd_in_operator(), torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in (inputs, *states, *weights)]
        first_weight = 1 + len(states)
        results = _run(kernel, leaves[0], leaves[1:first_weight], leaves[first_weight:])
        return [gradient.contiguous() for gradient in torch.autograd.grad(results, leaves, list(gradients))]


@_recurrent_backward.register_fake
def _(
    kernel: str, inputs: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], gradients: Sequence[Tensor]
) -> list[Tensor]:
    return [_like(tensor) for tensor in (inputs, *states, *weights)]


def _save_recurrent(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.kernel, sequences, states, weights = inputs
    ctx.state_count = len(states)
    ctx.save_for_backward(sequences, *states, *weights)


def _differentiate_recurrent(ctx: Any, gradients: list[Tensor]) -> tuple[None, Tensor, list[Tensor], list[Tensor]]:
    inputs, *rest = ctx.saved_tensors
    count = ctx.state_count
    found = _recurrent_backward(ctx.kernel, inputs, rest[:count], rest[count:], gradients)
    return None, found[0], found[1 : 1 + count], found[1 + count :]


_recurrent.register_autograd(_differentiate_recurrent, setup_context=_save_recurrent)


# For LSTMs on the CPU: oneDNN's pair, which saves a workspace between the passes (a third of the time saved).


@torch.library.custom_op("torchfunc::lstm_onednn", mutates_args=())
def _lstm_onednn(
    inputs: Tensor, h: Tensor, c: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # (time, batch, features), (1, batch, units): oneDNN returns a workspace only in grad mode, whatever `train` is.
    with torch.enable_grad():
        *results, workspace = torch.ops.aten.mkldnn_rnn_layer(
            inputs.contiguous(),
            *weights,
            h.contiguous(),
            c.contiguous(),
            reverse=False,
            batch_sizes=[],
            mode=_ONEDNN_LSTM,
            hidden_size=h.shape[-1],
            num_layers=1,
            has_biases=True,
            bidirectional=False,
            batch_first=False,
            train=True,
        )
    outputs, final_h, final_c = (result.contiguous() for result in results)
    # (In torch 2.11 the states have an axis more.)
    return outputs, final_h.reshape(h.shape), final_c.reshape(c.shape), workspace


@_lstm_onednn.register_fake
def _(inputs: Tensor, h: Tensor, c: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    steps, batch, _ = inputs.shape
    # Only oneDNN knows the size of its workspace.
    workspace = inputs.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.uint8)
    return inputs.new_empty(steps, batch, h.shape[-1]), _like(h), _like(c), workspace


@torch.library.custom_op("torchfunc::lstm_onednn_backward", mutates_args=())
def _lstm_onednn_backward(
    inputs: Tensor,
    h: Tensor,
    c: Tensor,
    weights: Sequence[Tensor],
    results: Sequence[Tensor],
    gradients: Sequence[Tensor],
    workspace: Tensor,
) -> list[Tensor]:
    found = torch.ops.aten.mkldnn_rnn_layer_backward(
        inputs.contiguous(),
        *weights,
        h.contiguous(),
        c.contiguous(),
        *(result.contiguous() for result in results),
        *(gradient.contiguous() for gradient in gradients),
        reverse=False,
        mode=_ONEDNN_LSTM,
        hidden_size=h.shape[-1],
        num_layers=1,
        has_biases=True,
        train=True,
        bidirectional=False,
        batch_sizes=[],
        batch_first=False,
        workspace=workspace,
    )
    # Both biases have the same gradient; an operator's results may not share memory.
    return [found[0], *found[1:4], found[3].clone(), found[5].reshape(h.shape), found[6].reshape(c.shape)]


@_lstm_onednn_backward.register_fake
def _(
    inputs: Tensor,
    h: Tensor,
    c: Tensor,
    weights: Sequence[Tensor],
    results: Sequence[Tensor],
    gradients: Sequence[Tensor],
    workspace: Tensor,
) -> list[Tensor]:
    return [_like(tensor) for tensor in (inputs, *weights, h, c)]


def _save_lstm_onednn(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    sequences, h, c, weights = inputs
    ctx.save_for_backward(sequences, h, c, *weights, *output)


def _differentiate_lstm_onednn(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    inputs, h, c, *rest = ctx.saved_tensors
    weights, results, workspace = rest[:4], rest[4:7], rest[7]
    found = _lstm_onednn_backward(inputs, h, c, weights, results, list(gradients[:3]), workspace)
    return found[0], found[5], found[6], found[1:5]


_lstm_onednn.register_autograd(_differentiate_lstm_onednn, setup_context=_save_lstm_onednn)


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)
