"""What the data sets of texts share: each text is a list of word numbers, the more frequent a word the lower."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Texts", "WordNumbers"]


class Texts(NamedTuple):
    """Lists of word numbers, and the class of each."""

    words: Sequence[list[int]] | np.ndarray
    labels: np.ndarray

    def shuffled(self, generator: np.random.RandomState) -> Texts:
        order = np.arange(len(self.words))
        generator.shuffle(order)
        return Texts([self.words[int(place)] for place in order], self.labels[order])

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """One list to each place of the first, however long they are."""
        return np.fromiter(self.words, dtype=object, count=len(self.words)), self.labels


class WordNumbers(NamedTuple):
    """How words are numbered; the arguments of `load_data`.

    Attributes:
        num_words: numbers from here on are replaced by `oov_char`; None keeps all.
        skip_top: numbers below this are replaced by `oov_char`.
        maxlen: texts of this length and longer are left out; None keeps all.
        start_char: the number at the start of each text, or None.
        oov_char: the number for words that are replaced; with None they are left out.
        index_from: is added to each number.
    """

    num_words: int | None
    skip_top: int
    maxlen: int | None
    start_char: int | None
    oov_char: int | None
    index_from: int

    def started(self, texts: Texts) -> Texts:
        """The texts with a start and their numbers raised, without those too long."""
        start = [] if self.start_char is None else [self.start_char]
        raised = [start + [word + self.index_from for word in words] for words in texts.words]
        if not self.maxlen:
            return Texts(raised, texts.labels)
        short = [place for place, words in enumerate(raised) if len(words) < self.maxlen]
        if not short:
            raise ValueError(f"load_data() finds no text shorter than maxlen={self.maxlen}. Give it a larger maxlen.")
        return Texts([raised[place] for place in short], texts.labels[short])

    def limited(self, *parts: Texts) -> list[Texts]:
        """The texts with the words replaced that are too rare or too frequent."""
        limit = self.num_words or max(max(words, default=0) for part in parts for words in part.words)
        return [Texts([self._replaced(words, limit) for words in part.words], part.labels) for part in parts]

    def _replaced(self, words: Iterable[int], limit: int) -> list[int]:
        kept, other = range(self.skip_top, limit), self.oov_char
        if other is None:
            return [word for word in words if word in kept]
        return [word if word in kept else other for word in words]
