"""What the modules of a model hold: the numbers in their weights, and whether these train. All in one walk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchfunc.graph import modules_within
from torchfunc.layers import Layer
from torchfunc.layers.base.weights import own_weights

__all__ = ["Holding", "Holdings"]


@dataclass
class Holding:
    """The weights of a module.

    Attributes:
        numbers: in all of them; those whose size is not known yet count for nothing.
        weights, parameters: how many there are, and how many of them are parameters.
        training: how many parameters require gradients.
        lazy: how many have no size yet.
    """

    numbers: int = 0
    weights: int = 0
    parameters: int = 0
    training: int = 0
    lazy: int = 0

    def add(self, other: Holding) -> None:
        """Count what another module holds as well."""
        self.numbers += other.numbers
        self.weights += other.weights
        self.parameters += other.parameters
        self.training += other.training
        self.lazy += other.lazy


class Holdings:
    """What a model and all within it hold.

    Where the modules are a tree, each is counted once, and a model is what is in it together. Otherwise what is asked
    for is counted by itself, since a weight in two places counts once.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = modules_within(model)
        own = {module: _own_tensors(module) for module in modules}
        places = sum(len([child for child in module._modules.values() if child is not None]) for module in modules)
        tensors = [id(tensor) for each in own.values() for tensor in each]
        self._known: dict[int, Holding] = {}
        if places == len(modules) - 1 and len(set(tensors)) == len(tensors):
            # Those within a module come behind it.
            for module in reversed(modules):
                found = self._known[id(module)] = _counted(own[module])
                for child in module._modules.values():
                    if child is not None:
                        found.add(self._known[id(child)])

    def of(self, target: Any) -> Holding:
        """What a layer or module holds, or a tensor is; nothing for anything else."""
        return self._known.get(id(target)) or _counted(_tensors(target))


def _own_tensors(module: nn.Module) -> list[Tensor]:
    found = [tensor for weight in own_weights(module) for tensor in weight.tensors(module)]
    return [tensor for tensor in found if tensor is not None]


def _counted(tensors: Iterable[Tensor]) -> Holding:
    found = Holding()
    for tensor in tensors:
        lazy, is_parameter = is_lazy(tensor), isinstance(tensor, nn.Parameter)
        numbers = 0 if lazy else tensor.numel()
        found.add(Holding(numbers, 1, int(is_parameter), int(is_parameter and tensor.requires_grad), int(lazy)))
    return found


def _tensors(target: Any) -> list[Tensor]:
    """Parameters and persistent buffers, each once."""
    if isinstance(target, Tensor):
        return [target]
    if isinstance(target, Layer):
        return target.weights
    if not isinstance(target, nn.Module):
        return []
    values = target.state_dict(keep_vars=True).values()
    return list({id(tensor): tensor for tensor in values if isinstance(tensor, Tensor)}.values())
