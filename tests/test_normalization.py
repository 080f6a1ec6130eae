"""BatchNormalization against Keras: values, gradients, moving averages, masks, layouts; and against torch's module."""

import copy
import itertools
import pickle

import keras
import numpy as np
import pytest
import torch
from layer_parity import assert_close, check_layer
from torch import nn

from torchfunc.layers.core import Embedding
from torchfunc.layers.input_layer import Input
from torchfunc.layers.normalization.batch import BatchNormalization

SHAPES = [
    (-1, (6, 5)),
    (1, (6, 5)),
    (-1, (4, 7, 5)),
    (1, (4, 5, 7)),
    (-2, (4, 5, 7)),
    (-1, (3, 4, 6, 5)),
    (1, (3, 5, 4, 6)),
    (2, (3, 4, 5, 6)),
    (-1, (2, 3, 4, 3, 5)),
    (1, (2, 5, 3, 4, 3)),
    (0, (5, 4)),
    (0, (5, 4, 3)),
    (3, (2, 3, 2, 5, 3, 2)),
]
ARGUMENTS = {
    "defaults": {},
    "no scale": {"scale": False},
    "no center": {"center": False},
    "neither": {"scale": False, "center": False},
    "numbers": {"momentum": 0.7, "epsilon": 0.1},
    "initializers": {
        "beta_initializer": "ones",
        "gamma_initializer": {"class_name": "Constant", "config": {"value": 0.5}},
        "moving_mean_initializer": "ones",
        "moving_variance_initializer": "zeros",
    },
    "penalties": {"beta_regularizer": "l1", "gamma_regularizer": "l2", "gamma_constraint": "non_neg"},
    "renorm numbers": {"renorm_momentum": 0.5},
    "renorm": {"renorm": True, "momentum": 0.7},
    "renorm clipped": {
        "renorm": True,
        "renorm_clipping": {"rmin": 0.7, "rmax": 1.2, "dmax": 0.3},
        "renorm_momentum": 0.6,
        "scale": False,
    },
}


def buffers(layer):
    return [*layer.buffers()]


def moving(theirs):
    return [weight.value for weight in theirs.non_trainable_weights]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("axis", "shape"), SHAPES)
def test_shapes_and_axes(axis, shape, training):
    ours, theirs = check_layer(
        BatchNormalization,
        keras.layers.BatchNormalization,
        {"axis": axis},
        shape,
        training=training,
        atol=5e-5,
        # There is no running an input whose channels are its batch with another batch size.
        fake_run=axis != 0,
    )
    for mine, reference in zip(buffers(ours), moving(theirs), strict=True):
        assert_close(mine, reference, 1e-6, "moving average")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kwargs", ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments(kwargs, training):
    for shape in ((6, 5), (3, 4, 4, 5)):
        ours, theirs = check_layer(
            BatchNormalization,
            keras.layers.BatchNormalization,
            kwargs,
            shape,
            training=training,
            atol=5e-5,
            randomize="moving_mean_initializer" not in kwargs,
        )
        for mine, reference in zip(buffers(ours), moving(theirs), strict=True):
            assert_close(mine, reference, 1e-6, "moving average")


def pair(shape, **kwargs):
    ours, theirs = BatchNormalization(**kwargs), keras.layers.BatchNormalization(**kwargs)
    ours.build(shape)
    theirs.build(shape)
    return ours, theirs


@pytest.mark.parametrize("kwargs", [{}, {"renorm": True, "renorm_momentum": 0.8, "renorm_clipping": {"rmax": 3}}])
@pytest.mark.parametrize("shape", [(2, 3), (8, 3), (2, 5, 3)])
def test_moving_averages_over_many_steps(shape, kwargs):
    ours, theirs = pair(shape, momentum=0.6, **kwargs)
    rng = np.random.default_rng(0)
    for step in range(6):
        x = torch.from_numpy(rng.normal(step, 1 + step, size=shape).astype("float32"))
        assert_close(ours(x), theirs(x, training=True), 1e-4, f"step {step}")
        for mine, reference in zip(buffers(ours), moving(theirs), strict=True):
            assert_close(mine, reference, 1e-5, f"step {step}")
    assert_close(ours.eval()(x), theirs(x, training=False), 1e-5, "inference")


def test_the_variance_is_the_biased_one():
    layer = BatchNormalization(momentum=0.0)
    layer(torch.tensor([[1.0], [3.0]]))
    assert layer.running_mean.tolist() == [2.0]
    assert layer.running_var.item() == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 3), (1, 1, 1, 3)])
def test_a_single_value_gives_beta(shape):
    ours, theirs = pair(shape)
    x = torch.randn(shape)
    assert_close(ours(x), theirs(x, training=True), 1e-6, "output")
    for mine, reference in zip(buffers(ours), moving(theirs), strict=True):
        assert_close(mine, reference, 1e-6, "moving average")


@pytest.mark.parametrize("kwargs", [{}, {"scale": False}, {"center": False}, {"axis": 1}, {"renorm": True}])
def test_masks(kwargs):
    shape = (4, 6, 6)
    rng = np.random.default_rng(0)
    mask = torch.from_numpy(rng.random(shape[:2]) < 0.6)
    ours, theirs = pair(shape, **kwargs)
    x = rng.normal(1, 2, size=shape).astype("float32")
    first, second = torch.from_numpy(x).requires_grad_(), torch.from_numpy(x).requires_grad_()
    actual, expected = ours(first, mask=mask), theirs(second, training=True, mask=mask)
    assert_close(actual, expected, 1e-5, "output")
    direction = torch.from_numpy(rng.normal(size=shape).astype("float32"))
    actual.backward(direction)
    expected.backward(direction)
    assert_close(first.grad, second.grad, 1e-5, "gradient")
    for mine, reference in zip(buffers(ours), moving(theirs), strict=True):
        assert_close(mine, reference, 1e-6, "moving average")
    assert_close(ours.eval()(first, mask=mask), theirs(second, training=False, mask=mask), 1e-5, "inference")


def test_masks_leave_out_what_is_not_finite():
    layer, x = BatchNormalization(), torch.randn(3, 4, 2)
    mask = torch.ones(3, 4, dtype=torch.bool)
    x[0, 0], mask[0, 0] = torch.nan, False
    output = layer(x, mask=mask)
    assert torch.isfinite(torch.cat([layer.running_mean, layer.running_var, output[mask].flatten()])).all()


def test_a_mask_of_the_graph_is_used_and_passed_on():
    embedded = Embedding(5, 3, mask_zero=True)(Input((6,), dtype="int64"))
    output = BatchNormalization()(embedded)
    assert output.mask is not None
    assert output.node.kwargs["mask"] is embedded.mask
    with pytest.raises(ValueError, match=r"BatchNormalization.* takes a mask .*\(4, 6\).*\(4, 6, 3\)"):
        BatchNormalization()(torch.zeros(4, 6, 3), mask=torch.ones(4, 6, 3))


def test_what_is_frozen_runs_in_inference_mode():
    x = torch.randn(8, 3)
    ours, theirs = pair((None, 3))
    ours(x)
    theirs(x, training=True)
    ours.trainable = theirs.trainable = False
    before = copy.deepcopy(ours.state_dict())
    assert ours.training
    assert_close(ours(x), theirs(x, training=True), 1e-6, "frozen")
    assert all(torch.equal(ours.state_dict()[key], value) for key, value in before.items())
    ours.trainable = theirs.trainable = True
    assert_close(ours(x), theirs(x, training=True), 1e-5, "free again")


def test_training_argument_for_one_call():
    layer, x = BatchNormalization(), torch.randn(8, 3)
    layer.eval()
    normalized = layer(x, training=True)
    assert normalized.mean(0).abs().max() < 1e-5
    assert not layer.training
    before = layer.running_mean.clone()
    layer.train()
    layer(x, training=False)
    assert torch.equal(layer.running_mean, before)


TORCH = [(nn.BatchNorm1d, (6, 5)), (nn.BatchNorm1d, (6, 5, 4)), (nn.BatchNorm2d, (6, 5, 4, 3))]


@pytest.mark.parametrize(("module", "shape"), TORCH)
def test_state_dict_is_that_of_torch(module, shape):
    theirs = module(5, eps=1e-3, momentum=0.1)
    ours = BatchNormalization(axis=1, momentum=0.9)
    ours.build(shape)
    x = torch.randn(shape)
    theirs(x)
    state = {key: value for key, value in theirs.state_dict().items() if key != "num_batches_tracked"}
    ours.load_state_dict(state)
    assert list(ours.state_dict()) == list(state) == ["weight", "bias", "running_mean", "running_var"]
    assert_close(ours.eval()(x), theirs.eval()(x), 1e-6, "inference")
    assert_close(ours.train()(x), theirs.train()(x), 1e-5, "training")


def test_weight_order_is_that_of_keras():
    ours, theirs = pair((None, 2))
    values = [np.full(2, number, "float32") for number in range(1, 5)]
    ours.set_weights(values)
    theirs.set_weights(values)
    assert [weight.name for weight in theirs.weights] == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert [each[0].item() for each in (ours.weight, ours.bias, *buffers(ours))] == [1, 2, 3, 4]
    assert (len(ours.trainable_weights), len(ours.non_trainable_weights)) == (2, 2)


@pytest.mark.parametrize(
    ("axis", "shape", "permutation"), [(-1, (4, 6, 8, 3), (0, 3, 1, 2)), (-1, (4, 8, 3), (0, 2, 1))]
)
@pytest.mark.parametrize("training", [True, False])
def test_channels_last_is_no_copy(axis, shape, permutation, training):
    """The kernel is handed a view whose memory is that of the input, and its output lies like the input."""
    layer = BatchNormalization(axis)
    layer.build(shape)
    seen, original = [], torch.nn.functional.batch_norm

    def spy(view, *args, **kwargs):
        seen.append(view)
        return original(view, *args, **kwargs)

    x = torch.randn(shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "batch_norm", spy)
        output = layer(x, training=training)
    assert seen[0].data_ptr() == x.data_ptr()
    sizes = tuple(shape[axis] for axis in permutation)
    assert tuple(seen[0].shape) == (sizes if len(shape) == 4 else (*sizes[:2], 1, *sizes[2:]))
    assert output.stride() == x.stride()


# (PyTorch's kernel, on its own, takes a gradient in another layout than an image of width 1 for one in the same.)
@pytest.mark.parametrize(
    ("axis", "shape"), [(-1, (6, 4, 3)), (1, (6, 3, 4)), (-1, (1, 4, 3)), (-1, (2, 4, 1, 3)), (1, (1, 3, 4, 2))]
)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_in_any_layout(axis, shape, training):
    orders = list(itertools.permutations(range(len(shape))))
    axes = [index for index in range(len(shape)) if index != axis % len(shape)]
    layer = BatchNormalization(axis=axis, momentum=1.0).train(training)
    layer.build(shape)
    parameters = [nn.init.uniform_(parameter) for parameter in layer.parameters()]
    weight, bias = (parameter.view([size if size == 3 else 1 for size in shape]) for parameter in parameters)

    def laid_out(order):
        return torch.randn(shape).permute(order).contiguous().permute([order.index(i) for i in range(len(order))])

    for order, other in itertools.product(orders, orders[::2]):
        inputs, gradient = laid_out(order).requires_grad_(), laid_out(other)
        variance, mean = torch.var_mean(inputs, axes, correction=0, keepdim=True) if training else (1.0, 0.0)
        expected = (inputs - mean) * (variance + 1e-3) ** -0.5 * weight + bias
        wanted = torch.autograd.grad(expected, [inputs, *parameters], gradient)
        for one, another in zip(
            torch.autograd.grad(layer(inputs), [inputs, *parameters], gradient), wanted, strict=True
        ):
            torch.testing.assert_close(one, another, rtol=1e-4, atol=1e-4)


def test_drawing_leaves_everything_as_it_is():
    layer = BatchNormalization()
    layer.build((None, 3))
    layer(torch.randn(4, 3)).sum().backward()
    before, mode = copy.deepcopy(layer.state_dict()), layer.training
    generator, gradient = torch.get_rng_state(), layer.bias.grad.clone()
    pointers = [tensor.data_ptr() for tensor in layer.weights]
    drawn = layer(Input((3,)))
    assert (drawn.shape, drawn.dtype) == ((None, 3), torch.float32)
    assert all(torch.equal(layer.state_dict()[key], value) for key, value in before.items())
    assert layer.training == mode
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(layer.bias.grad, gradient)
    assert [tensor.data_ptr() for tensor in layer.weights] == pointers


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [True, False])
def test_half_precision_inputs(dtype, training):
    shape = (8, 4, 4, 3)
    ours, theirs = pair(shape)
    x = torch.randn(shape).to(dtype)
    output = ours(x, training=training)
    assert output.dtype == ours(Input(shape[1:], dtype=dtype)).dtype == dtype
    assert_close(output.float(), theirs(x.float(), training=training), 0.02, "half")
    mask = torch.ones(shape[:3], dtype=torch.bool)
    assert ours(x, training=True, mask=mask).dtype == dtype


def test_integer_inputs():
    x = torch.tensor([[1, 2], [3, 5]])
    layer = BatchNormalization()
    assert_close(layer(x), keras.layers.BatchNormalization()(x, training=True), 1e-5, "integers")
    assert layer(Input((2,), dtype="int64")).dtype == torch.float32


@pytest.mark.parametrize("mask", [False, True])
def test_compiled_whole(mask):
    torch._dynamo.reset()
    shape = (4, 5, 3)
    extra = {"mask": torch.rand(shape[:2]) < 0.7} if mask else {}
    layer = BatchNormalization()
    layer.build(shape)
    twin = copy.deepcopy(layer)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for step in range(3):
        x, direction = torch.randn(shape), torch.randn(shape)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = compiled(inputs[0], **extra), layer(inputs[1], **extra)
        assert_close(*outputs, 1e-6, f"step {step}")
        torch.autograd.backward(outputs, [direction, direction])
        assert_close(inputs[0].grad, inputs[1].grad, 1e-5, f"step {step}")
        for mine, reference in zip(buffers(twin), buffers(layer), strict=True):
            assert_close(mine, reference, 1e-6, f"step {step}")
    pointers = [buffer.data_ptr() for buffer in buffers(twin)]
    compiled(x, **extra)
    assert [buffer.data_ptr() for buffer in buffers(twin)] == pointers


def test_exported_with_any_batch():
    layer = BatchNormalization().eval()
    layer.build((None, 4, 3))
    layer.set_weights([np.random.default_rng(0).random(3) for _ in range(4)])
    batch = torch.export.Dim("batch", min=1, max=100)
    program = torch.export.export(layer, (torch.randn(4, 4, 3),), dynamic_shapes=({0: batch},))
    x = torch.randn(7, 4, 3)
    assert_close(program.module()(x), layer(x), 1e-6, "exported")


def test_copies():
    layer, x = BatchNormalization(), torch.randn(6, 3)
    layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x, training=False), layer(x, training=False))


@pytest.mark.parametrize("masked", [False, True])
def test_called_twice_before_backward(masked):
    layer = BatchNormalization(momentum=0.9)
    inputs = [torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)]
    layer(torch.randn(4, 3))
    mean, variance = layer.running_mean.clone(), layer.running_var.clone()
    upstream = torch.randn(4, 3)
    # Of the second call a row may not count.
    counts = [torch.ones(4, 1), torch.tensor([1.0, 1.0, 0.0 if masked else 1.0, 1.0]).unsqueeze(1)]
    outputs = [layer(inputs[0]), layer(inputs[1], mask=counts[1][:, 0] > 0 if masked else None)]
    found = torch.autograd.grad(sum((output * upstream).sum() for output in outputs), [*inputs, layer.weight])

    # By the formula, one call after the other.
    by_formula = []
    for each, count in zip(inputs, counts, strict=True):
        own_mean = (each * count).sum(0) / count.sum()
        own_variance = ((each - own_mean).square() * count).sum(0) / count.sum()
        mean = 0.9 * mean + 0.1 * own_mean
        variance = 0.9 * variance + 0.1 * own_variance
        by_formula.append((each - own_mean) * torch.rsqrt(own_variance + 1e-3) * layer.weight)
    expected = torch.autograd.grad(sum((output * upstream).sum() for output in by_formula), [*inputs, layer.weight])
    for ours, theirs in zip([*outputs, *found], [*by_formula, *expected], strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(layer.running_mean, mean.detach())
    torch.testing.assert_close(layer.running_var, variance.detach())


def test_penalties_equal_keras():
    kwargs = {"beta_regularizer": "l1", "gamma_regularizer": "l2"}
    ours, theirs = pair((None, 3), **kwargs)
    values = [np.array([1.0, -2.0, 3.0], "float32")] * 4
    ours.set_weights(values)
    theirs.set_weights(values)
    assert sum(ours.losses).item() == pytest.approx(sum(theirs.losses).item())


@pytest.mark.parametrize(
    ("kwargs", "shape", "message"),
    [
        ({"renorm": True, "renorm_clipping": {"max": 1}}, (None, 3), "takes rmin, rmax and dmax .*'max'"),
        ({"renorm": True, "renorm_clipping": {"rmin": 2, "rmax": 1}}, (None, 3), "needs rmin <= rmax"),
        ({"renorm": True, "renorm_clipping": {"dmax": -1}}, (None, 3), "needs dmax >= 0"),
        ({"axis": 3}, (None, 3), r"BatchNormalization.* axis 3 .*\(None, 3\)"),
        ({"axis": 1}, (None, None, 3), "size of axis 1 .*must be known"),
        ({}, (3,), r"shape \(3,\)"),
    ],
)
def test_errors(kwargs, shape, message):
    with pytest.raises(ValueError, match=message):
        BatchNormalization(**kwargs)(Input(batch_shape=shape))


def test_another_input_is_refused():
    layer = BatchNormalization(name="bn")
    layer(Input((4, 3)))
    for shape in ((3,), (4, 5)):
        with pytest.raises(ValueError, match=r"'bn'.*expected"):
            layer(Input(shape))


def test_takes_the_state_dict_of_torch_s_module_and_gives_its_own():
    theirs = nn.BatchNorm1d(5, momentum=0.01, eps=1e-3)
    theirs(torch.randn(8, 5))
    ours = BatchNormalization()
    ours.build((None, 5))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(6, 5)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    again = nn.BatchNorm1d(5, eps=1e-3)
    again.load_state_dict(ours.state_dict())
    torch.testing.assert_close(again.eval()(x), ours(x))
