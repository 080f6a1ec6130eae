"""Torch modules in configs: by the arguments they were made with, found in their attributes."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchfunc import registry
from torchfunc.unfilled_weights import unfilled_weights

ROW, STEPS, IMAGE = (2, 8), (2, 5, 8), (2, 4, 8, 8)


def lstm(**options):
    return nn.LSTM(8, 6, 2, batch_first=True, **options)


class Halved(nn.Module):
    """Told by its attributes."""

    def __init__(self, width, bias=True, activation=F.gelu):
        super().__init__()
        self.width, self.activation = width, activation
        self.bias = nn.Parameter(torch.ones(width)) if bias else None
        self.linear = nn.Linear(8, width)

    def forward(self, x):
        return self.activation(self.linear(x) / 2) + (0 if self.bias is None else self.bias)


class Doubled(nn.Module):
    """Not told by its attributes: `width` is not what it was made with."""

    def __init__(self, width):
        super().__init__()
        self.width = 2 * width
        self.linear = nn.Linear(8, self.width)


class Hidden(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(8, width)


MODULES = {
    "linear": (nn.Linear(8, 3, bias=False), ROW),
    "double": (nn.Linear(8, 3).half().float(), ROW),
    "bilinear": (nn.Flatten(), IMAGE),
    "conv": (nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), groups=2, padding_mode="circular"), IMAGE),
    "same": (nn.Conv2d(4, 6, 3, padding="same"), IMAGE),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, bias=False), IMAGE),
    "batch_norm": (nn.BatchNorm2d(4, momentum=None, affine=False), IMAGE),
    "group_norm": (nn.GroupNorm(2, 4), IMAGE),
    "layer_norm": (nn.LayerNorm((5, 8), elementwise_affine=False), STEPS),
    "rms_norm": (nn.RMSNorm(8, eps=1e-3), STEPS),
    "pooling": (nn.AvgPool2d(3, stride=(2, 1), ceil_mode=True), IMAGE),
    "adaptive": (nn.AdaptiveAvgPool2d((None, 3)), IMAGE),
    "embedding_bag": (nn.PReLU(4, 0.1), IMAGE),
    "gelu": (nn.GELU("tanh"), ROW),
    "softmax": (nn.Softmax(-1), ROW),
    "upsample": (nn.Upsample(scale_factor=(2.0, 1.5), mode="bilinear", align_corners=True), IMAGE),
    "unflatten": (nn.Unflatten(1, (2, 4)), ROW),
    "identity": (nn.Identity(3, unused=1), ROW),
    "lstm": (lstm(bidirectional=True, dropout=0.1), STEPS),
    "projected": (lstm(proj_size=3, bias=False), STEPS),
    "rnn": (nn.RNN(8, 4, nonlinearity="relu"), STEPS),
    "gru_cell": (nn.GRUCell(8, 4, bias=False), ROW),
    "encoder_layer": (nn.TransformerEncoderLayer(8, 2, 16, 0.2, F.gelu, batch_first=True, norm_first=True), STEPS),
    "encoder": (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3, nn.LayerNorm(8)),
        STEPS,
    ),
    "sequential": (nn.Sequential(nn.Linear(8, 4), nn.Sequential(nn.ReLU(True), nn.Dropout(0.3)), nn.Tanh()), ROW),
    "parts": (Halved(3), ROW),
    "no_bias": (Halved(3, bias=False, activation=torch.tanh), ROW),
}


def there_and_back(module, custom_objects=None):
    config = json.loads(json.dumps(registry.serialize_keras_object(module)))
    return registry.deserialize_keras_object(config, custom_objects)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("case", MODULES)
def test_there_and_back(case):
    module, shape = MODULES[case]
    random = torch.get_rng_state()
    again = there_and_back(module, {"Halved": Halved})
    assert type(again) is type(module)
    again.load_state_dict(module.state_dict())
    data = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.eval()(data), module.eval()(data))
    assert repr(again) == repr(module)
    torch.set_rng_state(random)
    registry.serialize_keras_object(module)
    assert torch.equal(torch.get_rng_state(), random), "saving draws no random numbers"


def test_attention():
    module = nn.MultiheadAttention(8, 2, 0.1, bias=False, add_bias_kv=True, kdim=4, vdim=6, batch_first=True)
    again = there_and_back(module)
    again.load_state_dict(module.state_dict())
    query, key, value = torch.rand(STEPS), torch.rand(2, 7, 4), torch.rand(2, 7, 6)
    torch.testing.assert_close(again.eval()(query, key, value), module.eval()(query, key, value))


def test_losses():
    weight = torch.tensor([1.0, 2.0, 0.5])
    module = nn.CrossEntropyLoss(weight, ignore_index=1, label_smoothing=0.1)
    logits, labels = torch.rand(4, 3), torch.tensor([0, 1, 2, 2])
    torch.testing.assert_close(there_and_back(module)(logits, labels), module(logits, labels))


def changed():
    module = nn.Linear(8, 3)
    module.in_features = 9
    return module


def exchanged():
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    module.linear2 = nn.Sequential(module.linear2, nn.Tanh())
    return module


def parametrized():
    return nn.utils.parametrizations.weight_norm(nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (changed, r"Linear cannot be written.*'in_features'|Linear cannot be written.*other names or shapes"),
        (exchanged, "TransformerEncoderLayer cannot be written.*other modules in it"),
        (parametrized, "Linear cannot be written"),
        (lambda: Doubled(3), r"Doubled cannot be written.*get_config\(\)"),
        (lambda: Hidden(3), r"Hidden cannot be written.*no attribute 'width'.*get_config\(\)"),
    ],
)
def test_what_cannot_be_told_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        registry.serialize_keras_object(make())


@pytest.mark.parametrize("name", ["Nothing", "functional", "_reduction", "Parameter", "init", ["Linear"], "modules"])
def test_only_modules_of_torch_are_made(name):
    config = {"module": "torch.nn", "class_name": name, "config": {}, "registered_name": None}
    with pytest.raises(ValueError, match="is no module of"):
        registry.deserialize_keras_object(config)


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.load", "torch.hub.load", "getattr", ["x"], None])
def test_only_listed_functions_are_found(name):
    config = {"module": "torch", "class_name": "function", "config": name, "registered_name": name}
    with pytest.raises(ValueError, match="not one that a graph may call"):
        registry.deserialize_keras_object(config)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Linear", {"in_features": 10**6, "out_features": 10**6}),
        ("LSTM", {"input_size": 2, "hidden_size": 2, "num_layers": 10**9}),
        ("Transformer", {"d_model": 8, "nhead": 2, "num_encoder_layers": 10**9}),
    ],
)
def test_no_more_weights_are_made_than_a_file_holds(name, arguments):
    config = {"module": "torch.nn", "class_name": name, "config": arguments, "registered_name": None}
    with unfilled_weights(1000), pytest.raises(ValueError, match="more numbers than the 1,000"):
        registry.deserialize_keras_object(config)


def test_a_stack_is_not_made_of_more_copies_than_a_file_holds():
    layer = registry.serialize_keras_object(nn.TransformerEncoderLayer(8, 2, 16))
    arguments = {"encoder_layer": layer, "num_layers": 1000}
    config = {"module": "torch.nn", "class_name": "TransformerEncoder", "config": arguments, "registered_name": None}
    with unfilled_weights(100_000), pytest.raises(ValueError, match="more numbers than the 100,000"):
        registry.deserialize_keras_object(config)
