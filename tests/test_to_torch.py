"""Model.to_torch: the same numbers, names and weights on torch's own modules; and the tools that go by these."""

import copy
import warnings

import pytest
import torch
from plain_models import LAYERS, layer_model, outcome
from torch import nn

from torchfunc import Input, Model, Sequential, layers


def agree(model, module, values):
    assert module.state_dict().keys() == model.state_dict().keys()
    for training in (False, True):
        expected, found = (outcome(each, values, training) for each in (model, module))
        torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[1], expected[1], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found[2], expected[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(name):
    model, values = layer_model(name)
    module = model.to_torch()
    agree(model, module, values)
    assert not any(isinstance(part, layers.Layer) for part in module.modules())
    shared = dict(module.named_parameters())
    assert all(shared[key] is parameter for key, parameter in model.named_parameters())


def image_model():
    inputs = Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D()(x)
    y = layers.Conv2D(4, 3, padding="same")(x)
    x = layers.ReLU()(x + y)
    x = layers.Add()([x, y])
    x = layers.Dropout(0.2)(x)
    outputs = layers.Dense(3, activation="softmax", name="class")(layers.Flatten()(x))
    return Model(inputs, outputs, name="small_net")


class TestGraphs:
    def test_views_cancel(self):
        module = image_model().to_torch()
        types = [type(part) for part in module.modules()]
        assert types.count(nn.Conv2d) == 2
        assert nn.Linear in types
        assert nn.Dropout in types
        assert nn.MaxPool2d in types
        assert module.code.count(".permute(") == 2

    def test_numbers(self):
        model = image_model()
        agree(model, model.to_torch(), [torch.randn(4, 8, 8, 3)])

    def test_training_both_changes_both(self):
        model = image_model()
        module, x = model.to_torch(), torch.randn(4, 8, 8, 3)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        module(x)[:, 0].sum().backward()
        optimizer.step()
        torch.testing.assert_close(module.eval()(x), model.eval()(x))

    def test_nested_and_shared(self):
        a, b = Input((4,)), Input((4,))
        tower = Sequential([layers.Dense(5, activation="tanh"), layers.Dropout(0.5)], name="tower")
        head = layers.Dense(2)
        model = Model({"a": a, "b": b}, {"x": head(tower(a)), "y": [head(tower(b, training=False)), a * 2.0]})
        module = model.to_torch()
        agree(Model([a, b], model.output), module, [torch.randn(3, 4), torch.randn(3, 4)])
        assert isinstance(module.tower.dense, nn.Linear)

    def test_inference_within_training(self):
        inputs = Input((6,))
        body = Model(inputs, layers.BatchNormalization()(layers.Dense(4)(inputs)), name="body")
        outputs = layers.Dropout(0.5)(body(inputs, training=False), training=True)
        model = Model(inputs, layers.Dense(2, activation="relu")(outputs))
        agree(model, model.to_torch(), [torch.randn(5, 6)])

    def test_recurrent_calls_in_a_mode_and_from_states(self):
        inputs, h, c, other = Input((5, 4)), Input((3,)), Input((3,)), Input((2,))
        dropping = layers.LSTM(3, dropout=0.5, recurrent_dropout=0.5)(inputs, training=False)
        cells = layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)])
        model = Model([inputs, h, c, other], [dropping, cells(inputs, initial_state=[[h, c], other])])
        values = [torch.randn(2, *shape) for shape in ((5, 4), (3,), (3,), (2,))]
        agree(model, model.to_torch(), values)

    def test_masks(self):
        tokens = Input((6,), dtype="int64")
        x = layers.Embedding(9, 4, mask_zero=True)(tokens)
        x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
        y = layers.GRU(3, return_sequences=True)(x)
        x = layers.Multiply()([layers.Dense(3)(x), y])
        x = layers.MultiHeadAttention(2, 2)(x, x)
        pooled = layers.GlobalAveragePooling1D()(x)
        model = Model(tokens, [pooled, layers.LSTM(2)(x)])
        agree(model, model.to_torch(), [torch.tensor([[1, 2, 3, 0, 0, 0], [4, 0, 5, 6, 7, 8]])])

    def test_masks_into_a_nested_model(self):
        steps = Input((6, 4))
        inner = Model(steps, layers.LSTM(3)(steps), name="reader")
        tokens = Input((6,), dtype="int64")
        model = Model(tokens, inner(layers.Embedding(9, 4, mask_zero=True)(tokens)))
        agree(model, model.to_torch(), [torch.tensor([[1, 2, 3, 0, 0, 0], [4, 5, 5, 6, 0, 0]])])

    def test_functions_parameters_and_constants(self):
        inputs = Input((4, 4))
        scale = nn.Parameter(torch.randn(4))
        x = torch.relu(inputs * scale + torch.arange(4.0))
        largest = torch.max(x, dim=1)
        outputs = x.reshape(x.shape[0], -1) @ torch.ones(16, 2) + largest.values[:, :2]
        model = Model(inputs, outputs)
        agree(model, model.to_torch(), [torch.randn(3, 4, 4)])

    def test_sequential_and_modules_of_torch(self):
        model = Sequential([Input((4,)), nn.Linear(4, 5), layers.LayerNormalization(), nn.GELU(), layers.Dense(2)])
        module = model.to_torch()
        agree(model, module, [torch.randn(3, 4)])
        assert module.linear is model.get_layer("linear")

    def test_weights_move_together(self):
        model = image_model()
        module = model.to_torch().to(torch.float64)
        assert next(model.parameters()).dtype == torch.float64
        assert module(torch.randn(2, 8, 8, 3, dtype=torch.float64)).dtype == torch.float64

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_precision(self, dtype):
        inputs = Input((5, 4))
        x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 2)(inputs, inputs))
        model = Model(inputs, layers.LSTM(3)(layers.BatchNormalization()(x))).to(dtype).eval()
        x = torch.randn(2, 5, 4, dtype=dtype)
        torch.testing.assert_close(model.to_torch()(x), model(x))

    def test_copies_and_pickles(self):
        module, x = image_model().to_torch().eval(), torch.randn(2, 8, 8, 3)
        for other in (copy.deepcopy(module), torch.fx.symbolic_trace(module)):
            torch.testing.assert_close(other(x), module(x))

    def test_nothing_random_is_drawn(self):
        model = image_model()
        torch.manual_seed(3)
        expected = torch.randn(2)
        torch.manual_seed(3)
        model.to_torch()
        torch.testing.assert_close(torch.randn(2), expected)

    def test_unbuilt(self):
        with pytest.raises(ValueError, match="not built yet"):
            Sequential([layers.Dense(2)]).to_torch()


class Block(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 3)
        self.ffn = [layers.Dense(8, activation="relu"), layers.Dense(units)]
        self.norm = layers.LayerNormalization()
        self.drop = layers.Dropout(0.3)

    def build(self, input_shape):
        self.gain = self.add_weight((input_shape[-1],), "ones", name="gain")

    def call(self, inputs, training=None):
        x = inputs + self.drop(self.attention(inputs, inputs), training=training)
        for layer in self.ffn:
            x = layer(x)
        return self.norm(x + inputs) * self.gain


class Doubled(layers.Layer):
    def call(self, inputs, training=None):
        return inputs * 2 if training else inputs


class TestLayersOfTheUser:
    def test_become_modules(self):
        inputs = Input((5, 4))
        block = Block(4)
        model = Model(inputs, layers.Dense(2)(block(inputs)))
        module = model.to_torch()
        agree(model, module, [torch.randn(3, 5, 4)])
        assert [type(part) for part in module.modules()].count(nn.Linear) == 7
        assert not any(isinstance(part, layers.Layer) for part in module.modules())
        assert len(block.inbound_nodes) == len(block.norm.inbound_nodes) + 1 == 1

    def test_dropout_that_is_told_the_mode(self):
        class Dropping(layers.Layer):
            def __init__(self):
                super().__init__()
                self.dropout = nn.Linear(3, 3)

            def forward(self, x):
                return torch.nn.functional.dropout(self.dropout(x) * 2, 0.5, training=self.training)

        inputs = Input((4,))
        model = Model(inputs, Dropping()(layers.Dense(3)(inputs)))
        module = model.to_torch()
        agree(model, module, [torch.randn(3, 4)])
        assert any(type(part) is nn.Dropout for part in module.modules())

    def test_stay_where_the_mode_decides(self):
        inputs = Input((4,))
        model = Model(inputs, Doubled()(layers.Dense(3)(inputs)))
        module = model.to_torch()
        agree(model, module, [torch.randn(3, 4)])
        assert isinstance(module.doubled, Doubled)

    def test_subclassed_models(self):
        class Net(Model):
            def __init__(self):
                super().__init__()
                self.hidden = layers.Dense(5, activation="relu")
                self.out = layers.Dense(2)

            def call(self, inputs):
                return self.out(self.hidden(inputs))

        model = Net()
        x = torch.randn(3, 4)
        model(x)
        module = model.to_torch()
        agree(model, module, [x])
        assert isinstance(module.hidden, nn.Linear)

    def test_hooks_stay(self):
        inputs = Input((4,))
        layer = layers.Dense(3)
        model = Model(inputs, layer(inputs))
        layer.register_forward_hook(lambda module, args, output: output + 1)
        module, x = model.to_torch(), torch.randn(2, 4)
        torch.testing.assert_close(module(x), model(x))


class TestTools:
    def test_quantize_dynamic(self):
        x = Input((8,))
        model = Model(x, layers.Dense(3)(layers.Dense(16, activation="relu")(x))).eval()
        with warnings.catch_warnings():
            # (torch moves it to torchao.)
            warnings.simplefilter("ignore")
            small = torch.ao.quantization.quantize_dynamic(model.to_torch(), {nn.Linear}, dtype=torch.qint8)
        assert sum("quantized" in type(part).__module__ for part in small.modules()) >= 2
        values = torch.randn(4, 8)
        torch.testing.assert_close(small(values), model(values), rtol=0.2, atol=0.05)

    def test_update_bn(self):
        model = image_model()
        batches = [torch.randn(16, 8, 8, 3) for _ in range(3)]
        torch.optim.swa_utils.update_bn(batches, model.to_torch())
        values = torch.cat([model.get_layer("conv2d")(batch).detach().flatten(0, 2) for batch in batches])
        norm = model.get_layer("batch_normalization")
        torch.testing.assert_close(norm.running_mean, values.mean(0), rtol=1e-4, atol=1e-5)

    def test_convert_sync_batchnorm(self):
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(image_model().to_torch())
        assert any(isinstance(part, nn.SyncBatchNorm) for part in converted.modules())

    def test_replacing_linear(self):
        model, x = image_model().eval(), torch.randn(2, 8, 8, 3)
        module = model.to_torch()
        expected = module(x)
        for name, part in list(module.named_modules()):
            if type(part) is nn.Linear:
                setattr(module, name, nn.Sequential(part))
        torch.testing.assert_close(module(x), expected)

    def test_lora(self):
        peft = pytest.importorskip("peft")
        inputs = Input((5, 4))
        model = Model(inputs, layers.Dense(2, name="head")(layers.MultiHeadAttention(2, 3)(inputs, inputs)))
        module, x = model.to_torch(), torch.randn(2, 5, 4)
        expected = module(x)
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj", "head"])
        adapted = peft.get_peft_model(module, config)
        torch.testing.assert_close(adapted(x), expected)
        trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
        assert len(trained) == 6
        assert all("lora" in name for name in trained)

    def test_torchao(self):
        torchao = pytest.importorskip("torchao.quantization")
        x = Input((64,))
        model = Model(x, layers.Dense(32)(layers.Dense(64, activation="relu")(x))).eval()
        values = torch.randn(4, 64)
        expected = model(values)
        module = copy.deepcopy(model.to_torch())
        torchao.quantize_(module, torchao.Int8WeightOnlyConfig())
        assert "Int8" in type(module.dense.weight).__name__ or "Affine" in type(module.dense.weight).__name__
        torch.testing.assert_close(module(values), expected, rtol=0.2, atol=0.1)

    def test_thop(self):
        thop = pytest.importorskip("thop")
        x = Input((8,))
        model = Model(x, layers.Dense(3)(layers.Dense(16, activation="relu")(x)))
        operations, parameters = thop.profile(model.to_torch(), (torch.randn(1, 8),), verbose=False)
        assert operations == 8 * 16 + 16 * 3
        assert parameters == 8 * 16 + 16 + 16 * 3 + 3
