"""Who takes part."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "CAPTURED",
    "COMPILED",
    "CONTESTANTS",
    "EAGER",
    "FLOOR",
    "HAND_COMPILED",
    "INDEXING",
    "KERAS_JAX",
    "KERAS_TORCH",
    "LIGHTNING",
    "LOADER",
    "MODULE",
    "REDUCED",
    "SKORCH",
    "SYMBOLIC",
    "UNROLLED",
    "Contestant",
]


@dataclass(frozen=True)
class Contestant:
    """One who does the work, in a process of its own.

    Attributes:
        family: the module of `workloads` whose `prepare` makes its turns.
        options: the arguments of `prepare`.
        packages: what must be installed; the first is what it imports.
        environment: variables of its process.
        compiled: whether what it runs are compiled or captured graphs, so that it is set beside others that do so.
        inductor: whether torch.compile makes them, which takes long before the first turn.
        only_cuda: whether it needs a GPU.
    """

    family: str
    options: dict[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ("torch",)
    environment: dict[str, str] = field(default_factory=dict)
    compiled: bool = False
    inductor: bool = False
    only_cuda: bool = False

    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]


EAGER, COMPILED, UNROLLED = "torchfunc", "torchfunc compiled", "torchfunc compiled, 4 steps at once"
MODULE = "module by hand"
LOADER, INDEXING = "DataLoader loop by hand", "indexing loop by hand"
HAND_COMPILED, CAPTURED = "indexing loop, torch.compile", "indexing loop, CUDA graph"
REDUCED = "indexing loop, reduce-overhead"
KERAS_TORCH, KERAS_JAX = "Keras on torch", "Keras on jax"
SYMBOLIC, LIGHTNING, SKORCH = "pytorch-symbolic", "Lightning", "skorch"
FLOOR = "its kernels alone"


def _ours(**options: Any) -> Contestant:
    compiled = options["jit_compile"]
    return Contestant(
        "functional", {"api": "torchfunc", **options}, ("torchfunc",), compiled=compiled, inductor=compiled
    )


def _keras(backend: str, compiled: bool) -> Contestant:
    environment = {"KERAS_BACKEND": backend}
    return Contestant("functional", {"api": "keras"}, ("keras", backend), environment, compiled=compiled)


CONTESTANTS = {
    EAGER: _ours(jit_compile=False),
    COMPILED: _ours(jit_compile=True),
    UNROLLED: _ours(jit_compile=True, steps_per_execution=4),
    MODULE: Contestant("by_hand"),
    LOADER: Contestant("by_hand", {"data": "loader"}),
    INDEXING: Contestant("by_hand", {"data": "index"}),
    HAND_COMPILED: Contestant("by_hand", {"data": "index", "compiled": "default"}, compiled=True, inductor=True),
    REDUCED: Contestant(
        "by_hand", {"data": "index", "compiled": "reduce-overhead"}, compiled=True, inductor=True, only_cuda=True
    ),
    CAPTURED: Contestant("by_hand", {"data": "index", "captured": True}, compiled=True, only_cuda=True),
    KERAS_TORCH: _keras("torch", compiled=False),
    KERAS_JAX: _keras("jax", compiled=True),
    SYMBOLIC: Contestant("others", {"api": "pytorch_symbolic"}, ("pytorch_symbolic",)),
    LIGHTNING: Contestant("others", {"api": "lightning"}, ("lightning",)),
    SKORCH: Contestant("others", {"api": "skorch"}, ("skorch",)),
    FLOOR: Contestant("floor"),
}
