"""Every built-in layer under `torch.compile(fullgraph=True)` and `torch.export`: the same outputs and gradients."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from torchfunc import layers

SEQUENCE, IMAGE, VOLUME = (2, 4, 3), (2, 5, 5, 3), (2, 5, 4, 4, 3)
SHAPES = {"1D": SEQUENCE, "2D": IMAGE, "3D": VOLUME}
WORDS = torch.tensor([[1, 2, 0], [3, 0, 0]])

# By layer: its arguments, and the inputs of its call: shapes of random floats, or tensors. What draws random numbers
# has a seed, so that it draws the same ones compiled.
TABLE = {
    "Activation": (["gelu"], [(2, 3)]),
    "ActivityRegularization": ([0.1], [(2, 3)]),
    "AdditiveAttention": ([], [[SEQUENCE, SEQUENCE]]),
    "AlphaDropout": ([0.5, None, 1], [(2, 3)]),
    "Attention": ([], [[SEQUENCE, SEQUENCE]]),
    "BatchNormalization": ([], [IMAGE]),
    "Bidirectional": ([layers.LSTM(2)], [SEQUENCE]),
    "CategoryEncoding": ([5], [WORDS]),
    "CenterCrop": ([3, 2], [IMAGE]),
    "Concatenate": ([], [[(2, 3), (2, 2)]]),
    "Dense": ([2, "relu"], [(2, 3)]),
    "Discretization": ([[-0.5, 0.5]], [(2, 3)]),
    "Dot": ([1], [[(2, 3), (2, 3)]]),
    "Dropout": ([0.5, None, 1], [(2, 3)]),
    "ELU": ([], [(2, 3)]),
    "EinsumDense": (["abc,cd->abd", (None, 2)], [SEQUENCE]),
    "Embedding": ([5, 3], [WORDS]),
    "Flatten": ([], [IMAGE]),
    "GRU": ([2], [SEQUENCE]),
    "GRUCell": ([2], [(2, 3), [(2, 2)]]),
    "GaussianDropout": ([0.5, 1], [(2, 3)]),
    "GaussianNoise": ([0.5, 1], [(2, 3)]),
    "GroupNormalization": ([3], [IMAGE]),
    "GroupQueryAttention": ([2, 4, 2], [SEQUENCE, SEQUENCE]),
    "Identity": ([], [(2, 3)]),
    "LSTM": ([2], [SEQUENCE]),
    "LSTMCell": ([2], [(2, 3), [(2, 2), (2, 2)]]),
    "Lambda": ([torch.sin], [(2, 3)]),
    "LayerNormalization": ([], [SEQUENCE]),
    "LeakyReLU": ([], [(2, 3)]),
    "Masking": ([], [SEQUENCE]),
    "MultiHeadAttention": ([2, 2], [SEQUENCE, SEQUENCE]),
    "Normalization": ([-1, [0.0, 1.0, 2.0], [1.0, 2.0, 3.0]], [(2, 3)]),
    "PReLU": ([], [(2, 3)]),
    "Permute": ([(2, 1)], [SEQUENCE]),
    "RMSNormalization": ([], [SEQUENCE]),
    "RNN": ([layers.SimpleRNNCell(2)], [SEQUENCE]),
    "ReLU": ([1.0], [(2, 3)]),
    "AutoContrast": ([], [IMAGE]),
    "RandomBrightness": ([0.2, (-3, 3), 1], [IMAGE]),
    "RandomContrast": ([0.5, (-3, 3), 1], [IMAGE]),
    "RandomCrop": ([3, 2, 1], [IMAGE]),
    "RandomErasing": ([1.0, (0.1, 0.5), None, (-3, 3), 1], [IMAGE]),
    "ReversibleEmbedding": ([5, 3], [WORDS]),
    "RandomFlip": (["horizontal_and_vertical", 1], [IMAGE]),
    "RandomGrayscale": ([0.5, None, 1], [IMAGE]),
    "RandomHue": ([0.5, (0, 1), None, 1], [IMAGE]),
    "RandomInvert": ([1.0, (0, 1), 1], [IMAGE]),
    "RandomPosterization": ([3, (-3, 3), None, 1], [IMAGE]),
    "RandomRotation": ([0.1, "constant", "bilinear", 1, 0.5], [IMAGE]),
    "RandomSaturation": ([(0.3, 0.6), (0, 1), None, 1], [IMAGE]),
    "RandomSharpness": ([0.7, (-3, 3), None, 1], [IMAGE]),
    "RandomShear": ([0.2, 0.1, "bilinear", "nearest", 0.0, None, 1], [IMAGE]),
    "RandomTranslation": ([0.3, 0.2, "wrap", "bilinear", 1], [IMAGE]),
    "RandomZoom": ([0.3, None, "reflect", "bilinear", 1], [IMAGE]),
    "Solarization": ([0.2, 0.5, (-3, 3), 1], [IMAGE]),
    "RepeatVector": ([3], [(2, 3)]),
    "Rescaling": ([2.0, 1.0], [(2, 3)]),
    "Reshape": ([(2, -1)], [SEQUENCE]),
    "Resizing": ([3, 4], [IMAGE]),
    "SimpleRNN": ([2], [SEQUENCE]),
    "SimpleRNNCell": ([2], [(2, 3), [(2, 2)]]),
    "Softmax": ([], [(2, 3)]),
    "SpectralNormalization": ([layers.Dense(2)], [(2, 3)]),
    "StackedRNNCells": ([[layers.GRUCell(2), layers.GRUCell(2)]], [(2, 3), [(2, 2), (2, 2)]]),
    "TimeDistributed": ([layers.Dense(2)], [SEQUENCE]),
    "TorchModule": ([nn.Linear(3, 2)], [(2, 3)]),
    "UnitNormalization": ([], [(2, 3)]),
    **{name: ([], [[(2, 3), (2, 3)]]) for name in ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract")},
    **{f"Conv{rank}": ([2, 3, 2, "same"], [shape]) for rank, shape in SHAPES.items()},
    **{f"Conv{rank}Transpose": ([2, 3, 2, "same"], [shape]) for rank, shape in SHAPES.items()},
    **{f"ConvLSTM{rank}": ([2, 2], [(2, 2, *shape[1:])]) for rank, shape in SHAPES.items()},
    **{f"DepthwiseConv{rank}": ([2, 2, "same"], [SHAPES[rank]]) for rank in ("1D", "2D")},
    **{f"SeparableConv{rank}": ([2, 3, 1, "same"], [SHAPES[rank]]) for rank in ("1D", "2D")},
    **{f"SpatialDropout{rank}": ([0.5], [shape]) for rank, shape in SHAPES.items()},
    **{
        f"{name}{rank}": ([], [shape])
        for name in ("Cropping", "GlobalAveragePooling", "GlobalMaxPooling", "UpSampling", "ZeroPadding")
        for rank, shape in SHAPES.items()
    },
    **{
        f"{kind}Pooling{rank}": ([2, None, "same"], [shape])
        for kind in ("Average", "Max")
        for rank, shape in SHAPES.items()
    },
    **{f"Adaptive{kind}Pooling{rank}": ([2], [shape]) for kind in ("Average", "Max") for rank, shape in SHAPES.items()},
}
KEYWORDS = {f"SpatialDropout{rank}": {"seed": 1} for rank in SHAPES}

NOT_CALLED = {
    "InputLayer": "it stands for an input, and is not called",
    "Layer": "the base of all, which computes nothing",
    "Wrapper": "a base, which computes nothing",
}


def test_the_table_holds_every_layer():
    exported = {getattr(layers, name) for name in layers.__all__}
    classes = {each for each in exported if isinstance(each, type) and issubclass(each, layers.Layer)}
    # By class, not by name: some have several.
    assert {getattr(layers, name) for name in (*TABLE, *NOT_CALLED)} == classes


def made(name):
    """The layer, built, and inputs for its call."""
    arguments, inputs = TABLE[name]
    layer = getattr(layers, name)(*copy.deepcopy(arguments), **KEYWORDS.get(name, {}))
    values = [_tensors(given) for given in inputs]
    layer(*values)
    return layer, values


def _tensors(given):
    if isinstance(given, list):
        return [_tensors(each) for each in given]
    return torch.randn(given) if isinstance(given, tuple) else given


def run(layer, inputs):
    """Outputs, gradients of the inputs and of the parameters, and the buffers after the call."""
    inputs = tree_map(lambda x: x.clone().requires_grad_(x.is_floating_point()), inputs)
    outputs = tree_leaves(layer(*inputs))
    with_gradient = [output for output in outputs if output.requires_grad]
    if with_gradient:
        torch.autograd.backward(with_gradient, [torch.linspace(0, 1, y.numel()).view(y.shape) for y in with_gradient])
    gradients = [leaf.grad for leaf in (*tree_leaves(inputs), *layer.parameters())]
    return [*(output.detach() for output in outputs), *gradients, *layer.buffers()]


@pytest.mark.parametrize("name", TABLE)
def test_compiled_whole(name):
    torch._dynamo.reset()
    layer, inputs = made(name)
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(compiled, inputs), run(layer, inputs), rtol=1e-5, atol=1e-5)


# One rank stands for all: they differ in the kernel only.
@pytest.mark.parametrize(
    "name", [name for name in TABLE if not name.endswith(("1D", "3D", "1DTranspose", "3DTranspose"))]
)
def test_exported(name):
    layer, inputs = made(name)
    layer.eval()
    program = torch.export.export(layer, tuple(inputs))
    others = tree_map(lambda x: x + 1 if x.is_floating_point() else x, inputs)
    torch.testing.assert_close(program.module()(*others), layer(*others), rtol=1e-5, atol=1e-5)
