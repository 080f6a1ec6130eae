"""Reuters: newswires, as lists of word numbers, on 46 topics."""

from __future__ import annotations

import numpy as np

from torchfunc.datasets.files import Split, fetch, read_arrays, read_index
from torchfunc.datasets.words import Texts, WordNumbers

__all__ = ["get_label_names", "get_word_index", "load_data"]

_TOPICS = (
    "cocoa grain veg-oil earn acq wheat copper housing money-supply coffee sugar trade reserves ship cotton carcass "
    "crude nat-gas cpi money-fx interest gnp meal-feed alum oilseed gold tin strategic-metal livestock retail ipi "
    "iron-steel rubber heat jobs lei bop zinc orange pet-chem dlr gas silver wpi hog lead"
)


def load_data(
    path: str = "reuters.npz",
    num_words: int | None = None,
    skip_top: int = 0,
    maxlen: int | None = None,
    test_split: float = 0.2,
    seed: int | None = 113,
    start_char: int | None = 1,
    oov_char: int | None = 2,
    index_from: int = 3,
) -> Split:
    """`(x_train, y_train), (x_test, y_test)`: x of lists of word numbers, y of topics from 0 to 45; 11,228 in all.

    Args:
        test_split: the share of the newswires for testing.
        path, num_words, skip_top, maxlen, seed, start_char, oov_char, index_from: see `datasets.imdb.load_data`.

    Raises:
        ValueError: no newswire is shorter than `maxlen`.

    >>> (x_train, y_train), (x_test, y_test) = datasets.reuters.load_data(num_words=10000)  # doctest: +SKIP
    >>> x_train.shape, x_test.shape  # doctest: +SKIP
    ((8982,), (2246,))
    """
    numbers = WordNumbers(num_words, skip_top, maxlen, start_char, oov_char, index_from)
    arrays = read_arrays(fetch("reuters", path))
    texts = Texts(arrays["x"], arrays["y"]).shuffled(np.random.RandomState(seed))
    (texts,) = numbers.limited(numbers.started(texts))
    kept = int(len(texts.words) * (1 - test_split))
    train, test = Texts(texts.words[:kept], texts.labels[:kept]), Texts(texts.words[kept:], texts.labels[kept:])
    return train.arrays(), test.arrays()


def get_word_index(path: str = "reuters_word_index.json") -> dict[str, int]:
    """The number of each word, from 1 on by frequency; `load_data` adds its `index_from` to it.

    Args:
        path: the file's name in the cache.

    >>> datasets.reuters.get_word_index()["the"]  # doctest: +SKIP
    1
    """
    return read_index(fetch("reuters_word_index", path))


def get_label_names() -> tuple[str, ...]:
    """The names of the topics, in the order of their numbers.

    >>> datasets.reuters.get_label_names()[:3]
    ('cocoa', 'grain', 'veg-oil')
    """
    return tuple(_TOPICS.split())
