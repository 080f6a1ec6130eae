"""What each of several processes knows of its own, when one state of all is saved, and who resumes with what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from torchfunc.training.distributed.processes import Processes

__all__ = ["own_state"]


def own_state(state: Mapping[str, Any], processes: Processes | None, sharded: bool) -> Mapping[str, Any]:
    """The state for this process to resume.

    As many processes as have saved it get what each had. Of others, the first gets what had been counted and summed,
    and the others nothing. Sums for sharded weights are those of all.

    Args:
        state: what was saved.
        processes: those that resume it; None for one.
        sharded: whether each of them has but a shard of each weight.

    Raises:
        ValueError: there are others, in the middle of an epoch with metrics whose counts cannot be added.
    """
    saved = state.get("processes") or [state]
    rank, size = (0, 1) if processes is None else (processes.rank, processes.size)
    own = dict(saved[rank % len(saved)])
    if len(saved) != size:
        own["metrics"] = [_sum(counts, rank) for counts in zip(*(each["metrics"] for each in saved), strict=True)]
    if sharded or len(saved) != size:
        own["sums"] = _sum([each.get("sums", []) for each in saved], 0 if sharded else rank)
    return {**state, **own}


def _sum(counts: Any, rank: int) -> list[Tensor]:
    """The sum of the tensors that the processes have in a place, for the first of those that resume; else zeros."""
    if any(isinstance(each, Mapping) for each in counts):
        raise ValueError(
            "The saved training stopped in the middle of an epoch, in which metrics of another package had counted in "
            "another number of processes. Resume it with as many as there were."
        )
    return [sum(parts[1:], start=parts[0]) * (rank == 0) for parts in zip(*counts, strict=True)]
