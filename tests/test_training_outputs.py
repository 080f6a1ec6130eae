"""What a model gives training beside its outputs: their masks, and the logits of a final softmax or sigmoid."""

import copy
import operator
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from torchfunc import Input, Model, Sequential, layers

TOKENS = torch.tensor([[1, 2, 0, 0], [3, 0, 5, 6]])


def tagger():
    tokens = Input((4,), dtype="int64")
    x = layers.Embedding(7, 3, mask_zero=True)(tokens)
    return Model(tokens, layers.Dense(5, activation="softmax")(x))


def for_training(model, *inputs, logits_of=(0,)):
    """The training forward, of which `y_pred` is compared with the plain one's."""
    found = model.forward_for_training(*model.prepare_inputs(*inputs), logits_of=logits_of)
    torch.testing.assert_close(found.y_pred, model(*inputs), rtol=0, atol=0)
    return found


def tagger_logits(model):
    dense = model.layers[-1]
    return F.linear(F.embedding(TOKENS, model.layers[-2].weight), dense.weight, dense.bias)


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("make", [lambda model: model, copy.deepcopy, through_pickle])
def test_masks_and_logits(make):
    model = make(tagger())
    found = for_training(model, TOKENS)
    torch.testing.assert_close(found.masks, [TOKENS != 0])
    torch.testing.assert_close(found.logits, [tagger_logits(model)])
    assert model.describe_outputs() == [("softmax", True)]


def test_the_plain_graph_does_not_compute_the_masks_of_outputs():
    model = tagger()
    assert "torch.ne" not in model.code
    assert [node.target for node in model.nodes if node.op == "function"] == []


def test_a_sequential_model_masks_and_tells():
    model = Sequential(
        [
            layers.Embedding(7, 3, mask_zero=True),
            layers.LSTM(2, return_sequences=True),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    assert model.describe_outputs() is None
    found = for_training(model, TOKENS)
    assert model.describe_outputs() == [("sigmoid", True)]
    torch.testing.assert_close(found.masks, [TOKENS != 0])
    torch.testing.assert_close(torch.sigmoid(found.logits[0]), found.y_pred)
    assert "lstm(embedding, mask = ne)" in model.code.replace("self.lstm", "lstm")


ENDINGS = {
    "torch.softmax": (lambda x: torch.softmax(x, -1), "softmax"),
    "method": (lambda x: x.softmax(dim=1), "softmax"),
    "F.softmax": (lambda x: F.softmax(x, dim=-1), "softmax"),
    "torch module": (lambda x: torch.nn.Softmax(-1)(x), "softmax"),
    "Activation": (lambda x: layers.Activation("softmax")(x), "softmax"),
    "Softmax": (lambda x: layers.Softmax()(x), "softmax"),
    "torch.sigmoid": (torch.sigmoid, "sigmoid"),
    "F.sigmoid": (F.sigmoid, "sigmoid"),
    "Sigmoid": (lambda x: torch.nn.Sigmoid()(x), "sigmoid"),
    "Activation sigmoid": (lambda x: layers.Activation(torch.nn.Sigmoid())(x), "sigmoid"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_an_activation_by_itself(name):
    activate, kind = ENDINGS[name]
    inputs = Input((3,))
    hidden = layers.Dense(4)(inputs)
    model = Model(inputs, [activate(hidden), hidden])
    found = for_training(model, torch.randn(2, 3), logits_of=(0, 1))
    assert [output.activation for output in model.describe_outputs()] == [kind, None]
    torch.testing.assert_close(found.logits, [found.y_pred[1], None], rtol=0, atol=0)
    assert found.masks is None


@pytest.mark.parametrize(
    "activate",
    [
        lambda x: torch.softmax(x, 0),
        lambda x: torch.softmax(x, -1, dtype=torch.float64),
        lambda x: torch.nn.Softmax(0)(x),
        lambda x: layers.Softmax(axis=[-1])(x),
        lambda x: layers.Softmax(axis=0)(x),
        lambda x: torch.softmax(x, -1) * 1.0,
        lambda x: torch.softmax(x, -1).split(2, -1)[0],
        lambda x: layers.Activation(lambda y: torch.softmax(y, 0))(x),
    ],
)
def test_other_endings_have_no_logits(activate):
    inputs = Input((4,))
    model = Model(inputs, activate(inputs))
    assert model.describe_outputs() == [(None, False)]
    assert for_training(model, torch.randn(2, 4))[1:] == (None, None)


def test_a_convolution_ends_in_an_activation():
    inputs = Input((5, 5, 2))
    model = Model(inputs, layers.Conv2D(3, 2, activation=torch.nn.Softmax(-1))(inputs))
    x = torch.randn(2, 5, 5, 2)
    convolution = model.layers[-1]
    logits = F.conv2d(x.permute(0, 3, 1, 2), convolution.weight, convolution.bias).permute(0, 2, 3, 1)
    torch.testing.assert_close(for_training(model, x).logits, [logits])


def test_outputs_keep_their_places():
    inputs = Input((3,))
    hidden = layers.Dense(4)(inputs)
    ends = {"b": layers.Dense(2, "sigmoid")(hidden), "a": hidden, "c": layers.Dense(2, "softmax")(hidden)}
    model = Model(inputs, ends)
    found = for_training(model, torch.randn(2, 3), logits_of=(2,))
    assert [logits is None for logits in found.logits] == [True, True, False]
    torch.testing.assert_close(torch.softmax(found.logits[2], -1), found.y_pred["c"])
    assert for_training(model, torch.randn(2, 3), logits_of=()).logits is None


def doubled(module, inputs, outputs):
    return outputs * 2


def test_a_hook_on_the_layer_is_respected():
    model = tagger()
    for_training(model, TOKENS)
    hook = model.layers[-1].register_forward_hook(doubled)
    assert model.describe_outputs() == [(None, True)]
    assert for_training(model, TOKENS).logits is None
    hook.remove()
    torch.testing.assert_close(for_training(model, TOKENS).logits, [tagger_logits(model)])


def test_a_forward_of_its_own_is_respected():
    model = tagger()
    model.layers[-1].forward = lambda x: x * 2
    assert for_training(model, TOKENS).logits is None


def test_a_subclassed_layer_is_respected():
    class Shifted(layers.Dense):
        def call(self, inputs):
            return super().call(inputs) + 1

    inputs = Input((3,))
    model = Model(inputs, Shifted(2, activation="softmax")(inputs))
    assert for_training(model, torch.randn(2, 3)).logits is None


def test_a_parametrized_weight_goes_into_the_logits():
    model = tagger()
    torch.nn.utils.parametrizations.weight_norm(model.layers[-1])
    torch.testing.assert_close(for_training(model, TOKENS).logits, [tagger_logits(model)])


def test_hooks_on_the_model_see_and_change_its_outputs():
    model, seen = tagger(), []

    def hook(module, inputs, outputs):
        seen.append(outputs.shape)
        module.calls = len(seen)
        return outputs * 2

    model.register_forward_hook(hook)
    found = for_training(model, TOKENS)
    assert seen == [(2, 4, 5)] * 2
    assert model.calls == 2
    assert found.logits is None
    torch.testing.assert_close(found.masks, [TOKENS != 0])


def test_a_pre_hook_changes_what_masks_are_made_of():
    model = tagger()
    model.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0,))
    assert not for_training(model, TOKENS).masks[0].any()


def test_a_changed_graph_has_neither():
    model = tagger()
    for_training(model, TOKENS)
    output = next(node for node in model.graph.nodes if node.op == "output")
    with model.graph.inserting_before(output):
        output.args = (model.graph.call_function(operator.mul, (output.args[0], 2.0)),)
    model.recompile()
    for changed in (model, copy.deepcopy(model)):
        assert changed.describe_outputs() == [(None, False)]
        assert for_training(changed, TOKENS)[1:] == (None, None)


def test_a_model_within_another_keeps_both():
    model = tagger()
    tokens = Input((4,), dtype="int64")
    Model(tokens, model(tokens))
    assert for_training(model, TOKENS).logits is not None
    assert model.describe_outputs() == [("softmax", True)]


def test_a_call_of_its_own_is_respected():
    class Doubling(Model):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs) * 2

    inputs = Input((3,))
    model = Doubling(inputs, layers.Dense(2, "softmax")(inputs))
    assert for_training(model, torch.randn(2, 3)).logits is None


def test_a_subclassed_model_has_neither():
    class Plain(Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2, activation="softmax")

        def call(self, inputs):
            return self.dense(inputs)

    model = Plain()
    x = torch.randn(2, 3)
    model(x)
    assert model.describe_outputs() is None
    assert for_training(model, x)[1:] == (None, None)


def test_compiled_in_one_graph():
    model = tagger()

    def run(tokens):
        return tuple(model.forward_for_training(tokens, logits_of=(0,)))

    compiled = torch.compile(run, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(TOKENS), run(TOKENS))


def test_a_model_with_a_constant_may_move():
    inputs = Input((3,))
    model = Model(inputs, layers.Dense(2, activation="softmax")(inputs * torch.tensor([1.0, 2.0, 3.0]))).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    found = for_training(model, x)
    dense = model.layers[-1]
    logits = F.linear(x * torch.tensor([1.0, 2.0, 3.0]), dense.weight, dense.bias)
    torch.testing.assert_close(found.logits, [logits])
    assert list(model.state_dict()) == ["constant", "dense.weight", "dense.bias"]


def test_losses_added_by_layers_are_those_of_the_last_call():
    tokens = Input((4,), dtype="int64")
    x = layers.Embedding(7, 3, mask_zero=True)(tokens)
    model = Model(tokens, layers.ActivityRegularization(l2=1.0)(x))
    for _ in range(2):
        model.forward_for_training(TOKENS)
        assert len(model.losses) == 1


def test_metrics_of_an_output_without_a_loss():
    inputs = Input((3,))
    model = Model(inputs, {"a": layers.Dense(1, name="a")(inputs), "b": layers.Dense(1, name="b")(inputs)})
    rng = np.random.default_rng(0)
    x, a, b = (rng.random((8, size)).astype("float32") for size in (3, 1, 1))
    model.compile("sgd", {"a": "mse"}, metrics={"b": ["mae"]})
    outputs = model.predict(x, verbose=0)
    found = model.evaluate(x, {"a": a, "b": b}, verbose=0, return_dict=True)
    assert found["b_mae"] == pytest.approx(np.abs(outputs["b"] - b).mean(), rel=1e-5)
    assert found["loss"] == pytest.approx(np.square(outputs["a"] - a).mean(), rel=1e-5)
    with pytest.raises(ValueError, match="'b'"):
        model.evaluate(x, {"a": a}, verbose=0)
