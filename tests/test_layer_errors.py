"""Wrong inputs and arguments, layer by layer: an error when the layer is made or called on a symbolic tensor.

Each message names the layer and the argument or the shapes. What is special to one layer is in its own test file.
"""

import pytest
import torch
from layer_examples import EXAMPLES

from torchfunc import layers
from torchfunc.layers import Input

ROW, STEPS, IMAGE, VOLUME = (3,), (7, 3), (6, 7, 3), (4, 5, 6, 3)


def kinds(*names):
    return [name for name in EXAMPLES if name.startswith(names)]


def call(name, shape, **kwargs):
    return getattr(layers, name)(**{**EXAMPLES[name][0], **kwargs, "name": "here"})(Input(shape))


# A ConvLSTM's input has a time axis, too.
SPATIAL = [name for name in EXAMPLES if (name[-2:] in ("1D", "2D", "3D") or "Transpose" in name) and "LSTM" not in name]


def spatial_rank(name):
    return int(next(letter for letter in name if letter.isdigit()))


@pytest.mark.parametrize("name", SPATIAL)
@pytest.mark.parametrize("more", [-1, 1])
def test_rank(name, more):
    rank = spatial_rank(name)
    shape = (5,) * (rank + more) + (3,)
    with pytest.raises(ValueError, match=rf"{name} 'here'.*ndim={rank + 2}, found ndim={rank + 2 + more}") as caught:
        call(name, shape)
    assert str((None, *shape)) in str(caught.value)


OTHER_RANKS = {
    "Dense": ((), "min_ndim=2"),
    "RepeatVector": (STEPS, "ndim=2"),
    "Permute": (ROW, "ndim=3"),
    "Masking": ((), "min_ndim=2"),
    "Resizing": (ROW, "min_ndim=3"),
    "CenterCrop": ((2, 3, 4, 5), "max_ndim=4"),
    "LSTM": (ROW, "ndim=3"),
    "GRU": (ROW, "ndim=3"),
    "SimpleRNN": (ROW, "ndim=3"),
    "ConvLSTM2D": (IMAGE, "ndim=5"),
    "EinsumDense": ((), "min_ndim=2"),
}


@pytest.mark.parametrize("name", OTHER_RANKS)
def test_rank_of_others(name):
    shape, expected = OTHER_RANKS[name]
    with pytest.raises(ValueError, match=rf"{name} 'here'.*{expected}, found ndim={len(shape) + 1}") as caught:
        call(name, shape)
    assert str((None, *shape)) in str(caught.value)


WITH_CHANNELS = kinds(
    "Dense", "LSTM", "GRU", "SimpleRNN", "BatchNorm", "Normalization", "Conv", "Depthwise", "Separable"
)


@pytest.mark.parametrize("name", WITH_CHANNELS)
def test_another_number_of_channels_than_built_for(name):
    kwargs, shape = EXAMPLES[name]
    layer = getattr(layers, name)(**kwargs, name="here")
    layer(Input(shape[1:]))
    with pytest.raises(ValueError, match=rf"{name} 'here'.*axis -?\d.* value {shape[-1]}.*, 5\)") as caught:
        layer(Input((*shape[1:-1], 5)))
    assert str((None, *shape[1:-1], 5)) in str(caught.value)


@pytest.mark.parametrize("name", WITH_CHANNELS)
def test_unknown_channels(name):
    shape = (*EXAMPLES[name][1][1:-1], None)
    with pytest.raises(ValueError, match=rf"{name} 'here'.*") as caught:
        call(name, shape)
    assert str((None, *shape)) in str(caught.value)


# What would come out has no positions: (layer, arguments, input, what the message says).
EMPTY = [
    *((f"{kind}{rank}D", {"kernel_size": 9, "padding": "valid"}, "9")
      for kind, ranks in (("Conv", (1, 2, 3)), ("DepthwiseConv", (1, 2)), ("SeparableConv", (1, 2))) for rank in ranks),
    *((f"{kind}Pooling{rank}D", {"pool_size": 9, "padding": "valid"}, "9")
      for kind in ("Max", "Average") for rank in (1, 2, 3)),
    *((f"Cropping{rank}D", {"cropping": 4}, "cropping") for rank in (1, 2, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kwargs", "said"), EMPTY)
def test_no_positions_left(name, kwargs, said):
    shape = (7,) * spatial_rank(name) + (3,)
    with pytest.raises(ValueError, match=rf"{name} 'here'.*cannot be called on") as caught:
        call(name, shape, **kwargs)
    assert str((None, *shape)) in str(caught.value)
    assert said in str(caught.value)


# Arguments that are no sizes, for every layer that takes them.
SIZES = {
    "units": ["Dense", "LSTM", "GRU", "SimpleRNN"],
    "filters": kinds("Conv", "Separable"),
    "kernel_size": kinds("Conv", "Depthwise", "Separable"),
    "strides": kinds("Conv", "Depthwise", "Separable", "MaxP", "AverageP"),
    "dilation_rate": kinds("Conv", "Depthwise", "Separable"),
    "depth_multiplier": kinds("Depthwise", "Separable"),
    "pool_size": kinds("MaxP", "AverageP"),
    "output_size": kinds("Adaptive"),
    "size": kinds("UpSampling"),
    "n": ["RepeatVector"],
    "height": ["Resizing", "CenterCrop"],
    "width": ["Resizing", "CenterCrop"],
    "input_dim": ["Embedding"],
    "output_dim": ["Embedding"],
    "num_tokens": ["CategoryEncoding"],
}


@pytest.mark.parametrize("wrong", [0, -2, 2.5, "3", True])
@pytest.mark.parametrize("argument", SIZES)
def test_sizes(argument, wrong):
    for name in SIZES[argument]:
        with pytest.raises(ValueError, match=rf"{name} takes .* {argument}, got {wrong!r}"):
            getattr(layers, name)(**{**EXAMPLES[name][0], argument: wrong})


@pytest.mark.parametrize("wrong", [-1, 1.5, (1, 2, 3, 4), "1"])
@pytest.mark.parametrize("name", kinds("Cropping", "ZeroPadding"))
def test_margins(name, wrong):
    argument = "cropping" if name.startswith("Cropping") else "padding"
    with pytest.raises(ValueError, match=rf"{name} takes .* for {argument}, got"):
        getattr(layers, name)(wrong)


@pytest.mark.parametrize("name", kinds("Conv1", "Conv2", "Conv3", "Depthwise", "Separable", "MaxP", "AverageP"))
@pytest.mark.parametrize("wrong", ["full", "reflect", 1, None])
def test_padding(name, wrong):
    with pytest.raises(ValueError, match=rf"{name} takes one of 'valid', 'same'.* for padding, got {wrong!r}"):
        getattr(layers, name)(**{**EXAMPLES[name][0], "padding": wrong})


WITH_FORMAT = [name for name in SPATIAL if name not in ("UpSampling1D", "SpatialDropout1D", "Cropping1D")]


@pytest.mark.parametrize("name", [*WITH_FORMAT, "Flatten", "Resizing", "CenterCrop"])
def test_data_format(name):
    with pytest.raises(ValueError, match=r"data_format is one of .* got 'nhwc'"):
        getattr(layers, name)(**{**EXAMPLES[name][0], "data_format": "nhwc"})


@pytest.mark.parametrize("name", EXAMPLES)
def test_arguments_of_another_layer(name):
    with pytest.raises((TypeError, ValueError), match=rf"{name}.*'colour'"):
        getattr(layers, name)(**EXAMPLES[name][0], colour=1)


MERGES = ["Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract", "Concatenate", "Dot"]


@pytest.mark.parametrize("name", MERGES)
def test_shapes_that_do_not_merge(name):
    shapes = [(4, 3), (5, 2)]
    layer = getattr(layers, name)(**EXAMPLES[name][0], name="here")
    with pytest.raises(ValueError, match=rf"{name} 'here'.*cannot be called on") as caught:
        layer([Input(shape) for shape in shapes])
    assert all(str((None, *shape)) in str(caught.value) for shape in shapes)


AXES = {
    "Softmax": {"axis": 4},
    "Normalization": {"axis": 4},
    "BatchNormalization": {"axis": 4},
    "PReLU": {"shared_axes": [4]},
}


@pytest.mark.parametrize("name", AXES)
def test_axis(name):
    with pytest.raises(ValueError, match=rf"{name} 'here'.*4") as caught:
        call(name, STEPS, **AXES[name])
    assert str((None, *STEPS)) in str(caught.value)


def test_a_layer_made_in_call():
    class Late(layers.Layer):
        def call(self, x):
            if not hasattr(self, "inner"):
                self.inner = layers.Dense(2)
            return self.inner(x)

    with pytest.raises(ValueError, match=r"Late 'here'.* makes the layer 'inner' in `call`. Make it in .*`build`"):
        Late(name="here")(Input(ROW))


def test_the_layer_stays_usable():
    layer = layers.Conv2D(4, 3, name="here")
    for wrong in ((6, 7), (6, 7, None), (2, 7, 3)):
        with pytest.raises(ValueError, match="here"):
            layer(Input(wrong))
    assert not layer.built
    assert layer(Input(IMAGE)).shape == (None, 4, 5, 4)
    assert layer(torch.randn(1, *IMAGE)).shape == (1, 4, 5, 4)
