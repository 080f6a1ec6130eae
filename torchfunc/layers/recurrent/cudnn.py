"""cuDNN's recurrent kernels, called directly: `torch.lstm` and its like warn about weights that are not in one buffer.

As torch's own layers do without `flatten_parameters()`, each call copies the weights into one buffer: four small
copies beside a whole sequence. In compiled code a pair of operators passes cuDNN's reserve space from the forward to
the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc.graph.torch_internals import cudnn_rnn, cudnn_rnn_backward

__all__ = ["cudnn_fits", "run_cudnn", "run_cudnn_operator"]

# cuDNN's numbers for the kernels.
_MODES = {"rnn_relu": 0, "rnn_tanh": 1, "lstm": 2, "gru": 3}


def cudnn_fits(inputs: Tensor) -> bool:
    """Whether cuDNN takes such inputs."""
    return inputs.is_cuda and torch.version.hip is None and torch.backends.cudnn.is_acceptable(inputs)


def run_cudnn(kernel: str, inputs: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """(batch, time, features), states (batch, units) -> outputs (batch, time, units), states after the last step."""
    given = [state.unsqueeze(0).contiguous() for state in states]
    results = _call_forward(kernel, inputs, given, weights, True, torch.is_grad_enabled())
    return [results[0], *(final.squeeze(0) for final in results[1 : 1 + len(states)])]


def run_cudnn_operator(
    kernel: str, inputs: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]
) -> list[Tensor]:
    """`run_cudnn` for compiled code that is differentiated."""
    steps_first = inputs.transpose(0, 1).contiguous()
    given = [state.unsqueeze(0).contiguous() for state in states]
    results = _recurrent_cudnn(kernel, steps_first, given, weights)
    return [results[0].transpose(0, 1), *(final.squeeze(0) for final in results[1 : 1 + len(states)])]


def _call_forward(
    kernel: str,
    inputs: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    batch_first: bool,
    train: bool,
) -> tuple[Tensor, ...]:
    """Outputs, h, c (empty without one), what the backward pass needs, and the weights in one buffer."""
    return cudnn_rnn(
        inputs,
        list(weights),
        len(weights),
        None,
        states[0],
        states[1] if len(states) == 2 else None,
        _MODES[kernel],
        states[0].shape[-1],
        0,
        1,
        batch_first,
        0.0,
        train,
        False,
        [],
        None,
    )


@torch.library.custom_op("torchfunc::recurrent_cudnn", mutates_args=())
def _recurrent_cudnn(kernel: str, inputs: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    # (time, batch, features), (1, batch, units)
    outputs, h, c, reserve, buffer = _call_forward(kernel, inputs, states, weights, False, True)
    finals = [h, c][: len(states)]
    return [*(result.contiguous() for result in (outputs, *finals)), reserve, buffer]


@_recurrent_cudnn.register_fake
def _(kernel: str, inputs: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    steps, batch, _ = inputs.shape
    context = torch.library.get_ctx()
    # Only cuDNN knows the size of its reserve space, and how the weights are padded.
    reserve = inputs.new_empty(context.new_dynamic_size(), dtype=torch.uint8)
    buffer = inputs.new_empty(context.new_dynamic_size())
    return [inputs.new_empty(steps, batch, states[0].shape[-1]), *map(torch.empty_like, states), reserve, buffer]


@torch.library.custom_op("torchfunc::recurrent_cudnn_backward", mutates_args=())
def _recurrent_cudnn_backward(
    kernel: str,
    inputs: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    outputs: Tensor,
    reserve: Tensor,
    buffer: Tensor,
    gradients: Sequence[Tensor],
) -> list[Tensor]:
    has_c = len(states) == 2
    grad_outputs, grad_h, *grad_c = (gradient.contiguous() for gradient in gradients)
    d_inputs, d_h, d_c, d_weights = cudnn_rnn_backward(
        inputs,
        list(weights),
        len(weights),
        buffer,
        states[0],
        states[1] if has_c else None,
        outputs,
        grad_outputs,
        grad_h,
        grad_c[0] if has_c else None,
        _MODES[kernel],
        states[0].shape[-1],
        0,
        1,
        False,
        0.0,
        True,
        False,
        [],
        None,
        # cuDNN writes to it, and the backward pass may run again.
        reserve.clone(),
        [True, True, has_c, True],
    )
    # The gradients of the weights are views of one buffer; an operator's results may not share memory.
    parts = [gradient.reshape(weight.shape).clone() for gradient, weight in zip(d_weights, weights, strict=True)]
    return [d_inputs.contiguous(), *(part.contiguous() for part in [d_h, d_c][: len(states)]), *parts]


@_recurrent_cudnn_backward.register_fake
def _(
    kernel: str,
    inputs: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    outputs: Tensor,
    reserve: Tensor,
    buffer: Tensor,
    gradients: Sequence[Tensor],
) -> list[Tensor]:
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (inputs, *states, *weights)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.kernel, sequences, states, weights = inputs
    ctx.state_count = len(states)
    outputs, *_, reserve, buffer = output
    ctx.save_for_backward(outputs, reserve, buffer, sequences, *states, *weights)


def _differentiate(ctx: Any, gradients: list[Tensor]) -> tuple[None, Tensor, list[Tensor], list[Tensor]]:
    outputs, reserve, buffer, inputs, *rest = ctx.saved_tensors
    count = ctx.state_count
    states, weights = rest[:count], rest[count:]
    needed = list(gradients[: 1 + count])
    found = _recurrent_cudnn_backward(ctx.kernel, inputs, states, weights, outputs, reserve, buffer, needed)
    return None, found[0], found[1 : 1 + count], found[1 + count :]


_recurrent_cudnn.register_autograd(_differentiate, setup_context=_save)
