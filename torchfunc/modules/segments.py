"""The graph of a drawn model in segments, each of which is computed again for its gradients.

Of a segment nothing but its inputs is kept until the backward pass comes to it. So of all that a training step holds
there are the values at the cuts, and what one segment computes on the way. Where to cut is found from the shapes of
what the layers return: with as many segments as make the sum of both the smallest. For N layers of one size that is
about sqrt(N) segments.

A model or layer within the model that is larger than a segment is opened: its own graph is cut, or the blocks in it
(modules with modules in them) are recomputed each by itself.
"""

from __future__ import annotations

import math
import operator
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from torchfunc.graph import Spec, modules_within, writes_to_arguments
from torchfunc.layers import InputLayer
from torchfunc.modules.fx_module import GeneratedCode, OwnedGraph, generate
from torchfunc.modules.graph_network import GraphNetwork
from torchfunc.modules.lowering import SPECS, lower
from torchfunc.modules.masked_forward import MaskedForwards
from torchfunc.modules.recomputation import RecomputedForward, Replacement, recomputed
from torchfunc.modules.training_forward import TrainingForwards
from torchfunc.recursion import Steps, unrolled
from torchfunc.structures import leaves

__all__ = ["call_recomputed", "segments_recomputed"]

# Each is so much larger than the one before, among the numbers of segments that are tried.
_GROWTH = 1.25


def segments_recomputed(model: nn.Module, keeps_last: bool = True) -> list[Replacement]:
    """What to replace so that calls of a model that record gradients recompute most of what they compute.

    Of a drawn model these are segments of its graph, of another one the blocks in it (see `blocks_of`).

    Args:
        model: the model.
        keeps_last: whether the last segment, whose gradients come first, is not recomputed.
    """
    if _is_drawn(model):
        return _Plan.of(model, keeps_last).replacements()  # type: ignore[arg-type]
    found: list[Replacement] = []
    for block in blocks_of(model):
        found += segments_recomputed(block, False) if _is_drawn(block) else [call_recomputed(block)]
    return found


def call_recomputed(module: nn.Module) -> Replacement:
    """What to replace so that calls of a module that record gradients recompute all that it computes."""
    if not _is_drawn(module):
        return Replacement(weakref.ref(module), {"forward": RecomputedForward(module)})
    return _replacement(module, _Cutting(math.inf, False))  # type: ignore[arg-type]


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The outermost modules within a module that hold modules themselves, but of those with lists of blocks, these."""
    found: dict[nn.Module, None] = {}
    for each in module.children():
        if next(each.children(), None) is not None:
            is_called = _is_drawn(each) or type(each).forward is not nn.Module.forward
            found.update(dict.fromkeys([each] if is_called and not _repeats(each) else blocks_of(each)))
    return list(found)


def _repeats(module: nn.Module) -> bool:
    """Whether a module that is not drawn holds a list of two blocks of one class."""
    if _is_drawn(module):
        return False
    for part in modules_within(module):
        if isinstance(part, nn.Sequential) or type(part).forward is nn.Module.forward:
            kinds = [type(each) for each in part.children() if next(each.children(), None) is not None]
            if len(set(kinds)) < len(kinds):
                return True
    return False


class _Call(NamedTuple):
    """A node of a graph as the cutting sees it.

    Attributes:
        node: the node.
        module: what it calls, if that is a module.
        leaves: how many modules without modules in them that is.
        returned: the bytes that it returns.
        computed: about as many are kept for its gradients.
        begins: whether a segment may begin with it.
    """

    node: fx.Node
    module: nn.Module | None
    leaves: int
    returned: float
    computed: float
    begins: bool


@dataclass
class _Sizes:
    """How much is kept for the gradients of models, layers and graphs."""

    models: dict[nn.Module, float] = field(default_factory=dict)
    graphs: dict[nn.Module, list[_Call]] = field(default_factory=dict)

    def of_model(self, model: GraphNetwork) -> Steps:
        """The bytes for a sample of a drawn model, and those of the models in it; for `unrolled`."""
        if model not in self.models:
            self.models[model] = 0.0
            for part in model.children():
                if _is_drawn(part):
                    yield self.of_model(part)  # type: ignore[arg-type]
            self.graphs[model] = self.calls(model, _known_graph(model))
            self.models[model] = sum(call.computed for call in self.graphs[model])
        return self.models[model]

    def calls(self, model: nn.Module, graph: fx.Graph) -> list[_Call]:
        """The calls of a graph of the model."""
        return [self._call(model, node) for node in graph.nodes if node.op.startswith("call_")]

    def _call(self, model: nn.Module, node: fx.Node) -> _Call:
        specs = [leaf for leaf in leaves(node.meta.get(SPECS)) if isinstance(leaf, Spec)]
        returned = sum(map(_bytes, specs)) if SPECS in node.meta else 1.0
        module = _module_called(model, node)
        if module is None:
            picks = node.op == "call_function" and node.target in (operator.getitem, getattr)
            return _Call(node, None, 0, returned, 0.0 if picks else returned, not picks)
        parts = [] if module in self.models else modules_within(module)
        leaves_within = sum(next(part.children(), None) is None for part in parts)
        computed = self.models[module] if module in self.models else returned * leaves_within
        first = module
        while first._modules:
            first = next(iter(first.children()), nn.Identity())
        return _Call(node, module, leaves_within, returned, computed, not writes_to_arguments(first))


def _bytes(spec: Spec) -> float:
    if spec.shape is None or spec.dtype is None:
        return 0.0
    return float(math.prod(size or 1 for size in spec.shape) * spec.dtype.itemsize)


def _is_drawn(module: nn.Module) -> bool:
    """Whether a call of the module is no more than running its graph."""
    return isinstance(module, GraphNetwork) and module.runs_its_graph and module.drawn is not None


def _known_graph(model: GraphNetwork) -> fx.Graph:
    """The graph of a model with what its calls return, as far as that is known."""
    is_known = model.graph_was_changed or any(SPECS in node.meta for node in model.graph.nodes)
    return model.graph if is_known else lower(model.drawn)  # type: ignore[arg-type]


def _module_called(model: nn.Module, node: fx.Node) -> nn.Module | None:
    if node.op == "call_module":
        return model.get_submodule(str(node.target))
    # (With its logits.)
    first = node.args[0] if node.args else None
    if isinstance(first, fx.Node) and first.op == "get_attr":
        found = operator.attrgetter(str(first.target))(model)
        return found if isinstance(found, nn.Module) else None
    return None


@dataclass(frozen=True)
class _Cutting:
    """How a graph is cut.

    Attributes:
        most: the bytes that a segment may compute.
        keeps_last: whether the last segment, whose gradients come first, is not recomputed.
        sizes: of what is within.
    """

    most: float
    keeps_last: bool
    sizes: _Sizes = field(default_factory=_Sizes)

    def cut(self, calls: Sequence[_Call]) -> list[tuple[list[_Call], bool]]:
        """The calls in segments, in their order; of each whether it is recomputed, as what is opened is not."""
        found: list[tuple[list[_Call], bool]] = []
        size = 0.0
        for call in calls:
            opened = call.module is not None and call.computed > self.most and _can_open(call.module)
            if opened or not found or not found[-1][1] or (call.begins and size and size + call.computed > self.most):
                found.append(([], not opened))
                size = 0.0
            found[-1][0].append(call)
            size += call.computed
        if found and self.keeps_last:
            found[-1] = found[-1][0], False
        return found


def _can_open(module: nn.Module) -> bool:
    return _is_drawn(module) or _repeats(module)


class _Plan(NamedTuple):
    """Where a model is cut.

    Attributes:
        cutting: how, with all that is opened in it.
        kept: the bytes at the cuts.
        largest: those that the largest segment computes.
        opened: the models and layers that are opened, this one first.
    """

    cutting: _Cutting
    kept: float
    largest: float
    opened: Sequence[nn.Module]

    @classmethod
    def of(cls, model: GraphNetwork, keeps_last: bool) -> _Plan:
        """The plan that keeps the least."""
        sizes = _Sizes()
        total = unrolled(sizes.of_model(model))
        most = sum(max(1, call.leaves) for calls in sizes.graphs.values() for call in calls)
        counts = [1]
        while counts[-1] < most:
            counts.append(max(counts[-1] + 1, int(counts[-1] * _GROWTH)))
        plans: list[_Plan] = [unrolled(_planned(model, _Cutting(total / each, keeps_last, sizes))) for each in counts]
        return min(plans, key=lambda plan: plan.kept + plan.largest)

    def replacements(self) -> list[Replacement]:
        """What to replace so that all is recomputed that is to be."""
        found: list[Replacement] = []
        # (The model keeps these, and they do not keep the model.)
        models = {model: size for model, size in self.cutting.sizes.models.items() if model is not self.opened[0]}
        cutting = replace(self.cutting, sizes=_Sizes(models))
        for module in self.opened:
            if _is_drawn(module):
                found.append(_replacement(module, cutting))  # type: ignore[arg-type]
                cutting = replace(cutting, keeps_last=False)
            else:
                found += map(call_recomputed, blocks_of(module))
        return found


def _planned(model: GraphNetwork, cutting: _Cutting) -> Steps:
    """The plan for a model that is cut so; for `unrolled`."""
    segments = cutting.cut(cutting.sizes.graphs[model])
    place = {call.node: number for number, (calls, _) in enumerate(segments) for call in calls}
    kept, largest, opened = 0.0, 0.0, dict[nn.Module, None]({model: None})
    within = replace(cutting, keeps_last=False)
    for number, (calls, is_closed) in enumerate(segments):
        kept += sum(
            call.returned for call in calls if any(place.get(user, number) != number for user in call.node.users)
        )
        module = calls[0].module
        if is_closed or module is None or calls[0].computed <= cutting.most or not _can_open(module):
            largest = max(largest, sum(call.computed for call in calls))
        elif _is_drawn(module):
            plan = yield _planned(module, within)  # type: ignore[arg-type]
            kept, largest = kept + plan.kept, max(largest, plan.largest)
            opened.update(dict.fromkeys(plan.opened))
        else:
            blocks = len(blocks_of(module))
            kept, largest = kept + blocks * calls[0].returned, max(largest, calls[0].computed / blocks)
            opened[module] = None
    return _Plan(cutting, kept, largest, list(opened))


def _replacement(model: GraphNetwork, cutting: _Cutting) -> Replacement:
    """What to replace so that a drawn model runs code that is cut so."""
    reference, drawn = weakref.ref(model), model.drawn

    def form(code: GeneratedCode) -> GeneratedCode:
        model = reference()
        assert model is not None
        return _in_segments(model, code, cutting)

    assert drawn is not None
    attributes = {
        "generated_forward": form(generate(_known_graph(model))).function,
        "_training": TrainingForwards(drawn, form),
        "_masked": MaskedForwards(drawn, model._register_tensors, form),
    }
    return Replacement(weakref.ref(model), attributes)


class _Segment(NamedTuple):
    """Calls that are made on end.

    Attributes:
        run: a function of the model and the inputs that returns the outputs.
        modules: those that it calls.
        inputs, outputs: the numbers of its values.
        is_recomputed: whether it is.
    """

    run: Callable[..., Any]
    modules: list[nn.Module]
    inputs: list[int]
    outputs: list[int]
    is_recomputed: bool


def _in_segments(model: nn.Module, code: GeneratedCode, cutting: _Cutting) -> GeneratedCode:
    """The same code with segments that are recomputed if gradients are recorded."""
    nodes = list(code.graph.nodes)
    numbers = {node: number for number, node in enumerate(nodes)}
    groups = [
        ([call.node for call in calls], is_recomputed)
        for calls, is_recomputed in cutting.cut(cutting.sizes.calls(model, code.graph))
    ]
    if not groups or groups[-1][1]:
        groups.append(([], False))
    groups[-1][0].append(nodes[-1])
    if not any(is_recomputed for _, is_recomputed in groups):
        return code
    segments = [_segment(model, group, is_recomputed, numbers) for group, is_recomputed in groups]
    arguments = [numbers[node] for node in nodes if node.op == "placeholder"]

    def run(this: Any, *inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return code.function(this, *inputs)
        values = dict(zip(arguments, inputs, strict=True))
        for segment in segments[:-1]:
            given = [values[number] for number in segment.inputs]
            function = partial(segment.run, this)
            found = recomputed(function, segment.modules, *given) if segment.is_recomputed else function(*given)
            values.update(zip(segment.outputs, found, strict=True))
        return segments[-1].run(this, *[values[number] for number in segments[-1].inputs])

    return replace(code, function=run)


def _segment(model: nn.Module, group: list[fx.Node], is_recomputed: bool, numbers: dict[fx.Node, int]) -> _Segment:
    graph, own = OwnedGraph(), set(group)
    used = dict.fromkeys(source for node in group for source in node.all_input_nodes if source not in own)
    inputs = [node for node in used if node.op != "get_attr"]
    copies = {node: graph.placeholder(node.name) for node in inputs}
    copies.update((node, graph.node_copy(node)) for node in used if node.op == "get_attr")
    for node in group:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    outputs = [node for node in group if any(user not in own for user in node.users)]
    if group[-1].op != "output":
        graph.output(tuple(copies[node] for node in outputs))
    modules = [module for node in group if (module := _module_called(model, node)) is not None]
    return _Segment(
        generate(graph).function,
        [module for module in dict.fromkeys(modules) if not isinstance(module, InputLayer)],
        [numbers[node] for node in inputs],
        [numbers[node] for node in outputs],
        is_recomputed,
    )
