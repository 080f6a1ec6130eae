"""Shapes of random layers on random inputs: symbolic, eager and Keras' `compute_output_shape` say the same.

An input that Keras finds too small is one that ours refuses when it is called on the symbolic tensor.
"""

import keras
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfunc import layers
from torchfunc.layers import Input

bounded = settings(max_examples=40, derandomize=True, deadline=None, database=None)
ranks = st.integers(1, 3)


@st.composite
def inputs(draw, ranks=ranks, largest=9):
    """The rank, the data format and a shape with the batch axis."""
    rank = draw(ranks)
    data_format = draw(st.sampled_from(["channels_last", "channels_first"]))
    positions = tuple(draw(st.integers(1, largest)) for _ in range(rank))
    channels = (draw(st.integers(1, 3)),)
    inner = (*positions, *channels) if data_format == "channels_last" else (*channels, *positions)
    return rank, data_format, (draw(st.integers(1, 2)), *inner)


def each(draw, rank, smallest, largest):
    """An integer for all axes, or one for each."""
    sizes = st.integers(smallest, largest)
    return draw(st.one_of(sizes, st.tuples(*[sizes] * rank)))


def check(name, kwargs, shape, data_format=None):
    """The three agree; with the spatial sizes unknown, only what Keras knows is known."""
    kwargs = kwargs if data_format is None else {**kwargs, "data_format": data_format}
    ours, theirs = getattr(layers, name)(**kwargs), getattr(keras.layers, name)(**kwargs)
    try:
        expected = tuple(theirs.compute_output_shape(shape))
    except ValueError:
        expected = None
    if expected is None or min(expected) <= 0:
        with pytest.raises(ValueError, match=rf"{name} .*cannot be called on"):
            ours(Input(batch_shape=shape))
        return
    assert ours(Input(batch_shape=shape)).shape == expected
    assert ours(Input(shape[1:])).shape == (None, *expected[1:])
    with torch.no_grad():
        assert tuple(ours(torch.zeros(shape)).shape) == expected
    channels = shape[-1] if data_format in (None, "channels_last") else shape[1]
    unknown = [None] * len(shape)
    unknown[-1 if data_format in (None, "channels_last") else 1] = channels
    assert ours(Input(batch_shape=unknown)).shape == tuple(theirs.compute_output_shape(tuple(unknown)))


@st.composite
def windows(draw, kinds, ranks=ranks, paddings=("valid", "same")):
    """A convolution of one of these kinds, and an input."""
    rank, data_format, shape = draw(inputs(ranks))
    strides = each(draw, rank, 1, 3)
    dilation = each(draw, rank, 1, 3) if strides in (1, (1,) * rank) else 1
    kwargs = {
        "kernel_size": each(draw, rank, 1, 4),
        "strides": strides,
        "dilation_rate": dilation,
        "padding": draw(st.sampled_from(["causal", *paddings] if rank == 1 and "Conv" in kinds else paddings)),
    }
    return draw(st.sampled_from(kinds)), rank, kwargs, shape, data_format


@bounded
@given(windows(["Conv"]), st.integers(1, 3))
def test_convolution(case, filters):
    kind, rank, kwargs, shape, data_format = case
    check(f"{kind}{rank}D", {**kwargs, "filters": filters}, shape, data_format)


@bounded
@given(windows(["DepthwiseConv", "SeparableConv"], st.integers(1, 2)), st.integers(1, 3))
def test_depthwise_and_separable_convolution(case, multiplier):
    kind, rank, kwargs, shape, data_format = case
    kwargs = {**kwargs, "depth_multiplier": multiplier, **({"filters": 2} if kind == "SeparableConv" else {})}
    check(f"{kind}{rank}D", kwargs, shape, data_format)


@bounded
@given(windows(["Conv{}DTranspose"]), st.data())
def test_transposed_convolution(case, data):
    kind, rank, kwargs, shape, data_format = case
    strides = kwargs["strides"] if isinstance(kwargs["strides"], tuple) else (kwargs["strides"],) * rank
    extra = data.draw(st.one_of(st.none(), st.tuples(*(st.integers(0, stride - 1) for stride in strides))))
    check(kind.format(rank), {**kwargs, "filters": 2, "output_padding": extra}, shape, data_format)


@bounded
@given(st.data(), inputs())
def test_pooling(data, case):
    rank, data_format, shape = case
    kwargs = {
        "pool_size": each(data.draw, rank, 1, 4),
        "strides": data.draw(st.one_of(st.none(), st.integers(1, 3))),
        "padding": data.draw(st.sampled_from(["valid", "same"])),
    }
    check(f"{data.draw(st.sampled_from(['Max', 'Average']))}Pooling{rank}D", kwargs, shape, data_format)


@bounded
@given(st.data(), inputs())
def test_adaptive_and_global_pooling(data, case):
    rank, data_format, shape = case
    kind = data.draw(st.sampled_from(["Max", "Average"]))
    sizes = data.draw(st.tuples(*[st.integers(1, 5)] * rank))
    check(f"Adaptive{kind}Pooling{rank}D", {"output_size": sizes}, shape, data_format)
    check(f"Global{kind}Pooling{rank}D", {"keepdims": data.draw(st.booleans())}, shape, data_format)


@st.composite
def margins(draw, rank):
    """Every form in which margins are written."""
    sizes = st.integers(0, 3)
    pair = st.tuples(sizes, sizes)
    if rank == 1:
        return draw(st.one_of(sizes, pair))
    return draw(st.one_of(sizes, st.tuples(*[sizes] * rank), st.tuples(*[pair] * rank)))


@bounded
@given(st.data(), inputs())
def test_cropping_padding_and_up_sampling(data, case):
    rank, data_format, shape = case
    # Over steps, Keras' Cropping and UpSampling know channels_last only.
    if rank == 1:
        formats = {"ZeroPadding": data_format, "Cropping": None, "UpSampling": None}
        formats = {"ZeroPadding": data_format} if data_format == "channels_first" else formats
    else:
        formats = dict.fromkeys(("Cropping", "ZeroPadding", "UpSampling"), data_format)
    arguments = {
        "Cropping": {"cropping": data.draw(margins(rank))},
        "ZeroPadding": {"padding": data.draw(margins(rank))},
        "UpSampling": {"size": data.draw(st.integers(1, 3)) if rank == 1 else each(data.draw, rank, 1, 3)},
    }
    for name, written in formats.items():
        check(f"{name}{rank}D", arguments[name], shape, written)


@bounded
@given(st.data())
def test_reshape(data):
    sizes = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4))
    target = data.draw(st.permutations(sizes))
    if data.draw(st.booleans()):
        target[data.draw(st.integers(0, len(target) - 1))] = -1
    layer, reference = layers.Reshape(tuple(target)), keras.layers.Reshape(tuple(target))
    shape = (2, *sizes)
    expected = tuple(reference(torch.zeros(shape)).shape)
    assert layer(Input(sizes)).shape == (None, *expected[1:])
    assert tuple(layer(torch.zeros(shape)).shape) == expected
    known = layer(Input((None, *sizes[1:]))).shape
    assert known == tuple(None if size == -1 else size for size in (-1, *target))
