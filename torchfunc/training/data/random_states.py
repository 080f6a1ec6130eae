"""The states of the random generators that training draws from: Python's, NumPy's and torch's global ones."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

__all__ = ["random_states", "set_random_states"]


def random_states() -> dict[str, Any]:
    """The state of every global generator: tensors, arrays, numbers, in tuples, lists and dicts."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Restore what `random_states` returned."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    of_cards = states.get("cuda")
    if of_cards:
        # (Counting them loads a library of the driver's.)
        for device, state in enumerate(of_cards[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)
