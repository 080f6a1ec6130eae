"""House prices in the districts of California, of 1990."""

from __future__ import annotations

from torchfunc.datasets.files import Split, fetch, read_arrays
from torchfunc.datasets.housing import check_split, split

__all__ = ["load_data"]


def load_data(
    version: str = "large", path: str = "california_housing.npz", test_split: float = 0.2, seed: int | None = 113
) -> Split:
    """`(x_train, y_train), (x_test, y_test)`: x (rows, 8) and y (rows,) in dollars, float32.

    Args:
        version: "large" for all 20,640 rows, "small" for the first 600.
        path: the file's name in the cache.
        test_split: the share of the rows for testing, in [0, 1).
        seed: of the order of the rows.

    Raises:
        ValueError: an argument is something else.

    >>> (x_train, y_train), (x_test, y_test) = datasets.california_housing.load_data(version="small")  # doctest: +SKIP
    >>> x_train.shape, x_test.shape  # doctest: +SKIP
    ((480, 8), (120, 8))
    """
    check_split(test_split)
    if version not in ("small", "large"):
        raise ValueError(f"load_data() takes 'small' or 'large' for version, got {version!r}.")
    arrays = read_arrays(fetch("california_housing", path))
    rows = 600 if version == "small" else None
    return split({name: arrays[name][:rows] for name in ("x", "y")}, test_split, seed)
