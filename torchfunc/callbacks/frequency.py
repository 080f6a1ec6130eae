"""When to do something that is done every so many batches."""

from __future__ import annotations

__all__ = ["SaveFrequency"]


class SaveFrequency:
    """Counts batches across epochs, as Keras counts them.

    Args:
        save_freq: a number of batches; "epoch" or False if batches do not matter.

    Raises:
        ValueError: it is something else.
    """

    def __init__(self, save_freq: str | int) -> None:
        is_count = isinstance(save_freq, int) and not isinstance(save_freq, bool) and save_freq > 0
        if not (is_count or save_freq == "epoch" or save_freq is False):
            raise ValueError(f"`save_freq` is 'epoch' or a number of batches of at least 1, got {save_freq!r}.")
        self._count = int(save_freq) if is_count else None
        self._seen = 0
        self._last_batch = -1

    @property
    def counts_batches(self) -> bool:
        """Whether batches matter."""
        return self._count is not None

    def is_due(self, batch: int) -> bool:
        """Whether it is time, now that the batch of this number in its epoch is done. Asked after every batch."""
        if self._count is None:
            return False
        self._seen += batch - self._last_batch if batch > self._last_batch else batch + 1
        self._last_batch = batch
        if self._seen < self._count:
            return False
        self._seen = 0
        return True

    def state(self) -> list[int]:
        """What `set_state` needs to go on counting from here."""
        return [self._seen, self._last_batch]

    def set_state(self, state: list[int]) -> None:
        """Go on counting from what `state` returned."""
        self._seen, self._last_batch = state
