"""Weights on the meta device, which have shapes and no values: models made so take no memory until they are filled."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["make_room", "off_meta", "require_values", "without_values"]


def off_meta() -> contextlib.AbstractContextManager[Any]:
    """A block in which new tensors have values, on the CPU, if they would be on the meta device."""
    return torch.device("cpu") if torch.get_default_device().type == "meta" else contextlib.nullcontext()


def without_values(model: nn.Module) -> list[str]:
    """The names of weights and buffers on the meta device."""
    both = itertools.chain(model.named_parameters(), model.named_buffers())
    return [name for name, tensor in both if tensor.is_meta]


def require_values(model: nn.Module) -> None:
    """Raise ValueError, naming the first, if there are weights on the meta device."""
    found = without_values(model)
    if found:
        raise ValueError(
            f"The weight {found[0]!r} is on the meta device, where nothing has values. Fill the model first: "
            "`model.load_weights(path)`, or `model.load_state_dict(state, assign=True)`; or make it without "
            "`torch.device('meta')`."
        )


def make_room(model: nn.Module, tensors: Iterable[Tensor]) -> None:
    """Put memory in the place of those weights of a model that are on the meta device, among these.

    The values are still to be filled in. What was one weight stays one.
    """
    wanted = {id(tensor): tensor for tensor in tensors if tensor.is_meta}
    if not wanted:
        return
    made: dict[int, Tensor] = {}
    for module in model.modules():
        tables: list[dict[str, Any]] = [module._parameters, module._buffers]
        for table in tables:
            for name, tensor in [(name, each) for name, each in table.items() if id(each) in wanted]:
                if id(tensor) not in made:
                    with off_meta():
                        made[id(tensor)] = _room_for(tensor)
                table[name] = made[id(tensor)]
                if isinstance(module, nn.RNNBase):
                    # It has them in a list, too.
                    setattr(module, name, made[id(tensor)])
        place_weights: Any = getattr(module, "place_weights", None)
        if place_weights is not None:
            place_weights()


def _room_for(tensor: Tensor) -> Tensor:
    room = torch.empty_like(tensor, device=torch.get_default_device())
    made = nn.Parameter(room, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else room
    vars(made).update(vars(tensor))
    return made
