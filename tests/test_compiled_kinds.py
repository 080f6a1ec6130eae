"""What makes a compiled step another one: frozen weights, an optimizer's numbers, the layout of batches in memory."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from torchfunc import layers, optimizers
from torchfunc.models import Model

pytestmark = [
    pytest.mark.usefixtures("traced"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]

ROWS, BATCH = 24, 8
RNG = np.random.default_rng(0)
X = RNG.standard_normal((ROWS, 6)).astype("float32")
Y = RNG.standard_normal((ROWS, 2)).astype("float32")


def regression(jit=True, optimizer="sgd", loss="mse"):
    torch.manual_seed(0)
    inputs = layers.Input((6,))
    hidden = nn.Linear(6, 4)(inputs)
    model = Model(inputs, layers.Dense(2, name="last")(torch.tanh(hidden)))
    model.compile(optimizer, loss, jit_compile=jit)
    return model


def fit(model):
    return model.fit(X, Y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0).history["loss"]


def made():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def test_a_parameter_frozen_by_itself():
    """Without a word to its layer: `requires_grad_(False)`, as in PyTorch."""
    found = []
    for jit in (False, True):
        model = regression(jit)
        linear = model.get_layer("linear")
        losses = fit(model)
        linear.weight.requires_grad_(False)
        before = linear.weight.detach().clone()
        losses += fit(model)
        assert torch.equal(linear.weight, before)
        linear.weight.requires_grad_(True)
        losses += fit(model)
        assert not torch.equal(linear.weight, before)
        found.append(losses)
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (lambda: optimizers.SGD(0.1, momentum=0.9), "momentum", 0.1),
        (lambda: optimizers.SGD(0.1, momentum=0.9), "nesterov", True),
        (lambda: optimizers.Adam(0.1), "beta_1", 0.1),
        (lambda: optimizers.RMSprop(0.1, clipvalue=0.5), "clipvalue", 0.001),
    ],
)
def test_an_optimizers_number_changed_between_two_trainings(make, name, value):
    found = []
    for jit in (False, True):
        model = regression(jit, make())
        losses = fit(model)
        assert getattr(model.optimizer, name) != value
        setattr(model.optimizer, name, value)
        found.append(losses + fit(model))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_batches_of_another_memory_layout_have_a_graph_of_their_own():
    """A graph reads memory as it lies: that of rows side by side would mix up the numbers of columns side by side."""
    model = regression()
    rows, columns = torch.randn(BATCH, 6), torch.randn(6, BATCH).T
    for x in (rows, rows, rows):
        model.predict_on_batch(x)
    before = made()
    for x in (columns, columns, rows):
        np.testing.assert_allclose(model.predict_on_batch(x), model(x).detach(), rtol=1e-5, atol=1e-6)
    assert made() == before + 1


def test_what_a_layer_adds_to_the_loss_is_no_output_of_the_graph():
    """The step's gradients have used up what it was computed from."""
    found = []
    for jit in (False, True):
        torch.manual_seed(0)
        inputs = layers.Input((6,))
        model = Model(inputs, layers.Dense(2, activity_regularizer="l2")(inputs))
        model.compile("sgd", "mse", jit_compile=jit)
        found.append([*fit(model), model.evaluate(X, Y, batch_size=BATCH, verbose=0)])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_what_is_left_of_several_steps_at_once_has_no_graph():
    model = regression()
    model.compile("sgd", "mse", jit_compile=True, steps_per_execution=4)
    before = made()
    model.fit(X, Y, batch_size=4, epochs=3, verbose=0)
    assert made() == before + 1


def test_what_code_of_a_users_own_reads_is_looked_at_in_each_step():
    """A loss depends on a number that lies anywhere."""
    found = []
    for jit in (False, True):
        anywhere = SimpleNamespace(factor=1.0)

        def loss(y_true, y_pred, anywhere=anywhere):
            return (y_true - y_pred).square().mean(-1) * anywhere.factor

        model = regression(jit, loss=loss)
        losses = fit(model)
        anywhere.factor = 3.0
        found.append(losses + fit(model))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_only_training_is_ever_compiled_to_pay_off():
    model = regression("payback")
    before = made()
    model.evaluate(X, Y, batch_size=2, verbose=0)
    model.predict(X, batch_size=2, verbose=0)
    assert made() == before
