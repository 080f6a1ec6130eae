"""Pooling layers against Keras, and where Keras' torch backend departs from Keras, against a closed form."""

import keras
import numpy as np
import pytest
import torch
from layer_parity import assert_close, check_layer

from torchfunc import layers
from torchfunc.layers.input_layer import Input
from torchfunc.layers.pooling.global_pooling import GlobalAveragePooling1D
from torchfunc.layers.pooling.windowed import (
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    MaxPooling1D,
    MaxPooling2D,
)

FORMATS = ["channels_last", "channels_first"]
SHAPES = {1: (2, 7, 3), 2: (2, 7, 8, 3), 3: (2, 4, 7, 6, 3)}


def arguments(rank: int, data_format: str) -> dict:
    """The input's shape and its spatial axes."""
    shape = SHAPES[rank]
    if data_format == "channels_first":
        return {"inputs": (shape[0], shape[-1], *shape[1:-1]), "unknown_axes": range(2, rank + 2)}
    return {"inputs": shape, "unknown_axes": range(1, rank + 1)}


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", ["MaxPooling", "AveragePooling"])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"pool_size": 2},
        {"pool_size": 3, "strides": 2},
        {"pool_size": 2, "strides": 3},
        # Where all padding is symmetric, or one window holds one row only, Keras' backends agree on averages.
        {"pool_size": 3, "strides": 1, "padding": "same"},
        {"pool_size": 2, "padding": "same"},
        {"pool_size": 1, "strides": 2, "padding": "same"},
    ],
)
def test_pooling(name: str, rank: int, kwargs: dict, data_format: str) -> None:
    name = f"{name}{rank}D"
    kwargs = {**kwargs, "data_format": data_format}
    check_layer(getattr(layers, name), getattr(keras.layers, name), kwargs, **arguments(rank, data_format))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    "kwargs",
    [
        {"pool_size": (2, 3), "strides": 1, "padding": "same"},
        {"pool_size": (4, 3), "strides": (1, 2), "padding": "same"},
        {"pool_size": [3, 5], "strides": [2, 3], "padding": "same", "name": "pool"},
        {"pool_size": (3, 1), "strides": (2, 1)},
    ],
)
def test_max_pooling_of_different_axes(kwargs: dict, data_format: str) -> None:
    kwargs = {**kwargs, "data_format": data_format}
    check_layer(MaxPooling2D, keras.layers.MaxPooling2D, kwargs, **arguments(2, data_format))


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("window", [1, 2, 3, 4, 5])
def test_same_windows(window: int, size: int) -> None:
    """Every way an odd padding can fall: the windows start `before` positions early and leave out what is outside."""
    for stride in (1, 2, 3, 6):
        kwargs = {"pool_size": window, "strides": stride, "padding": "same"}
        check_layer(MaxPooling1D, keras.layers.MaxPooling1D, kwargs, (1, size, 2), fake_run=False)
        inputs = torch.randn(1, size, 2, dtype=torch.float64, requires_grad=True)
        actual = AveragePooling1D(**kwargs)(inputs)
        outputs = -(-size // stride)
        before = max(0, (outputs - 1) * stride + window - size) // 2
        starts = [step * stride - before for step in range(outputs)]
        expected = torch.stack([inputs[:, max(0, start) : start + window].mean(1) for start in starts], 1)
        assert_close(actual, expected, 1e-12, f"average, stride {stride}")
        direction = torch.randn_like(actual)
        mine, reference = (torch.autograd.grad(each, inputs, direction)[0] for each in (actual, expected))
        assert_close(mine, reference, 1e-12, f"gradient of the average, stride {stride}")


@pytest.mark.parametrize(("layer_cls", "rank"), [(AveragePooling2D, 2), (AveragePooling3D, 3)])
@pytest.mark.parametrize("kwargs", [{"pool_size": 3, "strides": 2}, {"pool_size": 2, "strides": 1}])
# (Also smaller than a window, on some axes or all.)
@pytest.mark.parametrize("sizes", [(5, 8, 7), (3, 2, 2), (1, 1, 1)])
def test_same_average_leaves_out_padding(layer_cls: type, rank: int, kwargs: dict, sizes: tuple) -> None:
    """Keras' numpy reference: NaN around the input, and nanmean. (Its torch backend repeats the edge instead.)"""
    inputs = np.random.default_rng(0).normal(size=(2, *sizes[:rank], 3))
    window, stride = kwargs["pool_size"], kwargs["strides"]
    pairs = []
    for size in inputs.shape[1:-1]:
        total = max(0, (-(-size // stride) - 1) * stride + window - size)
        pairs.append((total // 2, total - total // 2))
    padded = np.pad(inputs, [(0, 0), *pairs, (0, 0)], constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (window,) * rank, axis=tuple(range(1, rank + 1)))
    windows = windows[(slice(None), *[slice(None, None, stride)] * rank)]
    expected = np.nanmean(windows, axis=tuple(range(-rank, 0)))
    assert_close(layer_cls(**kwargs, padding="same")(torch.from_numpy(inputs)), expected, 1e-12, "average")


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", ["AdaptiveMaxPooling", "AdaptiveAveragePooling"])
@pytest.mark.parametrize("output_size", [1, 3, "each"])
def test_adaptive_pooling(name: str, rank: int, output_size: object, data_format: str) -> None:
    """Sizes that divide the input's, that do not, and a larger one."""
    name = f"{name}{rank}D"
    # Keras takes one size for all axes only as a tuple.
    sizes = (3, 5, 9)[:rank] if output_size == "each" else (output_size,) * rank
    kwargs = {"output_size": sizes, "data_format": data_format}
    check_layer(getattr(layers, name), getattr(keras.layers, name), kwargs, **arguments(rank, data_format))
    if output_size != "each":
        assert getattr(layers, name)(output_size).output_size == sizes


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", ["GlobalMaxPooling", "GlobalAveragePooling"])
def test_global_pooling(name: str, rank: int, data_format: str, keepdims: bool) -> None:
    name = f"{name}{rank}D"
    kwargs = {"data_format": data_format, "keepdims": keepdims}
    check_layer(getattr(layers, name), getattr(keras.layers, name), kwargs, **arguments(rank, data_format))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("data_format", FORMATS)
def test_masked_average(data_format: str, keepdims: bool) -> None:
    mask = np.array([[True, False, True, True, False, False, False], [True] * 7])
    kwargs = {"data_format": data_format, "keepdims": keepdims}
    check_layer(
        GlobalAveragePooling1D,
        keras.layers.GlobalAveragePooling1D,
        kwargs,
        call_kwargs={"mask": mask},
        **arguments(1, data_format),
    )
    ours = GlobalAveragePooling1D(**kwargs)
    assert ours.supports_masking
    assert ours.compute_mask(None, torch.from_numpy(mask)) is None


@pytest.mark.parametrize("rank", [1, 2])
def test_averages_of_integers_are_floats(rank: int) -> None:
    name = f"GlobalAveragePooling{rank}D"
    inputs = np.arange(np.prod(SHAPES[rank])).reshape(SHAPES[rank])
    ours, theirs = getattr(layers, name)(), getattr(keras.layers, name)()
    assert_close(ours(torch.from_numpy(inputs)), theirs(torch.from_numpy(inputs)), 1e-6, name)
    assert ours(Input(inputs.shape[1:], dtype="int64")).dtype == torch.float32


def test_float64_is_kept() -> None:
    assert GlobalAveragePooling1D()(Input((4, 3), dtype="float64")).dtype == torch.float64


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (MaxPooling2D(3, strides=2, padding="same"), (3, 8, 8, 3)),
        (AveragePooling2D(2, strides=1, padding="same"), (3, 8, 8, 3)),
        (GlobalAveragePooling1D(), (3, 8, 3)),
    ],
)
def test_export_with_any_batch(layer: torch.nn.Module, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape)
    expected = layer(inputs)
    exported = torch.export.export(layer, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    assert_close(exported(inputs), expected, 1e-6, "exported")
    assert exported(torch.cat([inputs, inputs])).shape[0] == 6
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert_close(compiled(inputs), expected, 1e-6, "compiled")


def test_channels_last_memory_is_kept() -> None:
    inputs = torch.randn(2, 8, 8, 3)
    for layer in (MaxPooling2D(2), AveragePooling2D(3, strides=2, padding="same")):
        assert layer(inputs).is_contiguous()


@pytest.mark.parametrize("name", ["Max", "Average"])
def test_short_names(name: str) -> None:
    short = {"Max": "Max", "Average": "Avg"}[name]
    for rank in (1, 2, 3):
        assert getattr(layers, f"{short}Pool{rank}D") is getattr(layers, f"{name}Pooling{rank}D")
        assert getattr(layers, f"Global{short}Pool{rank}D") is getattr(layers, f"Global{name}Pooling{rank}D")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxPooling2D((2, 2, 2)), r"MaxPooling2D takes .* 2 positive integers for pool_size, got \(2, 2, 2\)"),
        (lambda: MaxPooling2D(0), r"for pool_size, got 0"),
        (lambda: AveragePooling1D(2, strides=0), r"AveragePooling1D takes .* for strides, got 0"),
        (lambda: MaxPooling1D(2, padding="causal"), r"MaxPooling1D takes one of 'valid', 'same' for padding"),
        (lambda: MaxPooling2D(2, name="p")(Input((8, 8))), r"MaxPooling2D 'p' .*found ndim=3"),
        (lambda: MaxPooling2D(9, name="p")(Input((8, 8, 3))), r"MaxPooling2D 'p' .*cannot be called on .* 9 .* only 8"),
        (lambda: MaxPooling2D(9, name="p")(torch.ones(1, 8, 8, 3)), r"MaxPooling2D 'p' .*cannot be called on \(1, 8"),
        (lambda: layers.AdaptiveMaxPooling2D((2, 2, 2)), r"AdaptiveMaxPooling2D takes .* output_size, got \(2, 2, 2\)"),
        (lambda: layers.AdaptiveAveragePooling1D(0), r"AdaptiveAveragePooling1D takes .* for output_size, got 0"),
        (lambda: layers.AdaptiveMaxPooling1D(2, name="p")(Input((8,))), r"AdaptiveMaxPooling1D 'p' .*found ndim=2"),
        (lambda: GlobalAveragePooling1D(name="p")(Input((8,))), r"GlobalAveragePooling1D 'p' .*found ndim=2"),
    ],
)
def test_mistakes(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
