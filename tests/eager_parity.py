"""Compare what a function records on symbolic tensors with what it does on real ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_flatten

from torchfunc import Input, SymbolicTensor
from torchfunc.models import Model

# What stands for unknown sizes in the two real runs: the batch axis, and any other.
BATCHES = (4, 6)
SIZES = (8, 12)


def real(shape: tuple[int | None, ...], dtype: torch.dtype, trial: int) -> torch.Tensor:
    """Random data for a shape with unknown sizes."""
    sizes = [size if size is not None else (SIZES if axis else BATCHES)[trial] for axis, size in enumerate(shape)]
    generator = torch.Generator().manual_seed(trial)
    if dtype.is_floating_point:
        return torch.randn(sizes, generator=generator).to(dtype)
    return torch.randint(1, 4, sizes, generator=generator).to(dtype)


def check_traced(
    function: Callable[..., Any], *shapes: tuple[int | None, ...], dtype: torch.dtype = torch.float32
) -> Any:
    """Draw `function` on symbolic tensors of these shapes, and compare with running it on real ones of two sizes.

    The structure, shapes and dtypes must agree, with None exactly where the sizes differ between the two runs; and the
    model of the graph must return the same values.

    Returns:
        What `function` returned for the symbolic tensors.
    """
    inputs = [Input(batch_shape=shape, dtype=dtype) for shape in shapes]
    drawn, structure = tree_flatten(function(*inputs))
    symbolic = [value for value in drawn if isinstance(value, SymbolicTensor)]
    assert symbolic, "nothing was recorded"
    model = Model(inputs, symbolic).eval()
    runs = []
    for trial in range(2):
        data = [real(shape, dtype, trial) for shape in shapes]
        expected, expected_structure = tree_flatten(function(*data))
        assert structure == expected_structure
        runs.append(expected)
        given = iter(model(*data))
        for value, want in zip(drawn, expected, strict=True):
            if isinstance(value, SymbolicTensor):
                torch.testing.assert_close(next(given), want, equal_nan=True)
            elif not isinstance(want, int | torch.Size):
                assert value == want
    for value, first, second in zip(drawn, *runs, strict=True):
        if isinstance(value, SymbolicTensor):
            sizes = zip(first.shape, second.shape, strict=True)
            assert value.shape == tuple(a if a == b else None for a, b in sizes)
            assert value.dtype == first.dtype
    return function(*inputs)
