"""A mask whose shape does not fit its input is refused, when a layer is drawn and when it is called."""

import keras
import numpy as np
import pytest
import torch

from torchfunc import Input, Model, layers

SEQUENCES = {
    "SimpleRNN": lambda: layers.SimpleRNN(2),
    "LSTM": lambda: layers.LSTM(2, return_sequences=True),
    "GRU": lambda: layers.GRU(2),
    "RNN": lambda: layers.RNN(layers.LSTMCell(2)),
    "StackedRNNCells": lambda: layers.RNN([layers.LSTMCell(2), layers.GRUCell(2)]),
    "Bidirectional": lambda: layers.Bidirectional(layers.LSTM(2)),
    "TimeDistributed": lambda: layers.TimeDistributed(layers.Dense(2)),
    "GlobalAveragePooling1D": lambda: layers.GlobalAveragePooling1D(),
    "BatchNormalization": lambda: layers.BatchNormalization(),
}


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("shape", [(1, 5), (4, 6), (5,), (4, 1)])
def test_layers_on_sequences_called(kind, shape):
    layer = SEQUENCES[kind]()
    with pytest.raises(ValueError, match=r"takes a mask .*\(4, 5\).*got one of shape") as caught:
        layer(torch.ones(4, 5, 3), mask=torch.ones(shape, dtype=torch.bool))
    assert layer.name in str(caught.value)
    assert str(shape) in str(caught.value)
    # The layer is still as good as new.
    layer(torch.ones(4, 5, 3), mask=torch.ones(4, 5, dtype=torch.bool))


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("shape", [(6,), ()])
def test_layers_on_sequences_drawn(kind, shape):
    inputs, mask = Input((5, 3)), Input(shape, dtype="bool")
    layer = SEQUENCES[kind]()
    with pytest.raises(ValueError, match=r"takes a mask .*\(None, 5\).*got one of shape"):
        layer(inputs, mask=mask)
    layer(inputs, mask=Input((None,), dtype="bool"))


def test_a_mask_of_a_model_call():
    inputs = Input((5, 3))
    model = Model(inputs, layers.GlobalAveragePooling1D()(inputs))
    with pytest.raises(ValueError, match=r"takes a mask \(batch, steps\) of shape \(4, 5\).*\(1, 5\)"):
        model(torch.ones(4, 5, 3), mask=torch.ones(1, 5, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(2, 2, 3), (3, 3), (2, 1, 1, 3)])
def test_softmax(shape):
    with pytest.raises(ValueError, match=r"Softmax.* takes a mask that broadcasts to its input \(2, 3, 4\)"):
        layers.Softmax()(torch.ones(2, 3, 4), mask=torch.ones(shape))
    with pytest.raises(ValueError, match=r"broadcasts to its input \(None, 3, 4\)"):
        layers.Softmax()(Input((3, 4)), mask=Input(batch_shape=(None, *shape[1:])))


def test_softmax_takes_masks_that_broadcast():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    mask = np.array([[1, 0, 1, 1]], bool)
    found = layers.Softmax()(torch.tensor(x), mask=torch.tensor(mask))
    np.testing.assert_allclose(found, keras.layers.Softmax()(x, mask=mask), atol=1e-6)


@pytest.mark.parametrize("make", [layers.Concatenate, layers.Add, layers.Multiply, layers.Maximum])
def test_merging_layers(make):
    tensors = [torch.ones(2, 3, 4)] * 2
    wrong, right = torch.ones(2, 2, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"takes a mask .*\(2, 3\).*got one of shape \(2, 2\)"):
        make().compute_mask(tensors, [right, wrong])
    with pytest.raises(ValueError, match="a list of 2 masks"):
        make().compute_mask(tensors, [right])
    if make in (layers.Multiply, layers.Maximum):
        with pytest.raises(ValueError, match=r"takes a mask .*got one of shape \(2, 2\)"):
            make()(tensors, mask=[right, wrong])


def test_words_of_sentences():
    """A mask of words tells which sentences count, where the inner layer makes one vector of each sentence."""
    inputs = Input((4, 5), dtype="int64")
    words = layers.Embedding(9, 3, mask_zero=True)(inputs)
    sentences = layers.TimeDistributed(layers.LSTM(2))(words)
    model = Model(inputs, layers.LSTM(2)(sentences))
    tokens = torch.randint(1, 9, (2, 4, 5))
    tokens[:, 2:] = 0
    embedding, inner, outer = (layer for layer in model.layers[1:])
    vectors = torch.stack([inner.layer(embedding(tokens[:, step])) for step in (0, 1)], 1)
    torch.testing.assert_close(model(tokens), outer(vectors))
