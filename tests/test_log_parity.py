"""The logs of fit and evaluate are Keras', name by name and number by number, for every form of compile's settings."""

import warnings

import keras
import numpy as np
import pytest
from training_parity import LABELS, ROWS, WEIGHTS, X, Y, assert_close, copy_weights, ours, twins

import torchfunc
from torchfunc import callbacks
from torchfunc.layers import Input
from torchfunc.models import Model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

ENTROPY = "sparse_categorical_crossentropy"
ONE_HOT = np.eye(3, dtype="float32")[LABELS]
BOTH, BOTH_HOT = {"value": Y, "kind": LABELS}, {"value": Y, "kind": ONE_HOT}
WEIGHT_OF = {"value": WEIGHTS, "kind": WEIGHTS[::-1].copy()}
PAIR = {"value": "mse", "kind": ENTROPY}


def absolute_difference(y_true, y_pred):
    return abs(y_true - y_pred).mean(-1)


def own_names(library):
    """Metrics and losses with names of their own, some of them equal."""
    error, accuracy = library.metrics.MeanSquaredError, library.metrics.SparseCategoricalAccuracy
    return {
        "loss": [library.losses.Huber(name="hub"), library.losses.SparseCategoricalCrossentropy(name="hub")],
        "metrics": [[error(name="foo"), error(name="bar")], [accuracy()]],
        "weighted_metrics": [[error(name="foo")], []],
    }


# By name: the outputs, the targets, whether there are sample weights, and what is given to compile.
CASES = {
    "no metrics": ("one", Y, False, {"loss": "mse"}),
    "metrics": ("one", Y, False, {"loss": "mse", "metrics": ["mae", "mse"]}),
    "lists": ("one", Y, False, {"loss": ["mse"], "metrics": [["mae", "mse"]]}),
    "dicts": ("label", LABELS, False, {"loss": {"kind": ENTROPY}, "metrics": {"kind": ["acc"]}}),
    "weighted": ("one", Y, True, {"loss": "mse", "metrics": ["mae"], "weighted_metrics": ["mae", "mse"]}),
    "same twice": ("one", Y, False, {"loss": "mse", "metrics": ["mae", "mae"], "weighted_metrics": ["mae", "mse"]}),
    "only weighted": ("label", LABELS, True, {"loss": ENTROPY, "weighted_metrics": ["accuracy"]}),
    "accuracies": ("label", ONE_HOT, True, {"loss": "categorical_crossentropy", "metrics": ["acc", "accuracy"]}),
    "function": ("one", Y, False, {"loss": absolute_difference, "metrics": [absolute_difference]}),
    "list of lists": ("list", BOTH, False, {"loss": PAIR, "metrics": [["mae", "mse"], "accuracy"]}),
    "list": ("list", BOTH, False, {"loss": PAIR, "metrics": ["mae", "accuracy"]}),
    "list with None": ("list", BOTH, False, {"loss": PAIR, "metrics": [None, ["accuracy"]]}),
    "list weighted": (
        *("list", BOTH, True),
        {"loss": PAIR, "metrics": [["mae"], ["acc"]], "weighted_metrics": [["mae"], ["acc"]], "loss_weights": [2, 0.5]},
    ),
    "list, settings by name": (
        *("list", BOTH, True),
        {
            "loss": {"kind": ENTROPY, "value": "mse"},
            "metrics": {"kind": "acc"},
            "weighted_metrics": {"kind": ["acc"], "value": "mae"},
            "loss_weights": {"kind": 2.0, "value": 0.5},
        },
    ),
    "list, one loss": ("list", BOTH_HOT, True, {"loss": "mse", "metrics": {"value": ["mae"], "kind": ["mae", "mse"]}}),
    "list, a loss None": ("list", BOTH, False, {"loss": ["mse", None], "metrics": [["mae"], ["acc"]]}),
    "list, None, weighted": (
        "list",
        BOTH,
        True,
        {"loss": ["mse", None], "weighted_metrics": [["mae"], ["acc"]]},
    ),
    "list, own names": ("list", BOTH, True, own_names),
    "dict": ("dict", BOTH, False, {"loss": PAIR, "metrics": {"value": ["mae", "mse"], "kind": ["accuracy"]}}),
    "dict weighted": (
        *("dict", BOTH, True),
        {
            "loss": PAIR,
            "metrics": {"value": ["mae"]},
            "weighted_metrics": {"value": ["mae"], "kind": "accuracy"},
            "loss_weights": {"kind": 2.0, "value": 0.5},
        },
    ),
    "dict, one loss": ("dict", BOTH_HOT, True, {"loss": "mse", "metrics": {"kind": "mae"}}),
    "dict, a loss None": ("dict", BOTH, False, {"loss": {"value": "mse", "kind": None}, "metrics": {"kind": "acc"}}),
    "dict, a loss left out": ("dict", BOTH, False, {"loss": {"value": "mse"}, "metrics": {"value": "mae"}}),
    "dict with other keys": (
        *("renamed", {"amount": Y, "sort": LABELS}, True),
        {
            "loss": {"amount": "mse", "sort": ENTROPY},
            "metrics": {"sort": ["acc"]},
            "weighted_metrics": {"amount": ["mae"], "sort": ["acc"]},
        },
    ),
}
# Keras lists a metric again for each other one of its name, and the losses of a dict in another order than its metrics.
OTHER_LISTS = ("weighted", "same twice", "dict, one loss")


def renamed(library):
    """Outputs in a dict whose keys are not the names of layers."""
    dense = library.layers.Dense
    inputs = keras.Input((5,)) if library is keras else Input((5,))
    hidden = dense(8, activation="tanh", name="hidden")(inputs)
    outputs = {"amount": dense(1, name="value")(hidden), "sort": dense(3, activation="softmax", name="kind")(hidden)}
    return (keras.Model if library is keras else Model)(inputs, outputs)


def models(outputs):
    if outputs != "renamed":
        return twins(outputs)
    mine, theirs = renamed(ours), renamed(keras)
    copy_weights(mine, theirs)
    return mine, theirs


def as_given(outputs, values):
    return list(values.values()) if outputs == "list" and isinstance(values, dict) else values


def weights_for(y):
    return dict(zip(y, WEIGHT_OF.values(), strict=True)) if isinstance(y, dict) else WEIGHTS


def rows(part, count):
    if isinstance(part, dict):
        return {key: value[:count] for key, value in part.items()}
    return [value[:count] for value in part] if isinstance(part, list) else part[:count]


@pytest.mark.parametrize("case", CASES)
def test_history_and_evaluate_equal_keras(case):
    outputs, y, weighted, settings = CASES[case]
    mine, theirs = models(outputs)
    for model, library in ((mine, torchfunc), (theirs, keras)):
        model.compile("sgd", **(settings(library) if callable(settings) else settings))
    data = [as_given(outputs, y), as_given(outputs, weights_for(y))][: 1 + weighted]
    run = {
        "batch_size": 16,
        "epochs": 2,
        "verbose": 0,
        "shuffle": False,
        "validation_data": tuple(rows(part, ROWS // 2) for part in (X, *data)),
        "sample_weight": data[1] if weighted else None,
    }
    with warnings.catch_warnings():
        # Both say that some weights get no gradient where a loss is None.
        warnings.filterwarnings("ignore", message="Gradients do not exist|The loss does not depend")
        history, expected = mine.fit(X, data[0], **run), theirs.fit(X, data[0], **run)
    assert isinstance(history, callbacks.History)
    assert list(history.history) == list(expected.history)
    for name, values in history.history.items():
        assert all(isinstance(value, float) for value in values)
        assert values == pytest.approx(expected.history[name], rel=1e-4), name
    assert history.epoch == expected.epoch
    assert history.params == expected.params
    found, logs = (
        [model.evaluate(X, data[0], 32, 0, run["sample_weight"], return_dict=as_dict) for model in (mine, theirs)]
        for as_dict in (False, True)
    )
    assert_close(*logs)
    listed = [found[0]] if isinstance(found[0], float) else found[0]
    assert dict(zip(mine.metrics_names, listed, strict=True)) == pytest.approx(logs[0])
    if case not in OTHER_LISTS:
        assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_targets_by_name_for_a_list_of_outputs():
    mine, theirs = twins("list")
    for model in (mine, theirs):
        model.compile("sgd", PAIR, metrics={"kind": ["accuracy"]})
    found, expected = (model.evaluate(X, BOTH, verbose=0, return_dict=True) for model in (mine, theirs))
    assert_close(found, expected)


def test_weights_without_a_gradient_are_named():
    mine, _ = twins("list")
    mine.compile("sgd", ["mse", None])
    with pytest.warns(UserWarning, match=r"kind\.weight, kind\.bias"):
        mine.fit(X, [Y, LABELS], verbose=0)
