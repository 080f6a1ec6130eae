"""Execution: the settings of `compile` that say how steps are executed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from torchfunc.training.precision import Precision

__all__ = ["Execution"]


@dataclass(frozen=True)
class Execution:
    """The settings of `compile` that say how steps are executed.

    Attributes:
        jit: whether steps are compiled: True, False, "auto" or "payback".
        steps: how many steps are executed at once.
        precision: what they compute in.
    """

    jit: bool | str
    steps: int
    precision: Precision

    @classmethod
    def make(cls, run_eagerly: bool, steps_per_execution: int, jit_compile: Any, precision: Any) -> Execution:
        """Check the arguments of `compile`. Raises ValueError for what is none of the choices."""
        if isinstance(steps_per_execution, bool) or not isinstance(steps_per_execution, int) or steps_per_execution < 1:
            raise ValueError(f"`steps_per_execution` is an integer of at least 1, got {steps_per_execution!r}.")
        jit = False if jit_compile is None else jit_compile
        if jit not in (True, False, "auto", "payback"):
            raise ValueError(f"`jit_compile` is True, False, 'auto' or 'payback', got {jit_compile!r}.")
        if run_eagerly and jit is True:
            raise ValueError("`run_eagerly=True` and `jit_compile=True` exclude each other.")
        return cls(False if run_eagerly else jit, steps_per_execution, Precision(precision))

    def compiles(self, method: str, device: torch.device) -> bool:
        """Whether this kind of step is compiled on this device, if only by and by.

        By itself that happens on CUDA only: on the CPU, compiling takes longer than most trainings save.
        """
        if self.jit == "payback":
            return method == "train_step"
        return device.type == "cuda" if self.jit == "auto" else bool(self.jit)
