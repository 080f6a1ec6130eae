"""Updates of the rows that a sparse gradient names, and of no others.

The rows, and those of the state that belongs to them, are copied out, updated by the optimizer's own rule as if they
were a weight, and written back. So a step costs as much as there are rows in the batch, however many the weight has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchfunc.graph.torch_internals import sparse_parts

__all__ = ["RowGradient", "Rows", "present_gradients", "row_gradient", "with_all_used"]


@dataclass
class RowGradient:
    """The gradients of some rows of a weight.

    There may be fewer rows than places: how many differ is known to the device alone, which nobody waits for.

    Attributes:
        numbers: which rows `(places,)`, each once; places that are left over repeat the first.
        values: their gradients `(places, ...)`; 0 in places that are left over.
        is_used: whether a place is none that is left over `(places,)`.
    """

    numbers: Tensor
    values: Tensor
    is_used: Tensor


def row_gradient(gradient: Tensor) -> RowGradient:
    """A sparse gradient with the sum of what it holds for each row, in the order in which it holds it."""
    numbers, values = sparse_parts(gradient)
    if not len(numbers):
        return RowGradient(numbers, values, numbers.bool())
    ordered, order = numbers.sort(stable=True)
    begins = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=begins[1:])
    place = begins.cumsum(0) - 1
    sums = torch.zeros_like(values).index_add_(0, place, values.index_select(0, order))
    distinct = ordered[:1].expand_as(ordered).clone().scatter_(0, place, ordered)
    is_used = torch.arange(len(place), device=place.device) <= place[-1]
    return RowGradient(distinct, sums, is_used)


@dataclass
class Rows:
    """Rows of a weight, copied out to be updated.

    Attributes:
        weight: the weight.
        numbers: which rows.
        copied: the rows, in the weight's place.
        changed: what else was copied out: state, and its rows.
    """

    weight: Tensor
    numbers: Tensor
    copied: Tensor
    changed: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @classmethod
    def of(cls, weight: Tensor, gradient: RowGradient) -> Rows:
        """The rows that a gradient is for."""
        return cls(weight, gradient.numbers, weight.index_select(0, gradient.numbers))

    def of_state(self, state: Tensor, variables: Sequence[Tensor]) -> Tensor:
        """The rows of a piece of state; what is no state for each row is left as it is."""
        if state.shape != self.weight.shape:
            return state
        rows = state.index_select(0, self.numbers)
        if any(state is variable for variable in variables):
            self.changed.append((state, rows))
        return rows

    def write_back(self) -> None:
        """Put all rows back. Those of places that are left over equal the first."""
        for tensor, rows in ((self.weight, self.copied), *self.changed):
            tensor.index_copy_(0, self.numbers, rows)


def with_all_used(gradient: RowGradient) -> Tensor:
    """The gradients; places that are left over repeat the first as its row does, so that the same is done there."""
    shape = (-1, *[1] * (gradient.values.ndim - 1))
    return torch.where(gradient.is_used.reshape(shape), gradient.values, gradient.values[:1])


def present_gradients(
    grads: Sequence[Tensor | None], params: list[Tensor], by_rows: bool
) -> tuple[list[Tensor], list[Tensor], dict[int, RowGradient]]:
    """The gradients that are there, and their weights; `params` itself when none is missing.

    Sparse ones are made dense; or, by rows, what they hold for each row takes their place, and the third result says
    of which rows.

    Raises:
        ValueError: none is there.
    """
    present: list[Tensor] = []
    rows: dict[int, RowGradient] = {}
    for grad in grads:
        if grad is not None and grad.is_sparse:
            if by_rows and grad.sparse_dim() == 1:
                rows[len(present)] = row_gradient(grad)
                grad = rows[len(present)].values
            else:
                grad = grad.to_dense()
        if grad is not None:
            present.append(grad)
    if len(present) == len(params):
        return present, params, rows
    if not present:
        raise ValueError("All gradients are None: the loss does not depend on any of the weights.")
    return present, [param for param, grad in zip(params, grads, strict=True) if grad is not None], rows
