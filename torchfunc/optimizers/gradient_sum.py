"""`GradientSum`: gradients summed over several processes, in few large pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

__all__ = ["GradientSum"]

# As DistributedDataParallel does by default.
_PIECE = 25 * 2**20


class GradientSum:
    """Sums the gradients of all processes, each of which has those of its part of a batch.

    The sum is taken once an update: gradients that are accumulated are summed when the update is due. Pieces of up to
    25 MiB go out one after the other, and the next is put together while the one before is on its way.

    Attributes:
        share: what the gradients here are multiplied by: this process' share of the batch, where the loss whose
            gradients they are was not.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self._some_missing: bool | None = None

    @property
    def varies(self) -> bool:
        """Whether processes have to ask each other in each step which gradients there are."""
        return bool(self._some_missing)

    def complete(self, gradients: Sequence[Tensor | None], params: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """The gradients, with zeros for those that are missing in this process but not in another."""
        missing = [gradient is None for gradient in gradients]
        if torch.compiler.is_compiling() or self._some_missing is False:
            if not any(missing) or self._some_missing is None:
                return gradients
            return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, params, strict=True)]
        # Whether that can happen at all is found out in the first step.
        found: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(found, missing)
        self._some_missing = self._some_missing or any(map(any, found))
        everywhere = [all(each) for each in zip(*found, strict=True)]
        return [
            torch.zeros_like(param) if gradient is None and not nowhere else gradient
            for gradient, param, nowhere in zip(gradients, params, everywhere, strict=True)
        ]

    def own_share(self, gradients: list[Tensor]) -> list[Tensor]:
        """The gradients times `share`."""
        return gradients if self.share == 1.0 else list(torch._foreach_mul(gradients, self.share))

    def of_all(self, gradients: Sequence[Tensor | None], params: Sequence[Tensor]) -> list[Tensor | None]:
        """Share, sum and completion in one, for who needs the sums before anything else is done with gradients."""
        complete = self.complete(gradients, params)
        sums = iter(
            self(self.own_share([each.to_dense() if each.is_sparse else each for each in complete if each is not None]))
        )
        return [None if each is None else next(sums) for each in complete]

    def __call__(self, gradients: list[Tensor]) -> list[Tensor]:
        """The sums over all processes; new tensors."""
        sums: list[Tensor] = list(gradients)
        under_way = []
        for numbers in _pieces(gradients):
            flat = torch.cat([gradients[number].reshape(-1) for number in numbers])
            if torch.compiler.is_compiling():
                distributed.all_reduce(flat)
                work = None
            else:
                work = distributed.all_reduce(flat, async_op=True)
            under_way.append((numbers, flat, work))
        for numbers, flat, work in under_way:
            if work is not None:
                work.wait()
            parts = flat.split([gradients[number].numel() for number in numbers])
            for number, part in zip(numbers, parts, strict=True):
                sums[number] = part.view(gradients[number].shape)
        return sums


def _pieces(gradients: list[Tensor]) -> Iterator[list[int]]:
    """The numbers of the gradients that go out together: of one dtype and device, the last layers' first."""
    waiting: dict[Any, list[int]] = {}
    sizes: dict[Any, int] = {}
    for number in reversed(range(len(gradients))):
        gradient = gradients[number]
        kind = gradient.dtype, gradient.device
        waiting.setdefault(kind, []).append(number)
        sizes[kind] = sizes.get(kind, 0) + gradient.numel() * gradient.element_size()
        if sizes[kind] >= _PIECE:
            yield waiting.pop(kind)
            sizes[kind] = 0
    yield from waiting.values()
