"""Masks reach the layers of a model within a model, and come out of it, as in Keras."""

import copy
import pickle
import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import torch

from torchfunc import Input, Model, Sequential, layers

TOKENS = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0], [1, 0, 2, 0, 3]])
KERAS = SimpleNamespace(
    Input=keras.Input, Model=keras.Model, Sequential=keras.Sequential, layers=keras.layers, ops=keras.ops
)
OURS = SimpleNamespace(Input=Input, Model=Model, Sequential=Sequential, layers=layers, ops=torch)


def into(lib):
    """A mask made outside is used inside."""
    x = lib.Input((None, 3))
    inner = lib.Model(x, lib.layers.LSTM(4)(lib.layers.Dense(3)(x)))
    tokens = lib.Input((5,), dtype="int64")
    return lib.Model(tokens, inner(lib.layers.Embedding(7, 3, mask_zero=True)(tokens)))


def out_of(lib):
    """A mask made inside is used outside."""
    tokens = lib.Input((5,), dtype="int64")
    inner = lib.Model(tokens, lib.layers.Embedding(7, 3, mask_zero=True)(tokens))
    outer = lib.Input((5,), dtype="int64")
    return lib.Model(outer, lib.layers.LSTM(4)(inner(outer)))


def through(lib):
    """Into a Sequential model, out of it and through another one, to a layer at the end."""
    tokens = lib.Input((5,), dtype="int64")
    x = lib.layers.Embedding(7, 3, mask_zero=True)(tokens)
    x = lib.Sequential([lib.layers.GRU(4, return_sequences=True), lib.layers.Dense(3)])(x)
    y = lib.Input((None, 3))
    inner = lib.Model(y, lib.layers.Dropout(0.5)(y))
    z = lib.Input((5, 3))
    x = lib.Model(z, inner(z))(x)
    return lib.Model(tokens, lib.layers.GlobalAveragePooling1D()(x))


def joined(lib):
    """A mask that comes in and goes out through a Concatenate, beside a layer's output and a tensor without a mask."""
    x, plain = lib.Input((5, 3)), lib.Input((5, 2))
    features = lib.layers.Concatenate()([lib.layers.GRU(2, return_sequences=True)(x), x])
    longer = lib.layers.Concatenate(axis=1)([features, lib.layers.Dropout(0.5)(features)])
    inner = lib.Model([x, plain], [longer, lib.layers.Concatenate()([plain, x])])
    tokens = lib.Input((5,), dtype="int64")
    embedded = lib.layers.Embedding(7, 3, mask_zero=True)(tokens)
    first, second = inner([embedded, lib.layers.Embedding(7, 2)(tokens)])
    return lib.Model(tokens, [lib.layers.LSTM(2)(first), lib.layers.GlobalAveragePooling1D()(second)])


def one_of_two(lib):
    """Of two inputs one is masked; the outputs have masks of their own."""
    a, b = lib.Input((5, 3)), lib.Input((5, 3))
    total = lib.layers.Concatenate(axis=1)([a, b])
    inner = lib.Model([a, b], [lib.layers.LSTM(2)(total), lib.layers.Dense(2)(b)])
    tokens = lib.Input((5,), dtype="int64")
    plain = lib.layers.Embedding(7, 3)(tokens)
    first, second = inner([plain, lib.layers.Embedding(7, 3, mask_zero=True)(tokens)])
    return lib.Model(tokens, [first, lib.layers.GlobalAveragePooling1D()(second)])


def twice(lib):
    """One model on a masked and on an unmasked tensor."""
    x = lib.Input((5, 3))
    inner = lib.Model(x, lib.layers.LSTM(4)(x))
    tokens = lib.Input((5,), dtype="int64")
    masked, plain = lib.layers.Embedding(7, 3, mask_zero=True)(tokens), lib.layers.Embedding(7, 3)(tokens)
    return lib.Model(tokens, [inner(masked), inner(plain)])


CASES = [into, out_of, through, joined, one_of_two, twice]


def twins(case):
    mine = case(OURS)
    with warnings.catch_warnings():
        # Keras says of each nested model that it does not support masking, which is not so.
        warnings.simplefilter("ignore")
        theirs = case(KERAS)
    # Not as at first, where a state that goes on or stays may look the same.
    values = [np.random.default_rng(0).standard_normal(tuple(weight.shape)) for weight in theirs.weights]
    theirs.set_weights(values)
    mine.set_weights(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(theirs(TOKENS))]
    return mine.eval(), expected


def check(model, expected):
    found = model(torch.from_numpy(TOKENS))
    found = found if isinstance(found, (list, tuple)) else [found]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.detach().numpy(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_as_keras(case):
    model, expected = twins(case)
    check(model, expected)
    check(copy.deepcopy(model), expected)
    check(pickle.loads(pickle.dumps(model)), expected)
    check(torch.compile(model, fullgraph=True, backend="eager"), expected)
    again = type(model).from_config(model.get_config())
    again.set_weights(model.get_weights())
    check(again.eval(), expected)


def nested():
    x = Input((None, 3))
    inner = Model(x, layers.LSTM(4, return_sequences=True)(x), name="inner")
    tokens = Input((5,), dtype="int64")
    return inner, Model(tokens, inner(layers.Embedding(7, 3, mask_zero=True)(tokens)))


def test_the_nested_model_stays_one_call_of_the_graph():
    inner, model = nested()
    assert [node.target for node in model.graph.nodes if node.op == "call_module"] == ["embedding", "inner"]
    assert "self.inner(embedding, mask = ne)" in model.code
    assert "mask" not in inner.code
    # What it is called on within another model does not show in its own layers.
    assert len(inner.get_layer("lstm").inbound_nodes) == 1


def test_masks_of_a_nested_model_reach_training():
    _, model = nested()
    assert model.describe_outputs() == [(None, True)]
    tokens = torch.from_numpy(TOKENS)
    torch.testing.assert_close(model.forward_for_training(tokens).masks, [tokens != 0])


def test_a_mask_argument_on_real_tensors():
    inner, _ = nested()
    x, mask = torch.randn(2, 5, 3), torch.tensor([[True] * 3 + [False] * 2, [True, False, True, False, False]])
    torch.testing.assert_close(inner(x, mask=mask), inner.get_layer("lstm")(x, mask=mask))
    torch.testing.assert_close(inner(x), inner.get_layer("lstm")(x))
    assert not torch.equal(inner(x), inner(x, mask=mask))


def test_hooks_on_the_nested_model_and_in_it_fire():
    inner, model = nested()
    seen = []
    inner.register_forward_hook(lambda module, inputs, output: seen.append((len(inputs), output.shape)))
    inner.get_layer("lstm").register_forward_hook(lambda module, *_: seen.append(module.name))
    model(torch.from_numpy(TOKENS))
    assert seen == ["lstm", (1, (3, 5, 4))]


def test_training_goes_into_a_masked_call():
    x = Input((None, 3))
    inner = Model(x, layers.GlobalAveragePooling1D()(layers.Dropout(0.999)(x)))
    mask = torch.ones(2, 5, dtype=torch.bool)
    ones = torch.ones(2, 5, 3)
    assert inner(ones, mask=mask, training=True).mean() < 0.5 or inner(ones, mask=mask, training=True).mean() > 2
    torch.testing.assert_close(inner(ones, mask=mask, training=False), torch.ones(2, 3))


def test_an_input_called_mask_stays_an_input():
    x, mask = Input((3,), name="x"), Input((3,), name="mask")
    model = Model([x, mask], x * mask)
    torch.testing.assert_close(model(x=torch.ones(1, 3), mask=torch.zeros(1, 3)), torch.zeros(1, 3))


class Rounded(layers.Layer):
    """Token numbers out of floats."""

    def call(self, inputs):
        return inputs.round().long()


def test_a_mask_behind_a_module_stays_within_the_nested_model():
    """To have it outside, the module would be called once more there: the loss of the mask is said."""
    x = Input((5,))
    inner = Model(x, layers.Embedding(7, 3, mask_zero=True)(Rounded(name="rounded")(x)), name="inner")
    assert inner.describe_outputs() == [(None, True)]
    outer = Input((5,))
    with pytest.warns(UserWarning, match="The mask stays within it"):
        encoded = inner(outer)
    model = Model(outer, layers.LSTM(4, return_sequences=True, name="lstm")(encoded))
    assert [node.target for node in model.graph.nodes if node.op == "call_module"] == ["inner", "lstm"]
    assert model.describe_outputs() == [(None, False)]
    values = torch.from_numpy(TOKENS).float()
    torch.testing.assert_close(model(values), model.get_layer("lstm")(inner(values)))


def test_outputs_of_a_nested_model_share_their_mask():
    tokens = Input((5,), dtype="int64")
    x = layers.Embedding(7, 3, mask_zero=True)(tokens)
    inner = Model(tokens, [layers.Dense(2)(x), layers.Dense(4)(x)], name="inner")
    outer = Input((5,), dtype="int64")
    first, second = inner(outer)
    assert first.mask is second.mask
    model = Model(outer, layers.Concatenate()([layers.LSTM(2)(first), layers.LSTM(2)(second)]))
    assert [node.target for node in model.graph.nodes if node.op == "call_function"].count(torch.ne) == 1
