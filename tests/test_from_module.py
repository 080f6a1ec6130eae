"""from_module: anybody's modules as drawn models that share their parts."""

import copy

import pytest
import torch
from foreign_modules import (
    Branching,
    ByMode,
    Counting,
    InPlace,
    PatchTransformer,
    ResidualNet,
    UNet,
)
from plain_models import layer_model, outcome
from torch import nn

from torchfunc import Model, from_module, layers


def agree(model, module, values):
    """Both give the same for other batches too, with the same tensors; neither mode is left changed."""
    own = {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
    assert {id(tensor) for tensor in model.state_dict(keep_vars=True).values()} == own
    assert len(model.state_dict()) == len(module.state_dict())
    for training in (False, True):
        several = [torch.cat([value, value.flip(0), value]) for value in values]
        for batch in (values, several):
            expected, found = (outcome(each, batch, training)[:2] for each in (module, model))
            torch.testing.assert_close(found[0], expected[0])
            assert len(found[1]) == len(expected[1])
            total = [sum(gradient.abs().sum() for gradient in each[1]) for each in (found, expected)]
            torch.testing.assert_close(*total, rtol=1e-3, atol=1e-4)


def encoder():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (ResidualNet, (2, 3, 16, 16)),
        (UNet, (2, 3, 16, 16)),
        (PatchTransformer, (2, 3, 8, 8)),
        (encoder, (2, 5, 16)),
        (InPlace, (2, 3)),
        (Counting, (2, 4)),
    ],
)
def test_modules(make, shape):
    torch.manual_seed(0)
    module, x = make(), torch.randn(shape)
    if make is Counting:
        # (Of the batch the result depends on each sample, and on how many there are.)
        model = from_module(module, x)
        torch.testing.assert_close(model(torch.cat([x, x])), module(torch.cat([x, x])))
        return
    agree(from_module(module, x), module, [x])


class TestModels:
    def test_names(self):
        model = from_module(ResidualNet(), torch.randn(2, 3, 16, 16))
        assert isinstance(model, Model)
        assert model.name == "residual_net"
        assert "layer1.1.downsample.0" in model.layer_names()
        assert model.get_layer("layer1.0.conv1").out_channels == 4
        keys = [key.replace(".", "_") for key in ResidualNet().state_dict()]
        assert sorted(key.replace(".", "_") for key in model.state_dict()) == sorted(keys)
        own = from_module(PatchTransformer(), torch.randn(2, 3, 8, 8)).state_dict()
        assert {"class_token", "pos_embedding", "scale", "mlp_0.weight"} <= own.keys()

    def test_intermediate_outputs_and_training(self):
        module, x = ResidualNet(), torch.randn(6, 3, 16, 16)
        model, before = from_module(module, x[:2]), module.fc.weight.detach().clone()
        found = model.activations(x, ["layer1.0.conv1", "fc"])
        assert found["layer1.0.conv1"].shape == (6, 4, 8, 8)
        model.compile("sgd", nn.CrossEntropyLoss())
        history = model.fit(x, torch.arange(6) % 5, epochs=3, verbose=0)
        assert len(history.history["loss"]) == 3
        assert not torch.equal(module.fc.weight, before)

    def test_several_inputs_and_nested_outputs(self):
        module = Branching()
        x, other = torch.randn(2, 4), torch.randn(2, 3, 4)
        for given in ([x, other], {"x": x, "other": other}):
            model = from_module(module, given)
            torch.testing.assert_close(model(x, other), module(x, other))
            assert model.input_names == ["x", "other"]
        assert isinstance(model.get_layer("linear"), nn.Linear)

    def test_configs_copies_and_clones_keep_names(self):
        model = from_module(PatchTransformer(), torch.randn(2, 3, 8, 8)).eval()
        x = torch.randn(3, 3, 8, 8)
        for again in (Model.from_config(model.get_config()), copy.deepcopy(model)):
            again.load_state_dict(model.state_dict())
            torch.testing.assert_close(again.eval()(x), model(x))

    def test_and_back(self):
        model, values = layer_model("BatchNormalization")
        module = model.to_torch()
        again = from_module(module, values)
        agree(again, module, values)
        assert again.state_dict().keys() == model.state_dict().keys()

    def test_source(self):
        model, x = from_module(UNet(), torch.randn(2, 3, 8, 8)).eval(), torch.randn(2, 3, 8, 8)
        scope = {}
        exec(model.to_source(class_name="Written"), scope)
        written = scope["Written"]()
        written.load_state_dict(model.state_dict())
        torch.testing.assert_close(written.eval()(x), model(x))

    def test_layers_of_this_package_are_parts(self):
        module = nn.Sequential(nn.Linear(4, 5), layers.LayerNormalization(), nn.ReLU())
        module[1].build((None, 5))
        model = from_module(module, torch.randn(2, 4))
        assert [type(layer).__name__ for layer in model.layers[1:]] == ["Linear", "LayerNormalization", "ReLU"]
        agree(model, module, [torch.randn(2, 4)])

    def test_modes(self):
        module = ByMode().eval()
        with pytest.warns(UserWarning, match="other things in training. It is drawn as it is in evaluation"):
            model = from_module(nn.Sequential(nn.Linear(4, 4), module).eval(), torch.randn(2, 4))
        assert len(model.layers) == 2
        assert not model.training


class TestRefusals:
    def test_inputs(self):
        with pytest.raises(TypeError, match="from_module takes tensors"):
            from_module(nn.Linear(2, 2), [[1, 2]])
        with pytest.raises(ValueError, match=r"Branching takes x, other, but example_inputs lack \['other'\]"):
            from_module(Branching(), torch.randn(2, 4))

    def test_values(self):
        class Choosing(nn.Module):
            def forward(self, x):
                return x * 2 if x.sum() > 0 else x

        with pytest.raises(
            ValueError, match=r"Choosing cannot be drawn:\n  torch.fx: TraceError.*\n  symbolic tensors"
        ):
            from_module(Choosing(), torch.randn(2, 4))


@pytest.mark.slow  # The networks themselves are large.
@pytest.mark.parametrize(("name", "size"), [("resnet18", 64), ("vit_b_16", 224)])
def test_torchvision(name, size):
    models = pytest.importorskip("torchvision.models")
    module, x = getattr(models, name)(weights=None).eval(), torch.randn(1, 3, size, size)
    model = from_module(module, x)
    own = {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
    assert {id(tensor) for tensor in model.state_dict(keep_vars=True).values()} == own
    torch.testing.assert_close(model(x), module(x))
