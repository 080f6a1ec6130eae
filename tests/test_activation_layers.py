"""ReLU, LeakyReLU, PReLU, ELU, Softmax and Masking against Keras."""

import keras
import numpy as np
import pytest
import torch
from layer_parity import assert_close, check_layer

from torchfunc import Model, layers
from torchfunc.layers import Embedding, Input, Masking, PReLU, ReLU, Softmax

CASES = [
    ("ReLU", {}),
    ("ReLU", {"max_value": 0.8}),
    ("ReLU", {"negative_slope": 0.3, "threshold": 0.4, "name": "knee"}),
    ("ReLU", {"max_value": 6, "negative_slope": 0.1, "threshold": 0.5}),
    ("LeakyReLU", {}),
    ("LeakyReLU", {"negative_slope": 0.1}),
    ("ELU", {}),
    ("ELU", {"alpha": 0.5}),
    ("Softmax", {}),
    ("Softmax", {"axis": 1}),
    ("Softmax", {"axis": [1, 2]}),
    ("Softmax", {"axis": (-1,)}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_without_weights(name, kwargs, dtype):
    ours, theirs = getattr(layers, name), getattr(keras.layers, name)
    check_layer(ours, theirs, kwargs, (2, 3, 4), dtype=dtype, unknown_axes=(1,))


@pytest.mark.parametrize(
    ("kwargs", "shape"),
    [
        ({}, (2, 3)),
        ({"alpha_initializer": "he_normal", "alpha_regularizer": "l2", "alpha_constraint": "non_neg"}, (2, 3, 4)),
        ({"shared_axes": 1}, (2, 3, 4)),
        ({"shared_axes": [1, 2]}, (2, 3, 4, 5)),
        ({"shared_axes": (2, 3), "trainable": False}, (2, 5, 3, 4)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_prelu(kwargs, shape, dtype):
    ours, _ = check_layer(
        PReLU, keras.layers.PReLU, kwargs, shape, dtype=dtype, gradients=kwargs.get("trainable", True)
    )
    assert list(ours.state_dict()) == ["weight"]


def test_prelu_with_shared_channels_is_torchs():
    ours, torchs = PReLU(shared_axes=[2, 3]), torch.nn.PReLU(3)
    x = torch.randn(2, 3, 4, 5)
    ours(x)
    ours.weight.data.copy_(torchs.weight.data.view(3, 1, 1))
    assert_close(ours(x), torchs(x), 1e-6, "PReLU")
    assert PReLU(shared_axes=[1, 2])(Input((None, None, 3))).shape == (None, None, None, 3)


MASKS = {
    "booleans": np.array([[True, False, True], [False, False, False]]),
    "numbers": np.array([[1.0, 0.0, 0.6], [0.0, 0.2, 0.0]], dtype="float32"),
    "broadcast": np.array([[True, False, True]]),
}


@pytest.mark.parametrize("axis", [-1, [0, 1]])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_softmax_with_a_mask(mask, axis):
    check_layer(Softmax, keras.layers.Softmax, {"axis": axis}, (2, 3), call_kwargs={"mask": mask})


def test_softmax_takes_the_mask_of_the_graph():
    scores = Embedding(5, 1, mask_zero=True)(words := Input((4,), dtype="int64"))
    flat = layers.Reshape((4,))(scores)
    flat.mask = scores.mask
    model = Model(words, Softmax()(flat))
    out = model(torch.tensor([[1, 2, 0, 0], [3, 0, 0, 4]]))
    assert_close(out.sum(-1), torch.ones(2), 1e-6, "shares")
    assert (out[0, 2:] == 0).all()
    assert (out[1, 1:3] == 0).all()


def test_softmax_checks_the_axis_at_each_call():
    layer = Softmax(axis=2, name="s")
    layer(Input((4, 3)))
    with pytest.raises(ValueError, match=r"Softmax 's' .*cannot be called on \(None, 4\).*axis 2"):
        layer(Input((4,)))


@pytest.mark.parametrize("mask_value", [0.0, -1, 2.5])
@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 4, 2, 3)])
def test_masking(mask_value, shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    x[0, 1], x[1, 3], x[1, 2, ..., 0] = mask_value, mask_value, mask_value
    ours, theirs = check_layer(Masking, keras.layers.Masking, {"mask_value": mask_value}, x, unknown_axes=(1,))
    expected = theirs.compute_mask(torch.from_numpy(x))
    assert torch.equal(ours.compute_mask(torch.from_numpy(x)), expected)
    assert not expected.all()
    drawn = ours(Input(shape[1:]))
    assert (drawn.mask.shape, drawn.mask.dtype) == ((None, *shape[1:-1]), torch.bool)


@pytest.mark.parametrize("name", ["ReLU", "LeakyReLU", "PReLU", "ELU"])
def test_masks_pass(name):
    x = Masking()(Input((4, 3)))
    assert getattr(layers, name)()(x).mask is x.mask


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReLU(max_value=-1), r"ReLU takes a number that is not negative for max_value, got -1"),
        (lambda: ReLU(negative_slope=None), r"for negative_slope, got None"),
        (lambda: ReLU(threshold="a"), r"for threshold, got 'a'"),
        (lambda: layers.LeakyReLU(-0.1), r"LeakyReLU .* negative_slope, got -0.1"),
        (lambda: PReLU(shared_axes=[0]), r"PReLU takes axes behind the batch axis .* shared_axes, got \[0\]"),
        (lambda: PReLU(shared_axes=[3], name="p")(Input((4, 3))), r"PReLU 'p' .*shared_axes=\[3\].*\(None, 4, 3\)"),
        (lambda: PReLU(name="p")(Input((None, 3))), r"axis 1 of the input of PReLU 'p' must be known"),
        (lambda: Softmax(axis=2, name="s")(Input((4,))), r"Softmax 's' .*cannot be called on \(None, 4\).*axis 2"),
        (lambda: Softmax(axis="a"), r"Softmax takes an integer .* for axis, got 'a'"),
        (lambda: Masking("a"), r"Masking takes a number for mask_value, got 'a'"),
        (lambda: Masking(name="m")(Input(())), r"Masking 'm' .*min_ndim=2"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
