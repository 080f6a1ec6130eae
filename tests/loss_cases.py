"""Every loss with its arguments, and targets and predictions to try it on: what the loss tests go through."""

import numpy as np

BATCH, TIME, CLASSES = 6, 4, 5
rng = np.random.default_rng(0)


def numbers(*shape):
    return rng.normal(size=shape).astype("float32")


def positive(*shape):
    return rng.uniform(0.05, 2.0, size=shape).astype("float32")


def probabilities(*shape):
    p = positive(*shape)
    return p / p.sum(-1, keepdims=True)


def one_hot(*shape):
    return np.eye(CLASSES, dtype="float32")[rng.integers(0, CLASSES, shape)]


def classes(*shape):
    return rng.integers(0, CLASSES, shape)


def bits(*shape):
    return rng.integers(0, 2, shape).astype("float32")


def unit(*shape):
    return rng.uniform(0.0, 1.0, shape).astype("float32")


def signs(*shape):
    return 2 * bits(*shape) - 1


def directions(*shape):
    vectors = numbers(*shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


REGRESSION = ["MeanSquaredError", "MeanAbsoluteError", "MeanAbsolutePercentageError", "Huber", "LogCosh"]
# class, arguments, targets, predictions
CASES = [
    *[(name, {}, numbers(BATCH, 3), numbers(BATCH, 3)) for name in REGRESSION],
    ("MeanSquaredError", {}, numbers(BATCH), numbers(BATCH, 1)),
    ("MeanSquaredError", {}, numbers(BATCH, 1), numbers(BATCH)),
    ("MeanSquaredError", {}, numbers(BATCH, TIME, 1), numbers(BATCH, TIME)),
    ("MeanSquaredError", {}, classes(BATCH, 3), numbers(BATCH, 3)),
    ("MeanAbsoluteError", {}, numbers(BATCH, TIME, 3), numbers(BATCH, TIME, 3)),
    ("Huber", {"delta": 0.3}, numbers(BATCH, 3), numbers(BATCH, 3)),
    ("MeanSquaredLogarithmicError", {}, numbers(BATCH, 3), positive(BATCH, 3)),
    ("CosineSimilarity", {}, numbers(BATCH, 3), numbers(BATCH, 3)),
    ("CosineSimilarity", {"axis": 1}, numbers(BATCH, TIME, 3), numbers(BATCH, TIME, 3)),
    ("Poisson", {}, positive(BATCH, 3), positive(BATCH, 3)),
    ("KLDivergence", {}, probabilities(BATCH, CLASSES), probabilities(BATCH, CLASSES)),
    ("BinaryCrossentropy", {}, bits(BATCH, 3), unit(BATCH, 3)),
    ("BinaryCrossentropy", {}, bits(BATCH), unit(BATCH, 1)),
    ("BinaryCrossentropy", {}, bits(BATCH, 1), np.array([[0], [1], [1], [0], [0.5], [1e-9]], "float32")),
    ("BinaryCrossentropy", {"from_logits": True}, bits(BATCH, 3), 9 * numbers(BATCH, 3)),
    ("BinaryCrossentropy", {"label_smoothing": 0.2}, bits(BATCH, 3), unit(BATCH, 3)),
    ("BinaryCrossentropy", {"label_smoothing": 0.2, "from_logits": True}, bits(BATCH, 3), numbers(BATCH, 3)),
    ("BinaryCrossentropy", {"axis": 1}, bits(BATCH, TIME, 3), unit(BATCH, TIME, 3)),
    ("CategoricalCrossentropy", {}, one_hot(BATCH), positive(BATCH, CLASSES)),
    ("CategoricalCrossentropy", {"from_logits": True}, one_hot(BATCH, TIME), numbers(BATCH, TIME, CLASSES)),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, one_hot(BATCH), positive(BATCH, CLASSES)),
    (
        "CategoricalCrossentropy",
        {"axis": 1, "from_logits": True},
        one_hot(BATCH, TIME).swapaxes(1, 2),
        numbers(BATCH, CLASSES, TIME),
    ),
    ("SparseCategoricalCrossentropy", {}, classes(BATCH), positive(BATCH, CLASSES)),
    ("SparseCategoricalCrossentropy", {}, classes(BATCH).astype("float32"), positive(BATCH, CLASSES)),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, classes(BATCH, 1), numbers(BATCH, CLASSES)),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, classes(BATCH, TIME), numbers(BATCH, TIME, CLASSES)),
    ("SparseCategoricalCrossentropy", {}, classes(BATCH, TIME, 1), positive(BATCH, TIME, CLASSES)),
    ("SparseCategoricalCrossentropy", {"axis": 1}, classes(BATCH, TIME), positive(BATCH, CLASSES, TIME)),
    ("SparseCategoricalCrossentropy", {"ignore_class": 2}, classes(BATCH, TIME), positive(BATCH, TIME, CLASSES)),
    (
        "SparseCategoricalCrossentropy",
        {"ignore_class": -1, "from_logits": True},
        classes(BATCH) - 1,
        numbers(BATCH, CLASSES),
    ),
    *[(name, {}, signs(BATCH, 3), numbers(BATCH, 3)) for name in ("Hinge", "SquaredHinge")],
    *[(name, {}, bits(BATCH, 3), numbers(BATCH, 3)) for name in ("Hinge", "SquaredHinge")],
    ("Hinge", {}, np.float32([0, 1, 1, 0, -1, 1]), numbers(BATCH, 1)),
    ("CategoricalHinge", {}, one_hot(BATCH), numbers(BATCH, CLASSES)),
    ("CategoricalHinge", {}, one_hot(BATCH, TIME), numbers(BATCH, TIME, CLASSES)),
    ("BinaryFocalCrossentropy", {}, bits(BATCH, 3), unit(BATCH, 3)),
    ("BinaryFocalCrossentropy", {"from_logits": True, "gamma": 1.5}, bits(BATCH), numbers(BATCH, 1)),
    (
        "BinaryFocalCrossentropy",
        {"apply_class_balancing": True, "alpha": 0.7, "label_smoothing": 0.2, "axis": 1},
        bits(BATCH, TIME, 3),
        unit(BATCH, TIME, 3),
    ),
    (
        "BinaryFocalCrossentropy",
        {"apply_class_balancing": True, "from_logits": True, "label_smoothing": 0.1},
        bits(BATCH, 3),
        numbers(BATCH, 3),
    ),
    ("CategoricalFocalCrossentropy", {}, one_hot(BATCH), positive(BATCH, CLASSES)),
    ("CategoricalFocalCrossentropy", {"alpha": [0.1, 0.2, 0.3, 0.4, 0.5]}, one_hot(BATCH), positive(BATCH, CLASSES)),
    (
        "CategoricalFocalCrossentropy",
        {"from_logits": True, "gamma": 1.0, "label_smoothing": 0.1},
        one_hot(BATCH, TIME),
        numbers(BATCH, TIME, CLASSES),
    ),
    (
        "CategoricalFocalCrossentropy",
        {"axis": 1, "alpha": 1.0},
        one_hot(BATCH, TIME).swapaxes(1, 2),
        positive(BATCH, CLASSES, TIME),
    ),
    ("CategoricalGeneralizedCrossEntropy", {}, classes(BATCH), probabilities(BATCH, CLASSES)),
    ("CategoricalGeneralizedCrossEntropy", {"q": 0.2}, classes(BATCH, TIME), probabilities(BATCH, TIME, CLASSES)),
    ("Dice", {"axis": (1, 2)}, bits(BATCH, TIME, 3), unit(BATCH, TIME, 3)),
    ("Dice", {"axis": -1}, bits(BATCH, TIME, 3), unit(BATCH, TIME, 3)),
    ("Tversky", {"axis": (1, 2)}, bits(BATCH, TIME, 3), unit(BATCH, TIME, 3)),
    # (Keras 3.15 has alpha and beta the other way round: see test_losses.)
    ("Tversky", {"axis": 1, "alpha": 0.3, "beta": 0.3}, bits(BATCH, 3), unit(BATCH, 3)),
    ("Circle", {}, classes(BATCH), directions(BATCH, 3)),
    ("Circle", {"gamma": 2.0, "margin": 0.1}, np.int64([0, 0, 0, 1, 1, 2]), directions(BATCH, 3)),
    ("Circle", {"gamma": 2.0, "remove_diagonal": False}, classes(BATCH, 1), directions(BATCH, 3)),
    (
        "CTC",
        {},
        np.int64([[1, 2, 0], [3, 0, 0], [1, 1, 4], [2, 3, 2], [4, 0, 0], [1, 4, 1]]),
        numbers(BATCH, 7, CLASSES),
    ),
]
IDS = [f"{name}-{arguments}-{y.shape}-{p.shape}" for name, arguments, y, p in CASES]
