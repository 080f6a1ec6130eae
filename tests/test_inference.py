"""Shape inference: what it finds out equals what really comes out, and finding it out changes nothing."""

import copy
import dataclasses
import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from eager_parity import check_traced
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.utils import parametrizations, prune

from torchfunc import Input, Layer, ops
from torchfunc.layers import Dense, Embedding, TorchModule
from torchfunc.models import Model

ROWS = (None, 8)
STEPS = (None, 6, 8)
OPEN = (None, None, 8)
IMAGES = (None, 3, 16, 16)
OPEN_IMAGES = (None, 3, None, None)

# (what is called, the shape of its input)
FUNCTIONS = {
    "softmax": (lambda x: F.softmax(x, -1), OPEN),
    "cumsum": (lambda x: x.cumsum(1), OPEN),
    "mean over an unknown axis": (lambda x: x.mean(1), OPEN),
    "sum of all": (torch.sum, OPEN),
    "norm": (lambda x: F.normalize(x, dim=-1), ROWS),
    "cdist": (lambda x: torch.cdist(x, x), OPEN),
    "outer": (lambda x: x.unsqueeze(-1) * x.unsqueeze(-2), ROWS),
    "bmm": (lambda x: torch.bmm(x, x.transpose(1, 2)), OPEN),
    "tensordot": (lambda x: torch.tensordot(x, torch.ones(8, 2), dims=1), OPEN),
    "kron": (lambda x: torch.kron(x[0], torch.ones(2)), ROWS),
    "permute": (lambda x: x.permute(1, 2, 0), OPEN),
    "movedim": (lambda x: x.movedim(0, -1), OPEN),
    "flatten all": (torch.flatten, STEPS),
    "flatten": (lambda x: x.flatten(1), STEPS),
    "unflatten": (lambda x: x.unflatten(-1, (2, -1)), STEPS),
    "reshape with -1": (lambda x: x.reshape(-1, 4), STEPS),
    "squeeze": (lambda x: x.unsqueeze(1).squeeze(1), ROWS),
    "tile": (lambda x: x.tile(2, 3), ROWS),
    "roll": (lambda x: x.roll(1, 0), ROWS),
    "flip": (lambda x: x.flip(0, 1), OPEN),
    "cat along an unknown axis": (lambda x: torch.cat([x, x, torch.ones(1, 8)]), ROWS),
    "stack": (lambda x: torch.stack([x, x], dim=0), ROWS),
    "split": (lambda x: x.split([3, 5], dim=1), ROWS),
    "tensor_split": (lambda x: x.tensor_split(2, dim=1), OPEN),
    "unfold": (lambda x: x.unfold(1, 3, 2), OPEN),
    "gather": (lambda x: x.gather(1, torch.zeros_like(x[:, :1], dtype=torch.int64)), ROWS),
    "index_select": (lambda x: x.index_select(1, torch.tensor([0, 0, 3])), ROWS),
    "topk": (lambda x: x.topk(3, dim=-1), ROWS),
    "sort": (lambda x: x.sort(0), ROWS),
    "argmax": (lambda x: x.argmax(-1), OPEN),
    "quantile": (lambda x: x.quantile(torch.tensor([0.1, 0.9]), dim=0), ROWS),
    "logsumexp": (lambda x: x.logsumexp(1), OPEN),
    "var_mean": (lambda x: torch.var_mean(x, dim=(0, 1)), OPEN),
    "broadcast": (lambda x: torch.broadcast_tensors(x, torch.ones(1, 1, 8)), ROWS),
    "pad": (lambda x: F.pad(x, (1, 2, 3, 0)), OPEN),
    "conv1d": (lambda x: F.conv1d(x, torch.ones(4, 6, 3), padding="same"), STEPS),
    "conv2d": (lambda x: F.conv2d(x, torch.ones(4, 3, 3, 3), stride=2), OPEN_IMAGES),
    "conv_transpose2d": (lambda x: F.conv_transpose2d(x, torch.ones(3, 4, 3, 3), stride=2), OPEN_IMAGES),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2, ceil_mode=True), OPEN_IMAGES),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, 3), OPEN_IMAGES),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), OPEN_IMAGES),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), OPEN_IMAGES),
    "grid_sample": (lambda x: F.grid_sample(x, x[:, :2].movedim(1, -1), align_corners=False), IMAGES),
    "unfold2d": (lambda x: F.unfold(x, 2, stride=2), OPEN_IMAGES),
    "one_hot": (lambda x: F.one_hot(x.long().clamp(0, 3), 4), ROWS),
    "embedding": (lambda x: F.embedding(x.abs().long().clamp(max=3), torch.ones(4, 2)), OPEN),
    "cross_entropy": (lambda x: F.cross_entropy(x, x.argmax(-1), reduction="none"), ROWS),
    "rfft": (lambda x: torch.fft.rfft(x, dim=1).real, OPEN),
    "stft": (lambda x: torch.stft(x, 4, window=torch.ones(4), return_complex=True).abs(), (None, 16)),
    "complex": (lambda x: torch.complex(x, x).angle(), ROWS),
    "promotion": (lambda x: x.half() + x, ROWS),
    "comparison": (lambda x: torch.isclose(x, x * 2), ROWS),
}  # fmt: skip
MODULES = {
    "conv": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1), OPEN_IMAGES),
    "transposed conv": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1), OPEN_IMAGES),
    "batch norm": (lambda: nn.BatchNorm2d(3), OPEN_IMAGES),
    "group norm": (lambda: nn.GroupNorm(3, 3), IMAGES),
    "adaptive pool": (lambda: nn.AdaptiveAvgPool2d(1), OPEN_IMAGES),
    "upsample": (lambda: nn.Upsample(scale_factor=2), OPEN_IMAGES),
    "flatten": (nn.Flatten, IMAGES),
    "unflatten": (lambda: nn.Unflatten(1, (2, 4)), ROWS),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), (None, 4, None, 5)),
    "fold": (lambda: nn.Fold((4, 4), 2), (None, 4, 9)),
    "reflection pad": (lambda: nn.ReflectionPad1d(2), (None, 3, None)),
    "glu": (nn.GLU, ROWS),
    "rms norm": (lambda: nn.RMSNorm(8), OPEN),
    "lstm": (lambda: nn.LSTM(8, 4, 2, batch_first=True), OPEN),
    "gru": (lambda: nn.GRU(8, 4, bidirectional=True), OPEN),
    "rnn": (lambda: nn.RNN(8, 4, 2), OPEN),
    "attention": (lambda: _SelfAttention(), OPEN),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), OPEN),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(8, 3)), ROWS),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(8, 3)), ROWS),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(8, 3)), ROWS),
    "pruned": (lambda: prune.l1_unstructured(nn.Linear(8, 3), "weight", 0.5), ROWS),
    "traced by torch.fx": (lambda: torch.fx.symbolic_trace(nn.Linear(8, 3)), ROWS),
    "compiled": (lambda: torch.compile(nn.Linear(8, 3), backend="eager"), ROWS),
}


class _SelfAttention(nn.MultiheadAttention):
    def __init__(self):
        super().__init__(8, 2, batch_first=True)

    def forward(self, x):
        return super().forward(x, x, x)


@pytest.mark.parametrize("case", FUNCTIONS)
def test_functions(case):
    function, shape = FUNCTIONS[case]
    check_traced(function, shape)


@pytest.mark.parametrize("case", MODULES)
def test_modules(case):
    make, shape = MODULES[case]
    torch.manual_seed(0)
    check_traced(make().eval(), shape)


@pytest.mark.parametrize("shape", [(5, 8), (None, 8), (5, None), (None, None)])
def test_known_sizes_stay_known(shape):
    assert (Input(batch_shape=shape) + 1).shape == shape
    assert Dense(3)(Input(batch_shape=(*shape, 4))).shape == (*shape, 3)
    assert torch.cat([Input(batch_shape=shape)] * 2, dim=1).shape == (shape[0], shape[1] and 16)


class Counting(nn.Module):
    """Keeps count of its calls, in every place where a module may."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros(8), persistent=False)
        self.history = []
        self.weight = nn.Parameter(torch.ones(8))
        self.weight.grad = torch.full((8,), 0.5)

    def forward(self, x):
        self.total += 1
        self.seen.add_(x.detach().mean(0))
        self.calls += 1
        self.history.append(x.shape)
        if x.requires_grad:
            x.sum().backward()
        with torch.no_grad():
            self.weight.mul_(1.01)
        return x * self.weight + torch.rand_like(x) + F.dropout(x, 0.5)


class CountingLayer(Layer):
    """The same for our own protocol: weights made in `build`, a sublayer built by the call."""

    def __init__(self):
        super().__init__()
        self.inner = Dense(8)
        self.calls = 0

    def build(self, input_shape):
        self.total = self.add_weight((), "zeros", trainable=False)

    def call(self, inputs, training=None):
        self.calls += 1
        self.total.add_(1)
        return self.inner(inputs) * (2.0 if training else 1.0)


class Hoarding(nn.Module):
    """Keeps tensors where torch does not look for them, and draws from every random generator."""

    def __init__(self):
        super().__init__()
        self.tables = [torch.ones(8), {"more": torch.ones(8), "weight": nn.Parameter(torch.ones(8))}]
        self.generator = torch.Generator()

    @property
    def calls(self):
        return float(self.tables[0].sum()), self.generator.initial_seed(), bytes(self.generator.get_state().numpy())

    def forward(self, x):
        self.tables[0].add_(1)
        self.tables[1]["more"] = x
        x = x + torch.rand(8, generator=self.generator) * self.tables[1]["weight"]
        return x * random.random() + np.random.rand() + torch.rand(8)


def _old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(nn.Linear(8, 8))


UNTOUCHED = {
    "batch norm": lambda: nn.BatchNorm1d(8),
    "dropout": lambda: nn.Dropout(0.5),
    "lstm": lambda: nn.LSTM(8, 8, 2, dropout=0.5),
    "sequential": lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout()),
    "counting": Counting,
    "hoarding": Hoarding,
    "nested": lambda: nn.Sequential(Counting(), nn.Sequential(Counting())),
    "shared submodule": lambda: nn.Sequential(*[Counting()] * 2),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(8, 8)),
    "old weight norm": _old_weight_norm,
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(8, 8)),
    "old spectral norm": lambda: nn.utils.spectral_norm(nn.Linear(8, 8)),
    "torch module": lambda: TorchModule(Counting()),
    "model": lambda: _model(),
}


def _model():
    inputs = Input((8,))
    return Model(inputs, CountingLayer()(nn.BatchNorm1d(8)(Counting()(inputs))))


def _everything(module):
    """All that tracing must leave as it is, in a form that compares bit by bit."""
    state = {name: value.numpy().tobytes() for name, value in module.state_dict().items()}
    identities = {name: id(value) for name, value in (*module.named_parameters(), *module.named_buffers())}
    buffers = {name: value.numpy().tobytes() for name, value in module.named_buffers()}
    grads = {
        name: None if value.grad is None else value.grad.numpy().tobytes() for name, value in module.named_parameters()
    }
    modes = [each.training for each in module.modules()]
    hooks = [(len(each._forward_hooks), len(each._forward_pre_hooks)) for each in module.modules()]
    calls = [(each.calls, len(getattr(each, "history", ()))) for each in module.modules() if hasattr(each, "calls")]
    generators = (
        torch.get_rng_state().numpy().tobytes(),
        repr(np.random.get_state()),
        random.getstate(),
    )
    return state, identities, buffers, grads, modes, hooks, calls, generators


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", UNTOUCHED)
def test_tracing_changes_nothing(case, training):
    torch.manual_seed(0)
    module = UNTOUCHED[case]()
    modes = [each.training for each in module.modules()]
    module.train(training)
    if len(modes) > 1:
        list(module.modules())[-1].train(not training)
    hooked = []
    module.register_forward_hook(lambda *_: hooked.append("after"))
    before = _everything(module)
    x = Input((8,))
    for _ in range(2):
        out = module(x)
    Model(x, out[0] if isinstance(out, tuple) else out)
    assert _everything(module) == before
    assert hooked == []


def test_nothing_real_is_copied():
    """A module may hold another one, and all of its weights, in a list that torch does not look into."""
    seen = []

    class Holding(nn.Module):
        def __init__(self):
            super().__init__()
            self.held = [nn.Linear(8, 8), torch.ones(8)]

        def forward(self, x):
            seen.extend([*self.held[0].parameters(), self.held[1]])
            return self.held[0](x) * self.held[1]

    assert Holding()(Input((8,))).shape == (None, 8)
    assert len(seen) == 6
    assert all(isinstance(getattr(tensor, "data", tensor), FakeTensor) for tensor in seen)


@pytest.mark.parametrize("device", ["meta"])
def test_calls_take_place_where_the_weights_are(device):
    x = Input((8,))
    linear = nn.Linear(8, 3, device=device)
    model = Model(x, linear(x) * nn.Parameter(torch.ones(3, device=device)))
    assert model(torch.ones(2, 8, device=device)).device.type == device
    moved = _model().to(device)
    assert Model(x, moved(x))(torch.ones(2, 8, device=device)).shape == (2, 8)
    assert CountingLayer().to(device)(x).shape == (None, 8)


def test_a_module_that_takes_gradients_is_traced_under_no_grad():
    class Slopes(nn.Linear):
        def forward(self, x):
            return torch.autograd.grad(super().forward(x).square().sum(), self.weight, create_graph=True)[0]

    x = Input((3,))
    with torch.no_grad():
        assert Slopes(3, 2)(x).shape == (2, 3)


def test_tracing_a_module_under_no_grad_or_inference_mode():
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            x = Input((8,))
            model = Model(x, nn.Linear(8, 3)(torch.relu(x)))
            assert not model(torch.ones(2, 8)).requires_grad


class Gated(nn.Module):
    """Its result depends on values; when they are positive it is the input."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


DATA_DEPENDENT = {
    "branch": Gated(),
    "boolean mask": lambda x: x[x > 0],
    "nonzero": torch.nonzero,
    "unique": torch.unique,
    "item": lambda x: x[: TorchModule(nn.Identity())(x).argmax()],
}


@pytest.mark.parametrize("case", DATA_DEPENDENT)
def test_data_dependent_calls_are_refused(case):
    with pytest.raises(ValueError, match="output_shape=") as caught:
        DATA_DEPENDENT[case](Input((8,)))
    assert "depends on the values" in str(caught.value)
    assert "test_inference.py" in str(caught.value)


def test_output_shape_given_by_hand():
    x = Input((8,))
    layer = TorchModule(Gated(), output_shape=(None, 8))
    model = Model(x, layer(x))
    data = torch.randn(3, 8)
    assert layer.output.shape == (None, 8)
    torch.testing.assert_close(model(data), Gated()(data))


class Record:
    """A class that torch's pytrees do not know."""

    def __init__(self, x):
        self.x = x


class Returning(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@dataclasses.dataclass
class Moments:
    """A class that torch's pytrees know."""

    mean: torch.Tensor
    scale: torch.Tensor


torch.utils._pytree.register_dataclass(Moments)


def test_registered_classes_are_looked_into():
    x = Input((8,))
    moments = Returning(lambda x: Moments(x.mean(1), [x.std(1), None]))(x)
    assert type(moments) is Moments
    assert moments.mean.node.output_values == [moments.mean, moments.scale[0]]
    model = Model(x, moments.mean + moments.scale[0])
    nested = Model(x, model(x) * 2)
    data = torch.randn(3, 8)
    torch.testing.assert_close(model(data), data.mean(1) + data.std(1))
    torch.testing.assert_close(nested(data), 2 * model(data))
    torch.testing.assert_close(copy.deepcopy(model)(data), model(data))


# (what is called, the input's shape, what the message must hold)
REFUSED = {
    "wrong size": (nn.Linear(3, 2), (8,), ["Linear(in_features=3, out_features=2", "(None, 8)", "tried as (12, 8)"]),
    "wrong rank": (nn.Conv2d(3, 4, 3), (8,), ["Conv2d(3, 4", "(None, 8)"]),
    "function": (lambda x: torch.cat([x, torch.ones(2, 3)], dim=1), (8,), ["torch.cat", "(None, 8)"]),
    "operator": (lambda x: x @ torch.ones(3, 3), (8,), ["matmul", "(None, 8)"]),
    "method": (lambda x: x.view(-1, 7), (8,), ["Tensor.view", "(None, 8)", "shape '[-1, 7]' is invalid"]),
    "lazy": (nn.LazyLinear(3), (8,), ["LazyLinear", "Run it once on real data"]),
    "error of the module's own": (Returning(lambda x: {}["missing"]), (8,), ["Returning", "(None, 8)", "missing"]),
    "unknown class returned": (Returning(Record), (8,), ["Returning", "Record", "register_dataclass"]),
    "number of outputs": (Returning(lambda x: x.unbind(1)), (None,), ["Returning", "224 values", "448"]),
    "rank of the output": (
        Returning(lambda x: x[0] if x.size(1) == 224 else x), (None,), ["rank", "Returning"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_errors_name_the_call_the_shapes_and_the_line(case):
    call, shape, parts = REFUSED[case]
    x = Input(shape)
    with pytest.raises((ValueError, KeyError)) as caught:
        call(x)
    said = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    for part in parts:
        assert part in said
    # What is wrong in somebody's own code keeps its type.
    assert isinstance(caught.value, KeyError) == ("module's own" in case)
    if case not in ("unknown class returned", "number of outputs", "rank of the output"):
        assert "test_inference.py" in said
        assert "call(x)" in said or "lambda" in said
    assert (x * 2).shape == x.shape


def test_only_our_own_fake_runs_are_left_out_of_the_log(caplog):
    def fail(x):
        with pytest.raises(RuntimeError):
            torch.cat([x, torch.empty(1)], 1)

    with FakeTensorMode():
        fail(torch.empty(2, 3))
    assert caplog.records
    caplog.clear()
    Returning(lambda x: (fail(x), x)[1])(Input((8,)))
    assert not caplog.records


def test_masks_that_are_given_win():
    class Masked(nn.Module):
        supports_masking = True

        def forward(self, x, mask=None):
            return x if mask is None else x * mask.unsqueeze(-1)

    ids = Input((4,), dtype="int64")
    x = Embedding(5, 2, mask_zero=True)(ids)
    own = ids > 2
    assert Masked()(x).node.kwargs == {"mask": x.mask}
    assert Masked()(x, mask=own).node.kwargs["mask"] is own
    assert Masked()(x, own).node.kwargs == {}
    model = Model(ids, [x, Masked()(x), Masked()(x, mask=own)])
    plain, masked, given = model(torch.tensor([[0, 1, 3, 4]]))
    keep = torch.tensor([[False, True, True, True]]), torch.tensor([[False, False, True, True]])
    torch.testing.assert_close([masked, given], [plain * mask.unsqueeze(-1) for mask in keep])


def test_symbolic_tensors_in_dicts():
    class Summing(nn.Module):
        def forward(self, parts):
            return parts["a"] + parts["more"]["b"][0]

    x, y = Input((3,)), Input((3,))
    total = Summing()({"a": x, "more": {"b": [y]}})
    assert total.node.op == "module"
    assert total.node.inputs == [x, y]
    data = torch.ones(2, 3)
    torch.testing.assert_close(Model([x, y], total)(data, data), 2 * data)
    # A layer looks into dicts of arrays as well.
    layer = TorchModule(Summing())
    layer({"a": data, "more": {"b": [data]}})
    found = layer({"a": np.ones((2, 3)), "more": {"b": [np.ones((2, 3), dtype="float32")]}})
    torch.testing.assert_close(found, 2 * data)


class Causal(Layer):
    """Makes its mask as Keras' examples of language models do: sizes are put together to a tensor."""

    def call(self, x):
        batch, steps = ops.shape(x)
        mask = ops.cast(ops.arange(steps)[:, None] >= ops.arange(steps), "float32")
        sizes = ops.concatenate([ops.expand_dims(batch, -1), ops.convert_to_tensor([1, 1])], 0)
        return ops.tile(ops.reshape(mask, ops.convert_to_tensor([1, steps, steps])), sizes) * x[:, None]


def test_sizes_in_a_tensor_are_known():
    inputs = Input((4,))
    model = Model(inputs, Causal()(inputs))
    assert model.output_shape == (None, 4, 4)
    x = torch.arange(12.0).reshape(3, 4)
    torch.testing.assert_close(model(x), x[:, None].repeat(1, 4, 1).tril())
