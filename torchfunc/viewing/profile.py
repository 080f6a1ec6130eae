"""Time and memory of a training pass, layer by layer, over torch.profiler."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

from torchfunc.modules import Network
from torchfunc.snapshots import restored
from torchfunc.structures import leaves

__all__ = ["LayerCost", "Profile", "profile_layers"]

_MARK = "layer: "
_ELSEWHERE = "(elsewhere)"
_HEADERS = ("Layer (type)", "calls", "forward ms", "backward ms", "forward MiB", "backward MiB")


@dataclass
class LayerCost:
    """What one layer costs in one pass forwards and one back.

    Attributes:
        name, kind: its name in the model and its class.
        calls: how often it was called.
        forward, backward: seconds, on the accelerator where there is one.
        forward_memory, backward_memory: bytes allocated and not freed again within: what a pass keeps of the layer for
            its gradient, and the gradients themselves.
    """

    name: str
    kind: str
    calls: int = 0
    forward: float = 0.0
    backward: float = 0.0
    forward_memory: int = 0
    backward_memory: int = 0


@dataclass(frozen=True)
class Profile:
    """The costs of a model's layers, in the order of `model.layers`; what belongs to none of them comes last.

    As text and in a notebook it is a table.

    Attributes:
        layers: a row for each layer.
        device: where the model ran.
    """

    layers: Sequence[LayerCost]
    device: torch.device

    def rows(self) -> Iterator[tuple[str, int, float, float, float, float]]:
        """The cells of the table, the totals last."""
        total = LayerCost("total", "")
        for each in self.layers:
            total.forward += each.forward
            total.backward += each.backward
            total.forward_memory += each.forward_memory
            total.backward_memory += each.backward_memory
        for each in (*self.layers, total):
            yield (
                f"{each.name} ({each.kind})" if each.kind else each.name,
                each.calls,
                each.forward * 1e3,
                each.backward * 1e3,
                each.forward_memory / 2**20,
                each.backward_memory / 2**20,
            )

    def __str__(self) -> str:
        return str(tabulate(list(self.rows()), _HEADERS, floatfmt=".3f"))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = [[html.escape(row[0]), *row[1:]] for row in self.rows()]
        return str(tabulate(cells, _HEADERS, tablefmt="unsafehtml", floatfmt=".3f"))


def profile_layers(model: Network, inputs: Sequence[Any], loss: Callable[[Any], Tensor]) -> Profile:
    """Run a model forwards and back once, after a pass to warm up, and say what each layer cost.

    Neither weights nor gradients nor buffers are changed.

    Args:
        model: a built model.
        inputs: a batch, as `prepare_inputs` returns it.
        loss: from what the model returns to the scalar whose gradient is taken.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    first = next((leaf for leaf in leaves(inputs) if isinstance(leaf, Tensor)), None)
    device = torch.device("cpu") if first is None else first.device
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    costs = {
        name: LayerCost(name, type(layer).__name__)
        for name, layer in zip(model.layer_names(), model.layers, strict=True)
    }

    def run() -> None:
        value = loss(model(*inputs, training=True))
        if weights and value.requires_grad:
            torch.autograd.grad(value, weights, allow_unused=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with restored(model.buffers()), torch.enable_grad():
        run()
        with (
            _ranges(model, costs),
            torch_profile(activities=activities, profile_memory=True, acc_events=True) as profiler,
        ):
            run()
    elsewhere = LayerCost(_ELSEWHERE, "")
    _add_events(list(profiler.events() or ()), costs, elsewhere, device.type == "cuda")
    return Profile([cost for cost in (*costs.values(), elsewhere) if cost.calls or cost is elsewhere], device)


@contextmanager
def _ranges(model: Network, costs: dict[str, LayerCost]) -> Iterator[None]:
    """Have each call of a layer recorded as a range of that name."""
    running: list[Any] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            costs[name].calls += 1
            running.append(record_function(_MARK + name))
            running[-1].__enter__()

        return hook

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        running.pop().__exit__(None, None, None)

    with ExitStack() as hooks:
        for name, layer in zip(model.layer_names(), model.layers, strict=True):
            hooks.enter_context(layer.register_forward_pre_hook(enter(name), prepend=True))
            hooks.enter_context(layer.register_forward_hook(leave))
        yield


def _add_events(events: Sequence[Any], costs: dict[str, LayerCost], elsewhere: LayerCost, on_card: bool) -> None:
    """Add the profiler's events up by layer.

    Each operation of the forward pass has a number, which the step back that belongs to it has too.
    """
    owners: dict[int, LayerCost] = {}
    for event in events:
        if event.name.startswith("autograd::engine::evaluate_function"):
            owner = owners.get(event.sequence_nr, elsewhere)
            owner.backward += _seconds(event, on_card)
            owner.backward_memory += _memory(event, on_card)
            continue
        parent, inside_backward = event, False
        while parent.cpu_parent is not None and not parent.name.startswith(_MARK):
            parent = parent.cpu_parent
            inside_backward = inside_backward or parent.name.startswith("autograd::engine")
        owner = costs.get(parent.name.removeprefix(_MARK), elsewhere) if parent.name.startswith(_MARK) else elsewhere
        if event.sequence_nr >= 0 and event.scope == 0 and not inside_backward:
            owners.setdefault(event.sequence_nr, owner)
        # A range tells what is within it; operations outside of all ranges tell it themselves.
        outermost = event.cpu_parent is None and event.name != "[memory]" and not inside_backward
        if event.name.startswith(_MARK) or outermost:
            owner.forward += _seconds(event, on_card)
            owner.forward_memory += _memory(event, on_card)


def _seconds(event: Any, on_card: bool) -> float:
    return float(event.device_time_total if on_card else event.cpu_time_total) / 1e6


def _memory(event: Any, on_card: bool) -> int:
    return int(event.device_memory_usage if on_card else event.cpu_memory_usage)
