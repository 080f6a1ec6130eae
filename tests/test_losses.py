"""Losses against Keras 3 on torch: values, gradients, reductions, weights, masks, configs; and torch's own losses."""

import copy
import functools
import inspect
import json
import pickle

import keras
import numpy as np
import pytest
import torch
from loss_cases import (
    BATCH,
    CASES,
    CLASSES,
    IDS,
    TIME,
    bits,
    classes,
    directions,
    numbers,
    one_hot,
    positive,
    probabilities,
    rng,
    unit,
)
from no_reading import NoReading
from torch.nn import functional as F

from torchfunc import losses, registry

REGRESSION_FUNCTIONS = [
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "huber",
    "log_cosh",
    "cosine_similarity",
    "poisson",
    "kl_divergence",
]
REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", None, "none"]


def both(name, dtype="float64", **arguments):
    """Our class and Keras' class as functions of targets, predictions, weights and mask, giving (loss, gradient).

    In float64, so that 1e-6 tells a wrong formula from rounding.
    """

    def run(loss, y, p, weight=None, mask=None):
        prediction = torch.tensor(p, dtype=getattr(torch, dtype), requires_grad=True)
        if loss.__class__.__module__.startswith("keras") and mask is not None:
            prediction._keras_mask = torch.tensor(mask)
        weight = None if weight is None else torch.tensor(weight)
        extra = {"mask": torch.tensor(mask)} if mask is not None and isinstance(loss, losses.Loss) else {}
        value = loss(torch.tensor(y), prediction, weight, **extra)
        (gradient,) = torch.autograd.grad(value.sum(), prediction)
        return value, gradient

    classes_of_both = getattr(losses, name), getattr(keras.losses, name)
    return [functools.partial(run, loss(**arguments, dtype=dtype)) for loss in classes_of_both]


def close(ours, theirs, tolerance=1e-6):
    for mine, reference in zip(ours, theirs, strict=True):
        # Keras casts every mean to float32.
        torch.testing.assert_close(mine, reference, rtol=tolerance, atol=tolerance, check_dtype=False)


def weights(*shape):
    return rng.uniform(size=shape).astype("float32")


@pytest.mark.parametrize(("name", "arguments", "y", "p"), CASES, ids=IDS)
def test_value_and_gradient(name, arguments, y, p):
    for dtype, tolerance in (("float64", 1e-6), ("float32", 1e-5)):
        ours, theirs = both(name, dtype, **arguments)
        # Keras computes this one in float32 whatever it is told; gamma=80 multiplies the rounding.
        close(ours(y, p), theirs(y, p), 1e-5 if name == "Circle" else tolerance)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("name", "arguments", "y", "p"), CASES, ids=IDS)
def test_reductions_and_weights(name, arguments, y, p, reduction):
    ours, theirs = both(name, **arguments, reduction=reduction)
    tolerance = 1e-5 if name == "Circle" else 1e-6
    close(ours(y, p), theirs(y, p), tolerance)
    unreduced, _ = both(name, **arguments, reduction=None)
    weight = weights(*unreduced(y, p)[0].shape)
    close(ours(y, p, weight), theirs(y, p, weight), tolerance)
    if name != "Circle" and "ignore_class" not in arguments:  # Keras multiplies into the scalar in place, and fails
        close(ours(y, p, np.float32(0.5)), theirs(y, p, np.float32(0.5)))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [None, (BATCH, TIME), (BATCH, 1), (BATCH, TIME, 1)])
@pytest.mark.parametrize("masked", ["none", "some", "all"])
def test_weights_and_masks_by_timestep(reduction, shape, masked):
    y, p = classes(BATCH, TIME), numbers(BATCH, TIME, CLASSES)
    mask = {"none": None, "some": weights(BATCH, TIME) > 0.4, "all": np.zeros((BATCH, TIME), bool)}[masked]
    ours, theirs = both("SparseCategoricalCrossentropy", from_logits=True, reduction=reduction)
    weight = None if shape is None else weights(*shape)
    # With a mask, Keras multiplies it into the weights in place, which fails for smaller weights.
    fails = shape == (BATCH, 1) and mask is not None
    close(ours(y, p, weight, mask), theirs(y, p, np.repeat(weight, TIME, axis=1) if fails else weight, mask))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("mask", [None, np.array([1, 0, 1, 1, 0, 1], bool)])
@pytest.mark.parametrize("shape", [(BATCH,), (BATCH, 1)])
def test_weights_by_sample(reduction, mask, shape):
    y, p, weight = numbers(BATCH, 3), numbers(BATCH, 3), weights(*shape)
    ours, theirs = both("MeanSquaredError", reduction=reduction)
    close(ours(y, p, weight, mask), theirs(y, p, weight, mask))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ignore_class_together_with_mask(reduction):
    y, p = classes(BATCH, TIME), positive(BATCH, TIME, CLASSES)
    ours, theirs = both("SparseCategoricalCrossentropy", ignore_class=2, reduction=reduction)
    mask = weights(BATCH, TIME) > 0.4
    close(ours(y, p, None, mask), theirs(y, p, None, mask))
    close(ours(np.full_like(y, 2), p), theirs(np.full_like(y, 2), p))


def test_one_weight_per_sample_counts_for_all_its_timesteps():
    loss = losses.MeanSquaredError(reduction="mean_with_sample_weight")
    y, p, w = torch.randn(3, 4, 2), torch.randn(3, 4, 2), torch.tensor([0.0, 1.0, 3.0])
    per_sample = (y - p).square().mean((1, 2))
    torch.testing.assert_close(loss(y, p, w), (per_sample * w).sum() / 4)
    mask = torch.ones(3, 4, dtype=torch.bool)
    torch.testing.assert_close(loss(y, p, w, mask), (per_sample * w).sum() / 4)


@pytest.mark.parametrize("name", REGRESSION_FUNCTIONS)
def test_functions(name):
    y, p = probabilities(BATCH, TIME, CLASSES), probabilities(BATCH, TIME, CLASSES)
    expected = getattr(keras.losses, name)(torch.tensor(y), torch.tensor(p))
    torch.testing.assert_close(getattr(losses, name)(y, p), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=f"^{name}: y_true has shape .* compared element by element"):
        getattr(losses, name)(y[:, :, :1], p)


@pytest.mark.parametrize(
    ("name", "y", "p"),
    [
        ("binary_crossentropy", bits(BATCH, 3), unit(BATCH, 3)),
        ("categorical_crossentropy", one_hot(BATCH), positive(BATCH, CLASSES)),
        ("sparse_categorical_crossentropy", classes(BATCH), positive(BATCH, CLASSES)),
        ("sparse_categorical_crossentropy", classes(1), positive(CLASSES)),
    ],
)
def test_crossentropy_functions(name, y, p):
    for arguments in ({}, {"from_logits": True}, {"ignore_class": 1} if "sparse" in name else {"label_smoothing": 0.3}):
        expected = getattr(keras.losses, name)(torch.tensor(y), torch.tensor(p), **arguments)
        torch.testing.assert_close(getattr(losses, name)(y, p, **arguments), expected, rtol=1e-5, atol=1e-5)


def test_nothing_waits_for_the_device():
    for name, arguments, y, p in CASES:
        loss, y, p = getattr(losses, name)(**arguments), torch.tensor(y), torch.tensor(p, requires_grad=True)
        if name == "CTC":
            continue  # torch's kernel reads the lengths
        weight = torch.rand(getattr(losses, name)(**arguments, reduction=None)(y, p).shape)
        with NoReading():
            torch.autograd.grad(loss(y, p) + loss(y, p, weight, weight > 0.4), p)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    for name, arguments, y, p in CASES:
        loss, half = getattr(losses, name)(**arguments), torch.tensor(p).to(dtype)
        found = loss(torch.tensor(y), half)
        torch.testing.assert_close(found, loss(torch.tensor(y), half.float()))
        assert found.dtype is torch.float32


def test_integers_and_bools_are_taken():
    y, p = torch.tensor(bits(BATCH, 3)), torch.tensor(unit(BATCH, 3))
    for cls in (losses.Hinge, losses.BinaryFocalCrossentropy, losses.Tversky, losses.MeanSquaredError):
        for dtype in (torch.bool, torch.uint8, torch.int64):
            torch.testing.assert_close(cls()(y.to(dtype), p), cls()(y, p))
    index, embedding = torch.tensor(classes(BATCH)), torch.tensor(directions(BATCH, 3))
    torch.testing.assert_close(losses.Circle()(index.float(), embedding), losses.Circle()(index, embedding))


def test_lists_and_arrays_are_taken():
    assert losses.MeanSquaredError()([[0, 1], [0, 0]], [[1, 1], [1, 0]]).item() == 0.5
    assert losses.mean_absolute_error(np.array([[0.0, 1.0]]), [[1, 1]]).tolist() == [0.5]
    assert losses.MeanSquaredError()(np.zeros((2, 1)), np.ones((2, 1))).dtype is torch.float32
    weighted = losses.MeanSquaredError()([[0.0], [2.0]], [[1.0], [2.0]], sample_weight=[3, 1], mask=[True, False])
    assert weighted.item() == 3.0


def test_dtypes():
    y, p = torch.randn(4, 3), torch.randn(4, 3)
    assert losses.MeanSquaredError()(y.double(), p.double()).dtype is torch.float64
    half = losses.MeanSquaredError()(y, p.bfloat16())
    torch.testing.assert_close(half, F.mse_loss(p.bfloat16().float(), y))
    assert losses.MeanSquaredError(dtype="float32")(y, p.double()).dtype is torch.float32
    assert losses.MeanSquaredError(dtype="float64").get_config()["dtype"] == "float64"


def test_class_indices_are_not_rounded_by_the_dtype():
    seen = {}

    class Recorder(losses.Loss):
        def call(self, y_true, y_pred):
            seen.update(y_true=y_true)
            return y_pred.mean(-1)

    index = 2**24 + 1  # not a float32
    Recorder()(torch.full((2, 1), index, dtype=torch.int32), torch.zeros(2, 3))
    assert seen["y_true"].dtype is torch.int64
    assert seen["y_true"][0, 0] == index
    Recorder()(torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3))
    assert seen["y_true"].dtype is torch.float32


def test_nan_predictions_give_a_nan_loss():
    assert losses.BinaryCrossentropy()(torch.ones(2, 1), torch.full((2, 1), torch.nan)).isnan()


def test_empty_batches_give_zero():
    for loss in (losses.MeanSquaredError(), losses.MeanAbsolutePercentageError()):
        assert loss(torch.zeros(0, 3), torch.zeros(0, 3)).item() == 0.0


@pytest.mark.parametrize(("y", "p"), [((32,), (32, 10)), ((32, 1), (32, 10)), ((32, 10), (32,)), ((8, 4), (8, 5))])
@pytest.mark.parametrize("name", ["MeanSquaredError", "BinaryCrossentropy", "KLDivergence", "CategoricalCrossentropy"])
def test_shapes_that_would_broadcast_are_errors(name, y, p):
    with pytest.raises(ValueError, match="compared element by element") as error:
        getattr(losses, name)()(torch.zeros(y), torch.zeros(p))
    function = next(f for f, c in losses.catalogue.CLASS_OF_FUNCTION.items() if c.__name__ == name)
    assert function.__name__ in str(error.value)
    assert str(y) in str(error.value)
    assert str(p) in str(error.value)
    assert ("class indices" in str(error.value)) == (np.prod(y) < np.prod(p))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: losses.SparseCategoricalCrossentropy()(torch.zeros(4, 3), torch.zeros(4, 3)),
            r"y_true has shape \(4, 3\) and y_pred has shape \(4, 3\) .* one-hot targets use 'categorical_cross",
        ),
        (lambda: losses.CategoricalCrossentropy()(torch.zeros(4, 1), torch.zeros(4, 1)), "use 'binary_crossentropy'"),
        (
            lambda: losses.MeanSquaredError(reduction="average"),
            "reduction is one of 'sum_over_batch_size', .* 'average'",
        ),
        (
            lambda: losses.MeanSquaredError()(torch.zeros(4, 1), torch.zeros(4, 1), torch.ones(3)),
            r"mean_squared_error: sample_weight .* has shape \(3,\), .* shape \(4,\) to weigh",
        ),
        (
            lambda: losses.MeanSquaredError()(torch.zeros(4, 1), torch.zeros(4, 1), torch.ones(4, 2)),
            r"has shape \(4, 2\), .* shape \(4,\) to weigh",
        ),
        (
            lambda: losses.get("mean_sqared_error"),
            "no loss called 'mean_sqared_error'. Did you mean 'mean_squared_error'",
        ),
    ],
)
def test_error_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_custom_losses_must_be_complete():
    with pytest.raises(NotImplementedError, match="Loss has to define call"):
        losses.Loss()(torch.zeros(1), torch.zeros(1))
    with pytest.raises(TypeError, match=r"returned float, a loss is a torch\.Tensor"):
        losses.as_loss(lambda y, p: 0.5, name="half")(torch.zeros(1), torch.zeros(1))


def test_subclasses_may_redefine_call():
    class Doubled(losses.MeanSquaredError):
        def call(self, y_true, y_pred):
            return 2 * super().call(y_true, y_pred)

    y, p = torch.randn(4, 2), torch.randn(4, 2)
    torch.testing.assert_close(Doubled()(y, p), 2 * F.mse_loss(p, y))
    assert losses.Loss().name == "loss"


def assert_same_json(first, second):
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(second))


@pytest.mark.parametrize(("name", "arguments", "y", "p"), CASES, ids=IDS)
def test_configs_are_keras(name, arguments, y, p):
    ours, theirs = getattr(losses, name)(**arguments), getattr(keras.losses, name)(**arguments)
    lost_by_keras = {key: value for key, value in arguments.items() if key not in theirs.get_config()}
    assert ours.get_config() == {**theirs.get_config(), **lost_by_keras}
    config = {**keras.losses.serialize(theirs)}
    assert losses.serialize(ours) == {**config, "config": ours.get_config()}
    again = losses.deserialize(losses.serialize(ours))
    assert type(again) is type(ours)
    assert_same_json(again.get_config(), ours.get_config())
    torch.testing.assert_close(again(y, p), ours(y, p))
    assert losses.get(config).get_config() == getattr(losses, name)(**theirs.get_config()).get_config()
    if name != "CategoricalGeneralizedCrossEntropy":  # which Keras exports, but cannot read back
        assert_same_json(keras.losses.deserialize(losses.serialize(ours)).get_config(), theirs.get_config())
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), type(ours).from_config(ours.get_config())):
        torch.testing.assert_close(twin(y, p), ours(y, p))


def test_signatures_are_keras():
    for name, reference in vars(keras.losses).items():
        if name[0] == "_" or name in ("get", "serialize", "deserialize"):
            continue
        pair = [getattr(losses, name), reference]
        ours, theirs = (inspect.signature(each.__init__ if isinstance(each, type) else each) for each in pair)
        given, expected = ([(p.name, p.default) for p in each.parameters.values()] for each in (ours, theirs))
        assert given == expected, name


def test_get_knows_kerass_names():
    for name, reference in keras.src.losses.ALL_OBJECTS_DICT.items():
        if name not in ("Loss", "LossFunctionWrapper"):  # which take no part without arguments
            ours, theirs = losses.get(name), keras.losses.get(name)
            assert getattr(ours, "__name__", type(ours).__name__) == reference.__name__
            assert isinstance(theirs, keras.Loss) == isinstance(ours, losses.Loss)
    for name in vars(keras.losses):
        assert name.startswith("_") or hasattr(losses, name), name
    for cls in losses.catalogue.CLASS_OF_FUNCTION.values():
        assert losses.get(cls).get_config() == cls().get_config()
    assert losses.get(None) is None
    assert losses.get({"class_name": "Huber", "config": {"delta": 2.0}})._fn_kwargs == {"delta": 2.0}
    loss = losses.MeanSquaredError()
    assert losses.get(loss) is loss


def weighted_error(y_true, y_pred, power=2):
    return ((y_true - y_pred).abs() ** power).mean(-1)


def test_wrapped_functions_and_their_configs():
    loss = losses.LossFunctionWrapper(losses.huber, name="h", delta=2.0)
    reference = keras.src.losses.LossFunctionWrapper(keras.losses.huber, name="h", delta=2.0)
    assert loss.get_config() == reference.get_config()
    again = losses.deserialize(keras.losses.serialize(reference))
    assert again.get_config() == loss.get_config()

    custom = losses.LossFunctionWrapper(weighted_error, power=3)
    assert custom.name == "loss_function_wrapper"
    config = losses.serialize(custom)
    with pytest.raises(ValueError, match="custom_objects"):
        losses.deserialize(config)
    again = losses.deserialize(config, {"weighted_error": weighted_error})
    assert again.fn is weighted_error
    y, p = torch.randn(5), torch.randn(5, 1)
    torch.testing.assert_close(again(y, p), (y - p[:, 0]).abs().pow(3).mean())


def test_a_registered_loss_is_found():
    @registry.register_serializable(package="test_losses")
    class Mine(losses.Loss):
        def call(self, y_true, y_pred):
            return (y_true - y_pred).abs().mean(-1)

    assert type(losses.deserialize(losses.serialize(Mine(name="mine")))) is Mine
    assert losses.get("test_losses>Mine").name == "mine"


@pytest.mark.parametrize(("name", "arguments", "y", "p"), CASES, ids=IDS)
def test_on_logits(name, arguments, y, p):
    loss = getattr(losses, name)(**arguments, name="mine", reduction="sum", dtype="float64")
    activation = {"B": "sigmoid", "C": "softmax", "S": "softmax"}[name[0]] if "ropy" in name else None
    if activation is None or name == "CategoricalGeneralizedCrossEntropy" or loss.from_logits:
        assert loss.on_logits() is None
        return
    axis = arguments.get("axis", -1)
    logits = torch.tensor(2 * numbers(*p.shape), dtype=torch.float64, requires_grad=True)
    y = torch.tensor(y)
    probabilities = logits.sigmoid() if activation == "sigmoid" else logits.softmax(axis)
    twin = loss.on_logits(activation, axis)
    assert type(twin) is type(loss)
    assert (loss.from_logits, twin.from_logits, twin.name, twin.reduction) == (False, True, "mine", "sum")
    assert twin.get_config() == {**loss.get_config(), "from_logits": True}
    weight = torch.rand(p.shape[0], dtype=torch.float64)
    weight = weight if name != "BinaryCrossentropy" or "axis" not in arguments else None
    for extra in ([], [weight]):
        found, expected = twin(y, logits, *extra), loss(y, probabilities, *extra)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        (gradient,), (reference,) = (torch.autograd.grad(v, logits, retain_graph=True) for v in (found, expected))
        torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-6)


def test_on_logits_only_where_it_is_the_same_loss():
    class Own(losses.BinaryCrossentropy):
        def call(self, y_true, y_pred):
            return (y_true - y_pred).abs().mean(-1)

    assert losses.BinaryCrossentropy().on_logits("softmax") is None
    assert losses.SparseCategoricalCrossentropy().on_logits("sigmoid") is None
    assert losses.SparseCategoricalCrossentropy().on_logits("softmax", axis=1) is None
    assert losses.SparseCategoricalCrossentropy().on_logits("softmax", axis=1, ndim=2) is not None
    assert losses.CategoricalCrossentropy(axis=1).on_logits("softmax", axis=-1, ndim=3) is None
    assert Own().on_logits() is None
    assert losses.as_loss(F.cross_entropy).on_logits() is None
    saturated = losses.BinaryCrossentropy().on_logits()(torch.zeros(1, 1), torch.full((1, 1), 50.0))
    assert saturated.item() == 50.0  # the probability form stops at -log(epsilon), 16.1


# Several to a graph, two of them weighed, since tracing has its price.
# torch's CTC kernel has a workspace of a size that depends on data.
TRACED = [case for case in CASES if case[0] != "CTC"]
PER_GRAPH = 8


@pytest.mark.parametrize("first", range(0, len(TRACED), PER_GRAPH))
def test_fullgraph_compile(first):
    cases = [
        (name, arguments, torch.tensor(y), torch.tensor(p)) for name, arguments, y, p in TRACED[first:][:PER_GRAPH]
    ]
    made = [getattr(losses, name)(**arguments) for name, arguments, *_ in cases]
    shapes = [getattr(losses, name)(**arguments, reduction=None)(y, p).shape for name, arguments, y, p in cases]
    data = [(y, p, torch.rand(shape)) for (*_, y, p), shape in zip(cases, shapes, strict=True)]

    def step(data):
        plain = [loss(y, p) for loss, (y, p, _) in zip(made, data, strict=True)]
        return plain + [loss(y, p, w, w > 0.3) for loss, (y, p, w) in zip(made[:2], data, strict=False)]

    torch.compiler.reset()
    for mine, reference in zip(torch.compile(step, fullgraph=True, backend="eager")(data), step(data), strict=True):
        torch.testing.assert_close(mine, reference)


# Where Keras 3.15 differs from its documentation


def test_tversky_weighs_false_positives_with_alpha():
    y, p = np.array([1.0, 1, 1, 0, 0, 0, 0, 0]), np.array([1.0, 0, 0, 1, 0, 0, 0, 0])
    # One right, one false positive, two false negatives.
    assert float(losses.Tversky(alpha=0.2, beta=0.8)(y, p)) == pytest.approx(1 - 1 / (1 + 0.2 * 1 + 0.8 * 2), abs=1e-6)


@pytest.mark.parametrize("axis", [1, -2])
def test_smoothed_labels_are_spread_over_the_classes(axis):
    rng = np.random.default_rng(0)
    p = rng.uniform(0.1, 1, (4, 3, 5))
    p /= p.sum(1, keepdims=True)
    y = np.moveaxis(np.eye(3)[rng.integers(0, 3, (4, 5))], -1, 1)
    smooth = y * 0.9 + 0.1 / 3
    expected = -(smooth * np.log(p)).sum(1).mean()
    assert float(losses.CategoricalCrossentropy(label_smoothing=0.1, axis=axis)(y, p)) == pytest.approx(
        expected, rel=1e-5
    )
    focal = -(0.25 * (1 - p) ** 2 * smooth * np.log(p)).sum(1).mean()
    found = losses.CategoricalFocalCrossentropy(label_smoothing=0.1, axis=axis)(y, p)
    assert float(found) == pytest.approx(focal, rel=1e-5)
