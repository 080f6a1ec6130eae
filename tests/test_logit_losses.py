"""Models that end in softmax or sigmoid are trained on the logits, and nothing but the numbers' stability shows it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchfunc import Input, Model, Sequential, layers, losses

CLASSES, ROWS = 3, 6
X = torch.randn(ROWS, CLASSES, generator=torch.Generator().manual_seed(1))
SPARSE = torch.tensor([0, 2, 1, 1, 0, 2])
ONE_HOT = F.one_hot(SPARSE, CLASSES).float()
BITS = torch.tensor([[1.0, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
WEIGHT = torch.tensor([1.0, 2.0, 0.5, 0.0, 1.0, 3.0])


def ending(activate):
    def make():
        inputs = Input((CLASSES,))
        return Model(inputs, activate(layers.Dense(CLASSES, name="logits")(inputs)))

    return make


def dense(activation):
    def make():
        inputs = Input((CLASSES,))
        return Model(inputs, layers.Dense(CLASSES, activation=activation, name="logits")(inputs))

    return make


def sequential(activation):
    return lambda: Sequential([layers.Input((CLASSES,)), layers.Dense(CLASSES, activation=activation, name="logits")])


def nested(activation):
    def make():
        inner = dense(activation)()
        inputs = Input((CLASSES,))
        return Model(inputs, inner(inputs))

    return make


def two_deep(activation):
    def make():
        middle = nested(activation)()
        inputs = Input((CLASSES,))
        return Model(inputs, middle(inputs))

    return make


SOFTMAX = {
    "Dense": dense("softmax"),
    "Activation": ending(lambda x: layers.Activation("softmax")(x)),
    "Softmax": ending(lambda x: layers.Softmax()(x)),
    "torch.softmax": ending(lambda x: torch.softmax(x, -1)),
    "nn.Softmax": ending(lambda x: nn.Softmax(-1)(x)),
    "Sequential": sequential("softmax"),
    "nested": nested("softmax"),
    "two deep": two_deep("softmax"),
}
SIGMOID = {
    "Dense": dense("sigmoid"),
    "Activation": ending(lambda x: layers.Activation("sigmoid")(x)),
    "torch.sigmoid": ending(torch.sigmoid),
    "nn.Sigmoid": ending(lambda x: nn.Sigmoid()(x)),
    "nested": nested("sigmoid"),
}
# The loss, its targets, and torch's own loss of logits.
LOSSES = {
    "sparse": (losses.SparseCategoricalCrossentropy, {}, SPARSE, F.cross_entropy, SPARSE),
    "categorical": (losses.CategoricalCrossentropy, {}, ONE_HOT, F.cross_entropy, ONE_HOT),
    "smoothed": (
        losses.CategoricalCrossentropy,
        {"label_smoothing": 0.1},
        ONE_HOT,
        lambda logits, y: F.cross_entropy(logits, y, label_smoothing=0.1),
        ONE_HOT,
    ),
    "binary": (losses.BinaryCrossentropy, {}, BITS, F.binary_cross_entropy_with_logits, BITS),
    "binary smoothed": (
        losses.BinaryCrossentropy,
        {"label_smoothing": 0.2},
        BITS,
        F.binary_cross_entropy_with_logits,
        BITS * 0.8 + 0.1,
    ),
}
CASES = [("sparse", SOFTMAX, name) for name in SOFTMAX] + [("binary", SIGMOID, name) for name in SIGMOID]
CASES += [
    ("categorical", SOFTMAX, "Dense"),
    ("smoothed", SOFTMAX, "nested"),
    ("binary smoothed", SIGMOID, "nn.Sigmoid"),
]


def scaled(make, scale):
    """The model with logits that are the inputs times `scale`, and the layer that makes them."""
    model = make()
    layer = next(module for module in model.modules() if getattr(module, "name", None) == "logits")
    with torch.no_grad():
        layer.weight.copy_(torch.eye(CLASSES) * scale)
        layer.bias.zero_()
    return model, layer


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize(("loss", "endings", "name"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_losses_and_steps_are_torchs_on_logits(loss, endings, name, scale):
    cls, arguments, y, reference, expected_y = LOSSES[loss]
    model, layer = scaled(endings[name], scale)
    x = X if scale == 1.0 else X.sign()
    metric = "accuracy" if loss == "sparse" else "mae"
    model.compile("sgd", cls(**arguments), metrics=[metric])
    model.optimizer.learning_rate = 1.0
    weight = layer.weight.detach().clone().requires_grad_()
    logits = x @ weight.T
    expected = reference(logits, expected_y)
    (gradient,) = torch.autograd.grad(expected, weight)
    assert torch.isfinite(expected)
    probabilities = torch.softmax(logits, -1) if endings is SOFTMAX else torch.sigmoid(logits)
    correct = (probabilities.argmax(-1) == SPARSE).float() if loss == "sparse" else (probabilities - y).abs()
    expected_logs = {"loss": expected.item(), metric: correct.mean().item()}
    assert model.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(expected_logs, rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(model.predict(x, verbose=0), probabilities.detach(), rtol=1e-5, atol=1e-7)
    assert model.train_on_batch(x, y, return_dict=True) == pytest.approx(expected_logs, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(weight - gradient, layer.weight.detach(), rtol=1e-5, atol=1e-6)


def test_several_outputs_and_weights():
    inputs = Input((CLASSES,))
    logits = [layers.Dense(CLASSES, name=name) for name in ("a", "b", "c")]
    x = [layer(inputs) for layer in logits]
    model = Model(inputs, {"a": torch.softmax(x[0], -1), "b": torch.sigmoid(x[1]), "c": x[2]})
    with torch.no_grad():
        for layer in logits:
            layer.weight.copy_(100 * torch.eye(CLASSES))
    model.compile("sgd", {"a": "sparse_categorical_crossentropy", "b": "binary_crossentropy", "c": "mse"})
    scores = 100 * X.sign()
    y = {"a": SPARSE, "b": BITS, "c": scores}
    found = model.evaluate(X.sign(), y, verbose=0, sample_weight=WEIGHT, return_dict=True)
    a = F.cross_entropy(scores, SPARSE, reduction="none")
    b = F.binary_cross_entropy_with_logits(scores, BITS, reduction="none").mean(-1)
    expected = {"a_loss": (a * WEIGHT).mean().item(), "b_loss": (b * WEIGHT).mean().item(), "c_loss": 0.0}
    assert found == pytest.approx({**expected, "loss": sum(expected.values())}, rel=1e-5)


def squared(module, inputs, outputs):
    return outputs**2


@pytest.mark.parametrize("hooked", ["logits", "dense", "functional"])
def test_a_hook_sees_and_changes_what_is_trained_on(hooked):
    model, layer = scaled(nested("softmax"), 1.0)
    inner = model.layers[-1]
    model.compile("sgd", "sparse_categorical_crossentropy")
    expected = F.cross_entropy(X, SPARSE).item()
    assert model.evaluate(X, SPARSE, verbose=0) == pytest.approx(expected, rel=1e-5)
    with {"logits": layer, "dense": inner, "functional": model}[hooked].register_forward_hook(squared):
        probabilities = torch.softmax(X, -1) ** 2
        # A crossentropy of probabilities makes them add up to 1 first.
        normed = probabilities / probabilities.sum(-1, keepdim=True)
        expected_hooked = F.nll_loss(normed.log(), SPARSE).item()
        assert model.evaluate(X, SPARSE, verbose=0) == pytest.approx(expected_hooked, rel=1e-5)
        np.testing.assert_allclose(model.predict(X, verbose=0), probabilities, rtol=1e-5)
    assert model.evaluate(X, SPARSE, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_a_forward_that_a_layer_was_given():
    """What it computes has nothing to do with the layer's softmax."""
    model, layer = scaled(dense("softmax"), 1.0)
    layer.forward = lambda x: x**2 + 1
    model.compile("sgd", "sparse_categorical_crossentropy")
    outputs = X**2 + 1
    expected = F.nll_loss((outputs / outputs.sum(-1, keepdim=True)).log(), SPARSE).item()
    assert model.evaluate(X, SPARSE, verbose=0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("activate", [lambda x: torch.softmax(x, -1, dtype=torch.float64), lambda x: x.softmax(0)])
def test_a_softmax_of_its_own_kind_stays_as_it_is(activate):
    """In another float type, or over another axis."""
    model, _ = scaled(ending(activate), 1.0)
    assert model.describe_outputs() == [(None, False)]
    model.compile("sgd", "sparse_categorical_crossentropy")
    probabilities = activate(X)
    expected = F.nll_loss((probabilities / probabilities.sum(-1, keepdim=True)).log(), SPARSE).item()
    assert model.evaluate(X, SPARSE, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_a_loss_of_other_numbers_than_the_model_returned():
    """A `compute_loss` that changes the outputs has them compared, and not the logits behind them."""

    class Squares(Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return super().compute_loss(x, y, y_pred**2, sample_weight, training)

    inputs = Input((CLASSES,))
    model = Squares(inputs, layers.Softmax()(inputs))
    model.compile(None, "sparse_categorical_crossentropy")
    squares = torch.softmax(X, -1) ** 2
    expected = F.nll_loss((squares / squares.sum(-1, keepdim=True)).log(), SPARSE).item()
    assert model.evaluate(X, SPARSE, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_another_output_of_a_model_that_has_a_softmax():
    """The first output of the inner model is its softmax; the outer model trains on the second one."""
    h = Input((CLASSES,))
    inner = Model(h, [layers.Softmax()(h), layers.Activation("relu")(h) + 0.1])
    inputs = Input((CLASSES,))
    x = layers.Dense(CLASSES, name="logits")(inputs)
    model = Model(inputs, inner(x)[1])
    assert model.describe_outputs() == [(None, False)]
    model.compile("sgd", "sparse_categorical_crossentropy")
    scores = torch.from_numpy(model.predict(X, verbose=0))
    expected = F.nll_loss((scores / scores.sum(-1, keepdim=True)).log(), SPARSE).item()
    assert model.evaluate(X, SPARSE, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_a_graph_that_was_changed_trains_as_it_is():
    """Of an output that somebody put into the graph it is not known what its logits are."""
    model, _ = scaled(dense("softmax"), 1.0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert model.evaluate(X, SPARSE, verbose=0) == pytest.approx(F.cross_entropy(X, SPARSE).item(), rel=1e-5)
    output = next(node for node in model.graph.nodes if node.op == "output")
    with model.graph.inserting_before(output):
        output.args = (model.graph.call_function(torch.pow, (output.args[0], 3)),)
    model.recompile()
    assert model.describe_outputs() == [(None, False)]
    cubes = torch.softmax(X, -1) ** 3
    expected = F.nll_loss((cubes / cubes.sum(-1, keepdim=True)).log(), SPARSE).item()
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert model.evaluate(X, SPARSE, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert model.train_on_batch(X, SPARSE) == pytest.approx(expected, rel=1e-5)
