"""The rest of `keras.ops`: every name is here or absent with a reason; values, shapes and arguments against Keras."""

import inspect

import keras
import numpy as np
import pytest
import torch
from ops_tables import CASES, EAGER, NEW, ONE, TWO
from torch.utils._pytree import tree_leaves

from torchfunc import Input, Model, ops
from torchfunc.graph import SymbolicTensor

SHAPE = (2, 3, 4)
NAMESPACES = ("image", "linalg", "nn", "numpy")
# What an argument is made of.
KINDS = {
    "": lambda o, x: x,
    "+": lambda o, x: o.abs(x) + 1.5,
    "u": lambda o, x: o.tanh(x) * 0.9,
    "i": lambda o, x: o.cast(10 * x, "int32"),
    "p": lambda o, x: o.cast(o.abs(x), "int32"),
}


def find(module, path):
    for part in path.split("."):
        module = getattr(module, part)
    return module


def of_one(word):
    name, _, kind = word.partition(":")
    make = KINDS.get(kind, KINDS[""])
    return name, lambda o, x: find(o, name)(make(o, x))


def of_two(word):
    name, _, kind = word.partition(":")
    make = KINDS[kind]
    return name, lambda o, x: find(o, name)(make(o, x), make(o, 3 * x + 1))


DRAWN = {
    **dict(of_one(word) for word in ONE if word.partition(":")[2] not in ("eager", "number", "shape")),
    **dict(of_two(word) for word in TWO),
    **CASES,
}
REAL = {**DRAWN, **dict(of_one(word) for word in ONE if word.endswith((":eager", ":number"))), **EAGER}


def public(module):
    return {name for name in dir(module) if not name.startswith("_")}


def test_namespaces_hold_the_same_functions():
    for space in NAMESPACES:
        module = getattr(ops, space)
        for name in module.__all__:
            function = getattr(module, name)
            assert space == "image" or function is getattr(ops, name, function)
    assert ops.nn.softmax is ops.softmax
    assert ops.linalg.norm is ops.norm
    assert ops.numpy.sum is ops.sum


# What Keras takes and torch's functions do not.
LEFT_OUT = {"sparse", "ragged", "initial", "dtype", "kwargs"}


PATHS = {*ops.__all__, *(f"image.{name}" for name in ops.image.__all__)} - {*NAMESPACES}


@pytest.mark.parametrize("path", sorted(PATHS))
def test_arguments_are_keras_own(path):
    ours = inspect.signature(find(ops, path)).parameters
    theirs = inspect.signature(find(keras.ops, path)).parameters
    assert [name for name in theirs if name not in LEFT_OUT or name in ours] == list(ours) or path == "einsum"
    for argument, parameter in ours.items():
        if argument in theirs:
            assert parameter.default == theirs[argument].default, argument


def test_every_operation_is_tested():
    tested = {name.split()[0] for name in (*REAL, *NEW)}
    # (sparsemax as an activation.)
    elsewhere = {"custom_gradient", "ctc_loss", "jvp", "dtype", "empty", "empty_like", "nonzero", "sparsemax"}
    from test_ops import CASES as everyday
    from test_ops import NEW as new

    tested |= (
        elsewhere
        | {name.split()[0] for name in NUMPY}
        | {name.split()[0] for name in (*everyday, *new)}
        | {"convert_to_numpy", "is_tensor", "shape"}
    )
    assert PATHS - tested == set()


@pytest.fixture
def x():
    return 1.7 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))


def assert_same(ours, theirs):
    ours, theirs = tree_leaves(ours), tree_leaves(theirs)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        one, other = torch.as_tensor(one), torch.as_tensor(other)
        assert one.is_floating_point() == other.is_floating_point()
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REAL)
def test_values_of_tensors(name, x):
    assert_same(REAL[name](ops, x.clone()), REAL[name](keras.ops, x.clone()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DRAWN)
def test_symbolic_tensors(name, x):
    inputs = Input(batch_shape=SHAPE)
    drawn = DRAWN[name](ops, inputs)
    outputs = [leaf for leaf in tree_leaves(drawn) if isinstance(leaf, SymbolicTensor)]
    expected = tree_leaves(DRAWN[name](keras.ops, x.clone()))
    assert len(outputs) == len(expected)
    assert [leaf.shape for leaf in outputs] == [tuple(leaf.shape) for leaf in expected]
    assert_same(Model(inputs, outputs)(x), expected)


@pytest.mark.parametrize(
    "name", ["conv", "conv strided", "max_pool", "average_pool", "fft2", "image.rgb_to_hsv", "pad", "norm axis"]
)
def test_unknown_sizes(name, x):
    inputs = Input((None, 4))
    if name.startswith("image"):
        function = find(ops, name)
        model = Model(inputs, function(ops.sigmoid(inputs[:, None, :, :3])))
        assert_same(model(x), function(torch.sigmoid(x[:, None, :, :3])))
    else:
        assert_same(Model(inputs, list(tree_leaves(CASES[name](ops, inputs))))(x), CASES[name](keras.ops, x))


# Where Keras' torch backend fails or differs from its documentation: against NumPy.
NUMPY = {
    "pad all": (lambda o, x: o.pad(x, 1), lambda x: np.pad(x, 1)),
    "pad pair": (lambda o, x: o.pad(x, (1, 2)), lambda x: np.pad(x, (1, 2))),
    "pad symmetric": (
        lambda o, x: o.pad(x, ((0, 0), (2, 1), (1, 0)), mode="symmetric"),
        lambda x: np.pad(x, ((0, 0), (2, 1), (1, 0)), mode="symmetric"),
    ),
    "average axis": (lambda o, x: o.average(x, 1, np.arange(1.0, 4)), lambda x: np.average(x, 1, np.arange(1.0, 4))),
    "average of all": (lambda o, x: o.average(x, None, x**2), lambda x: np.average(x, None, x**2)),
    "argpartition": (
        lambda o, x: o.take_along_axis(x, o.argpartition(x, 1, axis=1), 1)[:, 1],
        lambda x: np.partition(x, 1, axis=1)[:, 1],
    ),
    "cross of equal sizes": (
        lambda o, x: o.cross(x[..., :3], 3 * x[..., 1:]), lambda x: np.cross(x[..., :3], 3 * x[..., 1:])
    ),
    "linspace of tensors": (
        lambda o, x: o.linspace(x, x + 1, 5, axis=-1), lambda x: np.linspace(x, x + 1, 5, axis=-1)
    ),
    "imag": (lambda o, x: o.imag(x), lambda x: np.imag(x)),
    "vdot": (lambda o, x: o.vdot(x, 2 * x), lambda x: np.vdot(x, 2 * x)),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMPY)
def test_against_numpy(name, x):
    ours, theirs = NUMPY[name]
    np.testing.assert_allclose(ours(ops, x).numpy(), theirs(x.numpy()), rtol=1e-4, atol=1e-5)
    inputs = Input(batch_shape=SHAPE)
    np.testing.assert_allclose(Model(inputs, ours(ops, inputs))(x), theirs(x.numpy()), rtol=1e-4, atol=1e-5)


def test_places_of_what_is_not_zero():
    assert [each.tolist() for each in ops.nonzero([[0, 1], [2, 0]])] == [[0, 1], [1, 0]]


@pytest.mark.parametrize("name", NEW)
def test_new_tensors(name):
    assert_same(NEW[name](ops), NEW[name](keras.ops))


def test_arrays_are_taken():
    rows = np.arange(6, dtype="float32").reshape(2, 3)
    for name in ("arcsinh", "cosh", "tan", "amax", "median", "logical_not", "normalize", "tril", "nan_to_num"):
        assert_same(getattr(ops, name)(rows), getattr(keras.ops, name)(rows))
    assert ops.dtype(rows) == "float32"
    assert ops.size(rows) == 6
    assert ops.empty((2, 3), "int32").dtype == torch.int32
    assert ops.empty_like(rows).shape == (2, 3)
    assert ops.log1p(np.array([1, 2])).dtype == torch.float32


def test_sizes_and_conditions_of_symbolic_tensors(x):
    inputs = Input((None, 4))
    count = ops.size(inputs)
    chosen = ops.cond(ops.sum(inputs) > 0, lambda: inputs, lambda: -inputs)
    model = Model(inputs, [inputs / count, chosen])
    for data in (x, -x):
        scaled, found = model(data)
        torch.testing.assert_close(scaled, data / 24)
        assert torch.equal(found, data if data.sum() > 0 else -data)
    for loop in (
        lambda: ops.while_loop(lambda v: True, lambda v: v, (inputs,)),
        lambda: ops.switch(inputs, []),
        lambda: ops.vectorized_map(lambda v: v, inputs),
    ):
        with pytest.raises(ValueError, match=r"call it in a Layer's call\(\)"):
            loop()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_gradients_of_ones_own():
    @ops.custom_gradient
    def log1pexp(x):
        e = torch.exp(x)
        return torch.log(1 + e), lambda upstream: upstream * (1 - 1 / (1 + e))

    x = torch.tensor(100.0, requires_grad=True)
    log1pexp(x).backward()
    assert x.grad.item() == 1.0
    value, tangent = ops.jvp(torch.sin, (torch.tensor(0.5),), (torch.tensor(2.0),))
    assert (value.item(), tangent.item()) == pytest.approx((np.sin(0.5), 2 * np.cos(0.5)))


def test_ctc_loss():
    scores = torch.randn(2, 8, 5)
    targets, lengths = np.array([[1, 2, 2], [3, 4, 1]]), (np.array([3, 2]), np.array([8, 6]))
    assert_same(ops.ctc_loss(targets, scores, *lengths), keras.ops.ctc_loss(targets, scores, *lengths))


def test_segments_beyond_the_last_are_left_out():
    data, numbers = torch.tensor([[1.0], [2.0], [4.0], [8.0]]), torch.tensor([0, -1, 1, 2])
    assert ops.segment_sum(data, numbers, 2).tolist() == [[1.0], [4.0]]
    assert ops.segment_max(data, numbers, 4).tolist() == [[1.0], [4.0], [8.0], [-np.inf]]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda x: ops.image.resize(x[..., None], (2, 2), "lanczos3"), "bilinear"),
        (lambda x: ops.image.crop_images(x[..., None], 1, 1), "exactly two"),
        (lambda x: ops.image.crop_images(x[..., None], 9, 0, 0, 0), "margins of 9"),
        (lambda x: ops.image.map_coordinates(x, x, 2), "orders 0 and 1"),
        (lambda x: ops.image.affine_transform(x[..., None], x[0, :1], "cubic"), "bilinear and nearest"),
        (lambda x: ops.conv(x, torch.ones(1, 4, 1), padding="full"), '"valid" or "same"'),
        (lambda x: ops.pad(x, 1, "edge"), '"constant"'),
        (lambda x: ops.moments(x, 0, synchronized=True), "SyncBatchNorm"),
        (lambda x: ops.multi_hot(x), "num_classes"),
        (lambda x: ops.scatter_update(x, [[0]], x, "mul"), "reductions"),
        (lambda x: ops.stft(x, 2, 1, 4, window="box"), "hann"),
        (lambda x: ops.bincount(x, sparse=True), "sparse"),
        (lambda x: ops.unique(x, size=3), "torch.unique"),
        (lambda x: ops.scan(lambda c, v: (c, v), x), "xs or length"),
        (lambda x: ops.vectorize(abs, excluded=[0]), "torch.vmap"),
        (lambda x: ops.dot_product_attention(x, x, x, attn_logits_soft_cap=1.0), "flex_attention"),
    ],
)
def test_mistakes_are_explained(wrong, said, x):
    with pytest.raises(ValueError, match=said):
        wrong(x)
