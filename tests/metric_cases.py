"""Every metric with its arguments, and targets and predictions to try it on: what the metric tests go through."""

import numpy as np

BATCH, TIME, CLASSES = 6, 4, 5
rng = np.random.default_rng(0)


def numbers(*shape):
    return rng.normal(size=shape).astype("float32")


def positive(*shape):
    return rng.uniform(0.05, 2.0, size=shape).astype("float32")


def bits(*shape):
    return rng.integers(0, 2, shape).astype("float32")


def classes(*shape):
    return rng.integers(0, CLASSES, shape)


def one_hot(*shape):
    return np.eye(CLASSES, dtype="float32")[classes(*shape)]


def ranking(*shape):
    return rng.permuted(np.broadcast_to(np.arange(CLASSES), (*shape, CLASSES)), axis=-1)


def signs(*shape):
    return 2 * bits(*shape) - 1


def unit(*shape):
    """Probabilities, some of them at the thresholds that are met most."""
    return rng.choice(np.float32([0.0, 0.25, 0.5, 1.0, *rng.uniform(size=12)]), shape)


# Means of a function: class, arguments, makers of targets and predictions, their shapes
CASES = [
    ("Accuracy", {}, classes, (BATCH, 1), classes, (BATCH, 1)),
    ("Accuracy", {}, classes, (BATCH,), classes, (BATCH, 1)),
    ("BinaryAccuracy", {}, bits, (BATCH, 1), positive, (BATCH, 1)),
    ("BinaryAccuracy", {}, bits, (BATCH,), positive, (BATCH, 1)),
    ("BinaryAccuracy", {"threshold": 1.2}, bits, (BATCH, TIME, 3), positive, (BATCH, TIME, 3)),
    ("CategoricalAccuracy", {}, one_hot, (BATCH,), numbers, (BATCH, CLASSES)),
    ("CategoricalAccuracy", {}, one_hot, (BATCH, TIME), numbers, (BATCH, TIME, CLASSES)),
    ("SparseCategoricalAccuracy", {}, classes, (BATCH,), numbers, (BATCH, CLASSES)),
    ("SparseCategoricalAccuracy", {}, classes, (BATCH, 1), numbers, (BATCH, CLASSES)),
    ("SparseCategoricalAccuracy", {}, classes, (BATCH, TIME), numbers, (BATCH, TIME, CLASSES)),
    ("SparseCategoricalAccuracy", {}, classes, (BATCH, TIME, 1), numbers, (BATCH, TIME, CLASSES)),
    ("TopKCategoricalAccuracy", {"k": 2}, one_hot, (BATCH,), numbers, (BATCH, CLASSES)),
    ("TopKCategoricalAccuracy", {}, one_hot, (BATCH, TIME), numbers, (BATCH, TIME, CLASSES)),
    ("SparseTopKCategoricalAccuracy", {"k": 3}, classes, (BATCH,), bits, (BATCH, CLASSES)),
    ("SparseTopKCategoricalAccuracy", {"k": 1}, classes, (BATCH, TIME), numbers, (BATCH, TIME, CLASSES)),
    ("SparseTopKCategoricalAccuracy", {"k": 2, "from_sorted_ids": True}, classes, (BATCH,), ranking, (BATCH,)),
    ("MeanSquaredError", {}, numbers, (BATCH, 3), numbers, (BATCH, 3)),
    ("MeanSquaredError", {}, numbers, (BATCH,), numbers, (BATCH, 1)),
    ("MeanSquaredError", {}, numbers, (BATCH, TIME, 3), numbers, (BATCH, TIME, 3)),
    ("RootMeanSquaredError", {}, numbers, (BATCH, 3), numbers, (BATCH, 3)),
    ("RootMeanSquaredError", {}, numbers, (BATCH,), numbers, (BATCH, 1)),
    ("MeanAbsoluteError", {}, numbers, (BATCH, 3), numbers, (BATCH, 3)),
    ("MeanAbsolutePercentageError", {}, numbers, (BATCH, 3), numbers, (BATCH, 3)),
    ("MeanSquaredLogarithmicError", {}, positive, (BATCH, 3), positive, (BATCH, 3)),
    ("CosineSimilarity", {}, numbers, (BATCH, 3), numbers, (BATCH, 3)),
    ("CosineSimilarity", {"axis": 1}, numbers, (BATCH, TIME, 3), numbers, (BATCH, TIME, 3)),
    ("LogCoshError", {}, numbers, (BATCH, 3), numbers, (BATCH, 3)),
    ("KLDivergence", {}, positive, (BATCH, 3), positive, (BATCH, 3)),
    ("Poisson", {}, positive, (BATCH, 3), positive, (BATCH, 3)),
    ("BinaryCrossentropy", {}, bits, (BATCH, 3), positive, (BATCH, 3)),
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, bits, (BATCH, 3), numbers, (BATCH, 3)),
    ("CategoricalCrossentropy", {}, one_hot, (BATCH,), positive, (BATCH, CLASSES)),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, one_hot, (BATCH, TIME), positive, (BATCH, TIME, CLASSES)),
    ("CategoricalCrossentropy", {"from_logits": True}, one_hot, (BATCH,), numbers, (BATCH, CLASSES)),
    ("SparseCategoricalCrossentropy", {}, classes, (BATCH,), positive, (BATCH, CLASSES)),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, classes, (BATCH, TIME), numbers, (BATCH, TIME, CLASSES)),
    ("SparseCategoricalCrossentropy", {"ignore_class": 2}, classes, (BATCH, TIME), positive, (BATCH, TIME, CLASSES)),
    ("SparseCategoricalCrossentropy", {"axis": 1}, classes, (BATCH, TIME), positive, (BATCH, CLASSES, TIME)),
    ("Hinge", {}, signs, (BATCH, 3), numbers, (BATCH, 3)),
    ("Hinge", {}, bits, (BATCH, 1), numbers, (BATCH, 1)),
    ("SquaredHinge", {}, bits, (BATCH, TIME, 3), numbers, (BATCH, TIME, 3)),
    ("CategoricalHinge", {}, one_hot, (BATCH, TIME), numbers, (BATCH, TIME, CLASSES)),
    ("PearsonCorrelation", {}, numbers, (BATCH, 3), numbers, (BATCH, 3)),
    ("PearsonCorrelation", {"axis": 1}, numbers, (BATCH, TIME, 3), numbers, (BATCH, TIME, 3)),
    ("ConcordanceCorrelation", {}, numbers, (BATCH, 3), numbers, (BATCH, 3)),
    ("ConcordanceCorrelation", {"axis": 1}, numbers, (BATCH, TIME, 3), numbers, (BATCH, TIME, 3)),
]
IDS = [f"{name}-{arguments}-{y_shape}-{p_shape}" for name, arguments, _, y_shape, _, p_shape in CASES]

EVEN, UNEVEN = [0.0, 0.25, 0.5, 0.75, 1.0], [0.7, 0.1, 0.5]
BITS = (bits, (BATCH, 3), unit, (BATCH, 3))
# Counts: class, arguments, makers of targets and predictions, their shapes
COUNTS = [
    *[(f"{a}{b}", {}, *BITS) for a in ("True", "False") for b in ("Positives", "Negatives")],
    *[(f"{a}{b}", {"thresholds": UNEVEN}, *BITS) for a in ("True", "False") for b in ("Positives", "Negatives")],
    *[(f"{a}{b}", {"thresholds": EVEN}, *BITS) for a in ("True", "False") for b in ("Positives", "Negatives")],
    ("TruePositives", {"thresholds": 0.25}, bits, (BATCH,), unit, (BATCH, 1)),
    ("Precision", {}, bits, (BATCH, 1), unit, (BATCH, 1)),
    ("Precision", {}, bits, (BATCH, TIME), unit, (BATCH, TIME)),
    ("Precision", {"thresholds": UNEVEN}, *BITS),
    ("Precision", {"thresholds": EVEN}, *BITS),
    ("Precision", {"top_k": 2}, bits, (BATCH, CLASSES), numbers, (BATCH, CLASSES)),
    ("Precision", {"class_id": 1, "thresholds": 0.25}, bits, (BATCH, TIME, 3), unit, (BATCH, TIME, 3)),
    ("Precision", {"top_k": 2, "class_id": 0}, bits, (BATCH, CLASSES), numbers, (BATCH, CLASSES)),
    ("Recall", {}, classes, (BATCH,), unit, (BATCH,)),
    ("Recall", {"thresholds": UNEVEN}, *BITS),
    ("Recall", {"top_k": 1, "thresholds": 0.5}, one_hot, (BATCH,), unit, (BATCH, CLASSES)),
    ("Recall", {"class_id": -1}, one_hot, (BATCH,), unit, (BATCH, CLASSES)),
    ("SensitivityAtSpecificity", {"specificity": 0.4}, *BITS),
    ("SensitivityAtSpecificity", {"specificity": 0.5, "num_thresholds": 1}, *BITS),
    ("SpecificityAtSensitivity", {"sensitivity": 0.4, "num_thresholds": 5}, *BITS),
    ("SpecificityAtSensitivity", {"sensitivity": 0.6, "class_id": 2}, *BITS),
    ("PrecisionAtRecall", {"recall": 0.5}, bits, (BATCH,), unit, (BATCH, 1)),
    ("PrecisionAtRecall", {"recall": 0.9, "num_thresholds": 2}, *BITS),
    ("RecallAtPrecision", {"precision": 0.6}, *BITS),
    ("RecallAtPrecision", {"precision": 1.0}, *BITS),
    *[("AUC", {"curve": curve, "num_thresholds": 9}, *BITS) for curve in ("ROC", "PR", "PRGAIN")],
    *[
        ("AUC", {"curve": curve, "summation_method": method, "num_thresholds": 9}, *BITS)
        for curve in ("ROC", "PR", "PRGAIN")
        for method in ("majoring", "minoring")
    ],
    ("AUC", {}, bits, (BATCH,), unit, (BATCH, 1)),
    ("AUC", {"num_thresholds": 2}, *BITS),
    ("AUC", {"thresholds": UNEVEN, "curve": "pr"}, *BITS),
    ("AUC", {"thresholds": [0.5, 0.25, 0.75]}, *BITS),
    ("AUC", {"from_logits": True}, bits, (BATCH, 3), numbers, (BATCH, 3)),
    ("AUC", {"label_weights": [0.2, 0.5, 0.3], "num_thresholds": 9}, *BITS),
    ("AUC", {"label_weights": [0.2, 0.5, 0.3], "thresholds": UNEVEN}, *BITS),
    ("AUC", {"multi_label": True, "num_thresholds": 9}, *BITS),
    ("AUC", {"multi_label": True, "num_labels": 3, "label_weights": [0.2, 0.5, 0.3], "curve": "PR"}, *BITS),
    ("F1Score", {}, one_hot, (BATCH,), numbers, (BATCH, CLASSES)),
    *[("F1Score", {"average": average}, *BITS) for average in ("micro", "macro", "weighted")],
    ("FBetaScore", {"beta": 2.0, "threshold": 0.25}, *BITS),
    ("FBetaScore", {"beta": 0.5, "threshold": 0.5, "average": "weighted"}, *BITS),
    ("R2Score", {}, numbers, (BATCH, 3), numbers, (BATCH, 3)),
    ("R2Score", {}, numbers, (BATCH,), numbers, (BATCH, 1)),
    ("R2Score", {"class_aggregation": None}, numbers, (BATCH, 3), numbers, (BATCH, 3)),
    ("R2Score", {"class_aggregation": "variance_weighted_average"}, numbers, (BATCH, 3), numbers, (BATCH, 3)),
    ("R2Score", {"num_regressors": 2}, numbers, (BATCH, 1), numbers, (BATCH, 1)),
    ("IoU", {"num_classes": CLASSES, "target_class_ids": [0, 3]}, classes, (BATCH, TIME), classes, (BATCH, TIME)),
    ("IoU", {"num_classes": 3, "target_class_ids": [2]}, classes, (BATCH, TIME), classes, (BATCH, TIME)),
    ("BinaryIoU", {}, bits, (BATCH, TIME), unit, (BATCH, TIME)),
    ("BinaryIoU", {"target_class_ids": [1], "threshold": 0.25}, bits, (BATCH,), unit, (BATCH,)),
    ("MeanIoU", {"num_classes": CLASSES}, classes, (BATCH,), classes, (BATCH,)),
    ("MeanIoU", {"num_classes": CLASSES, "ignore_class": 1}, classes, (BATCH, TIME), classes, (BATCH, TIME)),
    (
        "MeanIoU",
        {"num_classes": CLASSES, "sparse_y_pred": False},
        classes,
        (BATCH, TIME),
        numbers,
        (BATCH, TIME, CLASSES),
    ),
    (
        "OneHotIoU",
        {"num_classes": CLASSES, "target_class_ids": (1, 2)},
        one_hot,
        (BATCH, TIME),
        numbers,
        (BATCH, TIME, CLASSES),
    ),
    (
        "OneHotIoU",
        {"num_classes": CLASSES, "target_class_ids": [1], "sparse_y_pred": True},
        one_hot,
        (BATCH,),
        classes,
        (BATCH,),
    ),
    ("OneHotMeanIoU", {"num_classes": CLASSES, "ignore_class": 0}, one_hot, (BATCH,), numbers, (BATCH, CLASSES)),
]
COUNT_IDS = [f"{name}-{arguments}-{y_shape}-{p_shape}" for name, arguments, _, y_shape, _, p_shape in COUNTS]
