"""A drawn model's forward for training: beside the outputs, their masks and the logits of final activations.

It makes the same calls as the graph, and those that compute the masks of the outputs, which nothing but a loss needs.
So it is a graph of its own, generated when training first asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torchfunc.graph import once_for_all
from torchfunc.modules.drawn_graph import DrawnGraph
from torchfunc.modules.fx_module import GeneratedCode, generate, unchanged
from torchfunc.modules.lowering import BeforeActivation, lower

__all__ = ["LogitsWanted", "TrainingForwards"]

LogitsWanted: TypeAlias = "tuple[tuple[int, bool], ...]"
"""The numbers of the outputs whose logits are wanted, each with whether they are met within the layer."""


class TrainingForwards:
    """The training forwards of a drawn graph, by the outputs whose logits they return.

    Args:
        drawn: what was drawn.
        form: makes of generated code what is run.

    Attributes:
        masked: whether any output has a mask.
    """

    def __init__(self, drawn: DrawnGraph, form: Callable[[GeneratedCode], GeneratedCode] = unchanged) -> None:
        self.masked = any(mask is not None for mask in drawn.masks)
        self._drawn = drawn
        self._form = form
        self._forwards: dict[LogitsWanted, GeneratedCode] = {}

    def get(self, wanted: LogitsWanted) -> GeneratedCode:
        """A function of the model and its inputs that returns the outputs, a list of masks and one of logits."""
        self._generate(wanted)
        return self._forwards[wanted]

    # torch.compile makes this call and does not look into it.
    @once_for_all
    def _generate(self, wanted: LogitsWanted) -> None:
        if wanted in self._forwards:
            return
        outputs = self._drawn.output_tensors
        logits: list[Any] = [None] * len(outputs)
        for index, within in wanted:
            call = outputs[index].node
            logits[index] = BeforeActivation(call) if within else call.args[0]
        graph = lower(self._drawn, (self._drawn.outputs, list(self._drawn.masks), logits))
        self._forwards[wanted] = self._form(generate(graph))
