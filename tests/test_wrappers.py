"""TimeDistributed and Wrapper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from layer_parity import check_layer, same_config
from torch import nn

from torchfunc import Input
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.convolution.standard import Conv2D
from torchfunc.layers.core import Dense, Embedding
from torchfunc.layers.pooling.global_pooling import GlobalAveragePooling1D
from torchfunc.layers.recurrent.layers import LSTM
from torchfunc.layers.wrappers import TimeDistributed, Wrapper
from torchfunc.models import Model, Sequential


class MeanOfDense(Layer):
    """Knows no shapes by formula, and builds its sublayer when it is called."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = Dense(3)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.dense(inputs).mean(1)


class Halves(Layer):
    """Several outputs."""

    def call(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        first, second = inputs.chunk(2, -1)
        return {"first": first, "second": second.to(torch.float64)}


class Masked(Layer):
    def call(self, inputs: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return inputs if mask is None else inputs * mask.unsqueeze(-1)


def text_model() -> Model:
    words = Input((6,), dtype="int64")
    return Model(words, LSTM(3)(Embedding(7, 5)(words)))


def unbuilt(config: Any) -> Any:
    """A config without the shapes that layers in it were built with."""
    if not isinstance(config, dict):
        return config
    return {key: unbuilt(value) for key, value in config.items() if key != "build_config"}


def per_step(layer: Callable[..., Any], inputs: torch.Tensor) -> torch.Tensor:
    return torch.stack([layer(inputs[:, step]) for step in range(inputs.shape[1])], 1)


FLOATS, WORDS = torch.randn(2, 5, 4), torch.randint(0, 7, (2, 5, 6))
INNER = {
    "Dense": (lambda: Dense(3), FLOATS),
    "Conv2D": (lambda: Conv2D(3, 3), torch.randn(2, 5, 8, 8, 2)),
    "LSTM": (lambda: LSTM(3, return_sequences=True), torch.randn(2, 5, 6, 4)),
    "Embedding": (lambda: Embedding(7, 3), WORDS),
    "Model": (text_model, WORDS),
    "Sequential": (lambda: Sequential([Dense(3, activation="relu"), Dense(2)]), FLOATS),
    "no formula": (MeanOfDense, torch.randn(2, 5, 6, 4)),
    "nn.Linear": (lambda: nn.Linear(4, 3), FLOATS),
    "nn.Embedding": (lambda: nn.Embedding(7, 3), WORDS),
    "nn.GRU cell": (lambda: nn.GRUCell(4, 3), FLOATS),
}


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (Dense(3), keras.layers.Dense(3), (2, 5, 4)),
        (Conv2D(3, 3, strides=2), keras.layers.Conv2D(3, 3, strides=2), (2, 5, 9, 8, 2)),
        (LSTM(3), keras.layers.LSTM(3), (2, 5, 6, 4)),
        (TimeDistributed(Dense(3)), keras.layers.TimeDistributed(keras.layers.Dense(3)), (2, 5, 6, 4)),
    ],
)
def test_against_keras(ours: Any, theirs: Any, shape: tuple[int, ...]) -> None:
    wrapper, reference = check_layer(
        TimeDistributed,
        keras.layers.TimeDistributed,
        {"layer": ours},
        shape,
        keras_kwargs={"layer": theirs},
        unknown_axes=(1,),
        # Keras' layer is built with one batch size, ours with any. The rest is compared below.
        ignore_config=("layer",),
    )
    assert not same_config(unbuilt(wrapper.get_config()), unbuilt(reference.get_config()))


@pytest.mark.parametrize("sizes", [(2, 5), (None, 5), (2, None), (None, None)])
@pytest.mark.parametrize("inner", INNER)
def test_each_step_alone(inner: str, sizes: tuple[int | None, int | None]) -> None:
    make, inputs = INNER[inner]
    wrapper = TimeDistributed(make())
    drawn = wrapper(Input(batch_shape=(*sizes, *inputs.shape[2:]), dtype=inputs.dtype))
    output = wrapper(inputs)
    assert (drawn.shape, drawn.dtype) == ((*sizes, *output.shape[2:]), output.dtype)
    torch.testing.assert_close(output, per_step(wrapper.layer, inputs), atol=1e-6, rtol=1e-5)
    assert all(key.startswith("layer.") for key in wrapper.state_dict())
    assert wrapper.count_params() == sum(weight.numel() for weight in wrapper.layer.parameters()) > 0


@pytest.mark.parametrize("make", [lambda: Dense(3), lambda: Sequential([Dense(3)])])
def test_built_by_a_call_on_data(make: Callable[[], Layer]) -> None:
    wrapper = TimeDistributed(make())
    assert wrapper(FLOATS).shape == (2, 5, 3)
    assert wrapper(torch.randn(3, 7, 4)).shape == (3, 7, 3)
    assert [weight.shape for weight in wrapper.parameters()] == [(3, 4), (3,)]
    assert wrapper.get_build_config() == {"input_shape": (2, 5, 4)}


def test_several_outputs() -> None:
    wrapper = TimeDistributed(Halves())
    drawn = wrapper(Input((None, 4)))
    assert {key: (value.shape, value.dtype) for key, value in drawn.items()} == {
        "first": ((None, None, 2), torch.float32),
        "second": ((None, None, 2), torch.float64),
    }
    output = wrapper(FLOATS)
    torch.testing.assert_close(output["second"], FLOATS[..., 2:].double())


def test_in_a_model_compiled_and_exported() -> None:
    torch.compiler.reset()
    inputs = Input((None, 6), dtype="int64")
    model = Model(inputs, LSTM(4)(TimeDistributed(text_model())(inputs)))
    expected = model(WORDS)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(WORDS), expected)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}
    program = torch.export.export(model, (WORDS,), dynamic_shapes=(sizes,))
    more = torch.randint(0, 7, (3, 4, 6))
    torch.testing.assert_close(program.module()(more), model(more))


def test_modes_reach_the_layer() -> None:
    wrapper = TimeDistributed(nn.Dropout(0.5))
    inputs = torch.ones(2, 50, 4)
    assert (wrapper(inputs, training=False) == 1).all()
    assert set(wrapper(inputs, training=True).unique().tolist()) == {0.0, 2.0}
    assert not wrapper.eval().layer.training


def test_not_trainable_freezes_the_layer() -> None:
    wrapper = TimeDistributed(Dense(3), trainable=False)
    wrapper(FLOATS)
    assert wrapper.trainable_weights == []


def test_masks_as_in_keras() -> None:
    class KerasMasked(keras.layers.Layer):
        def call(self, inputs: Any, mask: Any = None) -> Any:
            return inputs if mask is None else inputs * mask.unsqueeze(-1)

    mask = torch.from_numpy(np.random.default_rng(0).random((2, 5)) > 0.4)
    expected = keras.layers.TimeDistributed(KerasMasked())(FLOATS, mask=mask)
    wrapper = TimeDistributed(Masked())
    torch.testing.assert_close(wrapper(FLOATS, mask=mask), expected)
    torch.testing.assert_close(TimeDistributed(Dense(4))(FLOATS, mask=mask).shape, FLOATS.shape)
    with pytest.raises(ValueError, match=r"mask \(batch, time, \.\.\.\) of shape \(2, 5\).*got one of shape \(2, 4\)"):
        wrapper(FLOATS, mask=mask[:, :4])


@pytest.mark.parametrize("make", [lambda: LSTM(3), GlobalAveragePooling1D])
def test_mask_of_the_graph_reaches_the_layer(make: Callable[[], Layer]) -> None:
    words = Input((None, 6), dtype="int64")
    embedding, layer = Embedding(7, 5, mask_zero=True), make()
    embedded = embedding(words)
    output = TimeDistributed(layer)(embedded)
    # A step counts where any word in it does.
    assert output.mask is not None
    assert output.mask.shape == (None, None)
    vectors, mask = embedding(WORDS), WORDS != 0
    expected = [layer(vectors[:, step], mask=mask[:, step]) for step in range(5)]
    torch.testing.assert_close(Model(words, output)(WORDS), torch.stack(expected, 1))


def test_config_round_trip() -> None:
    wrapper = TimeDistributed(LSTM(3, go_backwards=True), name="steps")
    wrapper(Input((None, 6, 4)))
    copy = TimeDistributed.from_config(wrapper.get_config())
    assert copy.name == "steps"
    assert copy.layer.get_config() == wrapper.layer.get_config()
    other = TimeDistributed.from_config(
        keras.layers.TimeDistributed(keras.layers.LSTM(3, go_backwards=True)).get_config()
    )
    assert other.layer.go_backwards
    custom = TimeDistributed.from_config(
        TimeDistributed(MeanOfDense()).get_config(), custom_objects={"MeanOfDense": MeanOfDense}
    )
    assert isinstance(custom.layer, MeanOfDense)


def test_wrapper_is_a_base() -> None:
    class Twice(Wrapper):
        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(inputs))

    twice = Twice(Dense(4))
    assert twice(Input((4,))).shape == (None, 4)
    inputs = torch.randn(2, 4)
    torch.testing.assert_close(twice(inputs), twice.layer(twice.layer(inputs)))


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"TimeDistributed goes around a layer or a torch.nn.Module, got 'dense'"):
        TimeDistributed("dense")
    with pytest.raises(ValueError, match="expected min_ndim=3, found ndim=2"):
        TimeDistributed(Dense(3))(Input((4,)))
    with pytest.raises(ValueError, match="takes 1 inputs, but was called on 2"):
        TimeDistributed(Dense(3))([Input((5, 4)), Input((5, 4))])
    with pytest.raises(ValueError, match=r"at least 3 axes, got \(None, 4\)"):
        TimeDistributed(Dense(3)).compute_output_shape((None, 4))
    with pytest.raises(ValueError, match=r"Dense 'dense'.*must be known"):
        TimeDistributed(Dense(3))(Input((5, None)))
    with pytest.raises(ValueError, match=r"TimeDistributed .* cannot be called on"):
        TimeDistributed(nn.Linear(4, 3))(Input((None, 5)))


def test_config_of_a_wrapped_model_is_read_here_and_by_keras():
    def draw(Input: Any, Dense: Any, TimeDistributed: Any, Model: Any) -> Any:
        inner = Input((4,))
        model = Model(inner, Dense(3)(inner), name="inner")
        outer = Input((5, 4))
        return Model(outer, TimeDistributed(model, name="steps")(outer))

    model = draw(Input, Dense, TimeDistributed, Model)
    again = Model.from_config(model.get_config())
    assert list(again.state_dict()) == ["steps.layer.dense.weight", "steps.layer.dense.bias"]
    theirs = keras.Model.from_config(model.get_config())
    theirs.set_weights(model.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    np.testing.assert_allclose(model(x).detach(), theirs(x).detach(), atol=1e-6)
    back = Model.from_config(
        draw(keras.Input, *(getattr(keras.layers, n) for n in ("Dense", "TimeDistributed")), keras.Model).get_config()
    )
    assert back.count_params() == 15
