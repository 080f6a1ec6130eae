"""Calling a drawn model with another forward than its own, with all else that a call does: for training, or masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from torchfunc.modules.graph_network import GraphNetwork

__all__ = ["call_with_forward"]


def call_with_forward(
    model: GraphNetwork, forward: Callable[..., Any], values: Sequence[Any], training: bool | None = None
) -> Any:
    """What the model returns on prepared inputs if `forward(model, *values)` is what it computes.

    Args:
        model: the model.
        forward: a function that `compile_forward` made.
        values: what `prepare_inputs` made.
        training: as in the model's call.
    """
    if training is None and not model.is_hooked():
        direct = model.direct_calls() if all(type(value) is Tensor for value in values) else None
        return model.run_outermost(forward, direct or model, *values)
    kind: Any = type(model)
    if "_twin" not in kind.__dict__:
        kind._twin = type("Twin", (_Twin, kind), {})
    twin = object.__new__(kind._twin)
    for name, value in (("__dict__", model.__dict__), ("other", forward)):
        object.__setattr__(twin, name, value)
    return twin(*values) if training is None else twin(*values, training=training)


class _Twin:
    """Mixed into a model's class: the model once more (it shares the attributes) with another forward."""

    __slots__ = ("other",)

    def forward(self, *inputs: Any) -> Any:
        return self.other(self, *inputs)  # type: ignore[attr-defined]
