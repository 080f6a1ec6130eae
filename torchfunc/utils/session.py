"""State of the process: the seeds of the random generators, and what Keras stores in the process."""

from __future__ import annotations

import gc
import random

import numpy as np
import torch

from torchfunc import config

__all__ = ["clear_session", "set_random_seed"]


def set_random_seed(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch, so that what follows comes out the same again.

    This calls `config.set_reproducible(True)`: steps are compiled while a training waits, not beside it.

    Raises:
        ValueError: `seed` is no integer from 0 to 2**32 - 1.

    >>> utils.set_random_seed(1)
    >>> first = torch.rand(3)
    >>> utils.set_random_seed(1)
    >>> torch.equal(first, torch.rand(3))
    True
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"A seed is an integer from 0 to 2**32 - 1, got {seed!r}.")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    config.set_reproducible(True)


def clear_session(free_memory: bool = True) -> None:
    """Free what models that are no longer used have left: compiled code, and memory that torch keeps for reuse.

    Keras also restarts its numbering of layers, which is per process. torchfunc numbers layers within each model.

    Args:
        free_memory: whether to collect garbage and give cached memory of the device back.

    >>> utils.clear_session()
    """
    torch.compiler.reset()
    if free_memory:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
