"""Model.export: programs that run again by torch.export, onnxruntime and AOTInductor, for batches of other sizes."""

import pytest
import torch
from test_to_torch import Block, image_model

from torchfunc import Input, Model, Sequential, layers


def two_inputs():
    tokens, row = Input((None,), dtype="int64", name="tokens"), Input((4,), name="row")
    x = layers.Embedding(9, 4, name="embedding")(tokens)
    x = layers.Concatenate()([layers.GlobalMaxPooling1D()(x), layers.Dropout(0.5)(row)])
    return Model({"tokens": tokens, "row": row}, {"a": layers.Dense(3, name="x")(x), "b": x * 2})


def data(batch):
    return torch.randint(1, 9, (batch, 6)), torch.randn(batch, 4)


def run(path, *inputs):
    return torch.export.load(path).module()(*inputs)


# torch.export.load's, in torch 2.11.
@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")
class TestTorchExport:
    def test_images(self, tmp_path):
        model, path, x = image_model(), tmp_path / "model.pt2", torch.randn(5, 8, 8, 3)
        model.get_layer("dropout").eval()
        modes = [part.training for part in model.modules()]
        model.export(path)
        assert [part.training for part in model.modules()] == modes
        torch.testing.assert_close(run(path, x), model.eval()(x))

    def test_several_inputs_and_outputs(self, tmp_path):
        model, path = two_inputs(), tmp_path / "model.pt2"
        model.export(path)
        found, expected = run(path, *data(7)), model.eval()(*data(7))
        assert found.keys() == expected.keys()
        tokens, row = data(3)
        torch.testing.assert_close(dict(run(path, tokens[:, :4], row)), model(tokens[:, :4], row))

    def test_kinds_of_models(self, tmp_path):
        inputs = Input((5, 4))
        drawn = Model(inputs, layers.LSTM(3)(Block(4)(inputs)))
        row = Sequential([Input((5, 4)), layers.Flatten(), layers.Dense(2)])

        class Net(Model):
            def __init__(self):
                super().__init__()
                self.out = layers.Dense(2)

            def call(self, inputs):
                return self.out(inputs)

        net, x = Net(), torch.randn(3, 5, 4)
        net(x)
        for model in (drawn, row, net):
            model.export(tmp_path / "model.pt2")
            torch.testing.assert_close(run(tmp_path / "model.pt2", x), model.eval()(x))

    def test_precision(self, tmp_path):
        model = image_model().to(torch.float64)
        model.export(tmp_path / "model.pt2")
        x = torch.randn(2, 8, 8, 3, dtype=torch.float64)
        torch.testing.assert_close(run(tmp_path / "model.pt2", x), model.eval()(x))


@pytest.mark.slow  # The exporter alone takes seconds.
def test_onnx(tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, path = two_inputs(), tmp_path / "model.onnx"
    model.export(path, format="onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = runtime.InferenceSession(path)
    assert [each.name for each in session.get_inputs()] == ["tokens", "row"]
    assert [each.name for each in session.get_outputs()] == ["a", "b"]
    tokens, row = data(7)
    found = session.run(None, {"tokens": tokens.numpy(), "row": row.numpy()})
    expected = model.eval()(tokens, row)
    for each, name in zip(found, "ab", strict=True):
        torch.testing.assert_close(torch.from_numpy(each), expected[name].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow  # A C++ compiler runs.
def test_aot_inductor(tmp_path):
    inputs = Input((4,))
    model, x = Model(inputs, layers.Dense(2, activation="relu")(inputs)), torch.randn(5, 4)
    model.export(tmp_path / "model.pt2", format="aot_inductor")
    program = torch._inductor.aoti_load_package(str(tmp_path / "model.pt2"))
    torch.testing.assert_close(program(x), model(x))


class TestRefusals:
    def test_formats_and_names(self, tmp_path):
        model = image_model()
        with pytest.raises(ValueError, match="'torch_export', 'onnx', 'aot_inductor' for format, got 'onx'"):
            model.export(tmp_path / "model.onnx", format="onx")
        with pytest.raises(ValueError, match=r"ends in '\.pt2'"):
            model.export(tmp_path / "model.onnx")
        with pytest.raises(ValueError, match="not built yet"):
            Sequential([layers.Dense(2)]).export(tmp_path / "model.pt2")
        assert list(tmp_path.iterdir()) == []
