"""What no step can do without: its matrix products, convolutions and recurrent kernels alone, of the same shapes.

One step of `fit` is recorded as torch executes it eagerly; the kernels that do arithmetic in bulk are then run alone,
in order, on tensors of the same sizes, strides, dtypes and values. (A compiled step may have found a better layout.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

import torchfunc
from workloads.data import BATCH, bare, make_data
from workloads.drawn import DRAWN
from workloads.jobs import Job, Turn, seconds

__all__ = ["prepare"]

# How the names of operators begin.
KERNELS = (
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::convolution",
    "aten::_scaled_dot_product_",
    "aten::mkldnn_rnn_layer",
    "aten::_cudnn_rnn",
    "torchfunc::recurrent",
)


class _Recording(TorchDispatchMode):
    """Keeps the calls of the `KERNELS`, with copies of their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.startswith(KERNELS):
            given, named = tree_map_only(torch.Tensor, _copied, (args, kwargs or {}))
            self.calls.append(lambda: func(*given, **named))
        return func(*args, **(kwargs or {}))


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    copy = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return copy.copy_(tensor.detach())


def prepare(job: Job) -> Turn:
    """Return the function that runs the kernels of a job's steps."""
    drawn, batch = DRAWN[job.model], BATCH[job.model]
    model = drawn.draw(torchfunc)
    model.compile(**drawn.settings(torchfunc), jit_compile=False)
    x, y = map(bare, make_data(job.model, batch))
    model.train_on_batch(x, y)
    with _Recording() as recording:
        model.train_on_batch(x, y)
    assert recording.calls, "a step without kernels"

    # (In grad mode oneDNN's recurrent kernels keep what their backward pass needs. No tensor here needs gradients.)
    def steps() -> None:
        for _ in range(job.amount):
            for call in recording.calls:
                call()
        if job.device == "cuda":
            torch.cuda.synchronize()

    return lambda: seconds(steps) / job.amount
