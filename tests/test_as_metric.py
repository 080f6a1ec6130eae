"""Whatever `compile(metrics=...)` may be given: names, functions, torchmetrics, by `metrics.as_metric`."""

import keras
import pytest
import torch
import torchmetrics
from metric_cases import BATCH, CLASSES, TIME
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy, MulticlassF1Score

from torchfunc import Input, Model, layers, losses, metrics
from torchfunc.registry import to_snake_case


@pytest.mark.parametrize(
    ("y_shape", "p_shape", "expected"),
    [
        ((8, 1), (8, 1), "binary"),
        ((8,), (8, 1), "binary"),
        ((8, TIME, 1), (8, TIME, 1), "binary"),
        ((8,), (8, 10), "sparse_categorical"),
        ((8, 1), (8, 10), "sparse_categorical"),
        ((8, TIME), (8, TIME, 10), "sparse_categorical"),
        ((8, TIME, 1), (8, TIME, 10), "sparse_categorical"),
        ((8, 10), (8, 10), "categorical"),
        ((8, TIME, 10), (8, TIME, 10), "categorical"),
    ],
)
def test_accuracy_is_chosen_by_shape(y_shape, p_shape, expected):
    for name in ("accuracy", "acc", "Accuracy"):
        reference = keras.src.trainers.compile_utils.get_metric(name, torch.ones(y_shape), torch.ones(p_shape))
        metric = metrics.as_metric(name, (None, *y_shape[1:]), (None, *p_shape[1:]))
        assert type(metric).__name__ == type(reference).__name__
        assert to_snake_case(type(metric).__name__) == f"{expected}_accuracy"
        assert metric.name == reference.name == name
    for name in ("crossentropy", "ce"):
        metric = metrics.as_metric(name, y_shape, p_shape)
        assert (metric.name, metric._fn.__name__) == (name, f"{expected}_crossentropy")


def test_accuracy_without_a_class_axis_is_binary():
    assert isinstance(metrics.as_metric("accuracy", (8,), (8,)), metrics.BinaryAccuracy)
    with pytest.raises(ValueError, match=r"not known\. Name the one you mean, such as 'sparse_categorical_accuracy'"):
        metrics.as_metric("accuracy")


def middle(y_true, y_pred):
    return (y_true - y_pred).abs().median(-1).values


def test_as_metric_names_are_keras():
    y, p = torch.randn(4, 3), torch.randn(4, 3)
    mine = metrics.MeanSquaredError(name="mine")
    for identifier, reference in [
        ("mse", "mse"),
        ("MAE", "MAE"),
        ("mean_absolute_error", "mean_absolute_error"),
        ("MeanAbsoluteError", "MeanAbsoluteError"),
        (metrics.MeanSquaredError, keras.metrics.MeanSquaredError),
        (mine, keras.metrics.MeanSquaredError(name="mine")),
        (middle, middle),
        (lambda y_true, y_pred: y_true - y_pred, lambda y_true, y_pred: y_true - y_pred),
        (losses.mean_squared_error, keras.losses.mean_squared_error),
        (losses.MeanSquaredError(), keras.losses.MeanSquaredError()),
        (metrics.serialize(mine), keras.metrics.serialize(keras.metrics.MeanSquaredError(name="mine"))),
    ]:
        metric = metrics.as_metric(identifier, y.shape, p.shape)
        expected = keras.src.trainers.compile_utils.get_metric(reference, y, p)
        assert metric.name == expected.name
        torch.testing.assert_close(metric(y, p), expected(y, p))
    assert metrics.as_metric(mine) is mine


def test_torch_losses_as_metrics():
    y, logits = torch.randint(0, CLASSES, (BATCH,)), torch.randn(BATCH, CLASSES)
    for loss, name in [(nn.CrossEntropyLoss(), "cross_entropy_loss"), (F.cross_entropy, "cross_entropy")]:
        metric = metrics.as_metric(loss)
        assert metric.name == name
        torch.testing.assert_close(metric(y[:, None], logits), F.cross_entropy(logits, y))


class Hits:
    """What torchmetrics' classes look like from outside."""

    def __init__(self):
        self.reset()
        self.device = "cpu"

    def update(self, pred, target):
        assert not pred.requires_grad
        assert target.shape == pred.shape[:-1] or pred.shape[-1] == 1
        self.right += (pred.argmax(-1) == target).sum()
        self.seen += len(target)

    def compute(self):
        return self.right / self.seen

    def reset(self):
        self.right, self.seen = torch.tensor(0), 0

    def to(self, device):
        self.device = device


@pytest.mark.parametrize("given", [Hits, Hits()])
def test_torchmetrics_like_objects(given):
    metric = metrics.as_metric(given)
    assert metric.name == "hits"
    y, p = torch.randint(0, CLASSES, (BATCH, 1)), torch.randn(BATCH, CLASSES, requires_grad=True)
    for _ in range(2):
        metric.reset_state()
        torch.testing.assert_close(metric(y, p), (p.argmax(-1) == y[:, 0]).float().mean())
    metric.update_state(torch.zeros(BATCH), torch.randn(BATCH, 1))
    assert metric.to("meta").metric.device == "meta"
    assert metric.variables == []
    with pytest.raises(ValueError, match=r"'hits' .* takes no sample_weight\. Give it in `metrics`"):
        metric.update_state(y, p, torch.ones(BATCH))
    with pytest.raises(ValueError, match="'hits' is a Hits, which cannot be written"):
        metrics.serialize(metric)


def test_torchmetrics():
    y, p = torch.randint(0, CLASSES, (3, BATCH, 1)), torch.rand(3, BATCH, CLASSES)
    metric = metrics.as_metric(MulticlassAccuracy(CLASSES, average="micro"))
    assert (metric.name, metric.outside_step, metrics.Mean().outside_step) == ("multiclass_accuracy", True, False)
    for _ in range(2):
        for targets, predictions in zip(y, p, strict=True):
            metric.update_state(targets, predictions)
        torch.testing.assert_close(metric.result(), (p.argmax(-1) == y[..., 0]).float().mean())
        metric.reset_state()
    assert metric.masked_weight(None, torch.ones(BATCH, dtype=torch.bool)) is None
    assert metrics.as_metric(torchmetrics.Accuracy(task="binary")).name == "binary_accuracy"
    assert metrics.as_metric(torchmetrics.MeanSquaredError).name == "mean_squared_error"


def test_torchmetrics_updated_in_evaluation_first():
    metric = metrics.as_metric(torchmetrics.MeanSquaredError())
    with torch.inference_mode():
        metric.update_state(torch.zeros(BATCH), torch.ones(BATCH, 1))
    metric.update_state(torch.zeros(BATCH), torch.full((BATCH, 1), 2.0, requires_grad=True))
    assert metric.result().item() == 2.5


def test_a_metric_collection_has_a_result_for_each():
    members = {"hit": MulticlassAccuracy(CLASSES, average="micro"), "f1": MulticlassF1Score(CLASSES, average="micro")}
    metric = metrics.as_metric(torchmetrics.MetricCollection(members))
    y, p = torch.randint(0, CLASSES, (BATCH,)), torch.rand(BATCH, CLASSES)
    result = metric(y, p)
    assert (metric.name, list(result)) == ("metric_collection", ["f1", "hit"])
    torch.testing.assert_close(result["hit"], (p.argmax(-1) == y).float().mean())


def test_training_with_torchmetrics():
    inputs = Input((3,))
    model = Model(inputs, layers.Dense(1, activation="sigmoid")(inputs))
    collection = torchmetrics.MetricCollection({"hit": torchmetrics.Accuracy(task="binary")})
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy", BinaryAUROC(), collection])
    x, y = torch.randn(40, 3), torch.randint(0, 2, (40, 1))
    history = model.fit(x, y, epochs=2, verbose=0, validation_data=(x, y), batch_size=16).history
    assert set(history) == {f"{a}{b}" for a in ("", "val_") for b in ("loss", "accuracy", "binary_auroc", "hit")}
    assert history["hit"] == pytest.approx(history["accuracy"])
    scores = torch.tensor(model.predict(x, verbose=0))
    ordered = scores[y == 1][:, None] > scores[y == 0]
    assert history["val_binary_auroc"][-1] == pytest.approx(ordered.float().mean().item())
    model.compile("sgd", "binary_crossentropy", weighted_metrics=[BinaryAUROC()])
    with pytest.raises(ValueError, match=r"'binary_auroc' .* takes no sample_weight\. Give it in `metrics`"):
        model.fit(x, y, sample_weight=torch.ones(40), verbose=0)
