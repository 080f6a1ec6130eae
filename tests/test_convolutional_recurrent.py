"""ConvLSTM1D, ConvLSTM2D and ConvLSTM3D against Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from layer_parity import check_layer

from torchfunc import Input
from torchfunc.layers.recurrent.convlstm import ConvLSTM1D, ConvLSTM2D, ConvLSTM3D
from torchfunc.layers.recurrent.layers import LSTM

LAYERS = {
    1: (ConvLSTM1D, keras.layers.ConvLSTM1D),
    2: (ConvLSTM2D, keras.layers.ConvLSTM2D),
    3: (ConvLSTM3D, keras.layers.ConvLSTM3D),
}
SIZES = (5, 6, 4)
MASK = np.array([[1, 0, 1], [0, 1, 0]], dtype=bool)
VARIANTS: list[dict[str, Any]] = [
    {"padding": "same", "return_sequences": True},
    {"return_state": True, "use_bias": False, "data_format": "channels_first"},
    {"padding": "same", "kernel_size": 2, "strides": 2, "return_sequences": True, "go_backwards": True},
    {"kernel_size": 2, "dilation_rate": 2, "activation": "elu", "recurrent_activation": "hard_sigmoid"},
]


def shape(rank: int, kwargs: Any) -> tuple[int, ...]:
    positions = SIZES[:rank]
    return (2, 3, 2, *positions) if kwargs.get("data_format") == "channels_first" else (2, 3, *positions, 2)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("rank", "kwargs"), [*((2, each) for each in VARIANTS), (1, VARIANTS[0]), (3, VARIANTS[2])])
def test_against_keras(rank: int, kwargs: Any, masked: bool) -> None:
    kwargs = {"filters": 3, "kernel_size": 3, **kwargs}
    extra = {"mask": MASK} if masked else {}
    check_layer(*LAYERS[rank], kwargs, shape(rank, kwargs), call_kwargs=extra, unknown_axes=(1,))


@pytest.mark.parametrize(
    "kwargs",
    [
        {
            "kernel_regularizer": "l2",
            "recurrent_regularizer": "l1",
            "bias_regularizer": "l2",
            "unit_forget_bias": False,
        },
        {"kernel_constraint": "max_norm", "recurrent_constraint": "non_neg", "bias_constraint": "unit_norm", "seed": 2},
        {
            "unit_forget_bias": False,
            "dropout": 0.3,
            "recurrent_dropout": 0.2,
            "bias_initializer": "ones",
            "zero_output_for_mask": True,
        },
    ],
)
def test_further_arguments(kwargs: Any) -> None:
    kwargs = {"filters": 3, "kernel_size": (3, 2), "return_sequences": True, **kwargs}
    rng = np.random.default_rng(0)
    states = [rng.normal(size=(2, 3, 5, 3)).astype("float32") for _ in range(2)]
    check_layer(*LAYERS[2], kwargs, shape(2, kwargs), call_kwargs={"mask": MASK, "initial_state": states})


def test_double_precision() -> None:
    inputs = np.random.default_rng(0).normal(size=shape(2, {}))
    # Keras' loop loses digits.
    check_layer(*LAYERS[2], {"filters": 3, "kernel_size": 3, "dtype": "float64"}, inputs, atol=1e-6)


def test_one_position_is_an_lstm() -> None:
    layer, lstm = (
        ConvLSTM1D(3, 1, return_sequences=True, return_state=True, dtype="float64"),
        LSTM(3, return_sequences=True, return_state=True, dtype="float64"),
    )
    inputs = torch.randn(2, 6, 4, dtype=torch.float64)
    lstm(inputs), layer(inputs.unsqueeze(2))
    kernel, recurrent, bias = lstm.get_weights()
    layer.set_weights([kernel[None], recurrent[None], bias])
    for one, other in zip(layer(inputs.unsqueeze(2)), lstm(inputs), strict=True):
        torch.testing.assert_close(one.squeeze(-2), other)


def test_positions_may_be_unknown() -> None:
    layer = ConvLSTM2D(3, 3, padding="same", return_state=True)
    drawn = layer(Input((None, None, 6, 2)))
    assert [each.shape for each in drawn] == [(None, None, 6, 3)] * 3
    assert layer(torch.zeros(2, 3, 7, 6, 2))[0].shape == (2, 7, 6, 3)


def test_stateful() -> None:
    layer = ConvLSTM1D(3, 3, padding="same", stateful=True, return_sequences=True)
    inputs = torch.randn(2, 6, 5, 2)
    layer(inputs)
    layer.reset_states()
    halves = [layer(part) for part in inputs.split(3, 1)]
    layer.reset_states()
    torch.testing.assert_close(torch.cat(halves, 1), layer(inputs))


def test_dropout_draws_for_each_gate_and_position_once() -> None:
    layer = ConvLSTM1D(1, 1, dropout=0.5, return_sequences=True, use_bias=False)
    inputs = torch.ones(200, 2, 1, 1)
    layer(inputs)
    torch.nn.init.zeros_(layer.weight_hh)
    outputs = layer(inputs, training=True)
    # The forget gate has no say in the first step: the other three are on or off.
    assert len({round(value, 5) for value in outputs[:, 0].flatten().tolist()}) == 5
    assert torch.equal(layer(inputs, training=False), layer(inputs, training=False))


@pytest.mark.parametrize(
    ("make_layer", "message"),
    [
        (lambda: ConvLSTM2D(0, 3), "ConvLSTM2D takes a positive integer for filters, got 0"),
        (lambda: ConvLSTM2D(3, (3, 3, 3)), "tuple of 2 positive integers for kernel_size"),
        (lambda: ConvLSTM2D(3, 3, padding="causal"), "one of 'valid', 'same' for padding, got 'causal'"),
        (lambda: ConvLSTM1D(3, 3, strides=2, dilation_rate=2), "not both"),
        (lambda: ConvLSTM2D(3, 3)(Input((5, 5, 2))), "expected ndim=5, found ndim=4"),
        (lambda: ConvLSTM2D(3, 3)(Input((4, 5, 5, None))), "must be known"),
        (lambda: ConvLSTM1D(3, 7)(Input((4, 5, 2))), "ConvLSTM1D .* no positions"),
        (
            lambda: ConvLSTM1D(3, 3, stateful=True)(Input((4, None, 2), batch_size=2)),
            "must know the shape of its states",
        ),
    ],
)
def test_mistakes(make_layer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_layer()
