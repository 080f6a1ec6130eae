"""Dropouts, noise and ActivityRegularization: configs and inference against Keras, training by their statistics."""

import copy
import math
import pickle

import keras
import pytest
import torch
from layer_parity import assert_close, check_layer
from torch import nn

from torchfunc import config
from torchfunc.layers import regularization
from torchfunc.layers.input_layer import Input
from torchfunc.layers.regularization import (
    ActivityRegularization,
    AlphaDropout,
    Dropout,
    GaussianDropout,
    GaussianNoise,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
)

INFERENCE = [
    ("Dropout", {"rate": 0.3}, (2, 3)),
    ("Dropout", {"rate": 0.3, "seed": 7, "noise_shape": (None, 1, 4)}, (2, 3, 4)),
    ("Dropout", {"rate": 0, "noise_shape": [2, 1]}, (2, 3)),
    ("Dropout", {"rate": 1}, (2, 3)),
    ("AlphaDropout", {"rate": 0.3, "seed": 7}, (2, 3)),
    ("AlphaDropout", {"rate": 0.3, "noise_shape": (2, 1)}, (2, 3)),
    ("SpatialDropout1D", {"rate": 0.3, "seed": 7}, (2, 3, 4)),
    ("SpatialDropout2D", {"rate": 0.3}, (2, 3, 4, 5)),
    ("SpatialDropout2D", {"rate": 0.3, "data_format": "channels_first"}, (2, 3, 4, 5)),
    ("SpatialDropout3D", {"rate": 0.3, "data_format": "channels_first"}, (2, 3, 4, 5, 2)),
    ("GaussianNoise", {"stddev": 0.3, "seed": 3}, (2, 3)),
    ("GaussianDropout", {"rate": 0.3}, (2, 3)),
    ("ActivityRegularization", {"l1": 0.1, "l2": 0.2}, (2, 3)),
    ("ActivityRegularization", {}, (2, 3)),
]


@pytest.mark.parametrize(("name", "kwargs", "shape"), INFERENCE)
def test_inference_and_configs(name, kwargs, shape):
    classes = getattr(regularization, name), getattr(keras.layers, name)
    ours, _ = check_layer(*classes, {**kwargs, "name": "one"}, shape, unknown_axes=(1,))
    x = torch.randn(shape)
    assert ours.eval()(x) is x or name == "ActivityRegularization"
    assert ours.state_dict() == {}


# name, arguments, shape, the shape of what is drawn
DROPPING = [
    ("Dropout", {}, (50, 400), (50, 400)),
    ("Dropout", {"noise_shape": (None, 1)}, (4000, 5), (4000, 1)),
    ("Dropout", {"noise_shape": (1, 4000)}, (5, 4000), (1, 4000)),
    ("Dropout", {"noise_shape": (None, 1, None)}, (50, 3, 100), (50, 1, 100)),
    ("SpatialDropout1D", {}, (50, 3, 100), (50, 1, 100)),
    ("SpatialDropout2D", {}, (50, 2, 3, 100), (50, 1, 1, 100)),
    ("SpatialDropout2D", {"data_format": "channels_first"}, (50, 100, 2, 3), (50, 100, 1, 1)),
    ("SpatialDropout3D", {}, (50, 2, 2, 2, 100), (50, 1, 1, 1, 100)),
]


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("rate", [0.2, 0.7])
@pytest.mark.parametrize(("name", "kwargs", "shape", "drawn"), DROPPING)
def test_dropping(name, kwargs, shape, drawn, rate, seed):
    torch.manual_seed(0)
    layer = getattr(regularization, name)(rate, seed=seed, **kwargs)
    x = torch.rand(shape).add_(1).requires_grad_()
    output = layer(x)
    factor = (output / x).detach()
    kept = factor != 0
    assert torch.allclose(factor[kept], torch.tensor(1 / (1 - rate)))
    # One decision for each place of what is drawn.
    places = tuple(slice(0, size) for size in drawn)
    assert torch.equal(kept, kept[places].expand(shape))
    count = math.prod(drawn)
    assert abs(kept[places].float().mean().item() - (1 - rate)) < 4 * math.sqrt(rate * (1 - rate) / count)
    output.sum().backward()
    assert torch.allclose(x.grad, factor)
    again = layer(x)
    assert not torch.equal(again, output)


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("layer", [Dropout, AlphaDropout])
def test_rates_at_the_ends(layer, seed):
    x = torch.randn(3, 4)
    assert layer(0.0, seed=seed)(x) is x
    if layer is Dropout:
        output = layer(1.0, seed=seed, noise_shape=(3, 1))(x)
        assert torch.equal(output, torch.zeros(3, 4))
        assert torch.equal(layer(1.0, seed=seed)(x), keras.layers.Dropout(1.0)(x, training=True))


def test_dropout_without_a_seed_is_torchs_own():
    x = torch.randn(20, 30)
    torch.manual_seed(3)
    expected = nn.functional.dropout(x, 0.4)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.4)(x), expected)


@pytest.mark.parametrize("seed", [None, 5])
def test_alpha_dropout_keeps_mean_and_variance(seed):
    torch.manual_seed(0)
    x = torch.randn(400, 500)
    output = AlphaDropout(0.3, seed=seed)(x)
    assert output.mean().item() == pytest.approx(0, abs=0.02)
    assert output.var().item() == pytest.approx(1, abs=0.02)
    theirs = keras.layers.AlphaDropout(0.3, seed=1)(x, training=True)
    dropped = theirs.flatten().mode().values
    assert_close(output.flatten().mode().values, dropped, 1e-5, "what is dropped")
    share = (output - dropped).abs() < 1e-5
    assert share.float().mean().item() == pytest.approx(0.3, abs=0.01)
    kept_slope = ((output - output[0, 0]) / (x - x[0, 0]))[0, 1:]
    assert torch.isfinite(kept_slope).any()
    rows = AlphaDropout(0.3, seed=seed, noise_shape=(None, 1))(x)
    same = (rows - dropped).abs() < 1e-5
    assert torch.equal(same, same[:, :1].expand_as(same))


@pytest.mark.parametrize("seed", [None, 5])
def test_gaussian_layers(seed):
    torch.manual_seed(0)
    x = torch.full((400, 500), 2.0)
    noise = GaussianNoise(0.25, seed=seed)(x) - x
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(0.25, rel=0.01)
    factor = GaussianDropout(0.2, seed=seed)(x) / x
    assert factor.mean().item() == pytest.approx(1, abs=0.01)
    assert factor.std().item() == pytest.approx(math.sqrt(0.2 / 0.8), rel=0.01)
    # The share beyond two deviations, of a normal distribution.
    assert (noise.abs() > 0.5).float().mean().item() == pytest.approx(0.0455, abs=0.003)
    assert torch.isfinite(noise).all()


RANDOM = [
    lambda seed: Dropout(0.5, seed=seed),
    lambda seed: Dropout(0.5, noise_shape=(None, 1), seed=seed),
    lambda seed: AlphaDropout(0.5, seed=seed),
    lambda seed: GaussianNoise(0.5, seed=seed),
    lambda seed: GaussianDropout(0.5, seed=seed),
]


@pytest.mark.parametrize("make", RANDOM)
def test_a_seed_makes_a_sequence_of_its_own(make):
    x = torch.randn(64, 32)
    layer = make(11)
    generator = torch.get_rng_state()
    sequence = [layer(x) for _ in range(4)]
    assert torch.equal(torch.get_rng_state(), generator)
    for one in range(4):
        for other in range(one):
            assert not torch.equal(sequence[one], sequence[other])
    twin = make(11)
    torch.randn(3)
    assert all(torch.equal(twin(x), output) for output in sequence)
    assert not any(torch.equal(make(seed)(x), output) for output in sequence for seed in (10, 12, -11))
    layer.eval()
    layer(x)
    copies = [copy.deepcopy(layer).train(), pickle.loads(pickle.dumps(layer)).train()]
    expected = layer.train()(x)
    assert all(torch.equal(each(x), expected) for each in copies)
    assert not any(torch.equal(expected, output) for output in sequence)


@pytest.mark.parametrize("make", RANDOM)
def test_compiled_layers_draw_the_same_forward_and_backward(make):
    torch._dynamo.reset()
    built, eager = make(11), make(11)
    built(Input((32,)))
    compiled = torch.compile(built, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        x, direction = torch.randn(64, 32), torch.randn(64, 32)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [layer(each) for layer, each in zip((compiled, eager), inputs, strict=True)]
        assert_close(*outputs, 1e-6, "output")
        torch.autograd.backward(outputs, [direction, direction])
        assert_close(inputs[0].grad, inputs[1].grad, 1e-6, "gradient")


def test_seeded_numbers_are_uniform_and_independent():
    layer = Dropout(0.5, seed=1)
    draws = torch.stack([layer._uniform((1000, 64)).flatten() for _ in range(16)])
    assert (draws > 0).all()
    assert (draws < 1).all()
    count = draws.numel()
    # Chi-squared of 256 equal bins: mean 255, deviation 22.6.
    bins = torch.histc(draws, 256, 0, 1)
    assert abs(((bins - count / 256) ** 2 / (count / 256)).sum().item() - 255) < 5 * 22.6
    centered = (draws - 0.5) * math.sqrt(12)
    bound = 5 / math.sqrt(draws.shape[1])
    for lag in (1, 2, 31, 32, 64, 1000):
        assert (centered[:, lag:] * centered[:, :-lag]).mean().abs() < bound
    between = centered @ centered.T / draws.shape[1]
    assert (between - torch.diag(between.diag())).abs().max() < bound
    seeds = torch.stack([Dropout(0.5, seed=seed)._uniform((64000,)) for seed in range(16)]) - 0.5
    between = seeds @ seeds.T / 64000 * 12
    assert (between - torch.diag(between.diag())).abs().max() < bound


def test_drawing_takes_nothing_from_the_sequence():
    layer, twin, x = Dropout(0.5, seed=3), Dropout(0.5, seed=3), torch.ones(4, 5)
    assert layer(Input((5,))).shape == (None, 5)
    assert torch.equal(layer(x), twin(x))


def test_training_argument():
    layer, x = Dropout(0.5), torch.ones(50, 50)
    assert torch.equal(layer(x, training=False), x)
    layer.eval()
    assert (layer(x, training=True) == 0).any()
    assert torch.equal(layer(x), x)


def test_masks_pass():
    x = Input((4, 3))
    x.mask = Input((4,), dtype="bool")
    for layer in (Dropout(0.5), GaussianNoise(0.5), GaussianDropout(0.5), SpatialDropout1D(0.5)):
        assert layer(x).mask is x.mask


@pytest.mark.parametrize(("l1", "l2"), [(0.1, 0.0), (0.0, 0.2), (0.1, 0.2)])
@pytest.mark.parametrize("shape", [(4, 3), (5, 2, 3)])
def test_activity_regularization(l1, l2, shape):
    ours, theirs = ActivityRegularization(l1, l2), keras.layers.ActivityRegularization(l1, l2)
    x = torch.randn(shape)
    assert torch.equal(ours(x), x)
    theirs(x)
    (mine,), (reference,) = ours.losses, theirs.losses
    assert mine.item() == pytest.approx(reference.item(), rel=1e-5)
    per_sample = l1 * x.abs().sum() + l2 * x.square().sum()
    assert mine.item() == pytest.approx(per_sample.item() / shape[0], rel=1e-5)


BAD = [
    (lambda: Dropout(1.5), "Dropout .*between 0 and 1 for rate, got 1.5"),
    (lambda: Dropout(-0.1), "rate, got -0.1"),
    (lambda: Dropout("a"), "rate, got 'a'"),
    (lambda: Dropout(0.5, noise_shape="ab"), "noise_shape, got 'ab'"),
    (lambda: Dropout(0.5, noise_shape=(0, 1)), r"noise_shape, got \(0, 1\)"),
    (lambda: Dropout(0.5, noise_shape=(2.0,)), "noise_shape"),
    (lambda: Dropout(0.5, noise_shape=3), "noise_shape, got 3"),
    (lambda: Dropout(0.5, seed=1.5), "integer or None for seed, got 1.5"),
    (lambda: GaussianNoise(2.0), "GaussianNoise .*for stddev"),
    (lambda: GaussianDropout(1.0), "below 1"),
    (lambda: GaussianDropout(2), "between 0 and 1"),
    (lambda: SpatialDropout2D(2), "SpatialDropout2D .*rate"),
    (lambda: SpatialDropout2D(0.5, data_format="last"), "data_format"),
    (lambda: SpatialDropout1D(0.5, name="here")(Input((3,))), "'here'.*ndim=3"),
    (lambda: SpatialDropout3D(0.5)(Input((3, 3))), "ndim=5"),
    (lambda: Dropout(0.5, noise_shape=(1,), name="here")(torch.ones(2, 3)), r"\(1,\) of Dropout 'here'.*\(2, 3\)"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_global_data_format_counts():
    try:
        config.set_image_data_format("channels_first")
        assert SpatialDropout2D(0.5).data_format == "channels_first"
    finally:
        config.set_image_data_format("channels_last")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtypes_stay(dtype):
    x = torch.ones(4, 6, dtype=dtype)
    for make in RANDOM:
        for seed in (None, 3):
            layer = make(seed)
            assert layer(x).dtype == layer(Input((6,), dtype=dtype)).dtype == dtype
