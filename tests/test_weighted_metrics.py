"""Weighted metrics over two batches, beside scikit-learn's numbers of all samples."""

import numpy as np
import pytest
import torch

from torchfunc import metrics

reference = pytest.importorskip("sklearn.metrics")

ROWS = 200
RNG = np.random.default_rng(1)
CLASSES, WEIGHTS = RNG.integers(0, 4, ROWS), RNG.uniform(0, 2, ROWS)
SHARES, ONE_HOT = RNG.dirichlet(np.ones(4), ROWS), np.eye(4)[CLASSES]
LABELS = RNG.integers(0, 2, ROWS)
SCORES = np.clip(RNG.normal(0.4 + 0.2 * LABELS, 0.2), 0.01, 0.99)
TARGETS = RNG.normal(size=(ROWS, 3))
ESTIMATES = TARGETS + RNG.normal(size=(ROWS, 3))
FOUND = SHARES.argmax(-1)


def f_score(average, threshold=None):
    def expected(weight):
        if threshold is None:
            return reference.fbeta_score(CLASSES, FOUND, beta=2, average=average, sample_weight=weight)
        return reference.fbeta_score(ONE_HOT, threshold < SHARES, beta=2, average=average, sample_weight=weight)

    return lambda: metrics.FBetaScore(average, beta=2.0, threshold=threshold), ONE_HOT, SHARES, expected


def r2_score(aggregation, multioutput):
    return (
        lambda: metrics.R2Score(class_aggregation=aggregation),
        TARGETS,
        ESTIMATES,
        lambda weight: reference.r2_score(TARGETS, ESTIMATES, multioutput=multioutput, sample_weight=weight),
    )


CASES = {
    **{f"f {average}": f_score(average) for average in ("micro", "macro", "weighted", None)},
    **{f"f above 0.3 {average}": f_score(average, 0.3) for average in ("micro", "macro", "weighted", None)},
    "r2": r2_score("uniform_average", "uniform_average"),
    "r2 by variance": r2_score("variance_weighted_average", "variance_weighted"),
    "r2 of each": r2_score(None, "raw_values"),
    "precisions": (
        lambda: metrics.Precision(thresholds=[0.3, 0.6]),
        LABELS,
        SCORES,
        lambda weight: [reference.precision_score(LABELS, t < SCORES, sample_weight=weight) for t in (0.3, 0.6)],
    ),
    "precision of a class": (
        lambda: metrics.Precision(class_id=2, thresholds=0.3),
        ONE_HOT,
        SHARES,
        lambda weight: reference.precision_score(CLASSES == 2, SHARES[:, 2] > 0.3, sample_weight=weight),
    ),
    "recall among two": (
        lambda: metrics.Recall(top_k=2),
        ONE_HOT,
        SHARES,
        lambda weight: reference.top_k_accuracy_score(CLASSES, SHARES, k=2, sample_weight=weight),
    ),
    "among three": (
        lambda: metrics.SparseTopKCategoricalAccuracy(k=3),
        CLASSES,
        SHARES,
        lambda weight: reference.top_k_accuracy_score(CLASSES, SHARES, k=3, sample_weight=weight),
    ),
    "log loss": (
        metrics.SparseCategoricalCrossentropy,
        CLASSES,
        SHARES,
        lambda weight: reference.log_loss(CLASSES, SHARES, sample_weight=weight),
    ),
    "mean iou": (
        lambda: metrics.MeanIoU(4, dtype="float32"),
        CLASSES,
        FOUND,
        lambda weight: reference.jaccard_score(CLASSES, FOUND, average="macro", sample_weight=weight),
    ),
    "squares": (
        metrics.RootMeanSquaredError,
        TARGETS,
        ESTIMATES,
        lambda weight: reference.mean_squared_error(TARGETS, ESTIMATES, sample_weight=weight) ** 0.5,
    ),
    "percentages": (
        metrics.MeanAbsolutePercentageError,
        abs(TARGETS) + 0.1,
        abs(ESTIMATES) + 0.1,
        lambda weight: (
            100
            * reference.mean_absolute_percentage_error(abs(TARGETS) + 0.1, abs(ESTIMATES) + 0.1, sample_weight=weight)
        ),
    ),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_weighted_metrics(case, weighted):
    make, y_true, y_pred, expected = CASES[case]
    metric = make()
    for rows in (slice(0, 70), slice(70, None)):
        weight = torch.tensor(WEIGHTS[rows], dtype=torch.float32) if weighted else None
        predicted = torch.tensor(y_pred[rows])
        predicted = predicted.float() if predicted.is_floating_point() else predicted
        metric.update_state(torch.tensor(y_true[rows]), predicted, weight)
    np.testing.assert_allclose(metric.result(), expected(WEIGHTS if weighted else None), rtol=2e-4)
