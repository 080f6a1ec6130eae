"""Metrics against Keras 3 on torch: several updates, weights, configs; the choice of "accuracy"; torch-like metrics."""

import copy
import inspect
import pickle

import keras
import numpy as np
import pytest
import torch
from metric_cases import BATCH, CASES, CLASSES, IDS, TIME, bits, classes, numbers, one_hot, positive

from torchfunc import initializers, losses, metrics


def both(name, **arguments):
    return getattr(metrics, name)(**arguments), getattr(keras.metrics, name)(**arguments)


def check(ours, theirs):
    # Keras casts every quotient to float32.
    torch.testing.assert_close(ours.result(), theirs.result(), rtol=1e-6, atol=1e-6, check_dtype=False)


def batch_of(make_y, y_shape, make_p, p_shape):
    """Targets and predictions, floats in float64: so that 1e-6 tells a wrong formula from rounding."""
    y, p = torch.tensor(make_y(*y_shape)), torch.tensor(make_p(*p_shape))
    return y.double() if y.is_floating_point() else y, p.double() if p.is_floating_point() else p


def value_shape(name, p_shape):
    """The shape of what is averaged, up to the axes that Keras reduces itself."""
    reduces_time = name in ("CosineSimilarity", "PearsonCorrelation", "ConcordanceCorrelation")
    return (BATCH, TIME) if TIME in p_shape and not reduces_time else (BATCH,)


@pytest.mark.parametrize("weighted", ["no", "by sample", "by value"])
@pytest.mark.parametrize(("name", "arguments", "make_y", "y_shape", "make_p", "p_shape"), CASES, ids=IDS)
def test_several_updates(name, arguments, make_y, y_shape, make_p, p_shape, weighted):
    ours, theirs = both(name, dtype="float64", **arguments)
    check(ours, theirs)
    for _ in range(3):
        y, p = batch_of(make_y, y_shape, make_p, p_shape)
        per_value = value_shape(name, p_shape)
        shape = {"no": None, "by sample": (BATCH,), "by value": per_value}[weighted]
        if weighted == "by sample" and "ignore_class" in arguments:
            shape = per_value  # where Keras fails: it multiplies the mask into the weights in place
        weight = None if shape is None else torch.rand(shape).double()
        ours.update_state(y, p.requires_grad_(p.is_floating_point()), weight)
        theirs.update_state(y, p.detach(), None if weight is None else weight.clone())
        check(ours, theirs)
    assert not any(variable.requires_grad for variable in ours.variables)
    ours.reset_state()
    theirs.reset_state()
    check(ours, theirs)
    y, p = batch_of(make_y, y_shape, make_p, p_shape)
    torch.testing.assert_close(ours(y, p), theirs(y, p), rtol=1e-6, atol=1e-6, check_dtype=False)
    y, p = make_y(*y_shape), make_p(*p_shape)
    ours, theirs = both(name, **arguments)
    torch.testing.assert_close(ours(y, p), theirs(torch.tensor(y), torch.tensor(p)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "arguments", "make_y", "y_shape", "make_p", "p_shape"), CASES, ids=IDS)
def test_masks(name, arguments, make_y, y_shape, make_p, p_shape, weighted):
    ours, theirs = both(name, dtype="float64", **arguments)
    for _ in range(2):
        y, p = batch_of(make_y, y_shape, make_p, p_shape)
        p._keras_mask = mask = torch.rand(value_shape(name, p_shape)) > 0.4
        weight = torch.rand(mask.shape).double() if weighted else None
        ours.update_state(y, p, ours.masked_weight(weight, mask))
        theirs.update_state(y, p, None if weight is None else weight.clone())
        check(ours, theirs)


def test_which_metrics_heed_masks_is_keras():
    y, p = torch.randint(0, 2, (BATCH, TIME)), torch.rand(BATCH, TIME)
    p._keras_mask = mask = torch.rand(BATCH, TIME) > 0.5
    for name, heeds in [
        ("BinaryAccuracy", True),
        ("Precision", False),
        ("AUC", False),
        ("RootMeanSquaredError", False),
    ]:
        ours, theirs = both(name)
        ours.update_state(y, p, ours.masked_weight(None, mask))
        theirs.update_state(y, p)
        torch.testing.assert_close(ours.result(), theirs.result().detach())
        assert (ours.masked_weight(None, mask) is not None) == heeds
        assert ours.masked_weight(None, None) is None


def test_a_mask_by_timestep_and_weights_by_sample():
    # Keras fails: it multiplies into the weights in place.
    metric, y, p = metrics.BinaryAccuracy(), torch.randint(0, 2, (BATCH, TIME)), torch.rand(BATCH, TIME)
    mask, weight = torch.rand(BATCH, TIME) > 0.4, torch.rand(BATCH)
    metric.update_state(y, p, metric.masked_weight(weight.tolist(), mask))
    both_weights = mask * weight[:, None]
    torch.testing.assert_close(metric.result(), ((y == (p > 0.5)) * both_weights).sum() / both_weights.sum())


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
    for name, reference in vars(keras.metrics).items():
        if isinstance(reference, type):
            keras_init, our_init = reference.__init__, getattr(metrics, name).__init__
            ours, theirs = (list(inspect.signature(init).parameters.values()) for init in (our_init, keras_init))
            assert [(p.name, p.default, p.kind) for p in ours] == [(p.name, p.default, p.kind) for p in theirs], name


def test_get_knows_kerass_names():
    needs_arguments = {"Metric", "MeanMetricWrapper", "IoU", "MeanIoU", "OneHotIoU", "OneHotMeanIoU"}
    needs_arguments |= {f"{a}At{b}" for a, b in (("Sensitivity", "Specificity"), ("Specificity", "Sensitivity"))}
    needs_arguments |= {"PrecisionAtRecall", "RecallAtPrecision"}
    for name, reference in keras.src.metrics.ALL_OBJECTS_DICT.items():
        if reference.__name__ in needs_arguments:
            assert metrics.catalogue._FAMILY._names[name] is getattr(metrics, reference.__name__)
        else:
            assert type(metrics.get(name)) is getattr(metrics, reference.__name__)
    for name in vars(keras.metrics):
        assert name.startswith("_") or hasattr(metrics, name), name
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
        ("pearson_correlation", numbers(BATCH, 3), numbers(BATCH, 3)),
        ("concordance_correlation", numbers(BATCH, 3), numbers(BATCH, 3)),
        ("squared_hinge", bits(BATCH, 3), numbers(BATCH, 3)),
    ],
)
def test_functions(name, y, p):
    expected = getattr(keras.metrics, name)(torch.tensor(y), torch.tensor(p))
    torch.testing.assert_close(getattr(metrics, name)(y, p), expected)


def test_hinge_of_a_vector_of_targets():
    # Keras compares every target with every prediction.
    y, p = torch.randint(0, 2, (BATCH,)), torch.randn(BATCH, 1)
    torch.testing.assert_close(metrics.Hinge()(y, p), (1 - (2 * y - 1) * p[:, 0]).clamp(min=0).mean())


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


def middle(y_true, y_pred):
    return (y_true - y_pred).abs().median(-1).values


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


def test_state_moves_in_place():
    # To a card: test_cuda.py.
    metric = Above()
    metric.update_state(None, torch.tensor([0.0, 1.0]))
    before = metric.variables
    assert metric.to("cpu") is metric
    assert all(a is b for a, b in zip(metric.variables, before, strict=True))
    metric.update_state(None, torch.tensor([1.0, 1.0]))
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
