"""Cells, RNN and StackedRNNCells."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import torch
from layer_parity import check_layer, same_config
from recurrent_layers import any_mask, assert_same, leaves, ready

from torchfunc import Input
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.core import Dense
from torchfunc.layers.recurrent.cells import GRUCell, LSTMCell, SimpleRNNCell
from torchfunc.layers.recurrent.layers import LSTM
from torchfunc.layers.recurrent.rnn import RNN, StackedRNNCells
from torchfunc.models import Model
from torchfunc.registry import register_serializable

CELLS = {
    "LSTM": (LSTMCell, keras.layers.LSTMCell, torch.nn.LSTMCell),
    "GRU": (GRUCell, keras.layers.GRUCell, torch.nn.GRUCell),
    "SimpleRNN": (SimpleRNNCell, keras.layers.SimpleRNNCell, torch.nn.RNNCell),
}
EACH = pytest.mark.parametrize("name", CELLS)
FLAGS = [{"return_state": True}, {"return_state": True, "return_sequences": True, "go_backwards": True}]


@register_serializable()
class Minimal(Layer):
    """A user's cell."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight((input_shape[-1], self.units))
        self.recurrent_kernel = self.add_weight((self.units, self.units))

    def call(self, inputs: torch.Tensor, states: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        output = torch.sin(inputs @ self.kernel + states[0] @ self.recurrent_kernel)
        return output, [output]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(name="Minimal")
class KerasMinimal(keras.layers.Layer):
    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight((input_shape[-1], self.units))
        self.recurrent_kernel = self.add_weight((self.units, self.units))

    def call(self, inputs: Any, states: Any) -> Any:
        output = torch.sin(torch.matmul(inputs, self.kernel) + torch.matmul(states[0], self.recurrent_kernel))
        return output, [output]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


class Counter(Layer):
    """Several states of several sizes, an output of yet another, a start that is not zero, sublayers built on call."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.state_size = [2, 1]
        self.output_size = 3
        self.dense = Dense(3)

    def get_initial_state(self, batch_size: int | None = None) -> list[torch.Tensor]:
        return [torch.zeros(batch_size or 0, 2), torch.full((batch_size or 0, 1), 5.0)]

    def call(self, inputs: torch.Tensor, states: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        sums, count = states
        sums, count = sums + inputs[:, :2], count + 1
        return self.dense(torch.cat([sums, count], -1)), [sums, count]


# One step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@EACH
def test_cell_as_in_torch_and_keras(name: str, dtype: str) -> None:
    ours, theirs, torch_cell = CELLS[name]
    cell, other, reference = ours(5, dtype=dtype), theirs(5, dtype=dtype), torch_cell(4, 5, dtype=getattr(torch, dtype))
    inputs = torch.randn(3, 4, dtype=getattr(torch, dtype))
    states = [torch.randn(3, 5, dtype=inputs.dtype) for _ in range(2 if name == "LSTM" else 1)]
    output, new = cell(inputs, states)
    assert (output.dtype, len(new)) == (inputs.dtype, len(states))
    weights = cell.state_dict()
    reference.load_state_dict({"bias_hh": torch.zeros_like(weights["bias_ih"]), **weights})
    expected = leaves(reference(inputs, tuple(states) if name == "LSTM" else states[0]))
    assert_same([output, *new], [expected[0], *expected])
    other.build((3, 4))
    other.set_weights(cell.get_weights())
    assert_same(leaves(cell(inputs, states)), leaves(other(inputs, states)))
    if name != "LSTM":
        alone = cell(inputs, states[0])
        assert isinstance(alone[1], torch.Tensor)
        assert_same(alone, other(inputs, states[0]))
    assert cell.count_params() == other.count_params()
    assert (cell.state_size, cell.output_size) == (other.state_size, other.output_size)
    assert_same(cell.get_initial_state(3), [state.detach() for state in other.get_initial_state(3)])


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"use_bias": False, "activation": "relu", "seed": 3, "dropout": 0.2, "recurrent_dropout": 0.1},
        {"kernel_regularizer": "l2", "recurrent_constraint": "max_norm", "bias_initializer": "ones"},
    ],
)
@EACH
def test_config_of_a_cell(name: str, kwargs: Any) -> None:
    ours, theirs, _ = CELLS[name]
    cell, other = ours(5, **kwargs), theirs(5, **kwargs)
    for config in (cell.get_config(), ours.from_config(other.get_config()).get_config()):
        assert not same_config(config, other.get_config())
    assert not same_config(theirs.from_config(cell.get_config()).get_config(), other.get_config())


def test_cell_in_a_graph() -> None:
    inputs, h, c = Input((4,)), Input((5,)), Input((5,))
    output, states = LSTMCell(5)(inputs, [h, c])
    assert [each.shape for each in (output, *states)] == [(None, 5)] * 3
    model = Model([inputs, h, c], [output, *states])
    values = [torch.randn(3, 4), torch.randn(3, 5), torch.randn(3, 5)]
    expected = model.layers[-1](values[0], values[1:])
    assert_same(model(values), expected)
    assert GRUCell(5)(inputs, h)[1].shape == (None, 5)


@EACH
def test_dropout_in_a_cell_draws_once_for_a_sequence(name: str) -> None:
    cell = CELLS[name][0](5, dropout=0.5)
    layer = ready(RNN(cell, return_sequences=True), 2)
    inputs = torch.ones(1, 6, 2)
    kept = [torch.tensor(each) * 2.0 for each in itertools.product((0, 1), repeat=2)]
    candidates = [layer(inputs * each)[0] for each in kept]
    outputs = layer(inputs.expand(30, -1, -1), training=True)
    assert all(any(torch.allclose(output, each, atol=1e-6) for each in candidates) for output in outputs)
    assert len({round(output.sum().item(), 4) for output in outputs}) == 4


# Sequences


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", [*CELLS, "Minimal", "stack", "stack of a user's"])
def test_rnn_against_keras(name: str, masked: bool, flags: Any) -> None:
    def cells(package: int) -> Any:
        lstm, gru = CELLS["LSTM"][package], CELLS["GRU"][package]
        minimal = (Minimal, KerasMinimal)[package]
        if name == "stack":
            return [lstm(5), gru(3, activation="relu"), lstm(2)]
        if name == "stack of a user's":
            return [lstm(5), minimal(3)]
        return minimal(5) if name == "Minimal" else CELLS[name][package](5)

    kwargs, other = ({"cell": cells(package), **flags} for package in (0, 1))
    check_layer(
        RNN,
        keras.layers.RNN,
        kwargs,
        (4, 7, 4),
        keras_kwargs=other,
        call_kwargs={"mask": any_mask()} if masked else {},
        unknown_axes=(1,),
        # Cells in a config say what they were built with; the rest of it is compared in `test_config_of_a_cell`.
        ignore_config=("cell",),
    )


def test_structure_of_states() -> None:
    layer = RNN([LSTMCell(5), GRUCell(3)], return_state=True)
    drawn = layer(Input((None, 4)))
    inputs = torch.randn(3, 6, 4)
    output, (h, c), state = layer(inputs)
    assert (drawn[1][1].shape, drawn[2].shape) == ((None, 5), (None, 3))
    assert (output.shape, h.shape, c.shape, state.shape) == ((3, 3), (3, 5), (3, 5), (3, 3))
    first = layer(inputs[:, :4])
    assert_same(layer(inputs[:, 4:], initial_state=first[1:]), layer(inputs))
    (single, (h, c)) = RNN([LSTMCell(5)], return_state=True)(inputs)
    assert single.shape == h.shape == c.shape


def test_cells_run_as_their_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = ready(RNN([LSTMCell(5), GRUCell(3)]), 4)
    inputs, mask = torch.randn(4, 7, 4), torch.from_numpy(any_mask())
    expected = layer(inputs, mask=mask)
    calls = []
    handle = layer.cell.cells[1].register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(layer(inputs, mask=mask), expected, atol=1e-6, rtol=1e-5)
    assert len(calls) == 7
    handle.remove()
    for cell in layer.cell.cells:
        monkeypatch.setattr(type(cell), "_step", None)
    assert torch.equal(layer(inputs, mask=mask), expected)


def test_overridden_call_of_a_cell_counts() -> None:
    class Half(GRUCell):
        def call(self, inputs: torch.Tensor, states: Any) -> Any:
            output, new = super().call(inputs, states)
            return output / 2, new

    layer = ready(RNN(Half(5), return_sequences=True, return_state=True), 4)
    output, state = layer(torch.randn(3, 6, 4))
    torch.testing.assert_close(output[:, -1] * 2, state)


def test_cell_with_states_of_its_own_kind() -> None:
    layer = RNN(Counter(), return_sequences=True, return_state=True)
    drawn = layer(Input((None, 4)))
    assert [each.shape for each in drawn] == [(None, None, 3), (None, 2), (None, 1)]
    assert layer.count_params() == 12
    inputs = torch.randn(3, 6, 4)
    outputs, sums, count = layer(inputs)
    assert torch.equal(count, torch.full((3, 1), 11.0))
    torch.testing.assert_close(sums, inputs[..., :2].sum(1))
    steps = torch.cat([inputs[..., :2].cumsum(1), torch.arange(6.0, 12).reshape(1, 6, 1).expand(3, -1, -1)], -1)
    torch.testing.assert_close(outputs, layer.cell.dense(steps))


def test_any_module_or_object_can_be_a_cell() -> None:
    class Module(torch.nn.Module):
        state_size = 5

        def __init__(self) -> None:
            super().__init__()
            self.cell = torch.nn.GRUCell(4, 5)

        def forward(self, inputs: torch.Tensor, states: list[torch.Tensor]) -> Any:
            state = self.cell(inputs, states[0])
            return state, state

    class Sum:
        state_size = 4

        def call(self, inputs: torch.Tensor, states: list[torch.Tensor]) -> Any:
            return states[0] + inputs, [states[0] + inputs]

    inputs = torch.randn(3, 6, 4)
    layer = RNN(Module())
    assert len(list(layer.parameters())) == 4
    state = torch.zeros(3, 5)
    for step in inputs.unbind(1):
        state = layer.cell.cell(step, state)
    torch.testing.assert_close(layer(inputs), state)
    torch.testing.assert_close(RNN(Sum(), return_sequences=True)(inputs), inputs.cumsum(1))


@pytest.mark.parametrize("cell", [lambda: [LSTMCell(5), Minimal(3)], Counter])
def test_stateful(cell: Any) -> None:
    layer = RNN(cell(), stateful=True, return_sequences=True)
    inputs = torch.randn(3, 6, 4)
    layer(inputs)
    plain = RNN(layer.cell, return_sequences=True)
    start = [state.new_zeros(state.shape) for state in layer.states]
    layer.reset_states()
    whole = plain(inputs, initial_state=start)
    torch.testing.assert_close(torch.cat([layer(inputs[:, :2]), layer(inputs[:, 2:])], 1), whole)
    assert not any(name.startswith("_state") for name in layer.state_dict())
    with pytest.raises(ValueError, match="built for batches of 3, but got one of 2"):
        layer(inputs[:2])


def test_config_round_trip() -> None:
    layer = RNN([LSTMCell(5), Minimal(3)], go_backwards=True, name="steps")
    copy = RNN.from_config(layer.get_config(), custom_objects={"Minimal": Minimal})
    assert copy.get_config() == layer.get_config()
    assert isinstance(copy.cell.cells[1], Minimal)
    frozen = RNN(LSTMCell(5), trainable=False)
    frozen(torch.zeros(3, 2, 4))
    assert frozen.trainable_weights == []


def test_weights_are_those_of_the_layer() -> None:
    layer, rnn = ready(LSTM(5), 4), ready(RNN(LSTMCell(5)), 4)
    assert list(rnn.state_dict()) == ["cell.weight_ih", "cell.weight_hh", "cell.bias_ih"]
    rnn.set_weights(layer.get_weights())
    inputs = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
    assert torch.equal(rnn(inputs), layer(inputs))


@pytest.mark.parametrize(
    ("make_layer", "message"),
    [
        (lambda: RNN(3), r"RNN takes cells that can be called as cell\(inputs, states\), got 3"),
        (lambda: RNN(Dense(3)), "RNN takes cells with a state_size"),
        (lambda: StackedRNNCells([LSTMCell(3), Dense(3)]), "StackedRNNCells takes cells with a state_size"),
        (lambda: LSTMCell(0), "LSTMCell takes a positive integer for units, got 0"),
        (lambda: LSTMCell(3)(torch.zeros(2, 4), [torch.zeros(2, 3)]), r"takes 2 states of shape \(batch, 3\), got"),
        (lambda: GRUCell(3)(Input((4,)), Input((2,))), r"takes 1 states of shape \(batch, 3\), got \(None, 2\)"),
        (lambda: RNN(LSTMCell(3))(Input((4,))), "found ndim=2|takes"),
        (
            lambda: RNN([LSTMCell(3), GRUCell(2)])(torch.zeros(2, 4, 4), initial_state=[torch.zeros(2, 3)]),
            r"takes 3 initial states of shapes \(2, 3\), \(2, 3\), \(2, 2\), got 1",
        ),
        (lambda: RNN(Minimal(3))(Input((None, None))), "None"),
    ],
)
def test_mistakes(make_layer: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make_layer()
