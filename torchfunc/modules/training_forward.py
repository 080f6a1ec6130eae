"""A model's forward for training: beside the outputs, their masks and the logits of final activations.

It makes the same calls as `model.graph`, and those that compute the masks of the outputs, which nothing but a loss
needs. So it is a graph of its own, generated when training first asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from torchfunc.graph import Node, SymbolicTensor, once_for_all, topological_order
from torchfunc.modules.codegen import compile_forward
from torchfunc.modules.other_forward import call_with_forward

if TYPE_CHECKING:
    from torchfunc.modules.graph_network import GraphNetwork

__all__ = ["OutputDescription", "TrainingForward", "TrainingOutputs", "find_masks"]


class OutputDescription(NamedTuple):
    """What a model knows of an output.

    Attributes:
        activation: "softmax" (over the last axis) or "sigmoid", if that is where the output comes from.
        masked: whether the output has a mask.
    """

    activation: str | None = None
    masked: bool = False


class TrainingOutputs(NamedTuple):
    """What a model computes for training.

    Attributes:
        y_pred: what the model returns.
        masks: for each output, in flat order, its mask or None; None if no output has one.
        logits: for each output, in flat order, what went into its final softmax or sigmoid, or None; None if none was
            asked for, or none that was can be told.
    """

    y_pred: Any
    masks: Sequence[Tensor | None] | None = None
    logits: Sequence[Tensor | None] | None = None


def find_masks(
    outputs: Sequence[SymbolicTensor], inputs: Sequence[SymbolicTensor], nodes: Sequence[Node]
) -> tuple[list[SymbolicTensor | None], list[Node]]:
    """The masks of a graph's outputs, and the calls they need beside `nodes`, those of the graph.

    A mask that needs another input than the graph's, or a layer that is not in it, is none.
    """
    if all(output.mask is None for output in outputs):
        return [None] * len(outputs), []
    known, modules = set(nodes), {node.target for node in nodes if node.op == "module"}
    added: set[Node] = set()

    def computable(mask: SymbolicTensor) -> bool:
        needed = {node for node in topological_order([mask], inputs) if node not in known}
        if any(node.op == "input" or (node.op == "module" and node.target not in modules) for node in needed):
            return False
        added.update(needed)
        return True

    masks = [None if output.mask is None or not computable(output.mask) else output.mask for output in outputs]
    return masks, sorted(added, key=lambda node: node.order)


class TrainingForward:
    """The training forward of a drawn model, as it stands until the model's graph changes.

    Args:
        model: the model.
    """

    def __init__(self, model: GraphNetwork) -> None:
        self.model = model
        self._masked = any(mask is not None for mask in model.output_masks)
        # By the outputs whose logits are wanted, and whether they are met within a layer.
        self._functions: dict[tuple[tuple[int, bool], ...], Callable[..., Any]] = {}

    def run(self, prepared: Sequence[Any], logits_of: Sequence[int]) -> TrainingOutputs:
        """Call the model on inputs that `prepare_inputs` made, for the logits of outputs of these numbers as well."""
        model = self.model
        if not logits_of and not self._masked:
            return TrainingOutputs(model(*prepared))
        # A model that is hooked may return something else than its graph does, so there are no logits for that.
        found = () if model.is_hooked() else [(index, model.output_activation(index)) for index in logits_of]
        key = tuple((index, activation.within) for index, activation in found if activation is not None)
        if not key and not self._masked:
            return TrainingOutputs(model(*prepared))
        self._generate(key)
        function = self._functions[key]
        beside: list[Any] = []

        def forward(this: Any, *inputs: Any) -> Any:
            y_pred, *others = function(this, *inputs)
            beside.extend(others)
            return y_pred

        y_pred = call_with_forward(model, forward, prepared)
        # A `forward` of the model's own knows of nothing beside.
        masks, logits = beside or (None, None)
        return TrainingOutputs(y_pred, masks if self._masked else None, logits if key else None)

    # torch.compile makes this call and does not look into it.
    @once_for_all
    def _generate(self, key: tuple[tuple[int, bool], ...]) -> None:
        if key not in self._functions:
            self._functions[key] = compile_forward(self.model.lower_for_training(dict(key)))
