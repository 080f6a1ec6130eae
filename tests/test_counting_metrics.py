"""Metrics that count (confusion, AUC, F-scores, IoU, R²) against Keras 3 on torch, batch by batch and weighted."""

import copy
import pickle
import re

import keras
import numpy as np
import pytest
import torch
from metric_cases import BATCH, CLASSES, COUNT_IDS, COUNTS, TIME

from torchfunc import metrics


def check(ours, theirs, tolerance=1e-6):
    expected = theirs.result()
    torch.testing.assert_close(ours.result(), expected.detach(), rtol=tolerance, atol=tolerance, equal_nan=True)


def both(name, arguments):
    return getattr(metrics, name)(**arguments), getattr(keras.metrics, name)(**arguments)


def weights_for(name, y_shape, p_shape):
    """Sample weights in a shape that Keras takes; integers for the counts that are integers."""
    if "IoU" in name:
        return torch.randint(0, 4, y_shape if len(y_shape) <= len(p_shape) else p_shape)
    return torch.rand(p_shape[:-1] if len(p_shape) > 2 else p_shape[:1])


@pytest.mark.filterwarnings("ignore:More independent predictors")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "arguments", "make_y", "y_shape", "make_p", "p_shape"), COUNTS, ids=COUNT_IDS)
def test_several_updates(name, arguments, make_y, y_shape, make_p, p_shape, weighted):
    ours, theirs = both(name, arguments)
    for _ in range(3):
        y, p = torch.tensor(make_y(*y_shape)), torch.tensor(make_p(*p_shape))
        weight = weights_for(name, y_shape, p_shape) if weighted else None
        ours.update_state(y, p.requires_grad_(p.is_floating_point()), weight)
        theirs.update_state(y, p.detach(), weight)
        check(ours, theirs)
    for mine, reference in zip(ours.variables, theirs.variables, strict=True):
        expected = reference.value.detach().double()
        if (name, mine.ndim) == ("R2Score", 0):
            # Keras 3.15 counts every output of a sample as a sample, which shows in the adjusted score only.
            expected /= y.numel() / len(y)
        torch.testing.assert_close(mine.double(), expected, rtol=1e-6, atol=1e-5)
        assert not mine.requires_grad
    before = ours.result()
    kept = before.clone()
    ours.update_state(y, p)
    torch.testing.assert_close(before, kept, equal_nan=True)
    ours.reset_state()
    theirs.reset_state()
    check(ours, theirs)


def plain(config):
    return {key: value.tolist() if isinstance(value, torch.Tensor) else value for key, value in config.items()}


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # in Keras, which keeps label_weights as a tensor
@pytest.mark.parametrize(("name", "arguments", "make_y", "y_shape", "make_p", "p_shape"), COUNTS, ids=COUNT_IDS)
def test_configs_are_keras(name, arguments, make_y, y_shape, make_p, p_shape):
    ours, theirs = both(name, arguments)
    assert ours.name == re.sub(r"_\d+$", "", theirs.name)  # Keras counts the names of a process
    assert ours.direction == getattr(theirs, "_direction", None)
    theirs.name = ours.name
    given, expected = plain(ours.get_config()), plain(theirs.get_config())
    assert given.keys() == expected.keys()
    for key, value in expected.items():  # label_weights are float32 there
        assert given[key] == (pytest.approx(value) if isinstance(value, list) else value), key
    assert {**keras.metrics.serialize(theirs), "config": 0} == {**metrics.serialize(ours), "config": 0}
    twins = [
        metrics.deserialize(metrics.serialize(ours)),
        metrics.deserialize(keras.metrics.serialize(theirs)),
        keras.metrics.deserialize(metrics.serialize(ours)),
        type(ours).from_config(ours.get_config()),
        copy.deepcopy(ours),
        pickle.loads(pickle.dumps(ours)),
    ]
    y, p = torch.tensor(make_y(*y_shape)), torch.tensor(make_p(*p_shape))
    ours.update_state(y, p)
    for twin in twins:
        twin.update_state(y, p)
        torch.testing.assert_close(twin.result().detach(), ours.result(), rtol=1e-6, atol=1e-6, equal_nan=True)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        before = ours.result()
        twin.update_state(y.flip(0), p)
        torch.testing.assert_close(ours.result(), before, equal_nan=True)
        twin.reset_state()
        assert not any(state.any() for state in twin.variables)


def test_class_axes_of_one_hot_iou():
    # Keras fails for other axes than the last, since it reduces the vector of results along it.
    y, p = torch.eye(CLASSES)[torch.randint(0, CLASSES, (BATCH, TIME))], torch.randn(BATCH, TIME, CLASSES)
    expected = keras.metrics.OneHotMeanIoU(CLASSES)(y, p)
    torch.testing.assert_close(metrics.OneHotMeanIoU(CLASSES, axis=1)(y.movedim(-1, 1), p.movedim(-1, 1)), expected)


def test_fractions_of_weights():
    y, p, weight = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), torch.tensor([0.3, 0.3, 0.3, 0.1])
    with pytest.warns(UserWarning, match="mean_io_u counts in integers, .* dtype='float32'"):
        assert metrics.MeanIoU(2)(y, p, weight).item() == 0.0
    exact, reference = metrics.MeanIoU(2, dtype="float32"), keras.metrics.MeanIoU(2, dtype="float32")
    torch.testing.assert_close(exact(y, p, weight), reference(y, p, weight))


def test_weights_that_keras_cannot_broadcast():
    y, p = torch.randint(0, 2, (BATCH, TIME)), torch.rand(BATCH, TIME)
    weight = torch.randint(0, 3, (BATCH,))
    by_value = weight[:, None].expand(BATCH, TIME)
    for metric in (metrics.MeanIoU(2), metrics.BinaryIoU(), metrics.Recall(thresholds=[0.2, 0.6])):
        expected = metric(y, p.round(), by_value)
        metric.reset_state()
        torch.testing.assert_close(metric(y, p.round(), weight), expected)


def test_nan_predictions_are_a_no_as_in_keras():
    y, p = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([torch.nan, 0.9, torch.nan, 0.8])
    for thresholds in (None, [0.0, 0.5, 1.0], [0.3, 0.2]):
        for name in ("TruePositives", "FalsePositives", "TrueNegatives", "FalseNegatives"):
            if thresholds != [0.0, 0.5, 1.0]:
                reference = getattr(keras.metrics, name)(thresholds)(y, p)
            else:  # where Keras' histogram has no place for a NaN
                reference = getattr(keras.metrics, name)(thresholds)(y, p.nan_to_num(nan=0.0))
            torch.testing.assert_close(getattr(metrics, name)(thresholds)(y, p), reference.detach())


@pytest.mark.parametrize("curve", ["ROC", "PR"])
def test_one_class_only_and_empty_batches(curve):
    for y in (torch.ones(4), torch.zeros(4)):
        ours, theirs = both("AUC", {"curve": curve, "num_thresholds": 5})
        p = torch.rand(4)
        ours.update_state(y, p)
        theirs.update_state(y, p)
        check(ours, theirs)
        ours.update_state(y[:0], p[:0])
        check(ours, theirs)
    for name, arguments in [("Precision", {}), ("Recall", {"thresholds": [0.1, 0.2, 0.4]}), ("F1Score", {})]:
        metric = getattr(metrics, name)(**arguments)
        shape = (0, 3) if name == "F1Score" else (0,)
        assert not metric(torch.zeros(shape), torch.zeros(shape)).any()


def test_predictions_of_nothing_are_no_choice_of_the_f_score():
    y, p = torch.eye(3), torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.7, 0.7], [0.2, 0.1, 0.7]])
    for average in (None, "micro"):
        ours, theirs = both("F1Score", {"average": average})
        ours.update_state(y, p)
        theirs.update_state(y, p)
        check(ours, theirs)


@pytest.mark.filterwarnings("ignore:More independent", "ignore:Division by zero")  # Keras reads the state back to warn
@pytest.mark.parametrize("num_regressors", [4, 5, 6])
def test_r2_of_too_few_samples_is_not_adjusted(num_regressors):
    ours, theirs = both("R2Score", {"num_regressors": num_regressors})
    y, p = torch.randn(BATCH, 1), torch.randn(BATCH, 1)
    ours.update_state(y, p)
    theirs.update_state(y, p)
    check(ours, theirs)


def test_thresholds_of_numpy():
    y, p = torch.ones(4), torch.tensor([0.1, 0.3, 0.6, 0.9])
    assert metrics.TruePositives(np.float32(0.5))(y, p).item() == 2
    assert metrics.TruePositives(list(np.float64([0.7, 0.2])))(y, p).tolist() == [1, 3]


def test_counts_stay_exact_and_precise():
    counted = metrics.TruePositives(dtype="bfloat16")
    counted.accumulator.fill_(2**20)
    counted.update_state(torch.ones(1), torch.ones(1))
    assert counted.accumulator.item() == 2**20 + 1
    assert counted.result().dtype is torch.bfloat16
    pixels = metrics.IoU(2, [1])
    pixels.total_cm.fill_(2**31 - 1)
    pixels.update_state(torch.ones(1), torch.ones(1))
    assert pixels.total_cm.max().item() == 2**31


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.Precision(thresholds=1.5), r"Precision: thresholds lie within \[0, 1\], got 1.5"),
        (lambda: metrics.AUC(thresholds=[0.5, 2]), r"AUC: thresholds lie within \[0, 1\]"),
        (lambda: metrics.AUC(num_thresholds=1), "AUC: num_thresholds is 2 or more, got 1"),
        (lambda: metrics.AUC(curve="P"), "AUC: curve is one of 'ROC', 'PR', 'PRGAIN', got 'P'"),
        (lambda: metrics.AUC(num_labels=2), "num_labels=2 is needed only with multi_label=True"),
        (
            lambda: metrics.AUC(multi_label=True)(torch.ones(2, 3, 4), torch.ones(2, 3, 4)),
            r"\(batch, labels\), got \(2, 3, 4\)",
        ),
        (lambda: metrics.AUC(multi_label=True, num_labels=2)(torch.ones(2, 3), torch.ones(2, 3)), r"\(batch, 2\)"),
        (lambda: metrics.Recall(class_id=3)(torch.ones(2, 3), torch.ones(2, 3)), "class_id=3 is an index on the last"),
        (lambda: metrics.Recall(class_id=0)(torch.ones(2), torch.ones(2)), "class_id=0 .* shape \\(2,\\)"),
        (lambda: metrics.Recall(top_k=4)(torch.ones(2, 3), torch.ones(2, 3)), r"top_k=4 needs .* shape \(2, 3\)"),
        (lambda: metrics.Recall()(torch.ones(2), torch.ones(3)), "recall: y_true has shape .* element by element"),
        (lambda: metrics.PrecisionAtRecall(1.5), r"PrecisionAtRecall: recall lies within \[0, 1\], got 1.5"),
        (lambda: metrics.RecallAtPrecision(0.5, num_thresholds=0), "num_thresholds is 1 or more, got 0"),
        (lambda: metrics.F1Score(average="mean"), "F1Score: average is one of None, 'micro'.* got 'mean'"),
        (lambda: metrics.FBetaScore(beta=0.0), "FBetaScore: beta is a number above 0"),
        (lambda: metrics.FBetaScore(threshold=0.0), r"threshold lies within \(0, 1\]"),
        (lambda: metrics.F1Score()(torch.ones(4), torch.ones(4, 3)), "f1_score: .* need one-hot encoding"),
        (lambda: metrics.R2Score("mean"), "class_aggregation is one of None, 'uniform_average'"),
        (lambda: metrics.R2Score(num_regressors=-1), "num_regressors is 0 or more"),
        (lambda: metrics.R2Score()(torch.ones(2, 3, 4), torch.ones(2, 3, 4)), r"\(batch, outputs\)"),
        (lambda: metrics.IoU(3, [3]), "IoU: target_class_ids are class indices from 0 to 2, got"),
        (lambda: metrics.MeanIoU(3)(torch.ones(4), torch.ones(4, 3)), "sparse_y_pred say which of them have a class"),
    ],
)
def test_error_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("aggregation", [None, "uniform_average", "variance_weighted_average"])
@pytest.mark.parametrize("num_regressors", [0, 2])
def test_r2_of_several_outputs_is_that_of_scikit_learn(aggregation, num_regressors):
    score = pytest.importorskip("sklearn.metrics").r2_score
    random = np.random.default_rng(0)
    y = random.normal(size=(9, 4))
    y[:, 2:] = 3.0
    p = y + random.normal(size=y.shape)
    p[:, 2] = 3.0  # constant and met exactly: 1; constant and missed: 0
    multioutput = {None: "raw_values", "variance_weighted_average": "variance_weighted"}.get(aggregation, aggregation)
    plain = score(y, p, multioutput=multioutput)
    wanted = 1 - (1 - plain) * (9 - 1) / (9 - num_regressors - 1)
    metric = metrics.R2Score(aggregation, num_regressors)
    for rows in (slice(0, 4), slice(4, 9)):
        metric.update_state(y[rows], p[rows])
    np.testing.assert_allclose(metric.result(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "wanted"), [("Precision", 1 / 3), ("Recall", 1 / 2)])
def test_the_best_k_of_one_sample(name, wanted):
    y, p = np.array([0, 1, 1, 0, 0]), np.array([0.2, 0.1, 0.5, 0, 0.2])
    for given in ((y, p), (y[None], p[None]), (y.tolist(), p.tolist())):
        assert getattr(metrics, name)(top_k=3)(*given).item() == pytest.approx(wanted)
