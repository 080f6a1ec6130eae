"""CategoryEncoding and Discretization against Keras."""

import keras
import numpy as np
import pytest
import torch
from layer_parity import assert_close, check_layer
from torch.utils.data import DataLoader, TensorDataset

from torchfunc import Model
from torchfunc.layers import CategoryEncoding, Discretization, Input

MODES = ["one_hot", "multi_hot", "count"]
TOKENS = np.array([[1, 0, 4, 1], [2, 2, 0, 3]])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tokens", [TOKENS, TOKENS[:, :1], TOKENS.astype("int32"), TOKENS.astype("float32")])
def test_category_encoding(tokens, mode):
    kwargs = {"num_tokens": 5, "output_mode": mode}
    check_layer(CategoryEncoding, keras.layers.CategoryEncoding, kwargs, tokens, gradients=False)


def test_category_encoding_of_a_row():
    check_layer(CategoryEncoding, keras.layers.CategoryEncoding, {"num_tokens": 5, "output_mode": "one_hot"}, TOKENS[0])


@pytest.mark.parametrize("mode", MODES)
def test_category_encoding_of_more_axes(mode):
    """Keras' documentation: `(..., sample_length)` becomes `(..., num_tokens)`; its torch backend sums over axis 1."""
    tokens = torch.from_numpy(np.stack([TOKENS, TOKENS[::-1]]))
    one_hot = torch.eye(5)[tokens]
    expected = {"one_hot": one_hot, "multi_hot": one_hot.amax(-2), "count": one_hot.sum(-2)}[mode]
    layer = CategoryEncoding(5, mode)
    assert torch.equal(layer(tokens), expected)
    assert layer(Input((2, 4), dtype="int64")).shape == (None, *expected.shape[1:])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_count_weights(dtype):
    weights = np.array([[0.1, 0.2, 0.3, 0.4], [1.0, -2.0, 3.0, 0.5]], dtype=dtype)
    check_layer(
        CategoryEncoding,
        keras.layers.CategoryEncoding,
        {"num_tokens": 5, "output_mode": "count"},
        TOKENS,
        call_kwargs={"count_weights": weights},
        dtype=dtype,
        gradients=False,
    )
    tokens, counts = Input((4,), dtype="int64"), Input((4,))
    model = Model([tokens, counts], CategoryEncoding(5, "count")(tokens, count_weights=counts))
    expected = np.stack([np.bincount(row, each, 5) for row, each in zip(TOKENS, weights, strict=True)])
    assert_close(model([TOKENS, weights.astype("float32")]), expected, 1e-6, "model")


BINS = [-0.5, 0.0, 0.7]
EDGES = np.array([[-0.5, 0.7, 3.0, -9.0], [0.0, 0.1, -0.6, 0.69999]], dtype="float32")


@pytest.mark.parametrize("mode", ["int", *MODES])
@pytest.mark.parametrize("inputs", [EDGES, EDGES[:, :1], (2, 5), EDGES.astype("float64")])
def test_discretization(inputs, mode):
    kwargs = {"bin_boundaries": BINS, "output_mode": mode}
    check_layer(Discretization, keras.layers.Discretization, kwargs, inputs, gradients=False, ignore_config=["name"])


NUMBERS = np.random.default_rng(0).gamma(2.0, size=(400, 3)).astype("float32")
BATCHES = [NUMBERS[:150], NUMBERS[150:160], NUMBERS[160:]]
ADAPTED = {
    "array": (NUMBERS, {"num_bins": 5}),
    "finer": (NUMBERS, {"num_bins": 7, "epsilon": 0.001}),
    "coarse": (NUMBERS, {"num_bins": 4, "epsilon": 0.1}),
    "batches": (BATCHES, {"num_bins": 6}),
    "few numbers": (NUMBERS[:1, :2], {"num_bins": 6}),
    "ties": (np.round(NUMBERS), {"num_bins": 3}),
}


@pytest.mark.parametrize(("data", "kwargs"), ADAPTED.values(), ids=ADAPTED)
def test_adapt(data, kwargs):
    ours, theirs = Discretization(**kwargs), keras.layers.Discretization(**kwargs)
    ours.adapt(data)
    # What Keras' own adapt() does, which asks for TensorFlow first.
    for batch in data if isinstance(data, list) else [data]:
        theirs.update_state(batch)
    theirs.finalize_state()
    assert_close(ours.bin_boundaries, theirs.bin_boundaries, 1e-6, "boundaries")
    assert_close(ours(NUMBERS), theirs(NUMBERS), 0, "bins")
    ours_config, theirs_config = ours.get_config(), theirs.get_config()
    assert ours_config.pop("bin_boundaries") == pytest.approx(theirs_config.pop("bin_boundaries"))
    assert {**ours_config, "name": ""} == {**theirs_config, "name": ""}
    for config in (ours.get_config(), theirs.get_config()):
        assert_close(Discretization.from_config(config)(NUMBERS), theirs(NUMBERS), 0, "bins of the copy")
    assert keras.layers.Discretization.from_config(ours.get_config()).bin_boundaries == ours.bin_boundaries


def test_adapt_to_quantiles():
    layer = Discretization(num_bins=4, epsilon=0.001)
    layer.adapt(DataLoader(TensorDataset(torch.from_numpy(NUMBERS)), batch_size=64))
    shares = np.bincount(np.asarray(layer(NUMBERS)).ravel(), minlength=4) / NUMBERS.size
    assert abs(shares - 0.25).max() < 0.01
    layer.adapt(BATCHES, steps=1)
    only_first = Discretization(num_bins=4, epsilon=0.001)
    only_first.adapt(BATCHES[0])
    assert layer.bin_boundaries == only_first.bin_boundaries


def test_discretization_in_a_model():
    layer = Discretization(num_bins=4, output_mode="one_hot")
    x = Input((3,))
    model = Model(x, layer(x))
    assert model.output.shape == (None, 3, 4)
    with pytest.raises(ValueError, match=r"Discretization 'discretization' .*call adapt\(data\) first"):
        model(NUMBERS)
    layer.adapt(NUMBERS)
    assert model(NUMBERS).shape == (400, 3, 4)
    twin = Model.from_config(model.get_config())
    assert torch.equal(twin(NUMBERS), model(NUMBERS))
    assert Discretization(BINS)(x).dtype == torch.int32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CategoryEncoding(), r"CategoryEncoding takes a positive integer for num_tokens, got None"),
        (lambda: CategoryEncoding(0), r"num_tokens, got 0"),
        (lambda: CategoryEncoding(3, "hot"), r"one of 'one_hot', 'multi_hot', 'count' for output_mode, got 'hot'"),
        (lambda: CategoryEncoding(3, sparse=True), r"CategoryEncoding\(sparse=True\) is not supported"),
        (lambda: CategoryEncoding(5, name="c")(torch.tensor([[5, 1]])), r"CategoryEncoding 'c' .*0 to 4.*index 5"),
        (
            lambda: CategoryEncoding(5, name="c")(TOKENS, count_weights=np.ones((2, 4))),
            r"CategoryEncoding 'c' .*count_weights go with output_mode='count', not with 'multi_hot'",
        ),
        (
            lambda: CategoryEncoding(5, "count", name="c")(Input((4,)), count_weights=Input((3,))),
            r"CategoryEncoding 'c' .*\(None, 3\) are not one for each input, \(None, 4\)",
        ),
        (lambda: Discretization(), r"either bin_boundaries or num_bins"),
        (lambda: Discretization([1.0], num_bins=2), r"either bin_boundaries or num_bins"),
        (lambda: Discretization([1.0, 0.0]), r"increasing numbers for bin_boundaries, got \[1.0, 0.0\]"),
        (lambda: Discretization(num_bins=0), r"positive integer for num_bins, got 0"),
        (lambda: Discretization(num_bins=2, epsilon=2), r"between 0 and 1 for epsilon, got 2"),
        (lambda: Discretization([1.0], output_mode="vector"), r"for output_mode, got 'vector'"),
        (lambda: Discretization([1.0], output_mode="one_hot", sparse=True), r"sparse=True\) is not supported"),
        (lambda: Discretization([1.0]).adapt(NUMBERS), r"give num_bins to adapt"),
        (lambda: Discretization(num_bins=3).adapt(NUMBERS[:0]), r"without any number"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
