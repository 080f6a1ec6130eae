"""The sizes that stand for unknown ones while shapes are inferred."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, TypeAlias

from torch.utils._pytree import tree_map

from torchfunc.graph.node import Spec, Specs

__all__ = ["OTHER_SIZES", "Examples", "example_shapes", "recorded_again", "rescaled"]

Examples: TypeAlias = "tuple[Any, Any]"
"""Two shapes, or two numbers computed from sizes: what stands for a value in the first and in the second run."""
Pair: TypeAlias = "tuple[int, int]"
"""One size in the first and in the second run."""

# Unknown sizes stand for these in the two runs. They are multiples of what networks divide sizes by (strides, windows,
# halves of a batch), and the second is twice the first, so that no quotient (`n // 4`) is the same in both.
EXAMPLE_BATCH: Pair = (12, 24)
EXAMPLE_SIZE: Pair = (224, 448)
# What is tried in place of EXAMPLE_SIZE where that fails: a table of positions may be short, a window long.
OTHER_SIZES: Sequence[Pair] = ((16, 32), (4, 8), (2, 4), (1792, 3584))


def example_shapes(shape: Sequence[int | None]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two concrete shapes for one with unknown sizes."""

    def fill(trial: int) -> tuple[int, ...]:
        return tuple(
            size if size is not None else (EXAMPLE_BATCH[trial] if axis == 0 else EXAMPLE_SIZE[trial])
            for axis, size in enumerate(shape)
        )

    return fill(0), fill(1)


def rescaled(recorded: Sequence[Examples], size: Pair) -> list[Examples] | None:
    """What the examples would be if `size` stood for unknown sizes other than the batch; None if nothing changes.

    Or if that is not known: a size is taken to be one that depends on the unknown one in a straight line.
    """
    found = [_rescale(examples, size) for examples in recorded]
    complete = [examples for examples in found if examples is not None]
    return complete if len(complete) == len(recorded) and complete != list(recorded) else None


def recorded_again(specs: Specs, recorded: Sequence[Examples], tried: Sequence[Examples]) -> Specs:
    """The specs that were found with the examples `tried`, with the sizes that are `recorded` for the same."""
    pairs: dict[Pair, Pair] = {EXAMPLE_BATCH: EXAMPLE_BATCH}
    for old, new in zip(recorded, tried, strict=True):
        if isinstance(old[0], tuple):
            pairs.update(zip(zip(*new, strict=True), zip(*old, strict=True), strict=True))

    def restore(leaf: Any) -> Any:
        if not isinstance(leaf, Spec) or leaf.shape is None:
            return leaf
        sizes = [pairs.get(pair, pair) for pair in zip(*leaf.examples, strict=True)]
        return Spec(leaf.shape, leaf.dtype, (tuple(a for a, _ in sizes), tuple(b for _, b in sizes)))

    return tree_map(restore, specs)


def _rescale(examples: Examples, size: Pair) -> Examples | None:
    first, second = examples
    if isinstance(first, tuple):
        sizes = [_rescale_one(pair, size) for pair in zip(first, second, strict=True)]
        known = [pair for pair in sizes if pair is not None]
        return (tuple(a for a, _ in known), tuple(b for _, b in known)) if len(known) == len(sizes) else None
    # Only a count of something has to fit the shapes; a factor computed from one may stay.
    return _rescale_one((first, second), size) if isinstance(first, int) else examples


def _rescale_one(pair: Pair, size: Pair) -> Pair | None:
    if pair[0] == pair[1] or pair == EXAMPLE_BATCH:
        return pair
    slope = Fraction(pair[1] - pair[0], EXAMPLE_SIZE[1] - EXAMPLE_SIZE[0])
    new = [pair[0] + slope * (each - EXAMPLE_SIZE[0]) for each in size]
    if all(each.denominator == 1 and each > 0 for each in new) and new[0] != new[1]:
        return int(new[0]), int(new[1])
    # Some number of batches, then: of heads in a batch, or of steps.
    counts = [divmod(each, batch) for each, batch in zip(pair, EXAMPLE_BATCH, strict=True)]
    if any(rest for _, rest in counts):
        return None
    count = _rescale_one((counts[0][0], counts[1][0]), size) if counts[0] != counts[1] else (counts[0][0],) * 2
    return None if count is None else (count[0] * EXAMPLE_BATCH[0], count[1] * EXAMPLE_BATCH[1])
