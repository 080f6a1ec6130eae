"""bf16-mixed and 16-mixed on the CPU, compiled steps and several at once, with the usual kinds of models."""

import numpy as np
import pytest
import torch

from torchfunc import Input, layers, optimizers
from torchfunc.models import Model, Sequential

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function"),
]

RNG = np.random.default_rng(0)
X = RNG.standard_normal((26, 6)).astype("float32")
LABELS = RNG.integers(0, 3, 26)
Y = RNG.standard_normal((26, 1)).astype("float32")


class Subclassed(Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.norm, self.head = layers.Dense(5, "relu"), layers.BatchNormalization(), layers.Dense(3)

    def call(self, x):
        x = self.norm(self.hidden(x))
        self.add_loss(0.01 * x.square().mean())
        return torch.softmax(self.head(x), -1)


def drawn(**outputs):
    inputs = Input((6,))
    x = layers.Dense(5, "tanh", kernel_regularizer="l2", activity_regularizer="l1")(inputs)
    x = layers.LayerNormalization()(x) + torch.nn.Linear(6, 5)(inputs)
    label = layers.Dense(3, activation="softmax", name="label")(x)
    return Model(inputs, {"value": layers.Dense(1, name="value")(x), "label": label} if outputs else label)


def stack():
    return Sequential([layers.Dense(5, "relu"), layers.BatchNormalization(), layers.Dense(3, "softmax")])


def nested():
    inputs = Input((6,))
    inner = drawn()
    return Model(inputs, layers.Dense(3, activation="softmax")(inner(inputs)))


KINDS = {"drawn": drawn, "Sequential": stack, "subclassed": Subclassed, "nested": nested}
KINDS["dict"] = lambda: drawn(two=True)


def trained(kind, **settings):
    """A model of this kind after two epochs, its history, what it evaluates to, and what it predicts."""
    torch.manual_seed(0)
    model = KINDS[kind]()
    crossentropy = "sparse_categorical_crossentropy"
    loss = {"value": "mse", "label": crossentropy} if kind == "dict" else crossentropy
    y = {"value": Y, "label": LABELS} if kind == "dict" else LABELS
    optimizer = settings.pop("optimizer", None) or optimizers.SGD(0.05, momentum=0.5)
    model.compile(optimizer, loss, metrics={"label": ["accuracy"]} if kind == "dict" else ["accuracy"], **settings)
    history = model.fit(X, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    results = model.evaluate(X, y, verbose=0, return_dict=True)
    return model, history, results, model.predict(X, verbose=0)


def leaves(predicted):
    return list(predicted.values()) if isinstance(predicted, dict) else [predicted]


def assert_near(found, expected, rel):
    """The same logs, losses within `rel`; an accuracy may differ by a row or two that are close to the border."""
    _, *mine = found
    _, *theirs = expected
    assert list(mine[0]) == list(theirs[0])
    for one, other in zip(mine[:2], theirs[:2], strict=True):
        for name in one:
            if not name.endswith("accuracy"):
                assert one[name] == pytest.approx(other[name], rel=rel), name
    for one, other in zip(leaves(mine[2]), leaves(theirs[2]), strict=True):
        np.testing.assert_allclose(one.astype("float32"), other, rtol=0, atol=5 * rel)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("precision", "rel"), [("bf16-mixed", 2e-2), ("16-mixed", 3e-3)])
def test_close_to_float32(kind, precision, rel):
    # The scale that is the default overflows in the first steps, which are then left out, as by Keras.
    scaled = optimizers.LossScaleOptimizer(optimizers.SGD(0.05, momentum=0.5), initial_scale=1024.0)
    found = trained(kind, precision=precision, optimizer=scaled if precision == "16-mixed" else None)
    assert_near(found, trained(kind), rel)
    model = found[0]
    assert all(tensor.dtype == torch.float32 for tensor in model.state_dict().values() if tensor.is_floating_point())
    assert all(array.dtype in (np.float32, np.float16) for array in leaves(found[3]))
    assert all(np.isfinite(array).all() for array in leaves(found[3]))
    if precision == "16-mixed":
        assert not isinstance(model.optimizer.inner_optimizer, optimizers.LossScaleOptimizer)


COMPILED = [
    ("drawn", {"precision": "bf16-mixed"}),
    ("Sequential", {"precision": "bf16-mixed"}),
    ("subclassed", {"precision": "bf16-mixed"}),
    ("nested", {}),
    ("dict", {"steps_per_execution": 2}),
]


@pytest.mark.parametrize(("kind", "settings"), COMPILED, ids=str)
def test_compiled(kind, settings, traced):
    compiled = trained(kind, jit_compile=True, **settings)
    assert any(graph.graphs for graph in compiled[0]._training_settings.graphs["train_step"].values())
    assert_near(compiled, trained(kind, jit_compile=False, **settings), 1e-4 if "precision" not in settings else 1e-2)


def test_compiled_with_a_scaled_loss(traced):
    settings = {"precision": "16-mixed"}
    assert_near(trained("drawn", jit_compile=True, **settings), trained("drawn", jit_compile=False, **settings), 3e-3)


def test_autocast_is_on_in_the_forward_pass_only():
    seen = {}

    class Watching(layers.Layer):
        def call(self, inputs):
            seen["forward"] = torch.is_autocast_enabled("cpu"), (inputs @ inputs.T).dtype
            return inputs

    class Watched(optimizers.SGD):
        def update(self, gradients, params, learning_rate):
            seen["update"] = torch.is_autocast_enabled("cpu"), gradients[0].dtype
            super().update(gradients, params, learning_rate)

    inputs = Input((6,))
    model = Model(inputs, layers.Dense(1)(Watching()(inputs)))
    model.compile(Watched(), "mse", precision="bf16-mixed")
    model.fit(X, Y, verbose=0)
    assert seen == {"forward": (True, torch.bfloat16), "update": (False, torch.float32)}
    assert not torch.is_autocast_enabled("cpu")


def test_an_overflow_leaves_weights_and_halves_the_scale():
    """A step whose scaled gradients are infinite is left out, as Keras' and torch's scalers do."""
    torch.manual_seed(0)
    inputs = Input((6,))
    model = Model(inputs, layers.Dense(1)(inputs))
    model.compile(
        optimizers.LossScaleOptimizer(optimizers.SGD(0.1), initial_scale=2.0**127), "mse", precision="bf16-mixed"
    )
    before = model.get_weights()
    model.fit(100 * X, Y, batch_size=26, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert float(model.optimizer.dynamic_scale) == 2.0**126
