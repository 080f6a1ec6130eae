"""A layer and a module of a user's own get what built-in layers have: names, summary, config, masks, training."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from torchfunc import Input, Layer, Model, layers


class Scale(Layer):
    supports_masking = True

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, input_shape):
        self.gain = self.add_weight((input_shape[-1],), "ones", regularizer="l2", constraint="non_neg")

    def call(self, inputs, mask=None):
        scaled = inputs * self.gain * self.factor
        return scaled if mask is None else torch.where(mask.unsqueeze(-1), scaled, 0.0)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class ScaleModule(nn.Module):
    """The same, in PyTorch's words."""

    supports_masking = True

    def __init__(self, size, factor=2.0):
        super().__init__()
        self.size, self.factor = size, factor
        self.gain = nn.Parameter(torch.ones(size))

    def forward(self, inputs, mask=None):
        scaled = inputs * self.gain * self.factor
        return scaled if mask is None else torch.where(mask.unsqueeze(-1), scaled, 0.0)

    def get_config(self):
        return {"size": self.size, "factor": self.factor}


OWN = {
    "layer": lambda factor=2.0: Scale(factor),
    "module": lambda factor=2.0: ScaleModule(3, factor),
    "wrapped": lambda factor=2.0: layers.TorchModule(ScaleModule(3, factor)),
}
own = pytest.mark.parametrize("make", OWN.values(), ids=OWN)
WORDS = torch.tensor([[1, 2, 0, 0], [4, 0, 3, 0]])


def padded_words():
    words = Input((4,), dtype="int64", name="words")
    return words, layers.Embedding(5, 3, mask_zero=True)(words)


def drawn(make):
    words, x = padded_words()
    return Model(words, make(3.0)(make()(x)))


@own
def test_names_and_shapes(make):
    model = drawn(make)
    first, second = model.layers[-2:]
    base = {"Scale": "scale", "ScaleModule": "scale_module", "TorchModule": "torch_module"}[type(first).__name__]
    assert list(dict(model.named_children())) == ["embedding", base, f"{base}_1"]
    path = "module.gain" if base == "torch_module" else "gain"
    assert list(model.state_dict()) == ["embedding.weight", f"{base}.{path}", f"{base}_1.{path}"]
    assert model.output_shape == (None, 4, 3)
    assert first is not second


@own
def test_summary(make, capsys):
    drawn(make).summary()
    printed = capsys.readouterr().out
    name = next(name for name in ("torch_module", "scale_module", "scale") if name in printed)
    assert printed.count(name) >= 2
    assert "(None, 4, 3)" in printed
    assert "Total params: 21 " in printed


@own
def test_masks_reach_it_and_what_is_behind_it(make):
    model = drawn(make)
    table = model.embedding.weight.detach()
    expected = 6 * table[WORDS] * (WORDS != 0).unsqueeze(-1)
    torch.testing.assert_close(model(WORDS), expected)
    words, x = padded_words()
    y = make()(x)
    assert y.mask is x.mask
    averaged = Model(words, layers.GlobalAveragePooling1D()(y))
    kept = (WORDS != 0).sum(1, keepdim=True)
    torch.testing.assert_close(
        averaged(WORDS), 2 * averaged.embedding(WORDS).mul((WORDS != 0)[..., None]).sum(1) / kept
    )


def test_a_module_that_says_nothing_gets_no_mask_and_ends_it():
    """Torch's own modules call other things `mask`: the attention mask of a TransformerEncoder."""

    class Silent(nn.Module):
        def forward(self, inputs, mask=None):
            assert mask is None
            return inputs * 1.0

    _, x = padded_words()
    assert Silent()(x).mask is None
    assert layers.TorchModule(Silent())(x).mask is None


def test_a_module_may_give_a_mask_of_its_own():
    class Half(nn.Module):
        def forward(self, inputs):
            return inputs[:, ::2]

        def compute_mask(self, inputs, mask):
            return torch.gt(inputs[:, ::2, 0], 0)

    x = Input((4, 3))
    for module in (Half(), layers.TorchModule(Half())):
        y = module(x)
        model = Model(x, layers.GlobalAveragePooling1D()(y))
        data = torch.randn(2, 4, 3).abs() * torch.tensor([1.0, 1.0, -1.0, 1.0])[:, None]
        torch.testing.assert_close(model(data), data[:, 0])


@own
def test_config_copies_and_pickles(make):
    model = drawn(make)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    twin = Model.from_config(model.get_config(), custom_objects={"Scale": Scale, "ScaleModule": ScaleModule})
    assert [type(each) for each in twin.layers] == [type(each) for each in model.layers]
    twin.load_state_dict(model.state_dict())
    for each in (twin, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(each(WORDS), model(WORDS))


@own
def test_training(make):
    words, x = padded_words()
    layer = make()
    model = Model(words, layers.Dense(1)(layers.GlobalAveragePooling1D()(layer(x))))
    gain = next(parameter for name, parameter in model.named_parameters() if name.endswith("gain"))
    model.compile("sgd", "mse")
    if isinstance(layer, Scale):
        assert model.losses[0].item() == pytest.approx(0.01 * 3)
    before = gain.detach().clone()
    model.fit(WORDS, torch.ones(2, 1), epochs=1, verbose=0)
    assert not torch.equal(gain, before)
    with torch.no_grad():
        gain.fill_(-1.0)
    model.fit(WORDS, torch.ones(2, 1), epochs=1, verbose=0)
    assert (gain >= 0).all() == isinstance(layer, Scale)


def test_build_and_call_of_a_mixin():
    class Shift:
        def build(self, input_shape):
            self.offset = self.add_weight((input_shape[-1],), "ones")

        def call(self, inputs, training=None):
            return inputs + self.offset * (2 if training else 1)

    class Shifting(Shift, Layer):
        pass

    class Both(Shift, Scale):
        pass

    x = Input((3,))
    for cls in (Shifting, Both):
        model = Model(x, cls()(x))
        torch.testing.assert_close(model(torch.zeros(1, 3), training=True), torch.full((1, 3), 2.0))
        torch.testing.assert_close(model.eval()(torch.zeros(1, 3)), torch.ones(1, 3))
        assert model.layers[-1].get_build_config() == {"input_shape": (None, 3)}


@pytest.mark.parametrize("scale", [Scale, lambda: ScaleModule(3)])
def test_a_mask_that_is_given_counts_more_than_that_of_the_input(scale):
    tokens, other = Input((5,), dtype="int64"), Input((5,), dtype="bool")
    embedding, layer = layers.Embedding(7, 3, mask_zero=True), scale()
    x = embedding(tokens)
    model = Model([tokens, other], [layer(x, mask=other), layer(x)])
    values, mask = torch.tensor([[1, 2, 0, 4, 0]]), torch.tensor([[True, False, True, False, True]])
    found = model(values, mask)
    for output, expected in zip(found, (mask, values != 0), strict=True):
        torch.testing.assert_close(output, embedding(values) * 2.0 * expected.unsqueeze(-1))


def test_a_loss_of_several_numbers_counts_as_their_sum():
    class Adding(Layer):
        def call(self, inputs):
            self.add_loss(inputs.square().mean(-1))
            return inputs

    inputs = Input((3,))
    model = Model(inputs, layers.Dense(2)(Adding()(inputs)))
    model.compile("sgd")
    x = torch.arange(12.0).reshape(4, 3)
    assert model.evaluate(x, verbose=0) == pytest.approx(x.square().mean(-1).sum().item())


def test_dicts_of_what_is_no_tensor_yet():
    """Also when the layer is built: arrays become tensors, and symbolic tensors a call in the graph."""

    class Sum(Layer):
        def call(self, inputs):
            assert all(isinstance(value, torch.Tensor) for value in inputs.values())
            return inputs["a"] + inputs["b"]

    layer = Sum()
    for _ in range(2):
        found = layer({"a": np.ones((2, 3)), "b": torch.ones(2, 3)})
        torch.testing.assert_close(found, torch.full((2, 3), 2.0))
    a, b = Input((3,)), Input((3,))
    output = layer({"a": a, "b": b})
    assert layer.inbound_nodes == [output.node]
    assert output.node.target is layer
