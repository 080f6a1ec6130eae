"""House prices in Boston, of 1978. (A column of the data rates districts by race; Keras advises against its use.)"""

from __future__ import annotations

from torchfunc.datasets.files import Split, fetch, read_arrays
from torchfunc.datasets.housing import check_split, split

__all__ = ["load_data"]


def load_data(path: str = "boston_housing.npz", test_split: float = 0.2, seed: int | None = 113) -> Split:
    """`(x_train, y_train), (x_test, y_test)`: x (rows, 13) and y (rows,) in thousands of dollars, float64.

    Args:
        path: the file's name in the cache.
        test_split: the share of the 506 rows for testing, in [0, 1).
        seed: of the order of the rows.

    Raises:
        ValueError: `test_split` is something else.

    >>> (x_train, y_train), (x_test, y_test) = datasets.boston_housing.load_data()  # doctest: +SKIP
    >>> x_train.shape, x_test.shape  # doctest: +SKIP
    ((404, 13), (102, 13))
    """
    check_split(test_split)
    return split(read_arrays(fetch("boston_housing", path)), test_split, seed)
