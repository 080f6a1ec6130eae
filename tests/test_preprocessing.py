"""Rescaling and Normalization against Keras."""

import keras
import numpy as np
import pandas
import pytest
import torch
from layer_parity import assert_close, check_layer
from torch.utils.data import DataLoader, TensorDataset

from torchfunc import Model, config
from torchfunc.layers.input_layer import Input
from torchfunc.layers.preprocessing.scaling import Normalization, Rescaling

IMAGES = np.random.default_rng(0).integers(0, 256, size=(2, 4, 5, 3)).astype("uint8")


@pytest.mark.parametrize(
    "kwargs",
    [
        {"scale": 1 / 255},
        {"scale": 2, "offset": -1},
        {"scale": 1 / 127.5, "offset": -1.0},
        {"scale": [0.1, 0.2, 0.3], "offset": [1.0, 2.0, 3.0]},
        {"scale": (0.1, 0.2, 0.3)},
        {"scale": 0.5, "offset": np.array([1.0, 2.0, 3.0])},
    ],
)
@pytest.mark.parametrize("inputs", [(2, 4, 5, 3), (2, 3), IMAGES, IMAGES.astype("int32")])
def test_rescaling(kwargs, inputs):
    ours, _ = check_layer(Rescaling, keras.layers.Rescaling, kwargs, inputs, unknown_axes=(-1,))
    assert ours.state_dict() == {}
    assert ours.weights == []


def test_channels_first():
    scale, offset = [0.1, 0.2, 0.3], [1.0, 2.0, 3.0]
    x = torch.randn(2, 3, 4, 5)
    last = Rescaling(scale, offset)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    try:
        config.set_image_data_format("channels_first")
        keras.config.set_image_data_format("channels_first")
        layer = Rescaling(scale, offset)
        assert_close(layer(x), last, 1e-6, "channels first")
        assert_close(Rescaling(scale)(x), keras.layers.Rescaling(scale)(x), 1e-6, "channels first")
    finally:
        config.set_image_data_format("channels_last")
        keras.config.set_image_data_format("channels_last")


def test_dtype_and_masks():
    assert Rescaling(0.5, dtype="float64")(torch.ones(2, dtype=torch.uint8)).dtype == torch.float64
    x = Input((4, 3), dtype="uint8")
    x.mask = Input((4,), dtype="bool")
    drawn = Rescaling([1.0, 2.0, 3.0])(x)
    assert (drawn.dtype, drawn.mask) == (torch.float32, x.mask)
    assert Rescaling([1.0, 2.0]).double()._scale.dtype == torch.float64


@pytest.mark.parametrize("scale", ["a", None, [[1.0], [1.0, 2.0]]])
def test_errors(scale):
    with pytest.raises(ValueError, match="Rescaling takes a number or a list of numbers for scale"):
        Rescaling(scale)


# Normalization

DATA = np.random.default_rng(1).normal(3.0, 2.0, size=(20, 4, 3)).astype("float32")
SAMPLE = np.random.default_rng(2).normal(size=(2, 4, 3)).astype("float32")
NORMALIZATION = {
    "last axis": {},
    "two axes": {"axis": (1, -1)},
    "middle axis": {"axis": 1},
    "all numbers": {"axis": None},
    "inverted": {"invert": True},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kwargs", NORMALIZATION.values(), ids=NORMALIZATION)
def test_normalization(kwargs, dtype):
    # Keras takes the square root of a float64 variance in single precision.
    ours, theirs = check_layer(
        Normalization, keras.layers.Normalization, kwargs, SAMPLE.astype(dtype), dtype=dtype, atol=1e-6
    )
    assert list(ours.state_dict()) == ["mean", "variance", "count"]
    ours.adapt(DATA)
    theirs.adapt(DATA)
    for mine, reference in zip(ours.get_weights(), theirs.weights, strict=True):
        assert_close(mine, reference.value, 1e-5, "adapted weight")
    assert_close(ours(SAMPLE), theirs(SAMPLE), 1e-5, "adapted")


GIVEN = [
    ({"mean": 3.0, "variance": 2.0}, (2, 4, 3)),
    ({"mean": 3.0, "variance": 2.0, "axis": None}, (2, 4)),
    ({"mean": [1.0, 2.0, 3.0], "variance": [4.0, 0.25, 0.0]}, (2, 4, 3)),
    ({"mean": [1.0, 2.0, 3.0], "variance": [4.0, 0.25, 1.0], "axis": (1, 2), "invert": True}, (2, 4, 3)),
    ({"mean": [[1.0], [2.0]], "variance": [[4.0], [0.25]], "axis": (1, 2)}, (2, 2, 3)),
]


@pytest.mark.parametrize(("kwargs", "shape"), GIVEN)
def test_normalization_with_given_values(kwargs, shape):
    # A variance of 0 divides by epsilon: large numbers, of which single precision keeps its share.
    ours, _ = check_layer(
        Normalization, keras.layers.Normalization, kwargs, shape, unknown_axes=(1,) if len(shape) < 3 else ()
    )
    assert ours.weights == []


SOURCES = {
    "tensor": lambda: torch.from_numpy(DATA),
    "float64": lambda: DATA.astype("float64"),
    "list of batches": lambda: [DATA[:7], DATA[7:8], DATA[8:]],
    "generator of pairs": lambda: ((batch, "target") for batch in (DATA[:13], DATA[13:])),
    "DataLoader": lambda: DataLoader(TensorDataset(torch.from_numpy(DATA)), batch_size=6),
    "DataLoader of pairs": lambda: DataLoader(TensorDataset(torch.from_numpy(DATA), torch.arange(20)), batch_size=6),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("kwargs", [{}, {"axis": (1, 2)}, {"axis": None}])
def test_adapt(source, kwargs):
    layer = Normalization(**kwargs, dtype="float64")
    layer.adapt(source())
    axes = tuple(axis for axis in range(3) if axis not in {each % 3 for each in layer.axis})
    mean, variance = (getattr(DATA.astype("float64"), each)(axes, keepdims=True) for each in ("mean", "var"))
    assert_close(layer.mean.view(mean.shape), mean, 1e-12, "mean")
    assert_close(layer.variance.view(mean.shape), variance, 1e-12, "variance")
    assert_close(layer(DATA), (DATA - mean) / np.sqrt(variance), 1e-12, "outputs")


def test_adapt_to_frames():
    frame = pandas.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4, 5, 6]})
    for data in (frame, [frame[:2], frame[2:]]):
        layer = Normalization()
        layer.adapt(data)
        assert layer.mean.flatten().tolist() == [2, 5]
    with pytest.raises(TypeError, match=r"takes numbers, but DataFrame holds object values\. Encode them first"):
        Normalization().adapt(frame.assign(c=["x", "y", "z"]))


def test_adapt_of_far_numbers_and_again():
    """One pass that added up squares would lose everything in 1e8 ** 2."""
    layer = Normalization(axis=None)
    layer.adapt([1e8 + DATA[:10].astype("float64"), 1e8 + DATA[10:].astype("float64")])
    assert_close(layer.variance.squeeze(), DATA.astype("float64").var(), 1e-6, "variance")
    layer.adapt(DATA)
    assert_close(layer.mean.squeeze(), DATA.mean(), 1e-6, "a second adapt starts anew")


def test_axes_from_the_end_fit_inputs_of_any_rank():
    layer = Normalization()
    layer.adapt(DATA[:, 0])
    expected = (SAMPLE - DATA[:, 0].mean(0)) / DATA[:, 0].std(0)
    assert_close(layer(SAMPLE), expected, 1e-5, "steps, adapted to rows")
    layer.adapt(DATA)
    assert_close(layer.mean[0], DATA.mean((0, 1)), 1e-5, "rows, adapted to steps")
    counted = Normalization(axis=1, name="n")
    counted.adapt(DATA)
    with pytest.raises(ValueError, match=r"Normalization 'n' .*ndim=3, found ndim=4"):
        counted(Input((4, 3, 3)))


def test_normalization_in_a_model():
    layer = Normalization()
    model = Model(x := Input((4, 3), dtype="int32"), layer(x))
    whole = torch.randint(9, (5, 4, 3), dtype=torch.int32)
    assert model.output.dtype == torch.float32
    layer.adapt(whole)
    expected = (whole.double() - whole.double().mean((0, 1))) / whole.double().std((0, 1), correction=0)
    assert_close(model(whole), expected, 1e-6, "model")
    twin = Model.from_config(model.get_config())
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(whole), model(whole))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Normalization(mean=1.0), ValueError, r"both or neither of mean and variance, got 1.0 and None"),
        (lambda: Normalization(mean=[1.0], variance=1.0), ValueError, r"of one shape.*got \(1,\) and \(\)"),
        (lambda: Normalization(axis=None, mean=[1.0], variance=[1.0]), ValueError, r"at most 0 axes"),
        (lambda: Normalization(axis="a"), ValueError, r"for axis, got 'a'"),
        (lambda: Normalization(3, name="n")(Input((4,))), ValueError, r"Normalization 'n' .*axis=\(3,\).*\(None, 4\)"),
        (lambda: Normalization(name="n")(Input((None,))), ValueError, r"axis 1 of the input of Normalization 'n'"),
        (lambda: Normalization(name="n")(Input(())), ValueError, r"axis 0 of the input of Normalization 'n'"),
        (
            lambda: Normalization(mean=[1.0, 2.0], variance=[1.0, 2.0], name="n")(Input((3,))),
            ValueError,
            r"Normalization 'n' .*mean of shape \(2,\).*sizes \(3,\)",
        ),
        (lambda: Normalization(mean=1.0, variance=1.0).adapt(DATA), ValueError, r"nothing to adapt"),
        (lambda: Normalization().adapt([]), ValueError, r"Normalization.adapt\(\) was given no batch"),
        (lambda: Normalization().adapt(DATA[:0]), ValueError, r"without any sample"),
        (lambda: Normalization().adapt(3), TypeError, r"takes an array.*got int"),
        (lambda: Normalization().adapt(["a"]), TypeError, r"batches that are arrays or tensors, got str"),
        (lambda: Normalization().adapt([DATA, DATA[..., :2]]), ValueError, r"axis -1 .*value 3.*\(20, 4, 2\)"),
    ],
)
def test_normalization_mistakes(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(("axis", "shape"), [(-1, (1, 1, 3)), (1, (1, 4, 1)), ((1, 2), (1, 4, 3)), (None, (1, 1, 1))])
def test_the_shape_of_the_mean_is_the_inputs(axis, shape):
    data = np.random.default_rng(0).normal(size=(6, 4, 3)).astype("float32")
    ours, theirs = Normalization(axis=axis), keras.layers.Normalization(axis=axis)
    ours.adapt(data)
    theirs.adapt(data)
    assert tuple(ours.mean.shape) == tuple(theirs.mean.shape) == shape
    assert_close(ours.mean, theirs.mean, 1e-6, "mean")
    assert_close(ours.variance, theirs.variance, 1e-6, "variance")
