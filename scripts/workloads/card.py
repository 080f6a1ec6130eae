"""What a card could do: the rate at which it multiplies matrices, and how many operations a step of a model takes."""

from __future__ import annotations

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from workloads.data import BATCH, make_data
from workloads.modules import HANDMADE, as_tensors

__all__ = ["items_of", "matrix_peak", "step_flops"]

SIZE, REPEATS = 8192, 20


def matrix_peak(dtype: torch.dtype) -> float:
    """Operations a second that the card reaches in products of large square matrices."""
    a, b = (torch.randn(SIZE, SIZE, device="cuda", dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(REPEATS):
        a @ b
    torch.cuda.synchronize()
    return 2 * SIZE**3 * REPEATS / (time.perf_counter() - start)


def step_flops(model: str) -> int:
    """The operations of matrix products, convolutions and attention in one step, forwards and back, of a batch.

    Recurrent layers are not counted: torch does not know theirs.
    """
    made = HANDMADE[model]
    x, y = (as_tensors(arrays) for arrays in make_data(model, 1))
    rows = BATCH[model]
    with torch.device("meta"):
        module = made.module()
    inputs, targets = ([t.to("meta").expand(rows, *t.shape[1:]) for t in tensors] for tensors in (x, y))
    with FlopCounterMode(display=False) as counter:
        made.loss(module(*inputs), *targets).backward()
    return int(counter.get_total_flops())


def items_of(model: str) -> tuple[int, str]:
    """What a step works on: how many, and what they are called."""
    if model == "gpt":
        tokens = make_data(model, 1)[0][0]
        return BATCH[model] * tokens.shape[1], "tokens"
    return BATCH[model], "samples"
