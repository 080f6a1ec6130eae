"""torchfunc.random: the distributions against scipy's, seeds, symbolic shapes, copies, one compiled graph."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats

from torchfunc import Input, Layer, Model, layers, ops, random

COUNT = 20_000
# What is drawn, and the distribution that scipy has of it.
CONTINUOUS = {
    "normal": (lambda seed: random.normal((COUNT,), 1.0, 2.0, seed=seed), stats.norm(1, 2)),
    "truncated normal": (
        lambda seed: random.truncated_normal((COUNT,), 1.0, 2.0, seed=seed),
        stats.truncnorm(-2, 2, 1, 2),
    ),
    "uniform": (lambda seed: random.uniform((COUNT,), -1.0, 3.0, seed=seed), stats.uniform(-1, 4)),
    "gamma": (lambda seed: random.gamma((COUNT,), 2.5, seed=seed), stats.gamma(2.5)),
    "gamma of little shape": (lambda seed: random.gamma((COUNT,), torch.tensor(0.3), seed=seed), stats.gamma(0.3)),
    "beta": (lambda seed: random.beta((COUNT,), 2.0, 5.0, seed=seed), stats.beta(2, 5)),
}
COUNTED = {
    "randint": (lambda seed: random.randint((COUNT,), -2, 5, seed=seed), stats.randint(-2, 5)),
    "uniform integers": (lambda seed: random.uniform((COUNT,), 3, 9, "int64", seed=seed), stats.randint(3, 9)),
    "binomial": (lambda seed: random.binomial((COUNT,), 8, 0.3, seed=seed), stats.binom(8, 0.3)),
    "categorical": (
        lambda seed: random.categorical(np.log([[0.2, 0.5, 0.3]]), COUNT, seed=seed)[0],
        stats.rv_discrete(values=([0, 1, 2], [0.2, 0.5, 0.3])),
    ),
}
ALL = {**CONTINUOUS, **COUNTED}


@pytest.mark.parametrize("seed", [None, 7, "generator"])
@pytest.mark.parametrize("name", ALL)
def test_distributions(name, seed):
    draw, distribution = ALL[name]
    found = draw(random.SeedGenerator(3) if seed == "generator" else seed).double().numpy()
    assert found.shape == (COUNT,)
    if name in CONTINUOUS:
        assert stats.kstest(found, distribution.cdf).pvalue > 1e-3
    else:
        values, counts = np.unique(found, return_counts=True)
        assert stats.chisquare(counts, COUNT * distribution.pmf(values), sum_check=False).pvalue > 1e-3
        assert distribution.pmf(values).sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_seeds(name):
    draw = ALL[name][0]
    assert torch.equal(draw(5), draw(5))
    assert not torch.equal(draw(5), draw(6))
    one, other = random.SeedGenerator(5), random.SeedGenerator(5)
    first = draw(one)
    assert torch.equal(first, draw(other))
    assert not torch.equal(first, draw(one))
    twin = copy.deepcopy(one)
    assert torch.equal(draw(one), draw(twin))
    torch.manual_seed(1)
    free = draw(None)
    assert not torch.equal(free, draw(None))
    torch.manual_seed(1)
    assert torch.equal(free, draw(None))


def test_draws_with_a_seed_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    for draw, _ in ALL.values():
        draw(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_seed_generator_of_no_seed():
    one, other = random.SeedGenerator(), random.SeedGenerator()
    assert one.seed != other.seed
    again = random.SeedGenerator(**one.get_config())
    assert torch.equal(random.normal((3,), seed=one), random.normal((3,), seed=again))
    with pytest.raises(ValueError, match=r"integer, a SeedGenerator or None, got 1\.5"):
        random.normal((3,), seed=1.5)


@pytest.mark.parametrize("seed", [None, 4])
def test_dropout(seed):
    x = np.ones((50, 40), "float32")
    found = random.dropout(x, 0.25, seed=seed)
    torch.testing.assert_close(found.unique(), torch.tensor([0.0, 4 / 3]))
    assert (found == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    rows = random.dropout(x, 0.5, noise_shape=(None, 1), seed=seed)
    assert torch.equal(rows, rows[:, :1].expand(50, 40))
    assert rows[:, 0].unique().tolist() == [0.0, 2.0]
    assert not random.dropout(x, 1, seed=seed).any()
    assert torch.equal(random.dropout(x, 0.0, seed=seed), torch.as_tensor(x))
    with pytest.raises(ValueError, match=r"rate in \[0, 1\]"):
        random.dropout(x, 1.5)


@pytest.mark.parametrize("seed", [None, 4])
def test_shuffle(seed):
    x = torch.arange(24).view(2, 12)
    found = random.shuffle(x, axis=1, seed=seed)
    assert not torch.equal(found, x)
    assert torch.equal(found.sort(1)[0], x)
    assert torch.equal(found[1] - found[0], torch.full((12,), 12))


def test_dtypes_bounds_and_parameters_that_are_tensors():
    assert random.randint((3,), 0, 5).dtype == torch.int32
    assert random.categorical([[0.0, 1.0]], 2).dtype == torch.int32
    assert random.normal((2,), dtype="float64", seed=1).dtype == torch.float64
    for wrong in (lambda: random.normal((2,), dtype="int32"), lambda: random.randint((2,), 0, 4, "float32")):
        with pytest.raises(ValueError, match="dtype is"):
            wrong()
    large = random.randint((COUNT,), 0, 2**40, "int64", seed=1).double() / 2**40
    assert stats.kstest(large.numpy(), "uniform").pvalue > 1e-3
    assert set(random.categorical([[0.0, -np.inf, 0.0]], 1000, seed=1)[0].tolist()) == {0, 2}
    means = torch.tensor([[0.0], [100.0]])
    assert random.normal((2, 50), means, seed=1).mean(1).sub(means[:, 0]).abs().max() < 1
    assert random.gamma((3, 2), torch.tensor([1.0, 1000.0]), seed=1).argmax(1).tolist() == [1, 1, 1]


SYMBOLIC = {
    "normal": lambda x, seed: random.normal(ops.shape(x), seed=seed) + 0 * x,
    "uniform": lambda x, seed: random.uniform((ops.shape(x)[0], 4), seed=seed),
    "truncated normal": lambda x, seed: random.truncated_normal(ops.shape(x), x, seed=seed),
    "randint": lambda x, seed: random.randint(ops.shape(x), 0, 1000, seed=seed),
    "categorical": lambda x, seed: random.categorical(x, 6, seed=seed),
    "dropout": lambda x, seed: random.dropout(x + 2, 0.5, seed=seed),
    "dropout of rows": lambda x, seed: random.dropout(x + 2, 0.5, noise_shape=(None, 1), seed=seed),
    "shuffle": lambda x, seed: random.shuffle(x, seed=seed),
    "gamma": lambda x, seed: random.gamma(ops.shape(x), x.exp(), seed=seed),
    "beta": lambda x, seed: random.beta(ops.shape(x), x.exp(), 2.0, seed=seed),
    "binomial": lambda x, seed: random.binomial(ops.shape(x), 50, 0.5, seed=seed),
}


@pytest.mark.parametrize("seed", [None, 4, "generator"])
@pytest.mark.parametrize("name", SYMBOLIC)
def test_draws_of_symbolic_shapes_are_made_anew(name, seed):
    x = Input((4,))
    seed = random.SeedGenerator(4) if seed == "generator" else seed
    model = Model(x, SYMBOLIC[name](x, seed))
    data = torch.randn(16, 4)
    first, second = model(data), model(data)
    assert first.shape[0] == 16
    assert model.output_shape == (None, *first.shape[1:])
    assert first.dtype == model.output.dtype
    assert torch.equal(first, second) == (seed == 4)
    assert model(data[:3]).shape == (3, *first.shape[1:])


class Sampling(Layer):
    """The layer of every variational autoencoder."""

    def __init__(self, seed=None):
        super().__init__()
        self.seed_generator = random.SeedGenerator(seed)

    def call(self, inputs):
        mean, log_variance = inputs
        noise = random.normal(shape=ops.shape(mean), seed=self.seed_generator)
        rate = random.gamma(ops.shape(mean), 2.0, seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_variance) * noise + 0 * rate


def test_a_sampling_layer():
    x = Input((6,))
    sample = Sampling(1)([layers.Dense(2)(x), layers.Dense(2)(x)])
    model = Model(x, layers.Dense(6)(sample))
    # The place in the sequence is not saved.
    assert not any("seed" in name for name in model.state_dict())
    data = torch.randn(8, 6)
    twin = copy.deepcopy(model)
    first = model(data)
    assert torch.equal(first, twin(data))
    assert not torch.equal(first, model(data))
    model.compile("sgd", "mse")
    model.fit(data, data, batch_size=4, epochs=2, verbose=0)
    assert model.predict(data, verbose=0).shape == (8, 6)


@pytest.mark.filterwarnings("ignore")
def test_one_graph_when_compiled():
    x = Input((6,))
    model = Model(x, Sampling(1)([layers.Dense(2)(x), layers.Dense(2)(x)]))
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    data = torch.randn(8, 6)
    for _ in range(2):
        torch.testing.assert_close(compiled(data), model(data))
    free = torch.compile(
        lambda: random.beta((4,), 2.0, 3.0) + random.binomial((4,), 5, 0.5), fullgraph=True, backend="aot_eager"
    )
    assert free().shape == (4,)
