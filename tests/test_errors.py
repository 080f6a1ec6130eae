"""Wrong uses of the graph, layers and models: what the message names, and that the model still works afterwards.

Mistakes in training are tested with training; what a symbolic tensor refuses, in test_symbolic.py.
"""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchfunc import Input, Layer, layers
from torchfunc.layers import Dense, Embedding, InputLayer, Lambda, TorchModule
from torchfunc.models import Model

A, B = torch.ones(4, 8), torch.full((4, 8), 2.0)


class Setting:
    """A model to go wrong with."""

    def __init__(self):
        self.a, self.b = Input((8,), name="pixels"), Input((8,), name="words")
        self.dense = Dense(4, name="encoder")
        self.hidden = self.dense(self.a) + self.dense(self.b)
        self.out = Dense(2, name="head")(self.hidden)
        self.model = Model([self.a, self.b], {"head": self.out, "hidden": self.hidden}, name="pair")


@pytest.fixture(name="it", scope="module")
def fixture_it():
    return Setting()


class NeedsSize(Layer):
    def build(self, input_shape):
        self.weight = self.add_weight((input_shape[-1], 3))

    def call(self, x):
        return x @ self.weight


class Failing(Layer):
    def call(self, x):
        raise KeyError("vocabulary")


class Keyword(nn.Module):
    def forward(self, x, *, scale):
        return x * scale


# name: (the mistake, the error, what the message must hold)
MISTAKES = {
    # Input
    "no shape": (lambda it: Input(), ValueError, ["shape", "batch_shape"]),
    "shape given twice": (lambda it: Input((3,), batch_shape=(1, 3)), ValueError, ["not both"]),
    "a float in a shape": (lambda it: Input((3.5,)), ValueError, ["3.5"]),
    "a negative size": (lambda it: Input((-1,)), ValueError, ["-1"]),
    "unknown dtype": (lambda it: Input((3,), dtype="float33"), ValueError, ["float33"]),
    "sparse input": (lambda it: Input((3,), sparse=True), ValueError, ["dense tensors"]),
    "bad input name": (lambda it: Input((3,), name="a/b"), ValueError, ["'a/b'"]),
    # Layers called on the wrong thing
    "wrong rank": (lambda it: Dense(3)(Input(())), ValueError, ["Dense", "min_ndim=2", "(None,)"]),
    "wrong rank of a convolution": (
        lambda it: layers.Conv2D(3, 3, name="edges")(it.a), ValueError, ["'edges'", "ndim=4", "(None, 8)"],
    ),
    "wrong size for built weights": (
        lambda it: it.dense(Input((5,))), ValueError, ["'encoder'", "value 8", "(None, 5)"],
    ),
    "unknown features": (lambda it: Dense(3, name="late")(Input((None,))), ValueError, ["late", "None"]),
    "wrong size for a module": (lambda it: nn.Linear(3, 2)(it.a), ValueError, ["Linear(in_features=3", "(None, 8)"]),
    "wrong number of arguments": (lambda it: it.dense(it.a, it.b, it.a), TypeError, ["'encoder'", "argument"]),
    "unknown argument": (lambda it: it.dense(it.a, colour=1), TypeError, ["'encoder'", "'colour'"]),
    "missing keyword of a module": (lambda it: Keyword()(it.a), ValueError, ["Keyword", "scale"]),
    "shapes that do not go together": (
        lambda it: layers.Add(name="sum")([it.a, it.hidden]), ValueError, ["sum", "(None, 8)", "(None, 4)"],
    ),
    "sizes that do not broadcast": (lambda it: it.a + it.hidden, ValueError, ["add", "(None, 8)", "(None, 4)"]),
    "one tensor to merge": (lambda it: layers.Concatenate(name="join")(it.a), ValueError, ["join", "list"]),
    "an error in a layer": (
        lambda it: Failing(name="look_up")(it.a), KeyError, ["vocabulary", "Failing 'look_up'", "(None, 8)"],
    ),
    "a build that needs a size": (lambda it: NeedsSize(name="map")(Input((None,))), (TypeError, ValueError), ["None"]),
    "a computed tensor as a constant": (
        lambda it: F.linear(it.a, it.dense.weight * 2), ValueError, ["(4, 8)", "follow the parameter"],
    ),
    "an argument code cannot be written for": (
        lambda it: Model(it.a, Keyword()(it.a, scale=_Odd())), TypeError, ["_Odd", "call()"],
    ),
    # Layers made wrongly
    "units": (lambda it: Dense(-1), ValueError, ["Dense", "units", "-1"]),
    "unknown activation": (lambda it: Dense(3, activation="rleu"), ValueError, ["rleu", "relu"]),
    "unknown initializer": (lambda it: Dense(3, kernel_initializer="glorot"), ValueError, ["glorot"]),
    "argument of another layer": (lambda it: Dense(3, filters=3), ValueError, ["Dense", "'filters'"]),
    "not a module": (lambda it: TorchModule(torch.relu), TypeError, ["TorchModule", "torch.nn.Module"]),
    "not a function": (lambda it: Lambda(3), TypeError, ["Lambda", "3"]),
    "weights of the wrong shape": (
        lambda it: it.dense.set_weights([np.ones((4, 8)), np.ones(4)]), ValueError, ["'encoder'", "(8, 4)", "(4, 8)"],
    ),
    "weights missing": (lambda it: it.dense.set_weights([np.ones((8, 4))]), ValueError, ["'encoder'", "2", "1"]),
    # Introspection
    "output of a shared layer": (
        lambda it: it.dense.output, AttributeError, ["encoder", "multiple inbound nodes", "get_output_at(node_index)"],
    ),
    "output of an uncalled layer": (lambda it: Dense(3, name="idle").output, AttributeError, ["idle", "never"]),
    "a call there was not": (lambda it: it.dense.get_output_at(7), ValueError, ["encoder", "7", "2"]),
    "unknown attribute": (lambda it: it.dense.kernels, AttributeError, ["Dense", "kernels"]),
    # Models made wrongly
    "disconnected": (
        lambda it: Model(it.a, it.out), ValueError, ["disconnected", "'words'", "test_errors.py", "'pixels'"],
    ),
    "disconnected by an intermediate tensor": (
        lambda it: Model(it.hidden, it.out + it.a[:, :2]), ValueError, ["disconnected", "'pixels'"],
    ),
    "an array as input": (lambda it: Model(A, it.out), TypeError, ["inputs", "Tensor", "Input(...)"]),
    "a layer as output": (lambda it: Model(it.a, [it.out, it.dense]), TypeError, ["outputs", "Dense"]),
    "None as output": (lambda it: Model([it.a, it.b], [it.out, None]), TypeError, ["outputs", "None"]),
    "a real tensor among the outputs": (lambda it: Model([it.a, it.b], [it.out, A]), TypeError, ["outputs", "Tensor"]),
    "no inputs": (lambda it: Model([], it.out), ValueError, ["inputs"]),
    "an input twice": (lambda it: Model([it.a, it.a], it.a * 2), ValueError, ["twice"]),
    "one name for two layers": (
        lambda it: Model([it.a, it.b], Dense(3, name="encoder")(it.hidden)), ValueError, ["'encoder'", "Rename one"],
    ),
    "one name for two inputs": (
        lambda it: Model([it.a, (same := Input((8,), name="pixels"))], it.a + same), ValueError, ["'pixels'"],
    ),
    # Models called wrongly
    "an input missing": (lambda it: it.model(A), ValueError, ["'pair'", "2 inputs", "pixels, words", "given 1"]),
    "an input too many": (lambda it: it.model(A, B, A), ValueError, ["2 inputs", "given 3"]),
    "a list too short": (lambda it: it.model([A]), ValueError, ["2 inputs", "given 1"]),
    "a key missing": (lambda it: it.model({"pixels": A}), ValueError, ["'words'", "missing"]),
    "a key misspelt": (
        lambda it: it.model({"pixels": A, "wrods": B}), ValueError, ["'wrods'", "missing", "Did you mean 'words'"],
    ),
    "a wrong keyword": (lambda it: it.model(A, word=B), ValueError, ["'word'", "'words'"]),
    "a wrong shape": (lambda it: it.model(A, B[:, :3]), ValueError, ["'words'", "(None, 8)", "(4, 3)"]),
    "a wrong rank": (lambda it: it.model(A[0], B), ValueError, ["'pixels'", "(None, 8)", "(8,)"]),
    "None for an input": (lambda it: it.model(A, None), ValueError, ["'words'", "optional=True"]),
    "a wrong symbolic shape": (
        lambda it: it.model(Input((8,)), Input((3,))), ValueError, ["'words'", "(None, 8)", "(None, 3)"],
    ),
    "a wrong shape to compute with": (
        lambda it: it.model.compute_output_shape([(4, 8), (4, 3)]), ValueError, ["'encoder'", "value 8", "(4, 3)"],
    ),
    "an unknown layer": (lambda it: it.model.get_layer("decoder"), ValueError, ["'decoder'", "encoder", "head"]),
    "a layer index too high": (lambda it: it.model.get_layer(index=99), ValueError, ["99"]),
    "a layer by nothing": (lambda it: it.model.get_layer(), ValueError, ["name or an index"]),
    "state of another model": (
        lambda it: it.model.load_state_dict({"encoder.weight": torch.ones(3, 3)}), RuntimeError, ["encoder.weight"],
    ),
}  # fmt: skip


class _Odd:
    """An argument that cannot be written as code."""

    def __rmul__(self, other):
        return other * 2


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named_and_leave_the_model_as_it_was(it, case):
    mistake, error, parts = MISTAKES[case]
    before = copy.deepcopy(it.model.state_dict())
    expected = it.model(A, B)
    with pytest.raises(error) as caught:
        mistake(it)
    said = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    for part in parts:
        assert part in said
    torch.testing.assert_close(it.model.state_dict(), before)
    torch.testing.assert_close(it.model(A, B), expected)
    assert it.model.layer_names() == ["pixels", "words", "encoder", "head"]
    assert Model([it.a, it.b], it.model.output["head"])(A, B).shape == (4, 2)


def test_messages_give_the_users_own_line(it):
    with pytest.raises(ValueError, match=r"test_errors\.py:\d+: nn\.Linear\(3, 2\)\(it\.a\)  # here"):
        nn.Linear(3, 2)(it.a)  # here
    with pytest.raises(ValueError, match=r"test_errors\.py:\d+: Dense\(3\)\(Input\(\(\)\)\)  # and here"):
        Dense(3)(Input(()))  # and here
    with pytest.raises(ValueError, match=r"made at test_errors\.py:\d+: self\.a, self\.b = Input"):
        Model(it.a, it.out)


def test_integers_where_floats_are_expected_and_the_other_way_round():
    tokens = Input((3,), dtype="int32")
    model = Model(tokens, Embedding(5, 2)(tokens))
    assert model(np.array([[1.0, 2.0, 3.0]])).shape == (1, 3, 2)
    with pytest.raises(ValueError, match=r"Embedding 'embedding' .* has vectors for 0 to 4, but was given 9"):
        model(np.array([[1, 2, 9]]))
    assert model(np.array([[1, 2, 4]])).shape == (1, 3, 2)
    assert isinstance(model.layers[0], InputLayer)
