"""PyDataset: batches made by Python code, by number, in several threads or processes if wished."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["PyDataset"]


class PyDataset:
    """Base class for data that `fit`, `evaluate` and `predict` ask for batch by batch. (`Sequence` is its old name.)

    Define `__getitem__(index)`, which returns a whole batch, `x`, `(x, y)` or `(x, y, sample_weight)`, and
    `__len__()`, the number of batches; or the property `num_batches`, which may be None for batches without end.
    `on_epoch_begin` and `on_epoch_end` are called around each epoch. `fit(shuffle=True)` mixes the batches, not the
    rows in them.

    A torch `Dataset` gives single samples; this is for data that is better read by batches.

    Args:
        workers: threads (or processes) that make batches ahead; 0 or 1 for none.
        use_multiprocessing: whether these are processes. Then the object is copied into each of them.
        max_queue_size: how many batches are made ahead at most.

    >>> class Squares(utils.PyDataset):
    ...     def __len__(self):
    ...         return 3
    ...
    ...     def __getitem__(self, batch):
    ...         x = np.full((4, 1), float(batch))
    ...         return x, x**2
    >>> model = Sequential([Input((1,)), layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(Squares(), epochs=2, verbose=0)
    >>> history.params["steps"]
    3
    """

    workers = 1
    use_multiprocessing = False
    max_queue_size = 10

    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
        self.workers = workers
        self.use_multiprocessing = use_multiprocessing
        self.max_queue_size = max_queue_size

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has to define `__getitem__(index)`, which returns a batch.")

    @property
    def num_batches(self) -> int | None:
        """The number of batches, `len(self)` unless it is overridden; None if there is no end to them."""
        if not hasattr(self, "__len__"):
            raise NotImplementedError(f"{type(self).__name__} has to define `__len__()` or the property `num_batches`.")
        return len(self)

    def __iter__(self) -> Iterator[Any]:
        index = 0
        while self.num_batches is None or index < self.num_batches:
            yield self[index]
            index += 1

    def on_epoch_begin(self) -> None:
        """Called before the first batch of an epoch."""

    def on_epoch_end(self) -> None:
        """Called after the last batch of an epoch: the time to change what the next one gives."""
