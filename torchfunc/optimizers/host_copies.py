"""Weights and gradients on the host, beside those on a device, for optimizers whose state is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["HostCopies", "apply_on_host", "empty_on_host"]


def empty_on_host(tensor: Tensor) -> Tensor:
    """Memory on the host for a tensor; pinned if that is on a GPU, which then copies it fast."""
    pinned = tensor.is_cuda and torch.cuda.is_available()
    return torch.empty_like(tensor, device="cpu", requires_grad=False, pin_memory=pinned)


class HostCopies:
    """The weights of an optimizer on the host, and memory for their gradients.

    Args:
        params: the weights, on a device.

    Attributes:
        weights: their copies, in the same order.
    """

    def __init__(self, params: Sequence[Tensor]) -> None:
        self.weights = [empty_on_host(param) for param in params]
        self._gradients = [empty_on_host(param) for param in params]
        self._places = {id(param): place for place, param in enumerate(params)}

    def of(self, params: Sequence[Tensor]) -> list[Tensor]:
        """The copies of some of the weights."""
        return [self.weights[self._places[id(param)]] for param in params]

    def fetch(self, grads: Sequence[Tensor | None], params: Sequence[Tensor]) -> list[Tensor | None]:
        """Copy weights, as they are now, and their gradients to the host, and wait for them. Returns the gradients."""
        found: list[Tensor | None] = []
        own, there = self.of(params), list(params)
        for grad, param in zip(grads, params, strict=True):
            if grad is None or grad.is_sparse:
                found.append(None if grad is None else grad.cpu())
            else:
                found.append(self._gradients[self._places[id(param)]])
                own.append(self._gradients[self._places[id(param)]])
                there.append(grad)
        torch._foreach_copy_(own, there)
        return found

    def write_back(self, params: Sequence[Tensor]) -> None:
        """Copy weights back to the device."""
        torch._foreach_copy_(list(params), self.of(params))


def apply_on_host(optimizer: Any, grads: Sequence[Tensor | None], params: list[Tensor]) -> None:
    """`optimizer.apply` for weights on a device, whose copies on the host stand in for them."""
    own = optimizer._params, optimizer._decayed, optimizer._constraints
    weights, decayed, constraints = own
    if optimizer.host_copies is None:
        optimizer.host_copies = HostCopies(weights)
    host: HostCopies = optimizer.host_copies
    with torch.no_grad():
        fetched = host.fetch(grads, params)
        optimizer._params, optimizer._decayed = host.weights, host.of(decayed)
        optimizer._constraints = [(host.of([param])[0], constraint) for param, constraint in constraints]
        try:
            optimizer.apply(fetched, host.of(params))
        finally:
            optimizer._params, optimizer._decayed, optimizer._constraints = own
        host.write_back(params)
