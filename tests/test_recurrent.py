"""SimpleRNN, LSTM and GRU against Keras, torch.nn.RNN, torch.nn.LSTM and torch.nn.GRU."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import torch
from layer_parity import check_layer
from recurrent_layers import LAYERS, any_mask, assert_same, leaves, make

from torchfunc import Input
from torchfunc.layers.core import Embedding
from torchfunc.layers.recurrent.layers import GRU, LSTM, SimpleRNN
from torchfunc.models import Model

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *itertools.product(
        ("LSTM", "GRU"),
        (
            {},
            {"use_bias": False},
            {"activation": "relu"},
            {"recurrent_activation": "hard_sigmoid"},
            {"dropout": 0.5, "recurrent_dropout": 0.3, "seed": 3},
        ),
    ),
    *itertools.product(
        ["SimpleRNN"],
        (
            {},
            {"use_bias": False},
            {"activation": "relu", "dropout": 0.5},
            {"activation": "elu", "recurrent_dropout": 0.3},
        ),
    ),
    ("GRU", {"reset_after": False}),
    ("GRU", {"reset_after": False, "use_bias": False}),
]
BOTH = pytest.mark.parametrize("name", LAYERS)
FLAGS = list(itertools.product((False, True), repeat=3))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# Keras


@pytest.mark.parametrize(("sequences", "state", "backwards"), FLAGS)
@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_outputs_and_gradients(name: str, kwargs: Any, sequences: bool, state: bool, backwards: bool) -> None:
    ours, theirs, _ = LAYERS[name]
    flags = {"return_sequences": sequences, "return_state": state, "go_backwards": backwards}
    check_layer(ours, theirs, {"units": 5, **flags, **kwargs}, (3, 6, 4), unknown_axes=(1,))


@pytest.mark.parametrize(("sequences", "state", "backwards"), FLAGS)
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("LSTM", {}),
        ("GRU", {}),
        ("SimpleRNN", {}),
        ("LSTM", {"activation": "elu"}),
        ("GRU", {"reset_after": False}),
    ],
)
def test_masks_and_initial_states(
    name: str, kwargs: Any, zero: bool, sequences: bool, state: bool, backwards: bool
) -> None:
    flags = {"return_sequences": sequences, "return_state": state, "go_backwards": backwards}
    kwargs = {"units": 5, **kwargs, **flags, "zero_output_for_mask": zero}
    rng = np.random.default_rng(1)
    initial = [rng.normal(size=(4, 5)).astype("float32") for _ in range(2 if name == "LSTM" else 1)]
    # Each alone is tried where the others are off.
    alone = [] if zero or backwards else [{"mask": any_mask()}, {"initial_state": initial}]
    for extra in ({"mask": any_mask(), "initial_state": initial}, *alone):
        check_layer(*LAYERS[name][:2], kwargs, (4, 7, 4), call_kwargs=extra)


@pytest.mark.parametrize("masked", [False, True])
@BOTH
def test_double_precision(name: str, masked: bool) -> None:
    kwargs = {"units": 5, "dtype": "float64", "return_sequences": True, "return_state": True}
    inputs = np.random.default_rng(0).normal(size=(4, 7, 4))
    extra = {"mask": any_mask()} if masked else {}
    # Where Keras runs its loop it loses digits; `test_masked_steps_might_as_well_not_be_there` looks at all of them.
    loop = masked or name == "SimpleRNN"
    check_layer(*LAYERS[name][:2], kwargs, inputs, call_kwargs=extra, atol=1e-6 if loop else 1e-12)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"unit_forget_bias": False, "bias_initializer": "ones", "seed": 3},
        {"kernel_regularizer": "l2", "recurrent_regularizer": "l1", "bias_regularizer": "l2"},
        {"kernel_constraint": "max_norm", "recurrent_constraint": "non_neg", "bias_constraint": "unit_norm"},
        {"activity_regularizer": "l2", "return_state": True},
        {"unroll": True, "use_cudnn": False, "implementation": 1, "dropout": 2.0, "recurrent_dropout": -1.0},
        {"kernel_initializer": "he_normal", "recurrent_initializer": "zeros", "bias_initializer": "glorot_uniform"},
    ],
)
@BOTH
def test_further_arguments(name: str, kwargs: Any) -> None:
    unknown = {"SimpleRNN": {"unit_forget_bias", "use_cudnn", "implementation"}, "GRU": {"unit_forget_bias"}}
    kwargs = {key: value for key, value in kwargs.items() if key not in unknown.get(name, ())}
    if name == "GRU" and "bias_constraint" in kwargs:
        kwargs["bias_initializer"] = "ones"
    if name == "SimpleRNN" and "activity_regularizer" in kwargs:
        # Keras takes it and does nothing.
        kwargs["activity_regularizer"] = None
    ours, theirs = check_layer(*LAYERS[name][:2], {"units": 5, **kwargs}, (3, 6, 4))
    for mine, variable in zip(ours.weight_constraints(), theirs.trainable_weights, strict=False):
        mine()
        variable.value.data.copy_(variable.constraint(variable.value))
    for mine, variable in zip(ours.get_weights(), theirs.weights, strict=True):
        np.testing.assert_allclose(mine, variable.value.detach().numpy(), atol=1e-6)


def test_simple_rnn_has_its_activity_regularizer() -> None:
    layer = SimpleRNN(5, activity_regularizer="l2")
    output = layer(torch.randn(3, 6, 4))
    torch.testing.assert_close(layer.losses, [0.01 * output.square().sum() / 3])
    assert layer.get_config()["activity_regularizer"]["class_name"] == "L2"


@pytest.mark.parametrize(("forget", "bias"), [(True, "zeros"), (True, "ones"), (False, "zeros")])
def test_forget_gate_starts_open(forget: bool, bias: str) -> None:
    kwargs = {"units": 3, "unit_forget_bias": forget, "bias_initializer": bias}
    ours, theirs = LSTM(**kwargs), keras.layers.LSTM(**kwargs)
    ours(torch.zeros(1, 1, 2))
    theirs.build((1, 1, 2))
    np.testing.assert_array_equal(ours.get_weights()[2], theirs.weights[2].value.detach().numpy())


# Torch


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
@BOTH
def test_same_as_torch(name: str, bias: bool, dtype: str) -> None:
    reference = LAYERS[name][2](4, 5, batch_first=True, bias=bias, dtype=getattr(torch, dtype))
    state = dict(reference.state_dict())
    if name != "GRU" and bias:
        torch.nn.init.zeros_(state.pop("bias_hh_l0"))
    layer = make(name, use_bias=bias, dtype=dtype, return_sequences=True, return_state=True)
    assert list(layer.state_dict()) == list(state)
    assert not list(layer.buffers())
    layer.load_state_dict(state)
    inputs = torch.randn(3, 6, 4, dtype=getattr(torch, dtype))
    initial = [torch.randn(3, 5, dtype=inputs.dtype) for _ in range(layer.state_count)]
    given = [each.unsqueeze(0) for each in initial]
    outputs, finals = reference(inputs, tuple(given) if name == "LSTM" else given[0])
    assert_same(layer(inputs, initial_state=initial), [outputs, *(each.squeeze(0) for each in leaves(finals))])


@pytest.mark.parametrize(
    ("name", "kwargs", "count"),
    [
        ("LSTM", {}, 69_760),
        ("GRU", {}, 52_416),
        ("GRU", {"reset_after": False}, 52_320),
        ("SimpleRNN", {}, 17_440),
    ],
)
def test_parameter_count(name: str, kwargs: Any, count: int) -> None:
    layer = make(name, 32, 512, **kwargs)
    assert layer.count_params() == sum(weight.numel() for weight in layer.parameters()) == count


def test_gru_biases_do_not_share_memory() -> None:
    layer = make("GRU")
    assert layer.bias_ih_l0.untyped_storage().data_ptr() != layer.bias_hh_l0.untyped_storage().data_ptr()


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("LSTM", {}),
        ("GRU", {}),
        ("SimpleRNN", {}),
        ("SimpleRNN", {"activation": torch.relu}),
        ("LSTM", {"return_state": True, "stateful": True, "activation": torch.nn.Tanh()}),
        ("GRU", {"use_bias": False, "return_state": True, "recurrent_activation": torch.sigmoid}),
    ],
)
def test_kernels_run_whatever_they_can(name: str, kwargs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LAYERS[name][0](5, dropout=0.5, **kwargs)
    monkeypatch.setattr(type(layer), "_step", None)
    layer(torch.randn(4, 7, 4), mask=torch.from_numpy(any_mask()), training=True)
    layer(torch.randn(4, 7, 4))
    other = LAYERS[name][0](5, activation=torch.sin)
    with pytest.raises(TypeError):
        other(torch.randn(4, 7, 4))


@BOTH
def test_masked_steps_might_as_well_not_be_there(name: str) -> None:
    reference = LAYERS[name][2](4, 5, batch_first=True, dtype=torch.float64)
    layer = make(name, return_sequences=True, return_state=True, dtype="float64")
    state = layer.state_dict()
    reference.load_state_dict({"bias_hh_l0": torch.zeros_like(state["bias_ih_l0"]), **state})
    mask = torch.from_numpy(any_mask())
    inputs = torch.randn(4, 7, 4, dtype=torch.float64)
    # What is masked may be anything.
    outputs, *finals = layer(inputs + 1e5 * ~mask.unsqueeze(-1), mask=mask)
    for row in range(1, 4):
        expected, last = reference(inputs[row : row + 1, mask[row]])
        torch.testing.assert_close(outputs[row, mask[row]], expected[0], atol=1e-12, rtol=0)
        for final, each in zip(finals, leaves(last), strict=True):
            torch.testing.assert_close(final[row], each[0, 0], atol=1e-12, rtol=0)
    assert not any(final[0].any() for final in finals)


# Dropout


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("activation", ["tanh", "elu"])
@BOTH
def test_dropout_drops_the_same_features_at_all_steps(name: str, activation: str, seed: int | None) -> None:
    layer = make(name, features=2, dropout=0.5, activation=activation, seed=seed)
    inputs = torch.randn(1, 6, 2)
    candidates = [layer(inputs * torch.tensor(kept) * 2.0)[0] for kept in itertools.product((0, 1), repeat=2)]
    found = set()
    # Each sample of a batch draws for itself.
    for output in layer(inputs.expand(40, -1, -1), training=True):
        (index,) = (i for i, each in enumerate(candidates) if torch.allclose(output, each, atol=1e-6))
        found.add(index)
    assert found == {0, 1, 2, 3}


# Before the projection, the reset gate is of no effect where the candidate's state is dropped: 6 cases of 8.
@pytest.mark.parametrize(
    ("name", "kwargs", "cases"),
    [("LSTM", {}, 16), ("GRU", {}, 8), ("GRU", {"reset_after": False}, 6), ("SimpleRNN", {}, 2)],
)
def test_recurrent_dropout_drops_the_state_for_each_gate(name: str, kwargs: Any, cases: int) -> None:
    layer = make(name, units=1, recurrent_dropout=0.5, **kwargs)
    assert drawn_per_gate(layer, layer.weight_hh_l0, torch.randn(1, 4, 4)) == cases


@BOTH
def test_dropout_beside_recurrent_dropout_drops_inputs_for_each_gate(name: str) -> None:
    layer = make(name, units=1, features=1, dropout=0.5, recurrent_dropout=0.5)
    torch.nn.init.zeros_(layer.weight_hh_l0)
    assert drawn_per_gate(layer, layer.weight_ih_l0, torch.randn(1, 4, 1)) == 2**layer.gates


def drawn_per_gate(layer: Any, weight: torch.Tensor, inputs: torch.Tensor) -> int:
    """How many outputs training gives; each must be what `weight` gives with some gates at 0 and the others doubled."""
    # Each sample of a batch draws for itself.
    outputs = layer(inputs.expand(200, -1, -1), training=True)
    full, found = weight.detach().clone(), set()
    for kept in itertools.product((0.0, 2.0), repeat=layer.gates):
        with torch.no_grad():
            weight.copy_(full * torch.tensor(kept).unsqueeze(1))
        found |= {index for index, output in enumerate(outputs) if torch.allclose(output, layer(inputs)[0], atol=1e-6)}
    assert len(found) == len(outputs)
    return len({round(output.item(), 5) for output in outputs})


@BOTH
def test_a_seed_gives_the_same_dropout_again(name: str) -> None:
    kwargs = {"dropout": 0.5, "recurrent_dropout": 0.5, "seed": 5}
    first, second = make(name, **kwargs), make(name, **kwargs)
    second.set_weights(first.get_weights())
    inputs = torch.randn(3, 6, 4)
    runs = [[layer(inputs, training=True) for _ in range(2)] for layer in (first, second)]
    assert_same(runs[0], runs[1])
    assert not torch.equal(*runs[0])


# Symbolic


@BOTH
def test_initial_state_is_an_input_of_the_graph(name: str) -> None:
    sequences = Input((None, 4))
    states = [Input((5,)) for _ in range(2 if name == "LSTM" else 1)]
    layer = LAYERS[name][0](5, return_state=True)
    outputs = layer(sequences, initial_state=states)
    assert [output.shape for output in outputs] == [(None, 5)] * (1 + len(states))
    model = Model([sequences, *states], outputs)
    values = [torch.randn(3, 6, 4), *(torch.randn(3, 5) for _ in states)]
    assert_same(model(values), layer(values[0], initial_state=values[1:]))
    if name == "GRU":
        assert_same(model(values), layer(values[0], initial_state=values[1]))


@BOTH
def test_mask_follows_the_graph(name: str) -> None:
    numbers = Input((None,), dtype="int64")
    embedded = Embedding(9, 4, mask_zero=True)(numbers)
    first = LAYERS[name][0](5, return_sequences=True, return_state=True)
    sequence, *states = first(embedded)
    assert sequence.mask is embedded.mask is not None
    assert [state.mask for state in states] == [None] * len(states)
    second = LAYERS[name][0](3)
    output = second(sequence)
    assert output.mask is None
    model = Model(numbers, output)
    values = torch.tensor([[1, 2, 3, 0, 0], [4, 0, 5, 6, 0]])
    mask = values != 0
    by_hand = second(first(model.layers[1](values), mask=mask)[0], mask=mask)
    torch.testing.assert_close(model(values), by_hand)
    # Padding on the right changes nothing.
    longer = torch.nn.functional.pad(values, (0, 3))
    torch.testing.assert_close(model(longer), model(values))


# States kept from batch to batch


@pytest.mark.parametrize("masked", [False, True])
@BOTH
def test_stateful_goes_on_where_the_last_batch_ended(name: str, masked: bool) -> None:
    layer = make(name, return_sequences=True, stateful=True)
    layer.reset_state()
    plain = LAYERS[name][0](5, return_sequences=True)
    inputs = torch.randn(3, 6, 4)
    plain(inputs)
    plain.load_state_dict(layer.state_dict())
    mask = torch.from_numpy(any_mask()[1:, 1:]) if masked else None
    halves = [
        layer(inputs[:, part], mask=None if mask is None else mask[:, part]) for part in (slice(2), slice(2, None))
    ]
    whole = plain(inputs, mask=mask)
    keep = torch.ones(3, 6, dtype=torch.bool) if mask is None else mask
    torch.testing.assert_close(torch.cat(halves, 1)[keep], whole[keep])
    layer.reset_states()
    torch.testing.assert_close(layer(inputs, mask=mask), whole)
    assert list(layer.state_dict()) == list(plain.state_dict())


def test_stateful_against_keras() -> None:
    ours, theirs = LSTM(5, stateful=True), keras.layers.LSTM(5, stateful=True)
    inputs = torch.randn(3, 6, 4)
    theirs(inputs)
    ours(inputs)
    ours.set_weights([variable.value.detach().numpy() for variable in theirs.weights])
    ours.reset_state()
    theirs.reset_state()
    for _ in range(3):
        torch.testing.assert_close(ours(inputs), theirs(inputs), atol=1e-6, rtol=1e-5)


# Mistakes


@pytest.mark.parametrize(
    ("shape", "kwargs", "message"),
    [
        ((4,), {}, "expected ndim=3, found ndim=2"),
        ((None, None), {}, "axis -1 of the input of LSTM 'lstm'.*must be known"),
        ((None, 4), {"states": 1}, r"takes 2 initial states of shape \(None, 5\), got 1"),
        ((None, 4), {"states": 2, "units": 3}, r"initial states of shape \(None, 5\), got \(None, 3\)"),
        ((None, 4), {"stateful": True}, "must know the batch size"),
    ],
)
def test_mistakes_when_drawn(shape: Any, kwargs: Any, message: str) -> None:
    states = [Input((kwargs.get("units", 5),)) for _ in range(kwargs.get("states", 0))]
    with pytest.raises(ValueError, match=message):
        LSTM(5, stateful=kwargs.get("stateful", False))(Input(shape), initial_state=states or None)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"initial_state": [torch.zeros(3, 5)] * 3}, "takes 2 initial states"),
        ({"initial_state": [torch.zeros(1, 5)] * 2}, r"initial states of shape \(3, 5\), got \(1, 5\)"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, r"takes a mask \(batch, time\).*got one of shape \(3,\)"),
        ({"mask": torch.ones(3, 1, dtype=torch.bool)}, r"of shape \(3, 2\) for this input, got one of shape \(3, 1\)"),
        ({"mask": torch.ones(1, 2, dtype=torch.bool)}, r"of shape \(3, 2\) for this input, got one of shape \(1, 2\)"),
    ],
)
def test_mistakes_when_run(kwargs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("LSTM")(torch.zeros(3, 2, 4), **kwargs)


def test_mistakes_in_arguments() -> None:
    with pytest.raises(ValueError, match="LSTM takes a positive integer for units, got 0"):
        LSTM(0)
    with pytest.raises(ValueError, match="GRU takes 'auto', True or False for use_cudnn, got 'yes'"):
        GRU(3, use_cudnn="yes")
    with pytest.raises(ValueError, match="built for batches of 3, but got one of 2"):
        make("GRU", stateful=True)(torch.zeros(2, 6, 4))
