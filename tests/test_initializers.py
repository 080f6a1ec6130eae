"""Initializers against Keras and against the closed form of their distributions."""

import math

import keras
import numpy as np
import pytest
import torch
from keras.src.initializers.random_initializers import compute_fans as keras_compute_fans
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from torchfunc import config, initializers

RANDOM = [
    ("RandomNormal", {}),
    ("RandomNormal", {"mean": 1.0, "stddev": 2.0}),
    ("TruncatedNormal", {}),
    ("TruncatedNormal", {"mean": -1.0, "stddev": 0.5}),
    ("RandomUniform", {}),
    ("RandomUniform", {"minval": 1.0, "maxval": 3.0}),
    ("VarianceScaling", {}),
    ("VarianceScaling", {"scale": 0.5, "mode": "fan_out", "distribution": "untruncated_normal"}),
    ("VarianceScaling", {"scale": 3.0, "mode": "fan_avg", "distribution": "Uniform"}),
    ("VarianceScaling", {"mode": "fan_out", "distribution": "normal"}),
    ("VarianceScaling", {"input_axes": [0], "output_axes": [1, 2]}),
    ("GlorotUniform", {}),
    ("GlorotUniform", {"input_axes": [0, 1], "output_axes": [2]}),
    ("GlorotNormal", {}),
    ("HeUniform", {}),
    ("HeNormal", {}),
    ("LecunUniform", {}),
    ("LecunNormal", {}),
    ("Orthogonal", {}),
    ("Orthogonal", {"gain": 2.0}),
]
FIXED = [
    ("Zeros", {}),
    ("Ones", {}),
    ("Constant", {}),
    ("Constant", {"value": 2.5}),
    ("Constant", {"value": -3}),
    ("Identity", {}),
    ("Identity", {"gain": 0.1}),
    ("STFT", {}),
    ("STFT", {"side": "imag", "window": None}),
    ("STFT", {"window": "hamming", "scaling": "spectrum", "periodic": True}),
    ("STFT", {"window": "nuttall", "scaling": None}),
]


def shape_for(name: str, rank: int = 3) -> tuple[int, ...]:
    if name == "Identity":
        return (5, 3)
    return (16, 1, 9) if name == "STFT" else (2, 3, 4, 5)[4 - rank :]


@pytest.mark.parametrize(("name", "kwargs"), RANDOM + FIXED)
def test_configs_are_those_of_keras(name, kwargs):
    if name not in ("Zeros", "Ones", "Constant", "Identity", "STFT"):
        kwargs = {**kwargs, "seed": 7}
    ours = getattr(initializers, name)(**kwargs)
    theirs = keras.initializers.serialize(getattr(keras.initializers, name)(**kwargs))
    written = initializers.serialize(ours)
    if name == "Identity" and kwargs:
        theirs["config"] = {"gain": 0.1}  # which Keras loses
    assert written == theirs
    assert list(written["config"]) == list(theirs["config"])
    shape = shape_for(name)
    for again in (initializers.get(theirs), initializers.deserialize(written), ours.clone()):
        assert type(again) is type(ours)
        torch.testing.assert_close(again(shape), ours(shape), rtol=0, atol=0)
    assert keras.initializers.serialize(keras.initializers.get(written))["class_name"] == name


@pytest.mark.parametrize(("name", "kwargs"), [case for case in FIXED if case[0] != "STFT"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int32"])
def test_fixed_values_are_those_of_keras(name, kwargs, dtype):
    shape = shape_for(name)
    ours = getattr(initializers, name)(**kwargs)(shape, dtype)
    theirs = getattr(keras.initializers, name)(**kwargs)(shape, dtype)
    assert ours.dtype == getattr(torch, dtype)
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", ["real", "imag"])
@pytest.mark.parametrize("window", ["bartlett", "blackman", "cosine", "hamming", "hann", "nuttall", None])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("scaling", ["density", "spectrum", None])
def test_stft_is_that_of_keras(side, window, periodic, scaling):
    arguments = {"side": side, "window": window, "periodic": periodic, "scaling": scaling}
    ours, theirs = (library.STFT(**arguments)((12, 1, 9)) for library in (initializers, keras.initializers))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_stft_takes_the_values_of_a_window():
    window = np.linspace(0.1, 1, 12)
    ours = initializers.STFT(window=window)
    torch.testing.assert_close(
        ours((12, 1, 9)), keras.initializers.STFT(window=window)((12, 1, 9)), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(initializers.deserialize(initializers.serialize(ours))((12, 1, 9)), ours((12, 1, 9)))
    with pytest.raises(ValueError, match=r"shape \(12,\).*length 8"):
        ours((8, 1, 9))


def normal_cdf(x, mean, stddev):
    return torch.special.ndtr((x - mean) / stddev)


def truncated_cdf(x, mean, stddev):
    low = normal_cdf(x.new_tensor(mean - 2 * stddev), mean, stddev)
    return (normal_cdf(x, mean, stddev) - low) / (1 - 2 * low)


def uniform_cdf(x, low, high):
    return (x - low) / (high - low)


# The standard deviation that a standard normal distribution keeps when it is cut off at -2 and 2: the square root of
# 1 - 4 * pdf(2) / (cdf(2) - cdf(-2)).
CUT = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))
# For the shape (3, 3, 40, 60): fan_in 360, fan_out 540.
DISTRIBUTIONS = {
    ("RandomNormal", ()): (normal_cdf, 0, 0.05),
    ("RandomNormal", (("mean", 1.0), ("stddev", 2.0))): (normal_cdf, 1, 2),
    ("TruncatedNormal", ()): (truncated_cdf, 0, 0.05),
    ("TruncatedNormal", (("mean", -1.0), ("stddev", 0.5))): (truncated_cdf, -1, 0.5),
    ("RandomUniform", ()): (uniform_cdf, -0.05, 0.05),
    ("RandomUniform", (("minval", 1.0), ("maxval", 3.0))): (uniform_cdf, 1, 3),
    ("VarianceScaling", ()): (truncated_cdf, 0, math.sqrt(1 / 360) / CUT),
    ("VarianceScaling", (("scale", 0.5), ("mode", "fan_out"), ("distribution", "untruncated_normal"))): (
        normal_cdf,
        0,
        math.sqrt(0.5 / 540),
    ),
    ("VarianceScaling", (("mode", "fan_avg"), ("distribution", "uniform"))): (
        uniform_cdf,
        -math.sqrt(3 / 450),
        math.sqrt(3 / 450),
    ),
    ("VarianceScaling", (("input_axes", (2,)), ("output_axes", (3,)))): (truncated_cdf, 0, math.sqrt(1 / 40) / CUT),
    ("GlorotUniform", ()): (uniform_cdf, -math.sqrt(6 / 900), math.sqrt(6 / 900)),
    ("GlorotNormal", ()): (truncated_cdf, 0, math.sqrt(2 / 900) / CUT),
    ("HeUniform", ()): (uniform_cdf, -math.sqrt(6 / 360), math.sqrt(6 / 360)),
    ("HeNormal", ()): (truncated_cdf, 0, math.sqrt(2 / 360) / CUT),
    ("LecunUniform", ()): (uniform_cdf, -math.sqrt(3 / 360), math.sqrt(3 / 360)),
    ("LecunNormal", ()): (truncated_cdf, 0, math.sqrt(1 / 360) / CUT),
}


@pytest.mark.parametrize(("case", "expected"), DISTRIBUTIONS.items())
def test_distributions(case, expected):
    """Kolmogorov's statistic: n**0.5 times the largest distance to the distribution passes 1.95 once in 1000 times."""
    name, kwargs = case
    cdf, *parameters = expected
    for library in (initializers, keras.initializers):
        values = getattr(library, name)(**dict(kwargs), seed=3)((3, 3, 40, 60)).double().flatten().sort().values
        ranks = torch.arange(1, values.numel() + 1, dtype=torch.float64) / values.numel()
        distance = (cdf(values, *parameters) - ranks).abs().max().item()
        assert distance * math.sqrt(values.numel()) < 1.95, library.__name__


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (5, 3, 4), (2, 5, 3, 4), (2, 2, 2, 3, 4)])
def test_fans_are_those_of_keras(shape):
    assert initializers.compute_fans(shape) == keras_compute_fans(shape)
    if len(shape) > 2:
        axes = ([0], [1, 2])
        assert initializers.compute_fans(shape, *axes) == keras_compute_fans(shape, *axes)


@pytest.mark.parametrize(
    ("name", "shape", "bound"),
    [
        # sqrt(3 * scale / n), where n is the mean of the fans, at least 1.
        ("GlorotUniform", (), math.sqrt(3)),
        ("GlorotUniform", (7,), math.sqrt(3 / 7)),
        ("GlorotUniform", (0, 3), None),
        # Two standard deviations of what is left of a normal distribution when its tails are cut off.
        ("HeNormal", (), 2 * math.sqrt(2) / 0.87962566103423978),
        ("HeNormal", (7,), 2 * math.sqrt(2 / 7) / 0.87962566103423978),
        ("HeNormal", (0, 3), None),
    ],
)
def test_small_shapes(name, shape, bound):
    torch.manual_seed(0)
    draws = torch.stack([getattr(initializers, name)()(shape) for _ in range(300)])
    assert draws.shape == (300, *shape)
    if bound is not None:
        assert 0.9 * bound < draws.abs().max() <= bound
        assert draws.unique().numel() > 250


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", torch.float64, None])
@pytest.mark.parametrize(("name", "kwargs"), RANDOM)
def test_shape_and_dtype(name, kwargs, dtype):
    shape = shape_for(name)
    for seed in (None, 1):
        values = getattr(initializers, name)(**kwargs, seed=seed)(shape, dtype)
        assert values.shape == shape
        assert values.dtype == (getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32)
        assert values.is_contiguous()
        assert not values.requires_grad
        assert values.isfinite().all()


def test_dtype_follows_floatx():
    config.set_floatx("float64")
    try:
        made = [initializers.get(name)((2, 2)) for name in ("zeros", "ones", "identity", "glorot_uniform")]
    finally:
        config.set_floatx("float32")
    assert {values.dtype for values in made} == {torch.float64}


@pytest.mark.parametrize(("name", "kwargs"), RANDOM)
def test_seeds(name, kwargs):
    make, shape = getattr(initializers, name), shape_for(name)
    before = torch.get_rng_state()
    seeded = make(**kwargs, seed=5)
    first = seeded(shape)
    torch.testing.assert_close(seeded(shape), first, rtol=0, atol=0)
    torch.testing.assert_close(make(**kwargs, seed=np.int64(5))(shape), first, rtol=0, atol=0)
    assert not torch.equal(make(**kwargs, seed=6)(shape), first)
    assert torch.equal(torch.get_rng_state(), before)

    unseeded = make(**kwargs)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        drawn = [unseeded(shape), unseeded(shape)]
        torch.manual_seed(5)
        torch.testing.assert_close(unseeded(shape), drawn[0], rtol=0, atol=0)
    assert not torch.equal(*drawn)


def test_the_seed_of_a_keras_seed_generator_is_kept():
    theirs = keras.initializers.HeNormal(seed=keras.random.SeedGenerator(11))
    assert initializers.get(keras.initializers.serialize(theirs)).seed == 11


@pytest.mark.parametrize("shape", [(6, 6), (8, 3), (3, 8), (3, 3, 4, 5), (2, 3, 20)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_orthogonal(shape, dtype):
    matrix = initializers.Orthogonal(gain=1.5, seed=2)(shape, dtype).view(-1, shape[-1])
    small = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    torch.testing.assert_close(small, 2.25 * torch.eye(min(matrix.shape), dtype=small.dtype), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "kwargs"), [*RANDOM, *FIXED, ("Constant", {"value": np.ones((2, 3, 4, 5)[1:])})])
def test_fake_and_meta_tensors(name, kwargs):
    shape = shape_for(name)
    variants = (
        [kwargs] if name in ("Zeros", "Ones", "Constant", "Identity", "STFT") else [kwargs, {**kwargs, "seed": 1}]
    )
    for arguments in variants:
        initializer = getattr(initializers, name)(**arguments)
        for dtype in ("float32", "bfloat16"):
            with FakeTensorMode():
                fake = initializer(shape, dtype)
            assert isinstance(fake, FakeTensor)
            assert fake.shape == shape
            assert fake.device.type == "cpu"
            with torch.device("meta"):
                meta = initializer(shape, dtype)
            assert (meta.device.type, meta.shape, meta.dtype) == ("meta", shape, fake.dtype)


@pytest.mark.parametrize(
    "value", [np.arange(6.0).reshape(2, 3), torch.arange(6).view(2, 3), torch.ones(2, 3, dtype=torch.bfloat16)]
)
def test_given_values(value):
    for initializer in (initializers.get(value), initializers.Constant(value)):
        made = initializer((2, 3))
        torch.testing.assert_close(made, torch.as_tensor(value).float())
        torch.testing.assert_close(made, keras.initializers.get(value)((2, 3)))
        made.zero_()
        assert initializer((2, 3)).any()
        written = initializers.serialize(initializer)
        torch.testing.assert_close(initializers.get(written)((2, 3)), initializer((2, 3)))
        torch.testing.assert_close(keras.initializers.get(written)((2, 3)), initializer((2, 3)))
        with pytest.raises(ValueError, match=r"shape \(2, 3\) was given for a weight of shape \(3, 2\)"):
            initializer((3, 2))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras, of a tensor
def test_constants_that_keras_wrote():
    theirs = keras.initializers.Constant(torch.tensor([1.0, 2.0]))
    assert initializers.get(keras.initializers.serialize(theirs))((2,)).tolist() == [1.0, 2.0]
    assert initializers.Constant(np.float32(0.5)).get_config() == {"value": 0.5}
    assert initializers.Constant([1, 2])((2,)).tolist() == [1.0, 2.0]
    assert initializers.get(np.float64(2))((2,)).tolist() == [2.0, 2.0]


ALIASES = ["constant", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "identity", "lecun_normal"]
ALIASES += ["lecun_uniform", "ones", "orthogonal", "random_normal", "random_uniform", "stft", "truncated_normal"]
ALIASES += ["variance_scaling", "zeros", "IdentityInitializer", "OrthogonalInitializer", "STFTInitializer"]


@pytest.mark.parametrize("name", [*ALIASES, "normal", "uniform", "one", "zero"])
def test_names(name):
    found = initializers.get(name)
    # Keras finds the name "constant", but cannot do without a value.
    theirs = keras.initializers.Constant() if name == "constant" else keras.initializers.get(name)
    assert type(found).__name__ == type(theirs).__name__
    if name in ALIASES:
        assert getattr(initializers, name) is type(found)
    legacy = {"class_name": name, "config": {}}
    assert type(initializers.get(legacy)) is type(found)
    assert type(initializers.get({**legacy, "module": "keras.initializers", "registered_name": None})) is type(found)


def test_callables_and_subclasses():
    class Half(initializers.Initializer):
        def __call__(self, shape, dtype=None):
            return torch.full(shape, 0.5, dtype=dtype)

    def ramp(shape, dtype):
        return torch.arange(shape[0], dtype=dtype)

    assert initializers.get(ramp) is ramp
    assert initializers.get(Half)((2,)).tolist() == [0.5, 0.5]
    assert isinstance(Half().clone(), Half)
    assert initializers.get(None) is None
    with pytest.raises(NotImplementedError, match="Initializer needs a method"):
        initializers.Initializer()((2,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: initializers.get("glorot_unifrom"), "no initializer called .* Did you mean 'glorot_uniform'"),
        (lambda: initializers.get(3), "3 is no initializer"),
        (lambda: initializers.HeNormal(seed=0.5), "HeNormal: seed is an int or None, got 0.5"),
        (lambda: initializers.VarianceScaling(scale=0), "scale is a positive number, got 0"),
        (lambda: initializers.VarianceScaling(mode="fan"), "mode is .* got 'fan'"),
        (lambda: initializers.VarianceScaling(distribution="beta"), "distribution is .* got 'beta'"),
        (lambda: initializers.Orthogonal()((3,)), r"two axes or more, got shape=\(3,\)"),
        (lambda: initializers.Identity()((3, 3, 3)), r"makes matrices .* got shape=\(3, 3, 3\)"),
        (lambda: initializers.RandomNormal()((2,), "int32"), "draws floating point values, got dtype='int32'"),
        (lambda: initializers.STFT(side="both"), "side is 'real' or 'imag', got 'both'"),
        (lambda: initializers.STFT(window="hat"), "window is one of .* got 'hat'"),
        (lambda: initializers.STFT(scaling="none"), "scaling is .* got 'none'"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
