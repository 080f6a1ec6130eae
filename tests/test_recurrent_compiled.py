"""Recurrent layers compiled in one graph, and exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from recurrent_layers import LAYERS, any_mask, assert_same, gradients, make, ready
from torch._dynamo.backends.common import aot_autograd

from torchfunc.layers.base.layer import Layer
from torchfunc.layers.recurrent import kernels
from torchfunc.layers.recurrent.bidirectional import Bidirectional
from torchfunc.layers.recurrent.cells import GRUCell, LSTMCell
from torchfunc.layers.recurrent.convlstm import ConvLSTM2D
from torchfunc.layers.recurrent.layers import LSTM
from torchfunc.layers.recurrent.rnn import RNN

BOTH = pytest.mark.parametrize("name", LAYERS)


class Minimal(Layer):
    """A user's cell."""

    state_size = 5

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight((input_shape[-1], 5))
        self.recurrent = self.add_weight((5, 5))

    def call(self, inputs: torch.Tensor, states: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        state = torch.tanh(inputs @ self.kernel + states[0] @ self.recurrent)
        return state, [state]


MASK = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=torch.bool)
# Layer, sizes of one step's input, whether the number of steps may be unknown to torch.export.
OTHERS: dict[str, tuple[Callable[[], Any], tuple[int, ...], bool]] = {
    "Bidirectional LSTM": (lambda: Bidirectional(LSTM(5, return_sequences=True, return_state=True)), (4,), True),
    "RNN of kernels": (lambda: RNN([LSTMCell(5), GRUCell(3)], return_state=True), (4,), True),
    # A loop over the steps: it is unrolled, so their number is part of the graph.
    "Bidirectional RNN": (lambda: Bidirectional(RNN([Minimal(), LSTMCell(3)], return_state=True)), (4,), False),
    "LSTM step by step": (lambda: LSTM(5, activation="elu"), (4,), False),
    "ConvLSTM2D": (lambda: ConvLSTM2D(3, 3, padding="same", return_sequences=True), (5, 4, 2), False),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.compiler.reset()


# The LSTM, which has a kernel of its own, in all these ways; those that share one have them between them.
WAYS: list[tuple[dict[str, Any], bool, bool, tuple[str, ...]]] = [
    ({"return_sequences": True, "return_state": True}, False, True, ("LSTM", "SimpleRNN")),
    ({"return_state": True}, True, False, ("LSTM", "GRU")),
    ({"return_sequences": True}, True, True, ("LSTM", "GRU")),
    ({"go_backwards": True, "use_bias": False}, False, False, ("LSTM", "GRU", "SimpleRNN")),
    ({"stateful": True}, True, False, ("LSTM", "SimpleRNN")),
    ({"dtype": "float64"}, False, False, ("LSTM", "SimpleRNN")),
]


@pytest.mark.parametrize(
    ("name", "kwargs", "masked", "dynamic"), [(name, *way) for *way, names in WAYS for name in names]
)
def test_compiled_in_one_graph(name: str, kwargs: Any, masked: bool, dynamic: bool) -> None:
    layer = make(name, **kwargs)
    inputs = torch.randn(3, 7, 4, dtype=layer.dtype, requires_grad=True)
    extra: dict[str, Any] = {"mask": torch.from_numpy(any_mask()[1:])} if masked else {}
    if not layer.stateful:
        states = [torch.randn(3, 5, dtype=layer.dtype, requires_grad=True) for _ in range(layer.state_count)]
        extra["initial_state"] = states
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    layer.reset_state()
    expected = gradients(layer, layer, inputs, **extra)
    layer.reset_state()
    assert_same(gradients(compiled, layer, inputs, **extra), expected)


@pytest.mark.parametrize("name", OTHERS)
def test_others_compiled_in_one_graph(name: str) -> None:
    make_layer, sizes, _ = OTHERS[name]
    layer = ready(make_layer(), *sizes)
    inputs = torch.randn(3, 3, *sizes, requires_grad=True)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert_same(gradients(compiled, layer, inputs, mask=MASK), gradients(layer, layer, inputs, mask=MASK))


@pytest.mark.parametrize("name", OTHERS)
def test_others_exported(name: str) -> None:
    make_layer, sizes, any_length = OTHERS[name]
    layer = ready(make_layer(), *sizes)
    inputs = torch.randn(3, 3, *sizes)
    axes = {0: torch.export.Dim("batch"), **({1: torch.export.Dim("time")} if any_length else {})}
    program = torch.export.export(layer, (inputs,), {"mask": MASK}, dynamic_shapes={"sequences": axes, "mask": axes})
    assert_same(program.module()(inputs, mask=MASK), layer(inputs, mask=MASK))


@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_one_operator_each_way(name: str) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return make_boxed_func(graph)

    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
    layer = ready(Bidirectional(LAYERS[name][0](5, return_sequences=True)), 4)
    torch.compile(layer, backend=backend, fullgraph=True)(torch.randn(3, 7, 4)).sum().backward()
    kind = "lstm_onednn" if name == "LSTM" and torch.backends.mkldnn.is_available() else "recurrent"
    for graph, operator in zip(graphs, (f"torchfunc.{kind}", f"torchfunc.{kind}_backward"), strict=True):
        targets = [str(node.target).removesuffix(".default") for node in graph.graph.nodes]
        assert targets.count(operator) == 2
        assert not [target for target in targets if "mm" in target or "tanh" in target]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@BOTH
def test_compiled_by_inductor(name: str) -> None:
    layer = make(name, return_sequences=True)
    inputs = torch.randn(3, 7, 4, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True)
    assert_same(gradients(compiled, layer, inputs), gradients(layer, layer, inputs))
    with torch.no_grad():
        assert_same([compiled(inputs)], [layer(inputs)])


@BOTH
@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_compiled_with_its_backward_pass(name: str) -> None:
    layer = make(name)
    inputs = torch.randn(3, 7, 4)
    weights = list(layer.parameters())

    def step(inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(layer(inputs).square().sum(), weights)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        assert_same(list(compiled(inputs)), list(step(inputs)))


@BOTH
def test_compiled_under_autocast(name: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), make(name))
    inputs = torch.randn(3, 7, 4)
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(inputs)
        actual = torch.compile(model, backend="aot_eager", fullgraph=True)(inputs)
    assert actual.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(("any_length", "masked"), [(False, False), (True, True)])
@BOTH
def test_exported(name: str, any_length: bool, masked: bool) -> None:
    layer = make(name)
    inputs = torch.randn(3, 7, 4)
    sizes = {0: torch.export.Dim("batch"), **({1: torch.export.Dim("time")} if any_length else {})}
    extra = {"mask": torch.from_numpy(any_mask()[1:])} if masked else {}
    program = torch.export.export(
        layer, (inputs,), extra, dynamic_shapes={"sequences": sizes, **({"mask": sizes} if masked else {})}
    )
    longer = torch.randn(5, 9 if any_length else 7, 4)
    again = {"mask": torch.rand(longer.shape[:2]) > 0.4} if masked else {}
    torch.testing.assert_close(program.module()(longer, **again), layer(longer, **again))
    namespaces = {str(node.target).split(".")[0] for node in program.graph.nodes if node.op == "call_function"}
    assert ("torchfunc" in namespaces) == any_length


@pytest.mark.parametrize("states", [1, 2])
def test_operators_keep_torch_s_rules(states: int) -> None:
    gates = 3 if states == 1 else 4
    shapes = [(gates * 5, 4), (gates * 5, 5), (gates * 5,), (gates * 5,)]
    weights = [torch.randn(shape, requires_grad=True) for shape in shapes]
    initial = [torch.randn(3, 5, requires_grad=True) for _ in range(states)]
    inputs = torch.randn(3, 7, 4, requires_grad=True)
    torch.library.opcheck(kernels._recurrent, ("lstm" if states == 2 else "gru", inputs, initial, weights))
    if states == 2:
        h, c = (each.detach().unsqueeze(0).requires_grad_() for each in initial)
        # Its workspace holds bytes that are never written: no two runs agree, so values are compared elsewhere.
        checks = ("test_schema", "test_autograd_registration", "test_faketensor")
        arguments = (torch.randn(7, 3, 4), h, c, weights)
        torch.library.opcheck(kernels._lstm_onednn, arguments, test_utils=checks)
