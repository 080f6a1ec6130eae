"""What a layer declares: its input spec, its masks, its variables, the generators it holds."""

import copy

import numpy as np
import pytest
import torch

from torchfunc import Input, Layer, Model, layers
from torchfunc.layers import Dense, InputSpec


def test_an_input_spec_set_by_hand_is_checked_at_each_call():
    class Three(Layer):
        def __init__(self):
            super().__init__()
            self.input_spec = InputSpec(shape=(None, 3))

        def call(self, inputs):
            return inputs

    own, dense = Three(), Dense(2)
    own(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"expected shape=\(None, 3\), found shape=\(2, 4\)"):
        own(torch.ones(2, 4))
    dense.build((None, 3))
    dense(torch.ones(2, 5, 3))
    dense.input_spec = InputSpec(ndim=2)
    for layer in (dense, copy.deepcopy(dense)):
        with pytest.raises(ValueError, match="expected ndim=2, found ndim=3"):
            layer(torch.ones(2, 5, 3))
    dense.input_spec = None
    dense(torch.ones(2, 5, 3))


def test_an_input_spec_set_on_a_model():
    inputs = Input((None, 3))
    model = Model(inputs, Dense(2)(inputs))
    model.input_spec = InputSpec(shape=(None, 4, 3))
    with pytest.raises(ValueError, match=r"expected shape=\(None, 4, 3\), found shape=\(2, 3, 3\)"):
        model(np.zeros((2, 3, 3)))
    assert model(np.zeros((2, 4, 3))).shape == (2, 4, 2)


@pytest.mark.parametrize("layer", [Dense(2), layers.Dropout(0.5), layers.LSTM(2, return_sequences=True), layers.Add()])
def test_compute_mask_takes_its_mask_by_keyword(layer):
    inputs, mask = torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    if isinstance(layer, layers.Add):
        inputs, mask = [inputs, inputs], [mask, mask]
    found = layer.compute_mask(inputs, mask=mask)
    assert torch.equal(found, torch.ones(2, 3, dtype=torch.bool))
    assert layer.compute_mask(inputs) is None


def test_a_generator_within_an_object_of_a_layer():
    class Noise:
        def __init__(self):
            self.generators = [torch.Generator().manual_seed(0)]

    class Jitter(Layer):
        def __init__(self):
            super().__init__()
            self.noise = Noise()

        def call(self, inputs):
            return inputs + torch.rand(inputs.shape[-1], generator=self.noise.generators[0])

    layer = Jitter()
    assert layer(Input((3,))).shape == (None, 3)
    # Drawing took nothing from the generator.
    expected = torch.rand(3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(torch.zeros(1, 3)), expected[None])


def test_variables_by_their_other_names():
    class Scale(Layer):
        def build(self, input_shape):
            self.scale = self.add_variable(input_shape[-1:], "ones", name="scale")

        def call(self, inputs):
            return inputs * self.scale

    layer = Scale()
    layer(torch.ones(2, 3))
    assert list(layer.state_dict()) == ["scale"]
    assert layer.compute_dtype == layer.variable_dtype == torch.float32
    assert layer.metrics_variables == []
