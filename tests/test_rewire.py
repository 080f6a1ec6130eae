"""Model.rewire: layers replaced, removed and wrapped, all others shared."""

import pytest
import torch
from torch import nn

from torchfunc import Input, Model, Sequential, from_module, layers


class Lora(layers.Layer):
    """A low-rank adapter around a Dense layer."""

    def __init__(self, base, rank=2, **kwargs):
        super().__init__(**kwargs)
        self.base = base
        base.trainable = False
        self.down = layers.Dense(rank, use_bias=False)
        self.up = layers.Dense(base.units, use_bias=False, kernel_initializer="zeros")

    def call(self, inputs):
        return self.base(inputs) + self.up(self.down(inputs))


def classifier():
    inputs = Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=True, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = torch.relu(x)
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(5, activation="relu", name="hidden")(x)
    return Model(inputs, layers.Dense(3, name="head")(x), name="classifier")


class TestChanges:
    def test_another_head(self):
        model, x = classifier().eval(), torch.randn(2, 8, 8, 3)
        before = model(x)
        new = model.rewire({"head": layers.Dense(7)}).eval()
        assert new.output_shape == (None, 7)
        assert new.layer_names() == model.layer_names()
        for name in ("conv", "norm", "drop", "pool", "hidden"):
            assert new.get_layer(name) is model.get_layer(name)
        hidden = model.activations(x, ["hidden"])["hidden"]
        head = new.get_layer("head")
        torch.testing.assert_close(new(x), hidden @ head.weight.T + head.bias)
        torch.testing.assert_close(model(x), before)

    def test_removed(self):
        model, x = classifier(), torch.randn(2, 8, 8, 3)
        new = model.rewire({model.get_layer("drop"): None, "norm": None})
        x_pooled = torch.relu(model.get_layer("conv")(x)).mean((1, 2))
        expected = model.get_layer("head")(model.get_layer("hidden")(x_pooled))
        torch.testing.assert_close(new.train()(x), expected)
        assert "drop" not in new.layer_names()
        assert new.state_dict().keys() < model.state_dict().keys()

    def test_wrapped(self):
        model, x = classifier().eval(), torch.randn(2, 8, 8, 3)
        hidden = model.get_layer("hidden")
        new = model.rewire({"hidden": Lora(hidden)}).eval()
        torch.testing.assert_close(new(x), model(x))
        assert new.get_layer("hidden").base is hidden
        trained = [name for name, parameter in new.named_parameters() if parameter.requires_grad]
        assert {"hidden.down.weight", "hidden.up.weight"} <= set(trained)
        assert "hidden.base.weight" not in trained
        assert "hidden.base.weight" in new.state_dict()

    def test_drawn_anew(self):
        model, x = classifier().eval(), torch.randn(2, 8, 8, 3)
        hidden = model.get_layer("hidden")
        twice = model.rewire({"hidden": lambda value: hidden(value) * 2, "relu": torch.tanh}).eval()
        value = torch.tanh(model.get_layer("norm")(model.get_layer("conv")(x))).mean((1, 2))
        torch.testing.assert_close(twice(x), model.get_layer("head")(hidden(value) * 2))

    def test_batch_norm_folded_away(self):
        model, x = classifier(), torch.randn(16, 8, 8, 3)
        for _ in range(3):
            model.train()(x)
        model.eval()
        conv, norm = model.get_layer("conv"), model.get_layer("norm")
        folded = layers.Conv2D(4, 3, padding="same")
        new = model.rewire({"conv": folded, "norm": None}).eval()
        scale = norm.weight / torch.sqrt(norm.running_var + norm.epsilon)
        with torch.no_grad():
            folded.weight.copy_(conv.weight * scale.view(-1, 1, 1, 1))
            folded.bias.copy_((conv.bias - norm.running_mean) * scale + norm.bias)
        torch.testing.assert_close(new(x), model(x), rtol=1e-4, atol=1e-5)
        assert new.get_layer("conv") is folded

    def test_shared_layers_and_several_outputs(self):
        a, b = Input((4,)), Input((4,))
        tower = layers.Dense(3, name="tower")
        model = Model({"a": a, "b": b}, {"x": tower(a) + tower(b), "y": [tower(a)]})
        other = layers.Dense(3, name="other")
        new = model.rewire({"tower": other})
        x, y = torch.randn(2, 4), torch.randn(2, 4)
        found = new({"a": x, "b": y})
        torch.testing.assert_close(found["x"], other(x) + other(y))
        torch.testing.assert_close(found["y"][0], other(x))
        assert list(new.state_dict()) == ["other.weight", "other.bias"]

    def test_models_within_the_model(self):
        inputs, given = Input((4,)), Input((4,))
        encoder = Model(inputs, layers.Dense(3, name="inner")(inputs), name="encoder")
        model, x = Model(given, layers.Dense(2, name="last")(encoder(given))), torch.randn(2, 4)
        for key in ("encoder.inner", encoder.get_layer("inner")):
            other = layers.Dense(3, activation="tanh")
            new = model.rewire({key: other})
            torch.testing.assert_close(new(x), model.get_layer("last")(other(x)))
            assert list(new.state_dict()) == list(model.state_dict())

    def test_sequential(self):
        model = Sequential([Input((4,)), layers.Dense(5, name="a"), layers.Dropout(0.5, name="b"), nn.Linear(5, 2)])
        new, x = model.rewire({"b": None, "linear": nn.Linear(5, 3)}), torch.randn(2, 4)
        assert isinstance(new, Sequential)
        assert new.layers[0] is model.layers[0]
        torch.testing.assert_close(new(x), new.layers[1](model.layers[0](x)))
        assert list(new.state_dict()) == list(model.state_dict())

    def test_masks(self):
        tokens = Input((5,), dtype="int64")
        x = layers.Embedding(9, 4, mask_zero=True, name="embedding")(tokens)
        model = Model(tokens, layers.LSTM(3, name="read")(x))
        ids = torch.tensor([[1, 2, 0, 0, 0]])
        gru = layers.GRU(3)
        torch.testing.assert_close(model.rewire({"read": gru})(ids), gru(model.get_layer("embedding")(ids[:, :2])))
        pool = nn.Flatten()
        torch.testing.assert_close(model.rewire({"read": pool})(ids), model.get_layer("embedding")(ids).flatten(1))

    def test_modules_of_others(self):
        module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
        model, x = from_module(module, torch.randn(2, 4)), torch.randn(3, 4)
        new = model.rewire({"4": nn.Linear(5, 7), "2": None})
        assert list(new.state_dict()) == ["0.weight", "0.bias", "4.weight", "4.bias"]
        torch.testing.assert_close(new(x), new.get_layer("4")(torch.relu(torch.relu(module[0](x)))))

    def test_subclasses(self):
        class Mine(Model):
            def twice(self, x):
                return self(x) * 2

        inputs = Input((4,))
        model = Mine(inputs, layers.Dense(2, name="out")(inputs))
        assert isinstance(model.rewire({"out": layers.Dense(3)}), Mine)


class TestRefusals:
    def test_first_place_that_does_not_fit(self):
        model = classifier()
        kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(ValueError, match=r"'head' \(test_rewire.py:\d+: .*\) does not fit what comes from 'hid"):
            model.rewire({"hidden": layers.Dense(6)})
        with pytest.raises(ValueError, match="The replacement for 'pool' does not fit in its place"):
            model.rewire({"pool": layers.LSTM(3)})
        assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in kept.items())

    def test_names(self):
        with pytest.raises(ValueError, match=r"no layer 'hiden'; it has image, conv.*Did you mean 'hidden'"):
            classifier().rewire({"hiden": None})
        with pytest.raises(ValueError, match="'image' is an input"):
            classifier().rewire({"image": None})
        with pytest.raises(ValueError, match="has no layer Dense"):
            classifier().rewire({layers.Dense(3): None})

    def test_what_cannot_be_left_out(self):
        a, b = Input((4,)), Input((4,))
        model = Model([a, b], layers.Add(name="sum")([a, b]))
        with pytest.raises(ValueError, match="'sum' cannot be left out"):
            model.rewire({"sum": None})
        inputs = Input((4, 3))
        outputs, state = layers.GRU(3, return_sequences=True, return_state=True, name="read")(inputs)
        with pytest.raises(ValueError, match="What takes the place of 'read' returns"):
            Model(inputs, [outputs, state]).rewire({"read": nn.Linear(3, 3)})

    def test_types(self):
        with pytest.raises(TypeError, match="which cannot be called"):
            classifier().rewire({"head": 3})
        with pytest.raises(ValueError, match="not built yet"):
            Sequential([layers.Dense(2)]).rewire({"dense": None})
        model = Sequential([Input((4,)), layers.Dense(2, name="a")])
        with pytest.raises(TypeError, match="cannot become the function"):
            model.rewire({"a": torch.tanh})
