"""Metrics against Keras 3 on torch: several updates, weights, configs; the choice of "accuracy"; torch-like metrics."""

import copy
import pickle

import keras
import numpy as np
import pytest
import torch
from metric_cases import BATCH, CASES, CLASSES, IDS, TIME, bits, classes, numbers, one_hot, positive
from torch import nn
from torch.nn import functional as F

from torchfunc import initializers, losses, metrics


def both(name, **arguments):
    return getattr(metrics, name)(**arguments), getattr(keras.metrics, name)(**arguments)


def check(ours, theirs):
    torch.testing.assert_close(ours.result(), theirs.result(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weighted", ["no", "by sample", "by value"])
@pytest.mark.parametrize(("name", "arguments", "make_y", "y_shape", "make_p", "p_shape"), CASES, ids=IDS)
def test_several_updates(name, arguments, make_y, y_shape, make_p, p_shape, weighted):
    ours, theirs = both(name, **arguments)
    check(ours, theirs)
    for _ in range(3):
        y, p = torch.tensor(make_y(*y_shape)), torch.tensor(make_p(*p_shape))
        per_value = (BATCH, TIME) if TIME in p_shape and name != "CosineSimilarity" else (BATCH,)
        shape = {"no": None, "by sample": (BATCH,), "by value": per_value}[weighted]
        if weighted == "by sample" and "ignore_class" in arguments:
            shape = per_value  # where Keras fails: it multiplies the mask into the weights in place
        weight = None if shape is None else torch.rand(shape)
        ours.update_state(y, p.requires_grad_(p.is_floating_point()), weight)
        theirs.update_state(y, p.detach(), None if weight is None else weight.clone())
        check(ours, theirs)
    assert not any(variable.requires_grad for variable in ours.variables)
    ours.reset_state()
    theirs.reset_state()
    check(ours, theirs)
    y, p = make_y(*y_shape), make_p(*p_shape)
    torch.testing.assert_close(ours(y, p), theirs(torch.tensor(y), torch.tensor(p)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["Mean", "Sum"])
@pytest.mark.parametrize(
    ("values", "weight"),
    [
        ((), None),
        ((6,), None),
        ((6, 4), None),
        ((6, 4, 2), (6,)),
        ((6, 4), (6, 4)),
        ((6, 4), (6, 1)),
        ((6,), (6, 1)),
        ((), ()),
    ],
)
def test_mean_and_sum(name, values, weight):
    ours, theirs = both(name)
    for _ in range(2):
        v, w = torch.randn(values), None if weight is None else torch.rand(weight)
        ours.update_state(v, w)
        theirs.update_state(v, w)
    check(ours, theirs)
    assert [tuple(v.shape) for v in ours.variables] == [tuple(v.shape) for v in theirs.variables]


@pytest.mark.parametrize(("name", "arguments", "make_y", "y_shape", "make_p", "p_shape"), CASES, ids=IDS)
def test_configs_are_keras(name, arguments, make_y, y_shape, make_p, p_shape):
    ours, theirs = both(name, **arguments)
    lost_by_keras = {key: value for key, value in arguments.items() if key not in theirs.get_config()}
    assert ours.get_config() == {**theirs.get_config(), **lost_by_keras}
    assert ours.direction == getattr(theirs, "_direction", "down")
    assert metrics.serialize(ours) == {**keras.metrics.serialize(theirs), "config": ours.get_config()}
    again = metrics.deserialize(metrics.serialize(ours))
    assert type(again) is type(ours)
    assert again.get_config() == ours.get_config()
    assert type(metrics.get(keras.metrics.serialize(theirs))) is type(ours)
    assert keras.metrics.deserialize(metrics.serialize(ours)).get_config() == theirs.get_config()
    y, p = make_y(*y_shape), make_p(*p_shape)
    ours.update_state(y, p)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        torch.testing.assert_close(twin.result(), ours.result())
        assert all(a is b for a, b in zip(twin.variables, (twin.total, twin.count), strict=True))
        before = ours.result()
        twin.update_state(y, p, np.linspace(0, 1, BATCH))
        torch.testing.assert_close(ours.result(), before)


def test_signatures_are_keras():
    for name in {name for name, *_ in CASES} | {"Mean", "Sum"}:
        keras_init, our_init = getattr(keras.metrics, name).__init__, getattr(metrics, name).__init__
        assert keras_init.__defaults__ == our_init.__defaults__
        names = keras_init.__code__.co_varnames[: keras_init.__code__.co_argcount]
        assert names == our_init.__code__.co_varnames[: our_init.__code__.co_argcount]


def test_get_knows_kerass_names():
    names = [*metrics.catalogue._ALIASES, *(alias.upper() for alias in metrics.catalogue._ALIASES)]
    names += [name for name, *_ in CASES] + ["sparse_categorical_accuracy", "binary_accuracy", "log_cosh_error", "sum"]
    for name in names:
        assert type(metrics.get(name)).__name__ == type(keras.metrics.get(name)).__name__
    assert metrics.get(None) is None
    assert isinstance(metrics.get(metrics.Mean), metrics.Mean)
    assert isinstance(metrics.get({"class_name": "MeanSquaredError", "config": {}}), metrics.MeanSquaredError)
    with pytest.raises(ValueError, match=r"no metric called 'binary_acuracy'\. Did you mean 'binary_accuracy'"):
        metrics.get("binary_acuracy")


@pytest.mark.parametrize(
    ("name", "y", "p"),
    [
        ("binary_accuracy", bits(BATCH, 3), positive(BATCH, 3)),
        ("categorical_accuracy", one_hot(BATCH), numbers(BATCH, CLASSES)),
        ("sparse_categorical_accuracy", classes(BATCH, 1), numbers(BATCH, CLASSES)),
        ("top_k_categorical_accuracy", one_hot(BATCH), numbers(BATCH, CLASSES)),
        ("sparse_top_k_categorical_accuracy", classes(BATCH), numbers(BATCH, CLASSES)),
        ("mean_squared_error", numbers(BATCH, 3), numbers(BATCH, 3)),
    ],
)
def test_functions(name, y, p):
    expected = getattr(keras.metrics, name)(torch.tensor(y), torch.tensor(p))
    torch.testing.assert_close(getattr(metrics, name)(y, p), expected)


def test_top_k_of_fewer_classes_is_always_right():
    assert metrics.SparseTopKCategoricalAccuracy(k=9)(classes(BATCH), numbers(BATCH, CLASSES)).item() == 1.0


def test_counts_stay_exact():
    metric = metrics.Mean(dtype="bfloat16")
    metric.total.fill_(10_000_000 - 64)
    metric.count.fill_(10_000_000 - 64)
    for _ in range(2):
        metric.update_state(torch.ones(64))
    assert metric.count.item() == metric.total.item() == 10_000_064
    assert metric.result().dtype is torch.bfloat16


def test_results_are_not_the_state():
    total = metrics.Sum()
    first = total(torch.ones(3))
    total.update_state(torch.ones(3))
    assert (first.item(), total.result().item()) == (3.0, 6.0)


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
        assert metric.name == reference.name == name
        assert metric._fn.__name__ == f"{expected}_accuracy"
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


def test_wrapped_functions_and_their_configs():
    ours = metrics.MeanMetricWrapper(losses.huber, name="h", delta=2.0)
    theirs = keras.metrics.MeanMetricWrapper(keras.losses.huber, name="h", delta=2.0)
    assert metrics.serialize(ours) == keras.metrics.serialize(theirs)
    assert metrics.deserialize(keras.metrics.serialize(theirs)).get_config() == ours.get_config()
    wrapped = metrics.MeanMetricWrapper(metrics.binary_accuracy)
    config = keras.metrics.serialize(keras.metrics.MeanMetricWrapper(keras.metrics.binary_accuracy))["config"]
    assert wrapped.get_config() == {**config, "name": "mean_metric_wrapper"}
    again = metrics.deserialize(metrics.serialize(metrics.MeanMetricWrapper(middle)), {"middle": middle})
    assert again._fn is middle


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


class Above(metrics.Metric):
    """A custom metric with state, a metric of its own, and assignment instead of in-place arithmetic."""

    def __init__(self, name="above", dtype=None, limit=0.5):
        super().__init__(name=name, dtype=dtype)
        self.limit = limit
        self.above = self.add_variable((), "zeros", dtype="int64", name="above")
        self.largest = self.add_weight(shape=(2,), initializer=initializers.Constant(-1.0))
        self.mean = metrics.Mean()
        self.others = {"sum": metrics.Sum()}

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.above = self.above + (y_pred > self.limit).sum()
        self.largest.copy_(torch.maximum(self.largest, y_pred.max()))
        self.mean.update_state(y_pred)
        self.others["sum"].update_state(y_pred)

    def result(self):
        return {"above": self.above.clone(), "mean": self.mean.result()}

    def get_config(self):
        return {**super().get_config(), "limit": self.limit}


def test_custom_metrics():
    metric = Above(limit=0.25)
    assert metric.largest.tolist() == [-1.0, -1.0]
    state = metric.above
    assert len(metric.variables) == 2 + 2 + 1
    for _ in range(2):
        for batch in ([0.0, 0.3], [0.5, 1.0]):
            metric.update_state(None, torch.tensor(batch, requires_grad=True))
        assert metric.above is state is metric.variables[0]
        assert metric.result()["above"].item() == 3
        torch.testing.assert_close(metric.result()["mean"], torch.tensor(0.45))
        metric.reset_state()
        assert all(not variable.any() for variable in metric.variables)
    twin = Above.from_config(metric.get_config())
    assert (twin.limit, twin.name, twin.dtype) == (0.25, "above", torch.float32)
    assert repr(twin) == "<Above name=above>"


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_state_moves_in_place(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    metric = Above()
    metric.update_state(None, torch.tensor([0.0, 1.0]))
    before = metric.variables
    assert metric.to(device) is metric
    assert all(a is b for a, b in zip(metric.variables, before, strict=True))
    assert {variable.device.type for variable in before} == {device}
    metric.update_state(None, torch.tensor([1.0, 1.0], device=device))
    assert metric.result()["above"].item() == 3


def test_state_made_during_evaluation_stays_writable():
    with torch.inference_mode():
        metric = metrics.MeanSquaredError()
        metric.update_state(torch.ones(3), torch.zeros(3, 1))
    metric.update_state(torch.ones(3), torch.zeros(3, 1))
    assert metric.result().item() == 1.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: metrics.MeanSquaredError()(torch.zeros(8), torch.zeros(8, 3)),
            ValueError,
            "mean_squared_error: .*indices",
        ),
        (
            lambda: metrics.RootMeanSquaredError()(torch.zeros(8, 1), torch.zeros(8, 3)),
            ValueError,
            "root_mean_squared_error",
        ),
        (
            lambda: metrics.BinaryAccuracy()(torch.zeros(8), torch.zeros(8, 3)),
            ValueError,
            "binary_accuracy: y_true has",
        ),
        (
            lambda: metrics.SparseCategoricalAccuracy()(torch.zeros(8, 3), torch.zeros(8, 3)),
            ValueError,
            r"sparse_categorical_accuracy: .* shape \(8,\). For one-hot targets use 'categorical_accuracy'",
        ),
        (lambda: metrics.Mean()(torch.zeros(8), torch.ones(7)), ValueError, r"mean: sample_weight .* \(7,\).* \(8,\)"),
        (lambda: metrics.as_metric(None), ValueError, "got None"),
        (lambda: metrics.Metric().update_state(0, 0), NotImplementedError, "Metric has to define update_state"),
        (lambda: metrics.Metric().result(), NotImplementedError, "Metric has to define result"),
    ],
)
def test_error_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_forgotten_super_call_is_told():
    class Forgetful(metrics.Metric):
        def __init__(self):
            self.total = self.add_variable((), "zeros")

    with pytest.raises(RuntimeError, match=r"Forgetful.__init__ has to call super\(\)"):
        Forgetful()


def test_a_whole_step_compiles_as_one_graph():
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    tracked = [metrics.SparseCategoricalAccuracy(), metrics.Mean(name="loss"), Above()]
    kernel = torch.randn(3, CLASSES, requires_grad=True)
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend=counting)
    def step(x, y):
        logits = x @ kernel
        value = loss(y, logits)
        with torch.no_grad():
            tracked[0].update_state(y, logits)
            tracked[1].update_state(value)
            tracked[2].update_state(y, logits)
        return value

    x, y = torch.randn(3, BATCH, 3), torch.randint(0, CLASSES, (3, BATCH, 1))
    values = [step(x[i], y[i]) for i in range(3)]
    assert len(graphs) == 1
    logits = x @ kernel
    torch.testing.assert_close(tracked[0].result(), (logits.argmax(-1) == y[..., 0]).float().mean())
    torch.testing.assert_close(tracked[1].result(), torch.stack(values).mean().detach())
    assert tracked[2].result()["above"] == (logits > 0.5).sum()
    torch.autograd.grad(values[0], kernel)
