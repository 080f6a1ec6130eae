"""The loop over the steps of a sequence, in Python: for cells and activations that no kernel of torch computes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

__all__ = ["ReturnOptions", "States", "run_steps"]

# A state, or several in nested lists, as a cell's `state_size` has them.
States: TypeAlias = "Tensor | Sequence[States]"


class ReturnOptions(NamedTuple):
    """What a run over a sequence returns.

    Attributes:
        sequences: the output of every step, not only of the last.
        states: the states after the last step.
        zeros: zeros for the output of a masked step, not the output of the step before.
    """

    sequences: bool
    states: bool
    zeros: bool


def run_steps(
    step: Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]],
    inputs: Iterable[Tensor],
    states: list[Tensor],
    mask: Tensor | None,
    returned: ReturnOptions,
) -> tuple[Tensor, list[Tensor]]:
    """Run steps one by one.

    Args:
        step: `(input, states) -> (output, new states)`.
        inputs: the input of each step, (batch, ...).
        states: the states to start from.
        mask: (batch, time); a step that does not count leaves the states as they are and repeats the last output.
        returned: what to return.

    Returns:
        The output, of every step (batch, time, ...) or of the last, and the states after the last.
    """
    masks: Iterable[Tensor | None] = itertools.repeat(None) if mask is None else mask.unbind(1)
    output: Tensor | None = None
    outputs = []
    for each, counts in zip(inputs, masks, strict=False):
        new_output, new_states = step(each, states)
        if counts is None:
            output, states = new_output, new_states
        else:
            before = torch.zeros_like(new_output) if returned.zeros or output is None else output
            output = _choose(counts, new_output, before)
            states = [_choose(counts, new, old) for new, old in zip(new_states, states, strict=True)]
        if returned.sequences:
            outputs.append(output)
    assert output is not None, "a sequence has at least one step"
    return torch.stack(outputs, 1) if returned.sequences else output, states


def _choose(counts: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(counts.reshape(-1, *[1] * (new.ndim - 1)), new, old)
