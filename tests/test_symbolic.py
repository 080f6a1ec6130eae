"""SymbolicTensor and SymbolicInt: what can be written with them, and what cannot."""

import copy
import inspect
import math
import pickle
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from eager_parity import check_traced
from torch import nn

from torchfunc import Input, SymbolicTensor
from torchfunc.graph import SymbolicInt, record, topological_order
from torchfunc.models import Model

ROWS = (None, 6)
STEPS = (None, 3, 6)
OPEN = (None, None, 6)

OPERATORS = {
    "arithmetic": lambda x: [x + 1, x - x, x * 2.5, x / 3, x // 2, x % 2, x**2, -x, +x, abs(x)],
    "reflected": lambda x: [1 + x, 1 - x, 2 * x, 1 / x, 7 // x, 7 % x, 2**x],
    "comparison": lambda x: [x < 0, x <= 0, x > 0, x >= 0, 0 < x, 1 >= x, torch.eq(x, 0), torch.ne(x, x)],  # noqa: SIM300
    "equality": lambda x: [x == 0.5, x != 0.5, 1 == x, 0 != x, (x > 0) == True, (x > 0) != False, x != x, x != x + 1],  # noqa: E712, SIM300
    "equality with tensors": lambda x: [x == torch.ones(6), torch.ones(6) == x, x != torch.ones(6), torch.ones(6) != x],
    "equality with numpy scalars": lambda x: [x == np.float32(1), x != np.int64(1)],
    "equality of sizes": lambda x: [x * (x.size(0) == 3), x * (x.size(0) != 3), x * (x.size(0) == 4)],
    "reflected division": lambda x: [x.__rdiv__(2), torch.ones(6).__rdiv__(x)],
    "logic": lambda x: [(x > 0) & (x < 1), (x > 0) | (x < 1), (x > 0) ^ (x < 1), True & (x > 0), ~(x > 0)],
    "matmul": lambda x: [x @ x.mT, torch.ones(2, 6) @ x.T, x @ torch.ones(6, 2)],
    "real tensor on the left": lambda x: [torch.ones(6) * x, torch.ones(6) - x, torch.ones(6) / x, torch.ones(6) < x],
    "numpy scalar": lambda x: [x * np.float64(2.5), np.float32(2) * x, np.float64(2) - x, x + np.int64(1)],
    "augmented": lambda x: _augmented(x),
    "sum of a list": lambda x: sum([x, x, x]),
}


def _augmented(x):
    y = x.clone()
    y += 1
    y *= 2
    return y - x


INDEXING = {
    "integer": lambda x: [x[0], x[:, 0], x[-1]],
    "slices": lambda x: [x[:, 1:], x[1:3], x[..., ::2], x[:, :-1, 1:]],
    "ellipsis and None": lambda x: [x[..., 0], x[:, None, ..., -1], x[None]],
    "list and tensor": lambda x: [x[:, [0, 2]], x[:, torch.tensor([0, 2])], x[:, :, torch.arange(3)]],
    "symbolic tensor": lambda x: [x[torch.argsort(x[:, 0, 0])], x[torch.arange(x.size(0)), x[:, :, 0].argmax(1)]],
    "numpy": lambda x: x[:, np.array([0, 2])],
    "unknown size": lambda x: [x[: x.size(0) - 1], x[x.size(0) // 2 :], x[:, 1 : x.size(1)]],
}

METHODS = {
    "chain": lambda x: x.transpose(1, 2).contiguous().flatten(1).clamp(min=0).sqrt(),
    "several outputs": lambda x: [x.max(dim=1), x.max(1).values, x.topk(2).indices, x.sort(dim=-1)[0]],
    "tuple of outputs": lambda x: [x.split(2, dim=-1), x.chunk(3, 1), x.unbind(1), x.aminmax(dim=1).max],
    "properties": lambda x: [x.T if x.ndim == 2 else x.mT, x.real, x.mH, x.data],
    "dtype": lambda x: [x.double(), x.to(torch.float16), x.long(), x.bool(), x.to("cpu"), x.type(torch.int32), x.to(x)],
    "like": lambda x: [x.new_zeros(2, 3), x.new_ones((2, 3)), x.new_full((2,), 3.0), torch.zeros_like(x) + 1],
    "keyword arguments": lambda x: [x.mean(dim=1, keepdim=True), x.repeat_interleave(2, dim=0), x.std(1, correction=0)],
    "masking": lambda x: [x.masked_fill(x > 0, -math.inf), x.where(x > 0, 0.0), x.tril()],
    "known answers": lambda x: [x.dim() * x, x.ndim + x, x.is_floating_point() * x, x.size(-1) * x, x.shape[-1] + x],
}

FUNCTIONS = {
    "nested list": lambda x: torch.cat([x, torch.ones(1, 3, 6), x * 2]),
    "nested tuple": lambda x: torch.stack((x, x), dim=1),
    "einsum": lambda x: torch.einsum("bij,bkj->bik", x, x),
    "keyword tensor": lambda x: torch.where(input=x, condition=x > 0, other=-x),
    "several outputs": lambda x: [*torch.std_mean(x, dim=1), *torch.meshgrid(x[0, 0], x[0, 1], indexing="ij")],
    "functional": lambda x: F.pad(F.softmax(F.gelu(x), dim=-1), (1, 1), value=0.5),
    "weights": lambda x: F.layer_norm(F.linear(x, torch.ones(6, 6)), (6,), weight=torch.ones(6)),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, value=x, is_causal=True),
    "constant": lambda x: x + torch.arange(6.0) + torch.tensor(2.0),
    "same tensor twice": lambda x: torch.addcmul(x, x, x),
    "fft": lambda x: torch.fft.rfft(x).abs(),
    "linalg": lambda x: torch.linalg.norm(x, dim=-1),
}

# In shapes and in arithmetic: what is computed from an unknown size is itself unknown.
SIZES = {
    "view": lambda x: x.view(x.size(0), -1),
    "reshape": lambda x: [x.reshape(x.size(0) * x.size(1), 6), x.reshape(*x.size()[:-1], 2, 3)],
    "view of a size": lambda x: [x.view(x.size()), x.reshape(x.size() + (1,))],
    "expand": lambda x: [x[:, :1].expand(-1, x.size(1), -1), torch.ones(1, 6).expand((x.size(0), 6)) + x[:, 0]],
    "repeat": lambda x: x[:1].repeat(x.size(0), 1, 1),
    "arange": lambda x: [x + torch.arange(x.size(1)).unsqueeze(-1), x[torch.arange(0, x.size(0), 2)]],
    "zeros": lambda x: [torch.zeros((x.size(0), 2)), torch.full((x.size(1),), 2.0), x.new_zeros(x.size(1), 3)],
    "mask": lambda x: x.masked_fill(torch.ones((x.size(1), x.size(1))).triu(1).bool()[:, :1], 0.0),
    "narrow": lambda x: x.narrow(1, 0, x.size(1) - 2),
    "arithmetic": lambda x: x * (x.size(0) + 3) / x.size(1) - (7 - x.size(0)) // 2 + -x.size(0) % 5,
    "float": lambda x: [x * (1 / x.size(0)), x / x.size(1) ** 0.5],
    "comparison": lambda x: [x * (x.size(0) > 5), x * (x.size(1) >= 12), x * torch.sym_min(x.size(0), 5)],
    "halves": lambda x: [x[: x.size(0) // 2], x[x.size(0) // 2 :], *x.chunk(2, dim=0)],
    "padding to a multiple": lambda x: F.pad(x, (0, 0, 0, -x.size(1) % 5)),
    "interpolate": lambda x: F.interpolate(x.mT, size=x.size(1) * 2),
    "numel": lambda x: x / x.numel(),
    "as an argument of a module": lambda x: nn.Unflatten(1, (2, -1))(x * x.size(0)),
}


@pytest.mark.parametrize("case", OPERATORS)
def test_operators(case):
    check_traced(OPERATORS[case], ROWS)


def test_integer_operators():
    check_traced(lambda x: [x << 1, x >> 1, 1 << x, 8 >> x, x & 1, 3 | x, x ^ 2], ROWS, dtype=torch.int64)


def test_numpy_array_on_either_side():
    x, array = Input((3,)), np.arange(3, dtype=np.float32)
    model = Model(x, [array * x, x * array, array - x, x @ np.ones((3, 2)), array < x, np.float64(2) ** x])
    data = torch.randn(2, 3)
    tensor = torch.from_numpy(array)
    expected = [tensor * data, data * tensor, tensor - data, data @ torch.ones(3, 2), tensor < data, 2**data]
    torch.testing.assert_close(model(data), expected)
    assert [output.dtype for output in model.outputs] == [value.dtype for value in expected]


@pytest.mark.parametrize(
    "option", [{"where": np.array([True, False, True])}, {"out": np.ones(3)}, {"dtype": "float64"}]
)
def test_options_of_numpys_functions_are_refused(option):
    """The operator has no place for them."""
    with pytest.raises(TypeError, match=r"np.add\(...\).*torch.add"):
        np.add(np.ones(3), Input((3,)), **option)


@pytest.mark.parametrize("case", INDEXING)
def test_indexing(case):
    check_traced(INDEXING[case], STEPS)


@pytest.mark.parametrize("case", METHODS)
def test_methods_and_properties(case):
    check_traced(METHODS[case], STEPS)


def test_transposed_property():
    check_traced(lambda x: x.T, ROWS)
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = Input((3,)).nothing
    assert not hasattr(Input((3,)), "__wrapped__")


@pytest.mark.parametrize("case", FUNCTIONS)
def test_torch_functions(case):
    check_traced(FUNCTIONS[case], STEPS)


@pytest.mark.parametrize("case", SIZES)
def test_unknown_sizes(case):
    check_traced(SIZES[case], OPEN)


def test_sizes_that_are_known_are_integers():
    x = Input((3, 4))
    assert x.shape == (None, 3, 4)
    assert x.size(1) == 3
    assert x.size(-1) == x.size()[2] == 4
    assert (x.ndim, x.dim(), x.dtype) == (3, 3, torch.float32)
    assert isinstance(x.size(0), SymbolicInt)
    assert Input(batch_shape=(2, 3)).numel() == 6
    assert len(Input(batch_shape=(2, 3))) == 2
    assert [row.shape for row in Input(batch_shape=(2, 3))] == [(3,), (3,)]


def test_equality_and_hash_of_symbolic_values_are_identity():
    x, y = Input((3,)), Input((3,))
    assert (x == x) is True
    assert (x == y) is False
    assert (x.size(0) == x.size(0)) is False
    assert {x: 1, y: 2}[y] == 2
    assert y in [x, y]
    assert (x, [y]) == (x, [y])
    assert copy.deepcopy([x])[0] is x


@pytest.mark.parametrize("other", [None, "x", (), [1], {}, object(), torch.float32])
def test_a_symbolic_tensor_equals_nothing_that_is_no_number_or_tensor(other):
    x = Input((3,))
    for value in (x, x.size(0)):
        assert (value == other) is False
        assert (other == value) is False
        assert (value != other) is True
    assert x not in [other]


def test_comparison_with_arrays():
    x, array = Input((3,)), np.array([0.0, 1.0, 2.0])
    model = Model(x, [x == array, array == x, x != array, array != x])
    data = torch.tensor([[0.0, 2.0, 2.0]])
    same = [[True, False, True]]
    assert [output.tolist() for output in model(data)] == [same, same, [[False, True, False]], [[False, True, False]]]
    assert {value.dtype for value in model.outputs} == {torch.bool}


def test_recorded_comparisons_are_saved_and_copied():
    x, y = Input((3,)), Input((3,))
    model = Model([x, y], [x == 1, x != 0, x != y, x * (x.size(0) == 2), x * (x.size(0) != 2)])
    data = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 0.0]]), torch.ones(2, 3)
    expected = model(*data)
    torch.testing.assert_close(expected[2], data[0] != data[1])
    for twin in (Model.from_config(model.get_config()), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(*data), expected)


RESHAPES = {
    "reshape": lambda x: x.reshape(x.shape[0], -1),
    "view": lambda x: x.view(x.shape[0], x.shape[1], 2, 3),
    "tuple": lambda x: x.reshape((x.shape[0], 2, -1)),
    "list": lambda x: x.view([*x.shape, 1]),
}


@pytest.mark.parametrize("case", RESHAPES)
def test_none_among_sizes_is_the_unknown_size_of_that_axis(case):
    check_traced(RESHAPES[case], STEPS)


def test_none_among_sizes_for_another_axis_is_refused():
    x = Input((4, 6))
    for draw in (lambda: x.reshape(-1, x.shape[0]), lambda: x.view((1, 2, 3, None)), lambda: x.reshape(4, None, 6)):
        with pytest.raises(ValueError, match=r"Write x\.size\(i\) for the size of axis i") as caught:
            draw()
        assert "test_symbolic.py" in str(caught.value)


class Pair(NamedTuple):
    left: torch.Tensor
    right: int


class Report(nn.Module):
    """Takes a dict and keyword arguments; returns a dict with lists, None and a number in it."""

    def forward(self, batch, *, scale, weights=None):
        x = batch["x"] * scale + batch["more"][0]
        return {"x": x, "list": [x.sum(1), None], "pair": Pair(x + 1, 4), "weights": weights}


MODULES = {
    "linear": (lambda: nn.Linear(6, 2), lambda m, x: m(x)),
    "many calls": (lambda: nn.Linear(6, 6), lambda m, x: [m(x), m(m(x)), m(torch.tanh(x))]),
    "sequential": (lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)), lambda m, x: m(x)),
    "lstm": (lambda: nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True, dropout=0.5), lambda m, x: m(x)),
    "lstm hidden": (lambda: nn.LSTM(6, 4), lambda m, x: m(x)[1][0]),
    "gru": (lambda: nn.GRU(6, 4, batch_first=True), lambda m, x: m(x, hx=x.new_zeros(1, x.size(0), 4))),
    "cell": (lambda: nn.LSTMCell(6, 4), lambda m, x: m(x[:, 0])),
    "attention": (lambda: nn.MultiheadAttention(6, 2, batch_first=True), lambda m, x: m(x, x, x)),
    "attention without weights": (
        lambda: nn.MultiheadAttention(6, 2, batch_first=True),
        lambda m, x: m(query=x, key=x, value=x, need_weights=False)[0],
    ),
    "attention with a mask": (
        lambda: nn.MultiheadAttention(6, 2, batch_first=True),
        lambda m, x: m(x, x, x, key_padding_mask=x[:, :, 0] > 9, average_attn_weights=False),
    ),
    "encoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 2),
        lambda m, x: m(x, src_key_padding_mask=x[:, :, 0] > 9),
    ),
    "decoder": (lambda: nn.TransformerDecoderLayer(6, 2, 8, batch_first=True), lambda m, x: m(x, x * 2)),
    "transformer": (
        lambda: nn.Transformer(6, 2, 1, 1, 8, batch_first=True),
        lambda m, x: m(x, x, tgt_mask=nn.Transformer.generate_square_subsequent_mask(3), tgt_is_causal=True),
    ),
    "structured": (
        Report,
        lambda m, x: [m({"x": x, "more": [x, 3]}, scale=2.0, weights=None)[key] for key in ("x", "list", "pair")],
    ),
    "indices": (lambda: nn.MaxPool1d(2, return_indices=True), lambda m, x: m(x)),
    "two arguments": (lambda: nn.Bilinear(6, 6, 2), lambda m, x: m(x, x * 2)),
    "constant argument": (lambda: nn.Bilinear(6, 6, 2), lambda m, x: m(x[0], torch.ones(3, 6))),
}


@pytest.mark.parametrize("case", MODULES)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_modules(case):
    make, call = MODULES[case]
    torch.manual_seed(0)
    module = make().eval()
    check_traced(lambda x: call(module, x), STEPS)


def test_attention_without_weights_returns_none():
    x = Input((3, 6))
    _, weights = nn.MultiheadAttention(6, 2, batch_first=True)(x, x, x, need_weights=False)
    assert weights is None


def test_constants_and_structures_of_a_module():
    x = Input((3,))
    report = Report()({"x": x, "more": [x, 3]}, scale=2.0)
    assert report["weights"] is None
    assert report["list"][1] is None
    assert isinstance(report["pair"], Pair)
    assert report["pair"].right == 4
    assert report["x"].shape == report["pair"].left.shape == (None, 3)


def test_plain_containers_reach_the_module():
    """Not those of torch.fx, which cannot be changed: a forward may pop its dict."""

    class Popping(nn.Module):
        def forward(self, batch, items):
            items.append(batch.pop("x"))
            return items

    x = Input((3,))
    model = Model(x, Popping()({"x": x, "y": 1}, [x]))
    assert type(model.output) is list
    assert len(model(torch.ones(2, 3))) == 2
    inner = model(Input((3,)))
    inner.append(x)


IN_PLACE = {
    "method": (lambda x: x.add_(1), "Tensor.add_", "add"),
    "assignment": (lambda x: x.__setitem__(0, 1), "__setitem__", "torch.where"),
    "function": (lambda x: torch.relu_(x), "relu_", "relu"),
    "functional": (lambda x: F.relu(x, inplace=True), "relu", "out-of-place"),
    "out": (lambda x: torch.add(x, 1, out=torch.empty(3)), "out=", "Leave it out"),
    "zero_": (lambda x: x.zero_(), "Tensor.zero_", r"torch.zeros_like\(x\)"),
    "uniform_": (lambda x: x.uniform_(), "Tensor.uniform_", r"torch.rand_like\(x\)"),
    "cauchy_": (lambda x: x.cauchy_(), "Tensor.cauchy_", r"on a copy inside a Layer's call\(\)"),
}


@pytest.mark.parametrize("case", IN_PLACE)
def test_in_place_calls_are_refused(case):
    call, name, instead = IN_PLACE[case]
    x = Input((3,))
    with pytest.raises(ValueError, match=instead) as caught:
        call(x)
    assert name in str(caught.value)
    assert x.shape == (None, 3)


NO_VALUE = {
    "if": (lambda x: 1 if x.sum() > 0 else 0, "torch.where"),
    "and": (lambda x: x and 1, "torch.where"),
    "chained comparison": (lambda x: 0 < x < 1, "torch.where"),
    "float": (float, r"float\(\)"),
    "int": (int, r"int\(\)"),
    "range": (lambda x: range(x.size(0)), "torch.arange"),
    "if on equality": (lambda x: 1 if x == 0 else 0, "torch.where"),
    "if on inequality": (lambda x: 1 if x != x + 1 else 0, "torch.where"),
    "if on an equal size": (lambda x: 1 if x.size(0) == 3 else 0, "torch.where"),
    "in a list of numbers": (lambda x: x in [1, 2], "torch.where"),
    "if on a size": (lambda x: 1 if x.size(0) > 3 else 0, "torch.where"),
    "python list": (lambda x: [1, 2, 3][x.size(0)], "tensor indexing"),
    "math": (lambda x: math.sqrt(x.size(0)), r"float\(\)"),
    "len": (len, r"x.size\(0\)"),
    "iteration": (list, "torch.unbind"),
    "unpacking": (lambda x: (lambda *rows: rows)(*x), "torch.unbind"),
    "in": (lambda x: 1 in x, "torch.eq"),
    "numpy()": (lambda x: x.numpy(), "predict"),
    "numpy function": (np.sin, "torch.sin"),
    "numpy function with options": (lambda x: np.add(x, 1.0, dtype=np.float64), "torch.add"),
    "numpy reduction": (np.add.reduce, "torch.add"),
    "numpy array": (np.asarray, "NumPy"),
    "numpy concatenate": (lambda x: np.concatenate([x, x]), "NumPy"),
    "item": (lambda x: x.sum().item(), r"item\(\)"),
    "tolist": (lambda x: x.tolist(), r"tolist\(\)"),
}


@pytest.mark.parametrize("case", NO_VALUE)
def test_what_needs_a_value(case):
    call, instead = NO_VALUE[case]
    with pytest.raises(TypeError, match=instead) as caught:
        call(Input((3,)))
    assert "symbolic" in str(caught.value)


def test_a_symbolic_tensor_cannot_be_pickled_and_has_no_device():
    x = Input((3,), name="pixels")
    with pytest.raises(TypeError, match="Pickle the model"):
        pickle.dumps(x)
    with pytest.raises(AttributeError, match="on no device"):
        _ = x.device
    assert repr(x) == "<SymbolicTensor shape=(None, 3), dtype=float32, name=pixels>"


def test_a_tensor_computed_from_a_parameter_is_refused():
    """As a constant it would silently stop following the parameter."""
    weight = nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match="no longer follow the parameter"):
        Input((3,)) * weight.exp()
    assert isinstance(Input((3,)) * weight, SymbolicTensor)
    assert isinstance(Input((3,)) * weight.exp().detach(), SymbolicTensor)


def test_nodes_in_the_order_of_their_calls():
    x = y = Input((3,))
    chain = [x.node]
    for _ in range(200):
        y = y + 1
        chain.append(y.node)
    assert topological_order([y]) == chain
    assert topological_order([y, x]) == chain
    # Not past the values given as inputs.
    inner = chain[50].outputs
    assert topological_order([y], [inner]) == chain[51:]
    assert topological_order([inner], [inner]) == []


def test_a_replayed_call_has_the_line_of_the_first():
    x = Input((3,))
    y = torch.relu(x)
    assert y.node.source == (__file__, inspect.currentframe().f_lineno - 1)
    specs = y.node.specs
    assert record("method", "relu", (x,), {}, specs, y.node.source).source == y.node.source
    assert record("method", "relu", (x,), {}, specs).source != y.node.source
