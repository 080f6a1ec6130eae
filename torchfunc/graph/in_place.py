"""Functions that write to their arguments, which a drawn graph has no place for."""

from __future__ import annotations

import torch

from torchfunc.graph.node import Kwargs

__all__ = ["refuse_in_place"]


def refuse_in_place(name: str, kwargs: Kwargs) -> None:
    """Check that a function may be recorded.

    Args:
        name: of the function.
        kwargs: its arguments by keyword.

    Raises:
        ValueError: it would write to an argument; the message says what to use instead.
    """
    plain = name.rsplit(".", 1)[-1]
    if kwargs.get("out") is not None:
        raise ValueError(
            f"{name}(out=...) writes into a tensor, which a symbolic graph has no place for. Leave it out."
        )
    in_place = plain.endswith("_") and not plain.endswith("__")
    if in_place or kwargs.get("inplace") or plain == "__setitem__":
        raise ValueError(
            f"{name} changes its input in place, which cannot be recorded on a symbolic tensor. {_out_of_place(plain)}"
        )


# What stands for functions of no other name: they fill a tensor.
_FILLS = {
    "zero_": "torch.zeros_like(x)",
    "fill_": "torch.full_like(x, value)",
    "copy_": "the other tensor itself",
    "normal_": "torch.randn_like(x) * std + mean",
    "uniform_": "torch.rand_like(x) * (high - low) + low",
    "random_": "torch.randint_like(x, low, high)",
    "__setitem__": "torch.where or torch.index_put",
}


def _out_of_place(name: str) -> str:
    """What to use instead of a function that writes to its input."""
    plain = name.rstrip("_")
    instead = _FILLS.get(name) or (plain if hasattr(torch.Tensor, plain) or not name.endswith("_") else None)
    if instead is not None:
        return f"Use the out-of-place form: {instead}."
    return f"It has no out-of-place form: call it on a copy inside a Layer's call(), as `inputs.clone().{name}(...)`."
