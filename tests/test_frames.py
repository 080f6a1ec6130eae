"""Frames and series of pandas wherever an array is taken, outside of training too."""

import numpy as np
import pandas as pd
import pytest
import torch

from torchfunc import Input, Model, Sequential, activations, layers, losses, metrics, ops

# Of three types, one of them with a gap.
FRAME = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [3, 5, 7], "c": pd.array([True, False, True], dtype="boolean")})
ARRAY = np.array([[1, 3, 1], [2, 5, 0], [4, 7, 1]], "float32")
NUMBERS = FRAME["a"]

DENSE = layers.Dense(2)
DENSE(ARRAY)


class Own(Model):
    def __init__(self):
        super().__init__()
        self.dense = DENSE

    def call(self, x):
        return self.dense(x)


CALLS = {
    "a layer": DENSE,
    "a model": Sequential([Input((3,)), DENSE]),
    "a model of one's own": Own(),
    "an activation": activations.softmax,
    "ops.mean": lambda x: ops.mean(x, axis=0),
    "ops.matmul": lambda x: ops.matmul(x, torch.ones(3, 1)),
    "ops.concatenate": lambda x: ops.concatenate([x, x]),
    "ops.convert_to_tensor": lambda x: ops.convert_to_tensor(x, "float32"),
    "ops.convert_to_numpy": lambda x: torch.from_numpy(ops.convert_to_numpy(x)).float(),
    "a constant on the left": lambda x: ops.subtract(1.0, x),
    "losses": lambda x: losses.mean_squared_error(x, torch.ones(3, 3)),
    "a symbolic operand": lambda x: Model(inputs := Input(batch_shape=(3, 3)), ops.add(inputs, x))(torch.zeros(3, 3)),
    "merging": lambda x: layers.concatenate([x, x]),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_frame_is_its_array(call):
    torch.testing.assert_close(CALLS[call](FRAME), CALLS[call](ARRAY))


def test_series_and_indices():
    assert ops.sqrt(NUMBERS).tolist() == np.sqrt(np.float32([1, 2, 4])).tolist()
    assert ops.cast(FRAME.index, "float32").tolist() == [0, 1, 2]
    assert ops.where(ops.greater(NUMBERS, 1), NUMBERS, 0.0).tolist() == [0, 2, 4]
    assert ops.one_hot(FRAME["b"], 8).argmax(1).tolist() == [3, 5, 7]
    assert losses.MeanSquaredError()(NUMBERS, torch.zeros(3)).item() == 7
    assert metrics.MeanAbsoluteError()(NUMBERS, torch.zeros(3)).item() == pytest.approx(7 / 3)
    a, b = Input((1,), name="a"), Input((1,), name="b")
    model = Model([a, b], layers.Add()([a, b]))
    for given in ([FRAME["a"], FRAME["b"]], {"a": FRAME["a"], "b": FRAME["b"]}):
        assert model(given).tolist() == [[4], [7], [11]]


def test_text_is_refused_by_its_column():
    frame = FRAME.assign(b=["x", "y", "z"])
    for call in (CALLS["a layer"], CALLS["a model"], ops.sqrt):
        with pytest.raises(
            ValueError, match=r"\['b'\] is a pandas column of dtype (str|object), which no tensor can hold"
        ):
            call(frame)
