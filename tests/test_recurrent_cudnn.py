"""The way to cuDNN, as far as it goes without a card: a stand-in on the CPU takes the place of cuDNN's two operators.

It binds the arguments by the operators' own schemas and gives what they are documented to give, so what is tested is
which arguments they get, what is kept between them, and where the gradients go.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recurrent_layers import LAYERS, assert_same, gradients, make

from torchfunc.layers.recurrent import cudnn, kernels
from torchfunc.layers.recurrent.bidirectional import Bidirectional
from torchfunc.layers.recurrent.layers import LSTM, SimpleRNN

KERNELS = {0: torch.rnn_relu, 1: torch.rnn_tanh, 2: torch.lstm, 3: torch.gru}


def bound(operator: Any, args: Any) -> dict[str, Any]:
    parameters = operator._schema.arguments
    assert len(parameters) == len(args)
    return {parameter.name: value for parameter, value in zip(parameters, args, strict=True)}


def run(given: dict[str, Any], leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    inputs, hx, *rest = leaves
    has_c = given["mode"] == 2
    cx, weights = (rest[0], rest[1:]) if has_c else (None, rest)
    assert given["weight_stride0"] == len(weights)
    assert given["hidden_size"] == hx.shape[-1] == weights[1].shape[1]
    assert (given["num_layers"], given["proj_size"], given["dropout"], given["bidirectional"]) == (1, 0, 0.0, False)
    assert (list(given["batch_sizes"]), given["dropout_state"]) == ([], None)
    assert hx.is_contiguous()
    state = [hx, cx] if has_c else hx
    options = (len(weights) == 4, 1, 0.0, given["train"], False, given["batch_first"])
    return list(KERNELS[given["mode"]](inputs, state, list(weights), *options))


def forward(*args: Any) -> tuple[torch.Tensor, ...]:
    given = bound(torch.ops.aten._cudnn_rnn.default, args)
    assert given["weight_buf"] is None
    states = [state for state in (given["hx"], given["cx"]) if state is not None]
    outputs, h, *c = run(given, [given["input"], *states, *given["weight"]])
    buffer = torch.cat([weight.detach().flatten() for weight in given["weight"]])
    return outputs, h, c[0] if c else torch.empty(0), torch.full((13,), 7, dtype=torch.uint8), buffer


def backward(*args: Any) -> tuple[Any, ...]:
    given = bound(torch.ops.aten._cudnn_rnn_backward.default, args)
    assert given["train"]
    assert given["output_mask"] == [True, True, given["cx"] is not None, True]
    # What the forward pass left; it may be written in only once.
    assert (given["reserve"] == 7).all()
    given["reserve"].zero_()
    assert torch.equal(given["weight_buf"], torch.cat([weight.flatten() for weight in given["weight"]]))
    states = [state for state in (given["hx"], given["cx"]) if state is not None]
    wanted = [
        gradient for gradient in (given["grad_output"], given["grad_hy"], given["grad_cy"]) if gradient is not None
    ]
    autograd_on = torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.AutogradFunctionality, False)
    with autograd_on, torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in (given["input"], *states, *given["weight"])]
        results = run(given, leaves)
        torch.testing.assert_close(results[0], given["output"])
        found = list(torch.autograd.grad(results, leaves, wanted))
    weights = found[1 + len(states) :]
    flat = torch.cat([gradient.flatten() for gradient in weights])
    parts = flat.split([gradient.numel() for gradient in weights])
    return (
        found[0],
        found[1],
        found[2] if len(states) == 2 else None,
        [part.view_as(gradient) for part, gradient in zip(parts, weights, strict=True)],
    )


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    torch.compiler.reset()
    monkeypatch.setattr(cudnn, "cudnn_rnn", forward)
    monkeypatch.setattr(cudnn, "cudnn_rnn_backward", backward)
    # This machine has no device that passes the test.
    assert not cudnn.cudnn_fits(torch.zeros(1))


def with_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "cudnn_fits", lambda inputs: True)
    monkeypatch.setattr(kernels, "_onednn_fits", lambda inputs: False)


CASES = [*((name, {}) for name in LAYERS), ("LSTM", {"use_bias": False}), ("SimpleRNN", {"activation": "relu"})]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_outputs_and_gradients(name: str, kwargs: Any, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make(name, return_sequences=True, return_state=True, **kwargs)
    inputs = torch.randn(3, 7, 4, requires_grad=True)
    states = [torch.randn(3, 5, requires_grad=True) for _ in range(layer.state_count)]
    expected = gradients(layer, layer, inputs, initial_state=states)
    with_cudnn(monkeypatch)
    calls = []
    monkeypatch.setattr(cudnn, "cudnn_rnn", lambda *args: calls.append(1) or forward(*args))
    function = torch.compile(layer, backend="aot_eager", fullgraph=True) if compiled else layer
    assert_same(gradients(function, layer, inputs, initial_state=states), expected)
    assert len(calls) == 1


def test_compiled_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Bidirectional(LSTM(5))
    inputs = torch.randn(3, 7, 4)
    expected = layer(inputs)
    with_cudnn(monkeypatch)
    with torch.no_grad():
        assert_same(torch.compile(layer, backend="aot_eager", fullgraph=True)(inputs), expected)


def test_backward_pass_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = SimpleRNN(5)
    layer(torch.zeros(3, 7, 4))
    with_cudnn(monkeypatch)
    loss = torch.compile(layer, backend="eager", fullgraph=True)(torch.randn(3, 7, 4)).sum()
    first, second = (torch.autograd.grad(loss, layer.weight_ih_l0, retain_graph=True) for _ in range(2))
    assert_same(first, second)


@pytest.mark.parametrize("states", [1, 2])
def test_operators_keep_torch_s_rules(states: int) -> None:
    gates = 3 if states == 1 else 4
    weights = [torch.randn(shape, requires_grad=True) for shape in ((gates * 5, 4), (gates * 5, 5))]
    initial = [torch.randn(1, 3, 5, requires_grad=True) for _ in range(states)]
    inputs = torch.randn(7, 3, 4, requires_grad=True)
    arguments = ("lstm" if states == 2 else "gru", inputs, initial, weights)
    torch.library.opcheck(cudnn._recurrent_cudnn, arguments)
