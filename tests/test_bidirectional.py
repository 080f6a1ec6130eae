"""Bidirectional against Keras and torch's bidirectional layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from layer_parity import check_layer, same_config
from recurrent_layers import LAYERS, any_mask, assert_same, leaves, make

from torchfunc import Input
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.core import Dense, Embedding
from torchfunc.layers.recurrent.bidirectional import Bidirectional
from torchfunc.layers.recurrent.cells import LSTMCell
from torchfunc.layers.recurrent.layers import GRU, LSTM
from torchfunc.layers.recurrent.rnn import RNN
from torchfunc.models import Model

FLAGS = [{}, {"return_sequences": True}, {"return_sequences": True, "return_state": True}, {"return_state": True}]


def both(name: str, merge_mode: str | None, backward: bool, **kwargs: Any) -> tuple[Any, Any]:
    """The arguments of ours and of Keras'."""
    pair = []
    for cls in LAYERS[name][:2]:
        arguments: dict[str, Any] = {"layer": cls(5, **kwargs), "merge_mode": merge_mode}
        if backward:
            arguments["backward_layer"] = cls(5, activation="relu", use_bias=False, go_backwards=True, **kwargs)
        pair.append(arguments)
    return pair[0], pair[1]


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize(
    ("name", "merge_mode", "backward"),
    [
        ("LSTM", "concat", False),
        ("LSTM", None, True),
        ("GRU", "sum", True),
        ("GRU", None, False),
        ("SimpleRNN", "ave", False),
        ("SimpleRNN", "mul", True),
    ],
)
def test_against_keras(name: str, merge_mode: str | None, backward: bool, flags: Any) -> None:
    states = [np.random.default_rng(seed).normal(size=(4, 5)).astype("float32") for seed in range(4)]
    initial = {"initial_state": states if name == "LSTM" else states[:2]}
    for extra in ({}, {"mask": any_mask(), **initial}):
        kwargs, keras_kwargs = both(name, merge_mode, backward, **flags)
        # The layers in Keras' config are built, ours are not; see `test_configs_as_in_keras`.
        check_layer(
            Bidirectional,
            keras.layers.Bidirectional,
            kwargs,
            (4, 7, 4),
            keras_kwargs=keras_kwargs,
            call_kwargs=extra,
            unknown_axes=(1,),
            ignore_config=("layer", "backward_layer"),
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_as_in_torch(name: str, dtype: str) -> None:
    layer = Bidirectional(LAYERS[name][0](5, return_sequences=True, return_state=True, dtype=dtype))
    inputs = torch.randn(3, 6, 4, dtype=getattr(torch, dtype))
    outputs, *states = layer(inputs)
    reference = LAYERS[name][2](4, 5, batch_first=True, bidirectional=True, dtype=inputs.dtype)
    weights = {}
    for direction, suffix in (("forward", ""), ("backward", "_reverse")):
        own = getattr(layer, f"{direction}_layer").state_dict()
        own = {"bias_hh_l0": torch.zeros_like(own["bias_ih_l0"]), **own}
        weights |= {key + suffix: value for key, value in own.items()}
    reference.load_state_dict(weights)
    expected, finals = reference(inputs)
    assert_same(outputs, expected)
    # Torch gives h of both directions, then c of both; Keras h and c of one, then of the other.
    order = (0, 2, 1, 3) if name == "LSTM" else (0, 1)
    flat = [state for each in leaves(finals) for state in each]
    assert_same(states, [flat[index] for index in order])


@pytest.mark.parametrize("stateful", [False, True])
def test_configs_as_in_keras(stateful: bool) -> None:
    kwargs, keras_kwargs = both("LSTM", "sum", True, return_state=True, stateful=stateful)
    ours, theirs = Bidirectional(**kwargs, name="both"), keras.layers.Bidirectional(**keras_kwargs, name="both")

    def known(config: Any) -> Any:
        if isinstance(config, dict):
            return {key: known(value) for key, value in config.items() if key != "build_config"}
        return config

    assert not same_config(known(ours.get_config()), known(theirs.get_config()))
    for copy in (Bidirectional.from_config(theirs.get_config()), Bidirectional.from_config(ours.get_config())):
        assert not same_config(known(copy.get_config()), known(ours.get_config()))
    back = keras.layers.Bidirectional.from_config(ours.get_config())
    assert not same_config(known(back.get_config()), known(theirs.get_config()))


def test_layers_have_weights_of_their_own() -> None:
    class Doubling(Layer):
        """A cell that is registered nowhere."""

        state_size = 4

        def call(self, inputs: torch.Tensor, states: list[torch.Tensor]) -> Any:
            return states[0] + 2 * inputs, [states[0] + 2 * inputs]

    lstm = make("LSTM")
    layer = Bidirectional(lstm)
    layer(torch.zeros(3, 2, 4))
    names = [name for name, _ in layer.named_parameters()]
    assert names[0] == "forward_layer.weight_ih_l0"
    assert names[3] == "backward_layer.weight_ih_l0"
    parameters = [lstm.weight_ih_l0, layer.forward_layer.weight_ih_l0, layer.backward_layer.weight_ih_l0]
    assert not any(torch.equal(parameters[index], parameters[index - 1]) for index in range(3))
    assert layer.forward_layer.name == "forward_lstm"
    inputs = torch.randn(3, 6, 4)
    own = Bidirectional(RNN(Doubling()), merge_mode=None)(inputs)
    assert_same(own, [2 * inputs.sum(1)] * 2)


def test_two_different_layers() -> None:
    layer = Bidirectional(LSTM(5), backward_layer=RNN(LSTMCell(3), go_backwards=True))
    drawn = layer(Input((None, 4)))
    inputs = torch.randn(3, 6, 4)
    expected = torch.cat([layer.forward_layer(inputs), layer.backward_layer(inputs)], -1)
    assert drawn.shape == (None, 8)
    torch.testing.assert_close(layer(inputs), expected)


def test_weights_to_start_from() -> None:
    first = Bidirectional(GRU(5))
    inputs = torch.randn(3, 6, 4)
    expected = first(inputs)
    again = Bidirectional(GRU(5), weights=first.get_weights())
    torch.testing.assert_close(again(inputs), expected, atol=0, rtol=0)


def test_stateful() -> None:
    layer = Bidirectional(LSTM(5, stateful=True))
    inputs = torch.randn(3, 6, 4)
    first = layer(inputs)
    assert layer.states is not None
    assert len(layer.states) == 4
    second = layer(inputs)
    assert not torch.allclose(first, second)
    layer.reset_states()
    torch.testing.assert_close(layer(inputs), first)
    with pytest.raises(AttributeError, match="keeps no states"):
        Bidirectional(LSTM(5)).reset_state()


@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_mask_follows_the_graph(merge_mode: str | None) -> None:
    words = Input((None,), dtype="int64")
    embedded = Embedding(9, 4, mask_zero=True)(words)
    drawn = Bidirectional(LSTM(5, return_sequences=True, return_state=True), merge_mode=merge_mode)(embedded)
    count = 2 if merge_mode is None else 1
    assert [each.mask is embedded.mask for each in drawn] == [True] * count + [False] * 4
    output = Bidirectional(GRU(3))(drawn[0])
    assert output.mask is None
    model = Model(words, output)
    values = torch.tensor([[1, 2, 3], [4, 5, 0]])
    # Padding changes nothing, wherever it is.
    torch.testing.assert_close(model(torch.nn.functional.pad(values, (0, 2))), model(values))
    torch.testing.assert_close(model(torch.nn.functional.pad(values, (2, 0))), model(values))


def test_dropout_and_modes_reach_the_layers() -> None:
    layer = Bidirectional(LSTM(5, dropout=0.5))
    inputs = torch.randn(3, 6, 4)
    layer(inputs)
    assert torch.equal(layer(inputs, training=False), layer(inputs, training=False))
    assert not torch.equal(layer(inputs, training=True), layer(inputs, training=True))
    frozen = Bidirectional(LSTM(5), trainable=False)
    frozen(inputs)
    assert frozen.trainable_weights == []


@pytest.mark.parametrize(
    ("make_layer", "message"),
    [
        (lambda: Bidirectional(Dense(3)), "goes around a recurrent layer, such as LSTM, got"),
        (lambda: Bidirectional("lstm"), "goes around a recurrent layer, such as LSTM, got 'lstm'"),
        (lambda: Bidirectional(LSTM(3), merge_mode="max"), "for merge_mode, got 'max'"),
        (lambda: Bidirectional(LSTM(3), backward_layer=LSTM(3)), "go_backwards is False for both LSTM 'forward_lstm'"),
        (lambda: Bidirectional(LSTM(3, go_backwards=True)), "go_backwards is True for both"),
        (
            lambda: Bidirectional(LSTM(3, return_state=True), backward_layer=LSTM(3, go_backwards=True)),
            "must agree on return_state, but it is True for LSTM 'forward_lstm'.* and False for LSTM 'lstm'",
        ),
        (
            lambda: Bidirectional(LSTM(3), merge_mode="sum", backward_layer=GRU(2, go_backwards=True))(Input((5, 4))),
            r"Bidirectional .*merge_mode='sum' takes two outputs of one shape.*\(None, 3\).*\(None, 2\)",
        ),
        (lambda: Bidirectional(LSTM(3))(Input((4,))), "expected ndim=3, found ndim=2"),
    ],
)
def test_mistakes(make_layer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_layer()
