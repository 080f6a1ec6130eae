"""einops' functions on symbolic tensors: `rearrange(x, "b (h p) c -> b h (p c)", h=2)` is recorded as what it does."""

from __future__ import annotations

from typing import Any

from torchfunc.graph.symbolic import SymbolicTensor

__all__ = ["register_with_einops"]


class _Sizes(tuple[Any, ...]):
    """Sizes that einops does not keep in its cache, where they would keep the graph alive."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _Sizes(found) if isinstance(index, slice) else found


# einops itself keeps no more than a weak reference.
_backends: list[type] = []


def register_with_einops() -> None:
    """Tell einops, where it is installed, how to work on symbolic tensors: as on those of torch."""
    try:
        # As einops asks of other libraries: it looks for the subclasses of its backends.
        from einops._backends import TorchBackend
    except ImportError:
        return

    class SymbolicBackend(TorchBackend):
        framework_name = "torchfunc"

        def is_appropriate_type(self, tensor: object) -> bool:
            return isinstance(tensor, SymbolicTensor)

        def shape(self, x: SymbolicTensor) -> _Sizes:
            return _Sizes(x.size())

    _backends.append(SymbolicBackend)
