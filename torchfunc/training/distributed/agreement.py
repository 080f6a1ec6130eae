"""What processes have to agree on before they train one model: else one would wait forever for another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from torchfunc.callbacks import CallbackList
from torchfunc.dtypes import shape_and_dtype
from torchfunc.training.data.array_batches import ArrayBatches
from torchfunc.training.data.stream import EpochStream
from torchfunc.training.distributed.processes import Processes

__all__ = ["check_agreement"]


def check_agreement(
    processes: Processes | None,
    model: nn.Module,
    call: str,
    data: EpochStream,
    validation: EpochStream | None = None,
    epochs: range | None = None,
    callbacks: CallbackList | None = None,
) -> None:
    """Raise ValueError, in all processes, if they are about to do different things, or their models differ.

    Args:
        processes: all of them; None if there is but one.
        model: a built model.
        call: what is about to be done: "fit" ...
        data, validation: the batches. (How many others than arrays there are is found out as they come.)
        epochs: the numbers of the epochs.
        callbacks: the callbacks.
    """
    if processes is None:
        return
    backups = [type(each).__name__ for each in (callbacks.callbacks if callbacks else ()) if _is_shared(each)]
    doing = {
        "the call": call,
        "data": _size(data),
        "validation data": None if validation is None else _size(validation),
        "epochs": epochs and (epochs.start, epochs.stop),
        "callbacks that save the state of all processes": backups,
    }
    found = processes.gather({**doing, "weights": _described(model)})
    for rank, other in enumerate(found):
        for what, value in found[0].items():
            if other.get(what) == value:
                continue
            if what == "weights":
                raise ValueError(
                    f"The model of process {rank} differs from that of process 0: {_first(other, found[0])}."
                )
            raise ValueError(
                f"Process {rank} has {what} {other.get(what)!r}, but process 0 has {value!r}. All processes have to be "
                "given the same."
            )


def _is_shared(callback: Any) -> bool:
    return getattr(callback, "all_processes", False)


def _size(data: EpochStream) -> str:
    batches = data.batches
    steps = f", {data.steps} steps an epoch" if data.steps else ""
    if isinstance(batches, ArrayBatches):
        return f"{batches.arrays.rows} rows, batches of {batches.batch_size}{steps}"
    return f"batches of its own{steps}"


def _described(model: nn.Module) -> dict[str, str]:
    """Each weight and buffer by name: shape, type, and whether it is trained."""
    weights = {name: _words(weight, " trained" * weight.requires_grad) for name, weight in model.named_parameters()}
    return weights | {name: _words(buffer, "") for name, buffer in model.named_buffers()}


def _words(tensor: Any, more: str) -> str:
    return f"{shape_and_dtype(tensor)}{more}"


def _first(other: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    theirs, ours = other["weights"], first["weights"]
    for name in [*ours, *theirs]:
        if theirs.get(name) != ours.get(name):
            return f"{name} is {theirs.get(name, 'not there')}, and {ours.get(name, 'not there')} in process 0"
    return "its weights have another order"
