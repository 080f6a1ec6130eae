"""Functions that are run again for their gradients, in place of what they have computed on the way being kept.

torch's `checkpoint` does it. It runs the function a second time during the backward pass, with torch's generators as
they were. Here all else is so too: the second run draws the numbers of the first one from the layers' own generators,
reads their buffers as they were, and leaves no trace: moving statistics, counts of metrics and losses that layers add
are those of one run.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from torchfunc.graph import SameModes, modules_within
from torchfunc.layers.base.losses import LossHolder, apart_from_calls
from torchfunc.metrics.attributes import metrics_in_attributes
from torchfunc.metrics.snapshots import kept_metrics

__all__ = ["RecomputedForward", "Recomputing", "Replacement", "recomputed", "replaced"]


def recomputed(function: Callable[..., Any], modules: Iterable[nn.Module], *args: Any, **kwargs: Any) -> Any:
    """What a function returns, of which only the arguments are kept for the gradients.

    Args:
        function: the function.
        modules: those that it calls.
        *args, **kwargs: of the function.
    """
    if not torch.compiler.is_compiling():
        contexts = partial(_contexts, modules)
        return checkpoint(function, *args, use_reentrant=False, context_fn=contexts, **kwargs)
    holders = [part for module in modules for part in module.modules() if isinstance(part, LossHolder)]
    if not LossHolder.adds_losses:
        holders = []

    def run(*args: Any, **kwargs: Any) -> Any:
        # torch.compile wants to know of all that comes out.
        before = [len(holder.call_losses) for holder in holders]
        outputs = function(*args, **kwargs)
        added = [
            [holder.call_losses.pop() for _ in range(len(holder.call_losses) - count)][::-1]
            for holder, count in zip(holders, before, strict=True)
        ]
        return outputs, added

    outputs, added = checkpoint(run, *args, use_reentrant=False, context_fn=_compiled_contexts, **kwargs)
    for holder, losses in zip(holders, added, strict=True):
        holder.call_losses.extend(losses)
    return outputs


def _kept_in_graphs(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """A graph draws its random numbers once."""
    is_random = torch.Tag.nondeterministic_seeded in getattr(operator, "tags", ())
    return CheckpointPolicy.MUST_SAVE if is_random else CheckpointPolicy.PREFER_RECOMPUTE


_compiled_contexts = partial(create_selective_checkpoint_contexts, _kept_in_graphs)


def _contexts(modules: Iterable[nn.Module]) -> tuple[Any, Any]:
    """The contexts of the first run and of all further ones."""
    parts = dict.fromkeys(part for module in modules for part in modules_within(module))
    return contextlib.nullcontext(), _Moment(list(parts))


class _Moment:
    """What modules hold beside their weights, as it is when this is made. As a context, it is so in the block.

    Args:
        modules: the modules, each alone.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self._modes = SameModes()
        # (Whether a kernel has written to a buffer cannot be seen from torch's count of versions.)
        self._buffers = [
            (part._buffers, name, tensor.detach().clone())
            for part in modules
            for name, tensor in part._buffers.items()
            if tensor is not None
        ]
        generators = [each for part in modules for each in vars(part).values() if isinstance(each, torch.Generator)]
        self._generators = [(each, each.get_state()) for each in generators]
        self._metrics = metrics_in_attributes(modules)

    def __enter__(self) -> None:
        self._now = contextlib.ExitStack()
        self._now.enter_context(self._modes)
        self._now.enter_context(apart_from_calls())
        if self._metrics:
            self._now.enter_context(kept_metrics(lambda: self._metrics))
        for generator, state in self._generators:
            self._now.callback(generator.set_state, generator.get_state())
            generator.set_state(state)
        for table, name, value in self._buffers:
            # In place of the tensors that are there now, which may be kept for other gradients.
            self._now.callback(table.__setitem__, name, table[name])
            table[name] = value.clone()

    def __exit__(self, *error: object) -> None:
        self._now.close()


class RecomputedForward:
    """What stands in place of a module's `forward` while its calls are recomputed."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._forward = module, module.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._forward(*args, **kwargs)
        return recomputed(self._forward, [self._module], *args, **kwargs)

    def __reduce__(self) -> Any:
        # Copies of the module that are made meanwhile are not part of it.
        return _own_forward, (self._module,)


def _own_forward(module: nn.Module) -> Callable[..., Any]:
    return MethodType(type(module).forward, module)


@dataclass
class Replacement:
    """Attributes of a module that are replaced for as long as there are runs.

    Attributes:
        module: refers to the module, which may keep this.
        attributes: what they are then.
        runs: in how many runs they are replaced.
        before: those of them that the module had of its own.
    """

    module: weakref.ref[nn.Module]
    attributes: dict[str, Any]
    runs: int = 0
    before: dict[str, Any] = field(default_factory=dict)


class Recomputing(NamedTuple):
    """What is replaced in a model so that it recomputes.

    Attributes:
        key: what it depends on of the model.
        replacements: what is replaced.
    """

    key: Hashable
    replacements: list[Replacement]


_lock = threading.RLock()


@contextlib.contextmanager
def replaced(replacements: Sequence[Replacement]) -> Iterator[None]:
    """Make replacements for a run. Runs of several threads share them, and the last to end restores."""
    with _lock:
        for each in replacements:
            own = vars(each.module())
            if not each.runs:
                each.before = {name: own[name] for name in each.attributes if name in own}
                own.update(each.attributes)
            each.runs += 1
    try:
        yield
    finally:
        with _lock:
            for each in reversed(replacements):
                each.runs -= 1
                if not each.runs:
                    own = vars(each.module())
                    for name in each.attributes:
                        own.pop(name, None)
                    own.update(each.before)
                    each.before = {}
