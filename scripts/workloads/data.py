"""The data of each model, random and the same for all contestants; images are channels_last."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["BATCH", "CLASSES", "CONTEXT", "OBJECTS", "PIXELS", "SEQUENCE", "VOCABULARY", "WORDS", "bare", "make_data"]

# Batches of the guides, and of `predict` and `evaluate` where nobody says another.
BATCH = {
    "mlp": 64,
    "resnet": 64,
    "vgg": 32,
    "ticket": 32,
    "encoder": 32,
    "siamese": 32,
    "empty": 64,
    "resnet50": 256,
    "gpt": 16,
}
CLASSES, WORDS, SEQUENCE = 10, 10_000, 32
# Of the models for a card: classes and pixels of ResNet-50, tokens and words of the GPT-like stack.
OBJECTS, PIXELS, CONTEXT, VOCABULARY = 1000, 224, 512, 32_000

Arrays = list[np.ndarray]


def _floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def _integers(high: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(high, size=shape)


def _one_hot(rows: int, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[_integers(classes, rows)]


def _mlp(rows: int) -> tuple[Arrays, Arrays]:
    return [_floats(rows, 784)], [_integers(CLASSES, rows)]


def _images(rows: int) -> tuple[Arrays, Arrays]:
    return [_floats(rows, 32, 32, 3)], [_one_hot(rows, CLASSES)]


def _ticket(rows: int) -> tuple[Arrays, Arrays]:
    tags = _integers(2, rows, 12).astype(np.float32)
    return [_integers(WORDS, rows, 12), _integers(WORDS, rows, 100), tags], [_floats(rows, 1), _one_hot(rows, 4)]


def _encoder(rows: int) -> tuple[Arrays, Arrays]:
    return [_integers(WORDS, rows, SEQUENCE)], [_integers(CLASSES, rows)]


def _siamese(rows: int) -> tuple[Arrays, Arrays]:
    tweets = _integers(2, 2, rows, 280, 256).astype(np.float32)
    return [tweets[0], tweets[1]], [_integers(2, rows, 1).astype(np.float32)]


def _empty(rows: int) -> tuple[Arrays, Arrays]:
    return [_floats(rows, 1)], [_floats(rows, 1)]


def _photographs(rows: int) -> tuple[Arrays, Arrays]:
    return [_floats(rows, PIXELS, PIXELS, 3)], [_integers(OBJECTS, rows)]


def _text(rows: int) -> tuple[Arrays, Arrays]:
    return [_integers(VOCABULARY, rows, CONTEXT)], [_integers(VOCABULARY, rows, CONTEXT)]


_MAKERS: dict[str, Callable[[int], tuple[Arrays, Arrays]]] = {
    "mlp": _mlp,
    "resnet": _images,
    "vgg": _images,
    "ticket": _ticket,
    "encoder": _encoder,
    "siamese": _siamese,
    "empty": _empty,
    "resnet50": _photographs,
    "gpt": _text,
}


def make_data(model: str, rows: int) -> tuple[Arrays, Arrays]:
    """So many rows of a model's inputs and of its targets."""
    return _MAKERS[model](rows)


def bare(arrays: Arrays) -> np.ndarray | Arrays:
    """One array as it is, as one writes it; several as a list."""
    return arrays[0] if len(arrays) == 1 else arrays
