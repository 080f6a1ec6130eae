"""The state of an optimizer as Keras keeps it: a variable for each of Keras' weights, in Keras' layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from torchfunc.layers.base.weights import SAME_LAYOUT, Weight, WeightHolder
from torchfunc.optimizers import Adafactor, Optimizer

__all__ = ["read_state", "state_shapes", "write_state"]


class _Variable(NamedTuple):
    """A variable of Keras' optimizer.

    Attributes:
        places: those of our variables that are it, in our optimizer.
        owner, weight: the weight that it serves; None for state of the whole.
        from_end: how many more variables serve the same weight behind this one.
    """

    places: list[int]
    owner: nn.Module | None = None
    weight: Weight | None = None
    from_end: int = 0


def write_state(optimizer: Optimizer, model: WeightHolder) -> list[Tensor]:
    """The variables of a built optimizer, in Keras' order and layout.

    Where torch stores one of Keras' weights in two, there is one variable for both.

    Args:
        optimizer: built for the model's weights.
        model: the model.
    """
    store: dict[str, np.ndarray] = {}
    optimizer.save_own_variables(store)
    own = [torch.as_tensor(store[str(place)]) for place in range(len(store))]
    found: list[Tensor] = []
    variables = _variables(optimizer, model)
    for index, variable in enumerate(variables):
        parts = [own[place] for place in variable.places]
        if variable.weight is None or _is_kept(optimizer, variable):
            found.append(parts[0])
        elif _is_factor(optimizer, variable):
            # As the mean squares of the other layout have them; of a matrix that is the exact value.
            whole = variables[index + variable.from_end]
            squares = variable.weight.layout.to_keras(*(own[place] for place in whole.places))
            found.append(_factor(squares, variable.from_end))
        else:
            found.append(variable.weight.layout.to_keras(*parts))
    return found


def read_state(optimizer: Optimizer, model: WeightHolder, values: Sequence[np.ndarray]) -> None:
    """Fill a built optimizer with variables in Keras' order and layout.

    Raises:
        ValueError: their number or shapes are others than the optimizer's; then nothing is changed.
    """
    expected, found = state_shapes(optimizer, model), [value.shape for value in values]
    if expected != found:
        raise ValueError(
            f"{type(optimizer).__name__} has {len(expected)} variables of the shapes {_listed(expected)}, "
            f"but was given {len(found)} of {_listed(found)}."
        )
    own: dict[int, Tensor] = {}
    given = [torch.as_tensor(value) for value in values]
    variables = _variables(optimizer, model)
    for index, (variable, value) in enumerate(zip(variables, given, strict=True)):
        if variable.weight is None or _is_kept(optimizer, variable):
            own[variable.places[0]] = value
            continue
        factor = _is_factor(optimizer, variable)
        parts = variable.weight.layout.to_torch(given[index + variable.from_end] if factor else value)
        for place, part in zip(variable.places, parts, strict=True):
            own[place] = _factor(part, variable.from_end) if factor else part
    optimizer.load_own_variables({str(place): own[place].numpy() for place in range(len(own))})


def state_shapes(optimizer: Optimizer, model: WeightHolder) -> list[tuple[int, ...]]:
    """The shapes of the variables of a built optimizer, in Keras' order and layout."""
    return [tuple(value.shape) for value in write_state(optimizer, model)]


def _variables(optimizer: Optimizer, model: WeightHolder) -> list[_Variable]:
    """The variables that Keras' optimizer has for the same model, in its order."""
    entries: Mapping[int, tuple[nn.Module, Weight]] = {
        id(tensor): entry for entry in model.weight_entries() for tensor in entry[1].tensors(entry[0])
    }
    served = optimizer.served_weights()
    places: dict[int, list[int]] = {}
    for place, tensor in enumerate(served):
        if tensor is not None:
            places.setdefault(id(tensor), []).append(place)
    found: list[_Variable] = []
    for place, tensor in enumerate(served):
        if tensor is None or id(tensor) not in entries:
            found.append(_Variable([place]))
            continue
        owner, weight = entries[id(tensor)]
        tensors, slot = weight.tensors(owner), places[id(tensor)].index(place)
        if tensors[0] is tensor:
            from_end = len(places[id(tensor)]) - 1 - slot
            found.append(_Variable([places[id(each)][slot] for each in tensors], owner, weight, from_end))
    return found


def _is_factor(optimizer: Optimizer, variable: _Variable) -> bool:
    """Whether this is one of Adafactor's two factors of mean squares, which follow behind."""
    return isinstance(optimizer, Adafactor) and variable.from_end in (1, 2)


def _is_kept(optimizer: Optimizer, variable: _Variable) -> bool:
    """Whether a factor is the same for both layouts."""
    return _is_factor(optimizer, variable) and variable.weight is not None and variable.weight.layout is SAME_LAYOUT


def _factor(squares: Tensor, from_end: int) -> Tensor:
    """The means of rows (2 from the end) or columns; a number in their place for what is not factored."""
    if squares.ndim < 2:
        return torch.zeros((), dtype=torch.int32)
    return squares.mean(dim=-1 if from_end == 2 else -2)


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes[:6])) + (" ..." if len(shapes) > 6 else "")
