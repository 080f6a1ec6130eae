"""Calling a model without gradients."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from workloads.jobs import Job, Turn

__all__ = ["DEPTH", "forward"]

DEPTH = 250  # of the chain that is called


def forward(job: Job, module: Callable[[torch.Tensor], object]) -> Turn:
    """Calls of a chain of small layers, where the time goes into calling them."""
    x = torch.ones(32, 4, device=job.device)

    def turn() -> float:
        with torch.inference_mode():
            start = time.perf_counter()
            for _ in range(job.amount):
                module(x)
            if job.device == "cuda":
                torch.cuda.synchronize()
            return (time.perf_counter() - start) / job.amount

    return turn
