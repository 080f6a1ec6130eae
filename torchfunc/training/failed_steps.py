"""What is added to an error of a step: which batch it was, which layer failed on what, and which values did not fit.

All of it is looked up when a step has failed, and costs nothing before.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from torchfunc.dtypes import shape_and_dtype
from torchfunc.errors import add_note
from torchfunc.graph import CALL_ERRORS, CallMode, FailedCall, failed_calls, format_source, innermost_locals
from torchfunc.modules import DrawnGraph, Network
from torchfunc.modules.fx_module import value_made_at
from torchfunc.structures import first_leaf, map_structure
from torchfunc.training.checks import check_labels_of_output
from torchfunc.training.current_run import current_run
from torchfunc.training.data.array_batches import gathered
from torchfunc.training.data.arrays import Batch, Data, unpack_x_y_sample_weight
from torchfunc.training.data.parts import data_of
from torchfunc.training.odd_values import listed_outside, named_inputs
from torchfunc.training.outputs import OutputBatch, OutputObjective
from torchfunc.training.step import try_batch
from torchfunc.training.trainable import Trainable

__all__ = ["explain", "explained"]


@contextmanager
def explained(model: Trainable, data: Data, doing: str) -> Iterator[None]:
    """Within this, errors are those of a step on one batch that was given alone; see `explain`."""
    try:
        yield
    except Exception as error:
        explain(error, model, [data], f"the batch of the {doing}")
        raise


def explain(error: Exception, model: Trainable, batches: Sequence[Any], which: str) -> None:
    """Add to an error what is known of the step that it came out of.

    Args:
        error: what a step raised.
        model: the model.
        batches: its batch, or those that were executed at once.
        which: "batch 3 of the training", say.
    """
    try:
        found = [unpack_x_y_sample_weight(data_of(gathered(batch))) for batch in batches]
        place, values = _memory(error, model, found[0]) if _is_memory(error) else _cause(error, model, found)
    except CALL_ERRORS:
        # A card on which an index was out of range computes nothing more. The error itself is what counts.
        place = values = ""
    if place or which.startswith("batch"):
        add_note(error, f"This was in {which}{place}")
    if values:
        add_note(error, values)


def _cause(error: BaseException, model: Trainable, batches: Sequence[Batch]) -> tuple[str, str]:
    """The place in the model that an error came out of, and the values that it came from; both empty if unknown."""
    at_output = innermost_locals(error, OutputObjective)
    if at_output is not None:
        return _at_output(at_output)
    place, calls = _place(error, model)
    if not place and isinstance(error, RuntimeError):
        # Compiled code does not tell.
        error = next((each for batch in batches if (each := _error_of(model, batch)) is not None), error)
        place, calls = _place(error, model)
    for batch in batches if calls and calls[-1].given else ():
        outside = listed_outside(calls[-1].module, calls[-1].given[0], named_inputs(model, batch.x))
        if outside:
            return place, outside
    return place, ""


def _at_output(found: dict[str, Any]) -> tuple[str, str]:
    objective, part = found["self"], next((value for value in found.values() if isinstance(value, OutputBatch)), None)
    place = f", in the loss{objective.of} ({objective.loss.name})" if objective.loss is not None else objective.of
    if part is None or part.target is None:
        return place, ""
    place += f", for targets {shape_and_dtype(part.target)} and predictions {shape_and_dtype(part.prediction)}"
    try:
        check_labels_of_output(objective, tuple(part.prediction.shape), part.target, part.sample_weight)
    except ValueError as wrong:
        return place, str(wrong)
    return place, ""


def _place(error: BaseException, model: Trainable) -> tuple[str, list[FailedCall]]:
    """Where in the model an error was raised, as messages say it, and the calls of its parts that it came out of."""
    parts = {id(module) for module in model.modules() if module is not model}
    calls = [call for call in failed_calls(error) if id(call.module) in parts]
    if calls:
        return f", in {calls[-1].describe(model)}{_drawn_at(model, calls[0].module)}", calls
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        name = value_made_at(frame.filename, frame.line or "")
        if name is not None:
            return f", in the call `{(frame.line or '').split(';')[0].strip()}`{_drawn_at(model, name)}", calls
    return "", calls


def _drawn_at(model: Trainable, part: nn.Module | str) -> str:
    """The line of the user's that drew a layer's first call, or a function's call of that name."""
    drawn: DrawnGraph | None = model.drawn if isinstance(model, Network) else None
    if drawn is None:
        return ""
    found = (node for node in drawn.nodes if node.target is part or drawn.names.get(node) == part)
    where = format_source(next((node.source for node in found), None))
    return f", drawn at {where}" if where else ""


def _error_of(model: Trainable, batch: Batch) -> Exception | None:
    """What the model raises for a batch when nothing is compiled."""
    try:
        with CallMode(model, False, waits=False), torch.no_grad():
            model(*model.prepare_inputs(batch.x))
    except CALL_ERRORS as error:
        return error
    return None


# Memory


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError)


def _memory(error: BaseException, model: Trainable, batch: Batch) -> tuple[str, str]:
    """Where the memory ran out, and how many rows would fit."""
    place, _ = _place(error, model)
    # What the step has made so far is held by its frames.
    raised: BaseException | None = error
    while raised is not None:
        traceback.clear_frames(raised.__traceback__)
        raised = raised.__context__
    tried = rows = len(first_leaf(batch.x))
    run = current_run(model)
    if run is not None and run.settings.processes is not None:
        # Trying would have this process wait for the others.
        return place, f"A batch of {rows} rows does not fit into the memory: give a smaller batch_size."
    while tried > 1:
        tried //= 2
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        if _fits(model, batch, tried):
            found = f"but {tried} {'do' if tried > 1 else 'does'}: try batch_size={tried}."
            return place, f"A batch of {rows} rows does not fit into the memory, {found}"
    return place, "Not even a batch of one row fits into the memory: make the model or its inputs smaller."


def _fits(model: Trainable, batch: Batch, rows: int) -> bool:
    """Whether a step on so many rows of a batch fits into the memory."""
    few = map_structure(lambda leaf: None if leaf is None else leaf[:rows], tuple(batch))
    try:
        try_batch(model, current_run(model), Batch(*few))
    except torch.OutOfMemoryError:
        return False
    return True
