"""ReversibleEmbedding against Keras', both ways."""

import keras
import numpy as np
import pytest
import torch

import torchfunc
from torchfunc import Input, Model, layers
from torchfunc.models import load_model

TOKENS = np.array([[1, 4, 0], [2, 2, 3]])


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize(
    "kwargs",
    [{}, {"tie_weights": False}, {"logit_soft_cap": 0.1, "tie_weights": False}, {"reverse_dtype": "float64"}],
)
def test_both_ways(kwargs, tmp_path):
    def network(library):
        inputs = library.Input((3,), dtype="int64")
        embedding = library.layers.ReversibleEmbedding(5, 4, name="tokens", **kwargs)
        return library.Model(inputs, embedding(library.layers.Dense(4)(embedding(inputs)), reverse=True))

    ours, theirs = network(torchfunc), network(keras)
    ours.set_weights([weight * 5 for weight in theirs.get_weights()])
    theirs.set_weights(ours.get_weights())
    expected = theirs.predict(TOKENS, verbose=0)
    assert ours.output_shape == theirs.output_shape == (None, 3, 5)
    assert ours.get_layer("tokens").get_config().items() >= kwargs.items()
    ours.save(tmp_path / "ours.keras")
    theirs.save(tmp_path / "theirs.keras")
    for model in (ours, load_model(tmp_path / "theirs.keras"), keras.models.load_model(tmp_path / "ours.keras")):
        found = model.predict(TOKENS, verbose=0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert ours.predict(TOKENS, verbose=0).dtype == kwargs.get("reverse_dtype", "float32")
    assert ours.output.dtype is getattr(torch, kwargs.get("reverse_dtype", "float32"))
    # (`to_torch` shares the parameters.)
    np.testing.assert_allclose(ours.to_torch()(torch.from_numpy(TOKENS)).detach(), expected, rtol=1e-5, atol=1e-6)


def test_masks():
    inputs = Input((3,), dtype="int64")
    embedding = layers.ReversibleEmbedding(5, 4, mask_zero=True)
    hidden = embedding(inputs)
    assert Model(inputs, hidden.mask).predict(TOKENS, verbose=0).tolist() == (TOKENS != 0).tolist()
    assert embedding(hidden, reverse=True).mask is None
    assert embedding(torch.rand(2, 4), reverse=True).shape == (2, 5)
