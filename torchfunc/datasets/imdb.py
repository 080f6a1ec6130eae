"""IMDB: film reviews, as lists of word numbers, that are good or bad."""

from __future__ import annotations

import numpy as np

from torchfunc.datasets.files import Split, fetch, read_arrays, read_index
from torchfunc.datasets.words import Texts, WordNumbers

__all__ = ["get_word_index", "load_data"]


def load_data(
    path: str = "imdb.npz",
    num_words: int | None = None,
    skip_top: int = 0,
    maxlen: int | None = None,
    seed: int | None = 113,
    start_char: int | None = 1,
    oov_char: int | None = 2,
    index_from: int = 3,
) -> Split:
    """`(x_train, y_train), (x_test, y_test)`: x (25000,) of lists of word numbers, y (25000,) of 0 and 1.

    Args:
        path: the file's name in the cache.
        num_words: words with this number or a higher one, which are rarer, become `oov_char`; None keeps all (but, as
            in Keras, the very rarest).
        skip_top: words with a lower number, which are more frequent, become `oov_char`.
        maxlen: only reviews shorter than this are kept.
        seed: of the order of the reviews.
        start_char: the number that each review starts with; None for nothing.
        oov_char: see above; None leaves those words out.
        index_from: is added to the numbers of `get_word_index()`.

    Raises:
        ValueError: no review is shorter than `maxlen`.

    >>> (x_train, y_train), (x_test, y_test) = datasets.imdb.load_data(num_words=10000)  # doctest: +SKIP
    >>> x_train.shape, y_train.shape  # doctest: +SKIP
    ((25000,), (25000,))
    """
    numbers = WordNumbers(num_words, skip_top, maxlen, start_char, oov_char, index_from)
    arrays, generator = read_arrays(fetch("imdb", path)), np.random.RandomState(seed)
    parts = [
        numbers.started(Texts(arrays[f"x_{part}"], arrays[f"y_{part}"]).shuffled(generator))
        for part in ("train", "test")
    ]
    train, test = numbers.limited(*parts)
    return train.arrays(), test.arrays()


def get_word_index(path: str = "imdb_word_index.json") -> dict[str, int]:
    """The number of each word, from 1 on by frequency; `load_data` adds its `index_from` to it.

    Args:
        path: the file's name in the cache.

    >>> datasets.imdb.get_word_index()["the"]  # doctest: +SKIP
    1
    """
    return read_index(fetch("imdb_word_index", path))
