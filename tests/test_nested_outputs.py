"""Outputs, targets, losses, weights and metrics nested in lists, tuples, named tuples and dicts."""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from torchfunc import Input, Model, layers

RANDOM = np.random.default_rng(0)
X = RANDOM.random((8, 3)).astype("float32")
Pair = namedtuple("Pair", "main aux")


@dataclass
class Outputs:
    logits: torch.Tensor
    hidden: torch.Tensor


pytree.register_dataclass(Outputs)


def y():
    return RANDOM.random((8, 2)).astype("float32")


def nested_model():
    inputs = Input((3,))
    a, c, d = (layers.Dense(2)(inputs) for _ in range(3))
    return Model(inputs, {"a": a, "b": {"c": c, "d": d}})


def mse(prediction, target):
    return ((prediction - target) ** 2).mean()


class TestDicts:
    target = {"a": y(), "b": {"c": y(), "d": y()}}

    @pytest.mark.parametrize(
        "loss",
        [
            "mse",
            {"a": "mse", "b": {"c": "mse", "d": ["mse"]}},
            {"a": ["mse"], "b": "mse"},
            {"a": "mse", "b/c": "mse", "b/d": "mse"},
            ["mse", "mse", "mse"],
            ["mse", ["mse", "mse"]],
        ],
    )
    def test_losses(self, loss):
        model = nested_model()
        model.compile("sgd", loss)
        found = model.predict(X, verbose=0)
        parts = {
            "a_loss": mse(found["a"], self.target["a"]),
            "b/c_loss": mse(found["b"]["c"], self.target["b"]["c"]),
            "b/d_loss": mse(found["b"]["d"], self.target["b"]["d"]),
        }
        logs = model.evaluate(X, self.target, verbose=0, return_dict=True)
        assert logs == pytest.approx({"loss": sum(parts.values()), **parts}, rel=1e-5)
        history = model.fit(X, self.target, verbose=0, validation_data=(X, self.target)).history
        assert sorted(history) == sorted([*logs, *(f"val_{name}" for name in logs)])

    def test_weights_metrics_and_sample_weights(self):
        model = nested_model()
        model.compile(
            "sgd",
            {"a": "mse", "b": {"d": "mse"}},
            loss_weights={"a": 2.0, "b": {"d": 3.0}},
            metrics={"b": {"c": ["mae"], "d": "mae"}},
            weighted_metrics={"b/d": ["mse"]},
        )
        found = model.predict(X, verbose=0)
        weights = np.arange(8.0)
        logs = model.evaluate(
            X, self.target, sample_weight={"a": np.ones(8), "b": {"d": weights}}, verbose=0, return_dict=True
        )
        errors = ((found["b"]["d"] - self.target["b"]["d"]) ** 2).mean(-1)
        total = 2 * mse(found["a"], self.target["a"]) + 3 * (errors * weights).mean()
        assert logs["loss"] == pytest.approx(total, rel=1e-5)
        assert logs["b/d_mse"] == pytest.approx((errors * weights).sum() / weights.sum(), rel=1e-5)
        assert logs["b/c_mae"] == pytest.approx(abs(found["b"]["c"] - self.target["b"]["c"]).mean(), rel=1e-5)
        assert sorted(logs) == ["a_loss", "b/c_mae", "b/d_loss", "b/d_mae", "b/d_mse", "loss"]

    def test_what_belongs_nowhere_is_named(self):
        with pytest.raises(ValueError, match=r"'b/x'.*outputs are 'a', 'b/c', 'b/d'"):
            nested_model().compile("sgd", {"b": {"x": "mse"}})


@pytest.mark.parametrize(
    ("nest", "names"),
    [
        (lambda a, b, c: [a, (b, c)], ["dense", "1/dense_1", "1/dense_2"]),
        (lambda a, b, c: ({"x": a}, [b], c), ["0/x", "1/dense_1", "dense_2"]),
        (lambda a, b, c: {"x": [a, b], "y": (c,)}, ["x/dense", "x/dense_1", "y/dense_2"]),
        (lambda a, b, c: [Pair(a, b), c], ["0/main", "0/aux", "dense_2"]),
    ],
)
def test_lists_and_tuples(nest, names):
    inputs = Input((3,))
    model = Model(inputs, nest(*(layers.Dense(2)(inputs) for _ in range(3))))
    assert model.output_names == names
    model.compile("sgd", "mse")
    targets = nest(y(), y(), y())
    found = model.predict(X, verbose=0)
    assert pytree.tree_structure(found) == pytree.tree_structure(targets)
    parts = [mse(*pair) for pair in zip(pytree.tree_leaves(found), pytree.tree_leaves(targets), strict=True)]
    for given in (targets, pytree.tree_leaves(targets)):
        logs = model.evaluate(X, given, verbose=0, return_dict=True)
        assert logs == pytest.approx(
            {"loss": sum(parts), **dict(zip((f"{n}_loss" for n in names), parts, strict=True))}
        )
    model.fit(X, targets, verbose=0)


class Subclassed(Model):
    def __init__(self, nest):
        super().__init__()
        self.parts = [layers.Dense(2), layers.Dense(2)]
        self.nest = nest

    def call(self, x):
        return self.nest(*(part(x) for part in self.parts))


@pytest.mark.parametrize("nest", [Pair, lambda a, b: {"main": a, "aux": b}])
def test_named_parts_of_a_model_that_is_not_drawn(nest):
    model = Subclassed(nest)
    model.compile("sgd", {"main": "mse", "aux": "mae"}, loss_weights={"aux": 0.5})
    target = {"main": y(), "aux": y()}
    logs = model.evaluate(X, target, verbose=0, return_dict=True)
    assert sorted(logs) == ["aux_loss", "loss", "main_loss"]
    assert logs["loss"] == pytest.approx(logs["main_loss"] + 0.5 * logs["aux_loss"], rel=1e-5)
    model.fit(X, nest(target["main"], target["aux"]), verbose=0)


def test_a_class_that_is_registered_with_torch():
    model = Subclassed(Outputs)
    model.compile("sgd", {"logits": "mse", "hidden": "mse"}, metrics={"hidden": "mae"})
    target = {"logits": y(), "hidden": y()}
    assert sorted(model.fit(X, target, verbose=0).history) == [*("hidden_loss", "hidden_mae", "logits_loss", "loss")]
    found = model.predict(X, verbose=0)
    assert type(found) is Outputs
    assert model.evaluate(X, target, verbose=0, return_dict=True)["logits_loss"] == pytest.approx(
        mse(found.logits, target["logits"]), rel=1e-5
    )


def test_one_output_and_its_target_in_lists():
    inputs = Input((3,))
    model = Model(inputs, layers.Dense(2)(inputs))
    model.compile("sgd", ["mse"], metrics=[["mae"]])
    assert sorted(model.fit([[X]], [[y()]], verbose=0).history) == ["loss", "mae"]


class Auxiliary(nn.Module):
    """An output more in training, as torchvision's Inception and GoogLeNet have."""

    def __init__(self):
        super().__init__()
        self.main, self.other = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        return (self.main(x), self.other(x)) if self.training else self.main(x)


class AuxiliaryNone(Auxiliary):
    def forward(self, x):
        return self.main(x), self.other(x) if self.training else None


class AuxiliaryFirst(Auxiliary):
    def forward(self, x):
        return {"main": self.main(x)} if self.training else {"main": self.main(x), "other": self.other(x)}


@pytest.mark.parametrize(("kind", "counts"), [(Auxiliary, (2, 1)), (AuxiliaryNone, (2, 1)), (AuxiliaryFirst, (1, 2))])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_modules_that_return_more_in_one_mode_are_refused(kind, counts, training, wrapped):
    module = kind().train(training)
    if kind is Auxiliary and not training:
        pytest.skip("one tensor is no structure to take apart")
    with pytest.raises(ValueError, match=f"returns {counts[0]} tensors in train mode and {counts[1]} in eval mode"):
        (layers.TorchModule(module) if wrapped else module)(Input((4,)))


@pytest.mark.parametrize(
    ("kind", "message"), [(Auxiliary, "returned 1 outputs, but 2"), (AuxiliaryNone, "the model returned None")]
)
def test_a_subclassed_model_that_returns_more_in_training(kind, message):
    class Inception(Model):
        def __init__(self):
            super().__init__()
            self.module = kind()

        def call(self, inputs):
            return self.module(inputs)

    rows, target = np.ones((8, 4), "float32"), np.zeros((8, 2), "float32")
    model = Inception()
    assert pytree.tree_leaves(model.predict(rows, verbose=0))[0].shape == (8, 2)
    model.compile("sgd", "mse", jit_compile=False)
    assert np.isfinite(model.fit(rows, [target, target], verbose=0).history["loss"]).all()
    with pytest.raises(ValueError, match=message):
        model.evaluate(rows, [target, target], verbose=0)
    assert pytree.tree_leaves(model.predict(rows, verbose=0))[0].shape == (8, 2)
