"""fit, evaluate, predict and single steps: numbers, names and return values against Keras'; settings put back."""

import copy
import os
import pickle
import signal
import threading

import keras
import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils.data import DataLoader, TensorDataset

from torchfunc import callbacks, layers, losses, metrics, optimizers
from torchfunc.layers import Dense, Input
from torchfunc.models import Model, Sequential
from torchfunc.training import runs
from torchfunc.training.step import train_batch

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

RNG = np.random.default_rng(0)
ROWS = 50
X = RNG.standard_normal((ROWS, 5)).astype("float32")
Y = RNG.standard_normal((ROWS, 1)).astype("float32")
LABELS = RNG.integers(0, 3, ROWS)
WEIGHTS = RNG.random(ROWS).astype("float32")


def network(library, outputs="one", softmax=True):
    """The same model from either library; both are given the same weights by `twins`."""
    dense = library.layers.Dense
    inputs = library.Input((5,)) if library is keras else Input((5,))
    hidden = dense(8, activation="tanh", name="hidden")(inputs)
    value = dense(1, name="value")(hidden)
    kind = dense(3, activation="softmax" if softmax else None, name="kind")(hidden)
    model = keras.Model if library is keras else Model
    return model(
        inputs, {"one": value, "label": kind, "list": [value, kind], "dict": {"value": value, "kind": kind}}[outputs]
    )


class ours:
    layers = layers


def twins(outputs="one", **kwargs):
    theirs, mine = network(keras, outputs, **kwargs), network(ours, outputs, **kwargs)
    for layer in theirs.layers[1:]:
        mine.get_layer(layer.name).set_weights([w.value.detach().numpy() for w in layer.weights])
    return mine, theirs


def steps(model, *data, count=20, size=10, **kwargs):
    """Losses of single training steps over the data's batches in order."""
    found = []
    for step in range(count):
        start = step * size % ROWS
        batch = [part if part is None else _rows(part, start, start + size) for part in data]
        found.append(model.train_on_batch(*batch, return_dict=True, **kwargs))
    return found


def _rows(part, start, stop):
    if isinstance(part, dict):
        return {key: value[start:stop] for key, value in part.items()}
    if isinstance(part, list):
        return [value[start:stop] for value in part]
    return part[start:stop]


def assert_close(mine, theirs, rel=1e-4):
    assert list(mine) == list(theirs)
    for key, value in mine.items():
        assert value == pytest.approx(theirs[key], rel=rel, abs=1e-6), key


OPTIMIZERS = [
    ("SGD", {"learning_rate": 0.05}),
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    ("RMSprop", {}),
    ("Adam", {"learning_rate": 0.01}),
    ("AdamW", {"learning_rate": 0.01}),
    ("Adam", {"global_clipnorm": 0.1}),
]


class TestLossCurves:
    @pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=str)
    def test_optimizers(self, name, options):
        mine, theirs = twins("label")
        for model, library in ((mine, optimizers), (theirs, keras.optimizers)):
            model.compile(getattr(library, name)(**options), "sparse_categorical_crossentropy", metrics=["accuracy"])
        for a, b in zip(steps(mine, X, LABELS), steps(theirs, X, LABELS), strict=True):
            assert_close(a, b)

    @pytest.mark.parametrize("loss", ["mse", "mae", "huber", "log_cosh"])
    def test_losses(self, loss):
        mine, theirs = twins()
        for model in (mine, theirs):
            model.compile("sgd", loss, metrics=["mae"], weighted_metrics=["mse"])
        for a, b in zip(steps(mine, X, Y, WEIGHTS), steps(theirs, X, Y, WEIGHTS), strict=True):
            assert_close(a, b)

    def test_class_weights(self):
        mine, theirs = twins("label")
        for model in (mine, theirs):
            model.compile("adam", "sparse_categorical_crossentropy", weighted_metrics=["acc"])
        extra = {"class_weight": {0: 3.0, 2: 0.5}}
        for a, b in zip(steps(mine, X, LABELS, **extra), steps(theirs, X, LABELS, **extra), strict=True):
            assert_close(a, b)

    # Not lists for a dict of outputs: Keras sorts the keys, and so mixes up the heads.
    @pytest.mark.parametrize(("outputs", "settings"), [("list", "list"), ("list", "dict"), ("dict", "dict")])
    def test_two_outputs(self, outputs, settings):
        mine, theirs = twins(outputs)
        given = {
            "loss": {"value": "mse", "kind": "sparse_categorical_crossentropy"},
            "loss_weights": {"value": 0.3, "kind": 2.0},
            "metrics": {"value": ["mae", "mse"], "kind": ["accuracy"]},
        }
        y, weight = {"value": Y, "kind": LABELS}, {"value": WEIGHTS, "kind": WEIGHTS[::-1].copy()}
        if settings == "list":
            given = {key: list(value.values()) for key, value in given.items()}
        if outputs == "list":
            y, weight = list(y.values()), list(weight.values())
        for model in (mine, theirs):
            model.compile("rmsprop", **given)
        for a, b in zip(steps(mine, X, y, weight), steps(theirs, X, y, weight), strict=True):
            assert_close(a, b)

    def test_regularized_weights_and_activity(self):
        pairs = []
        for library in (ours, keras):
            dense = library.layers.Dense
            inputs = keras.Input((5,)) if library is keras else Input((5,))
            x = dense(4, kernel_regularizer="l2", bias_regularizer="l1", activity_regularizer="l2")(inputs)
            model = (keras.Model if library is keras else Model)(inputs, dense(1)(x))
            model.compile("sgd", "mse")
            pairs.append(model)
        mine, theirs = pairs
        mine.set_weights([w.value.detach().numpy() for w in theirs.weights])
        for a, b in zip(steps(mine, X, Y), steps(theirs, X, Y), strict=True):
            assert_close(a, b)
        assert mine.evaluate(X, Y, verbose=0) == pytest.approx(theirs.evaluate(X, Y, verbose=0), rel=1e-4)

    def test_nothing_is_kept_of_a_run(self):
        inputs = Input((5,))
        model = Model(inputs, Dense(1, activity_regularizer="l2", kernel_regularizer="l2")(inputs))
        model.compile("sgd", "mse")
        for run in (model.fit, model.evaluate):
            run(X, Y, verbose=0)
            assert len(model.losses) == 1

    def test_constraints_hold_after_each_step(self):
        inputs = Input((5,))
        model = Model(inputs, Dense(1, kernel_constraint="non_neg")(inputs))
        model.compile(optimizers.SGD(0.5), "mse")
        for _ in range(3):
            model.train_on_batch(X, Y)
            assert (model.layers[-1].weight >= 0).all()
        assert (model.layers[-1].weight == 0).any()


class TestNamesAndReturns:
    CASES = {
        "plain": ("one", Y, {"loss": "mse"}),
        "metrics": ("one", Y, {"loss": "mse", "metrics": ["mae", "mse"]}),
        "weighted": ("one", Y, {"loss": "mse", "metrics": ["mae", "mae"], "weighted_metrics": ["mae", "mse"]}),
        "objects": ("one", Y, None),
        "list": (
            "list",
            [Y, LABELS],
            {"loss": ["mse", "sparse_categorical_crossentropy"], "metrics": [["mae"], "acc"]},
        ),
        "one loss": ("list", [Y, np.eye(3)[LABELS]], {"loss": "mse"}),
        "dict": (
            "dict",
            {"value": Y, "kind": LABELS},
            {"loss": {"value": "mse", "kind": "sparse_categorical_crossentropy"}, "metrics": {"kind": ["accuracy"]}},
        ),
        "dict for list": (
            "list",
            {"value": Y, "kind": LABELS},
            {"loss": {"value": "mse", "kind": "sparse_categorical_crossentropy"}, "metrics": {"kind": ["accuracy"]}},
        ),
        "part": ("list", [Y, LABELS], {"loss": ["mse", None]}),
    }

    @pytest.mark.parametrize("case", CASES)
    def test_history_and_evaluate_equal_keras(self, case):
        outputs, y, settings = self.CASES[case]
        mine, theirs = twins(outputs)
        for model, library in ((mine, metrics), (theirs, keras.metrics)):
            if case == "objects":
                settings = {
                    "loss": "mae",
                    "metrics": [library.MeanSquaredError(name="foo"), library.MeanAbsoluteError()],
                }
            model.compile("sgd", **settings)
        arguments = {"batch_size": 16, "epochs": 2, "verbose": 0, "shuffle": False, "validation_split": 0.3}
        if case == "part":
            with pytest.warns(UserWarning, match=r"kind\.weight, kind\.bias"):
                history = mine.fit(X, y, **arguments)
            with pytest.warns(UserWarning, match="Gradients do not exist"):
                expected = theirs.fit(X, y, **arguments)
        else:
            history, expected = mine.fit(X, y, **arguments), theirs.fit(X, y, **arguments)
        assert isinstance(history, callbacks.History)
        assert list(history.history) == list(expected.history)
        for name, values in history.history.items():
            assert all(isinstance(value, float) for value in values)
            assert values == pytest.approx(expected.history[name], rel=1e-4), name
        assert history.epoch == expected.epoch
        assert history.params == expected.params
        assert_close(
            mine.evaluate(X, y, verbose=0, return_dict=True), theirs.evaluate(X, y, verbose=0, return_dict=True)
        )
        found, listed = mine.evaluate(X, y, verbose=0), theirs.evaluate(X, y, verbose=0)
        # Keras lists a metric again for each other one that goes by its name.
        expected_list = [*listed[:2], *listed[4:]] if case == "weighted" else listed
        assert found == pytest.approx(expected_list, rel=1e-4)
        logs = mine.evaluate(X, y, verbose=0, return_dict=True)
        listed_values = [found] if isinstance(found, float) else found
        assert dict(zip(mine.metrics_names, listed_values, strict=True)) == pytest.approx(logs)

    def test_single_batches_return_what_evaluate_does(self):
        mine, theirs = twins()
        for model in (mine, theirs):
            model.compile("sgd", "mse", metrics=["mae"])
        assert mine.test_on_batch(X, Y) == pytest.approx(theirs.test_on_batch(X, Y), rel=1e-5)
        assert mine.train_on_batch(X, Y, WEIGHTS) == pytest.approx(theirs.train_on_batch(X, Y, WEIGHTS), rel=1e-5)
        assert_close(mine.test_on_batch(X, Y, return_dict=True), theirs.test_on_batch(X, Y, return_dict=True))
        np.testing.assert_allclose(mine.predict_on_batch(X), theirs.predict_on_batch(X), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("outputs", ["one", "list", "dict"])
    def test_predict(self, outputs):
        mine, theirs = twins(outputs)
        found, expected = mine.predict(X, batch_size=16, verbose=0), theirs.predict(X, batch_size=16, verbose=0)
        assert type(found) is type(expected)
        if outputs == "one":
            found, expected = [found], [expected]
        keys = found if outputs == "dict" else range(len(found))
        for key in keys:
            assert isinstance(found[key], np.ndarray)
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-5, atol=1e-6)

    def test_validation_data_and_frequency(self):
        mine, theirs = twins()
        data = {"validation_data": (X[:20], Y[:20], WEIGHTS[:20]), "validation_batch_size": 7, "validation_steps": 2}
        found = []
        for model in (mine, theirs):
            model.compile("sgd", "mse", weighted_metrics=["mae"])
            history = model.fit(X, Y, epochs=4, verbose=0, shuffle=False, validation_freq=2, initial_epoch=1, **data)
            found.append((history.epoch, history.history))
        assert found[0][0] == found[1][0] == [1, 2, 3]
        for name, values in found[1][1].items():
            assert found[0][1][name] == pytest.approx(values, rel=1e-4)
        history = mine.fit(X, Y, epochs=3, verbose=0, validation_data=(X, Y), validation_freq=[1, 3])
        assert len(history.history["val_loss"]) == 2

    def test_steps_per_epoch(self):
        mine, theirs = twins()
        for model in (mine, theirs):
            model.compile("sgd", "mse")
        run = {"epochs": 2, "verbose": 0, "shuffle": False, "steps_per_epoch": 5}
        assert mine.fit(X, Y, **run).history["loss"] == pytest.approx(theirs.fit(X, Y, **run).history["loss"], rel=1e-4)
        loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=10)
        assert mine.fit(loader, epochs=2, steps_per_epoch=2, verbose=0).params["steps"] == 2


class TestData:
    def test_every_kind_trains_alike(self):
        tensors = torch.from_numpy(X), torch.from_numpy(Y)
        dataset = TensorDataset(*tensors)

        def generator():
            yield from DataLoader(dataset, batch_size=10)

        results = []
        start, _ = twins()
        for data in (
            (X, Y),
            (X.astype("float64"), Y.astype("float64")),
            tensors,
            (X.tolist(), Y.tolist()),
            ([X], [Y]),
            ({model_input(start): X}, {"value": Y}),
            (DataLoader(dataset, batch_size=10),),
            (generator(),),
        ):
            model = copy.deepcopy(start)
            model.compile("sgd", "mse")
            size = {"batch_size": 10} if len(data) == 2 else {}
            results.append(model.fit(*data, shuffle=False, verbose=0, **size).history["loss"][0])
        assert results == pytest.approx([results[0]] * len(results), rel=1e-6)

    def test_one_weight_array_counts_for_all_outputs(self):
        mine, _ = twins("list")
        mine.compile("sgd", "mse")
        y = [Y, np.eye(3)[LABELS]]
        assert mine.test_on_batch(X, y, WEIGHTS) == pytest.approx(mine.test_on_batch(X, y, [WEIGHTS, WEIGHTS]))

    def test_lists_for_a_dict_of_outputs_follow_its_order(self):
        mine, _ = twins("dict")
        mine.compile("sgd", ["mse", "sparse_categorical_crossentropy"], loss_weights=[2.0, 0.5])
        logs = mine.evaluate(X, [Y, LABELS], verbose=0, return_dict=True)
        mine.compile(
            "sgd",
            {"kind": "sparse_categorical_crossentropy", "value": "mse"},
            loss_weights={"kind": 0.5, "value": 2.0},
        )
        assert mine.evaluate(X, {"kind": LABELS, "value": Y}, verbose=0, return_dict=True) == pytest.approx(logs)

    def test_one_loss_with_a_list_of_weights(self):
        mine, _ = twins("list")
        y = [Y, np.eye(3)[LABELS]]
        mine.compile("sgd", "mse", loss_weights=[1.0, 0.25])
        logs = mine.evaluate(X, y, verbose=0, return_dict=True)
        assert logs["loss"] == pytest.approx(logs["value_loss"] + 0.25 * logs["kind_loss"], rel=1e-5)

    def test_targets_only_for_outputs_with_a_loss(self):
        mine, _ = twins("list")
        mine.compile("sgd", ["mse", None])
        assert mine.evaluate(X, [Y], verbose=0) == mine.evaluate(X, {"value": Y}, verbose=0)

    def test_shuffling_follows_manual_seed(self):
        histories = []
        start, _ = twins()
        for seed in (1, 1, 2):
            model = copy.deepcopy(start)
            model.compile("sgd", "mse")
            torch.manual_seed(seed)
            histories.append(model.fit(X, Y, batch_size=8, epochs=2, verbose=0).history["loss"])
        assert histories[0] == histories[1] != histories[2]


def model_input(model):
    return model.input.name


class TestSettingsAreRestored:
    @pytest.fixture
    def model(self):
        model, _ = twins()
        model.compile("sgd", "mse")
        return model

    @pytest.mark.parametrize("mode", [True, False])
    def test_modes(self, model, mode):
        model.train(mode)
        model.layers[1].train(not mode)
        before = [module.training for module in model.modules()]
        seen = []
        watch = callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(("train", model.training)),
            on_test_batch_end=lambda batch, logs: seen.append(("test", model.training)),
        )
        model.fit(X, Y, verbose=0, validation_data=(X, Y), callbacks=watch)
        model.evaluate(X, Y, verbose=0)
        model.predict(X, verbose=0)
        model.train_on_batch(X, Y)
        assert [module.training for module in model.modules()] == before
        assert set(seen) == {("train", True), ("test", False)}

    @pytest.mark.parametrize("flush", [True, False])
    def test_denormals(self, model, flush):
        seen = []
        watch = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(runs._flushes_denormals()))
        try:
            torch.set_flush_denormal(flush)
            model.fit(X, Y, verbose=0, callbacks=watch)
            assert seen == [True]
            assert runs._flushes_denormals() == flush
        finally:
            torch.set_flush_denormal(False)

    def test_gradients_and_random_numbers(self, model):
        state = torch.get_rng_state()
        model.evaluate(X, Y, verbose=0)
        model.predict(X, verbose=0)
        assert torch.equal(state, torch.get_rng_state())
        model.fit(X, Y, verbose=0)
        assert all(p.grad is None for p in model.parameters())
        with torch.no_grad(), torch.inference_mode():
            model.fit(X, Y, verbose=0)

    def test_evaluating_first_leaves_the_model_trainable(self):
        model = Sequential([Dense(4, activation="relu"), Dense(1)])
        model.compile("adam", "mse", metrics=["mae", metrics.RootMeanSquaredError()])
        model.evaluate(X, Y, verbose=0)
        first = model.fit(X, Y, epochs=3, verbose=0).history["loss"]
        assert first[-1] < first[0]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    def test_an_error_midway(self, model, error):
        def stop(batch, logs):
            if batch == 1:
                raise error("stop")

        model.eval()
        with pytest.raises(error):
            model.fit(X, Y, batch_size=10, callbacks=callbacks.LambdaCallback(on_train_batch_end=stop), verbose=1)
        assert not model.training
        assert not runs._flushes_denormals()
        assert torch.is_grad_enabled()
        assert all(p.grad is None for p in model.parameters())
        assert len(model.fit(X, Y, verbose=0).history["loss"]) == 1

    def test_ctrl_c(self, model):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, Y, epochs=100_000, verbose=0)
        assert len(model.history.history["loss"]) > 0
        assert np.isfinite(model.evaluate(X, Y, verbose=0))
        model.fit(X, Y, verbose=0)


class TestOwnSteps:
    def test_train_step_with_backward(self):
        class Own(Model):
            def train_step(self, data):
                x, y = data
                self.zero_grad()
                loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
                loss.backward()
                weights = self.trainable_weights
                with torch.no_grad():
                    self.optimizer.apply([w.grad for w in weights], weights)
                for metric in self.metrics:
                    if metric.name == "loss":
                        metric.update_state(loss, len(x))
                    else:
                        metric.update_state(y, self(x))
                return {metric.name: metric.result() for metric in self.metrics}

        plain, _ = twins()
        own = Own(*_redrawn())
        own.set_weights(plain.get_weights())
        for model in (plain, own):
            model.compile("sgd", "mse", metrics=["mae"])
        run = {"batch_size": 10, "shuffle": False, "verbose": 0, "epochs": 2}
        expected = plain.fit(X, Y, **run).history
        found = own.fit(X, Y, **run).history
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert list(found) == list(expected)
        assert all(p.grad is None for p in own.parameters())

    def test_own_optimizer_and_metric_as_in_the_guides(self):
        class Own(Model):
            def __init__(self):
                super().__init__()
                self.dense = Dense(1)
                self.loss_tracker = metrics.Mean(name="my_loss")

            def call(self, x):
                return self.dense(x)

            def compile(self, my_optimizer, my_loss):
                super().compile()
                self.my_optimizer, self.my_loss = my_optimizer, my_loss

            def train_step(self, data):
                x, y = data
                loss = self.my_loss(y, self(x))
                grads = torch.autograd.grad(loss, self.trainable_weights)
                self.my_optimizer.apply(grads, self.trainable_weights)
                self.loss_tracker.update_state(loss)
                return {"my_loss": self.loss_tracker.result()}

            @property
            def metrics(self):
                return [self.loss_tracker]

        model = Own()
        model.compile(optimizers.SGD(0.1), losses.MeanSquaredError())
        history = model.fit(X, Y, epochs=3, verbose=0).history
        assert list(history) == ["my_loss"]
        assert history["my_loss"][-1] < history["my_loss"][0]

    def test_compute_loss_without_training_argument(self):
        class Own(Model):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
                return super().compute_loss(x, y, y_pred, sample_weight) * 2

        plain, _ = twins()
        own = Own(*_redrawn())
        own.set_weights(plain.get_weights())
        for model in (plain, own):
            model.compile("sgd", "mse")
        assert own.evaluate(X, Y, verbose=0) == pytest.approx(2 * plain.evaluate(X, Y, verbose=0), rel=1e-6)

    def test_compute_metrics(self):
        class Own(Model):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.largest = metrics.Mean(name="largest")

            def compute_metrics(self, x, y, y_pred, sample_weight=None):
                results = super().compute_metrics(x, y, y_pred, sample_weight)
                self.largest.update_state(y_pred.max())
                results["largest"] = self.largest.result()
                return results

        model = Own(*_redrawn())
        model.compile("sgd", "mse", metrics=["mae"])
        history = model.fit(X, Y, batch_size=ROWS, verbose=0, validation_data=(X, Y)).history
        assert list(history) == ["largest", "loss", "mae", "val_largest", "val_loss", "val_mae"]
        assert history["val_largest"] == pytest.approx([model.predict(X, verbose=0).max()])

    def test_predict_and_test_step(self):
        class Own(Model):
            def predict_step(self, data):
                return super().predict_step(data) * 2

            def test_step(self, data):
                return {**super().test_step(data), "answer": 42}

        plain, _ = twins()
        own = Own(*_redrawn())
        own.set_weights(plain.get_weights())
        own.compile("sgd", "mse")
        np.testing.assert_allclose(own.predict(X, verbose=0), 2 * plain.predict(X, verbose=0), rtol=1e-6)
        assert own.evaluate(X, Y, verbose=0, return_dict=True)["answer"] == 42

    def test_train_step_by_hand(self):
        model, _ = twins()
        model.compile("sgd", "mse")
        logs = model.train_step((torch.from_numpy(X), torch.from_numpy(Y)))
        assert set(logs) == {"loss"}


def _redrawn():
    inputs = Input((5,))
    return inputs, Dense(1, name="value")(Dense(8, activation="tanh")(inputs))


class TestSubclassed:
    @pytest.mark.parametrize("kind", ["list", "tuple", "dict", "one"])
    def test_outputs_known_only_from_a_call(self, kind):
        class Own(Model):
            def __init__(self):
                super().__init__()
                self.a, self.b = Dense(1), Dense(3)

            def call(self, x):
                a, b = self.a(x), self.b(x)
                return {"list": [a, b], "tuple": (a, b), "dict": {"zz": a, "bb": b}, "one": a}[kind]

        one_hot = np.eye(3)[LABELS]
        y = {"list": [Y, one_hot], "tuple": (Y, one_hot), "dict": {"zz": Y, "bb": one_hot}, "one": Y}[kind]
        names = {
            "list": ["loss", "mae", "mae_1", "mse_loss", "mse_loss_1"],
            "tuple": ["loss", "mae", "mae_1", "mse_loss", "mse_loss_1"],
            "dict": ["bb_loss", "bb_mae", "loss", "zz_loss", "zz_mae"],
            "one": ["loss", "mae"],
        }[kind]
        model = Own()
        model.compile("sgd", "mse", metrics=["mae"] if kind == "one" else "mae")
        if kind == "one":
            with pytest.warns(UserWarning, match="b.weight"):
                history = model.fit(X, y, verbose=0)
        else:
            history = model.fit(X, y, verbose=0)
        assert list(history.history) == names
        assert type(model.predict(X, verbose=0)) is {"list": list, "tuple": tuple, "dict": dict}.get(kind, np.ndarray)


class TestWithTorch:
    @pytest.mark.parametrize("make", [lambda p: torch.optim.Adam(p, lr=0.01), lambda p: torch.optim.Adam])
    def test_torch_optimizers_and_losses(self, make):
        model, _ = twins("label", softmax=False)
        model.compile(make(model.parameters()), torch.nn.CrossEntropyLoss(), metrics=["accuracy"])
        history = model.fit(X, LABELS, epochs=5, verbose=0).history["loss"]
        assert history[-1] < history[0]
        assert not any(isinstance(module, torch.nn.CrossEntropyLoss) for module in model.modules())
        assert "optimizer" not in "".join(model.state_dict())

    def test_equals_a_torch_loop(self):
        model, _ = twins("label", softmax=False)
        reference = copy.deepcopy(model)
        model.compile(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), torch.nn.CrossEntropyLoss())
        model.fit(X, LABELS, batch_size=10, shuffle=False, verbose=0)
        optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9)
        for x, y in DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(LABELS)), batch_size=10):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(reference(x), y).backward()
            optimizer.step()
        for a, b in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(a, b)

    def test_frozen_after_compile(self):
        model, _ = twins()
        model.compile("sgd", "mse")
        model.fit(X, Y, verbose=0)
        frozen = model.layers[1]
        frozen.trainable = False
        before = frozen.weight.detach().clone()
        model.fit(X, Y, verbose=0)
        assert torch.equal(before, frozen.weight)

    def test_one_step_is_one_graph(self):
        model, _ = twins("list")
        model.compile(
            optimizers.Adam(0.01, global_clipnorm=1.0, weight_decay=0.1),
            ["mse", "sparse_categorical_crossentropy"],
            metrics=[["mae"], ["accuracy"]],
        )
        eager = copy.deepcopy(model)
        data = torch.from_numpy(X), [torch.from_numpy(Y), torch.from_numpy(LABELS)], torch.from_numpy(WEIGHTS)
        for each in (model, eager):
            each.train_on_batch(*data)
        count = CompileCounter()
        with runs.training(model, torch.device("cpu")), torch._dynamo.config.patch(trace_autograd_ops=True):
            step = torch.compile(lambda *batch: train_batch(model, batch), fullgraph=True, dynamic=False, backend=count)
            for index in range(3):
                model.optimizer.learning_rate = eager.optimizer.learning_rate = 0.01 / (index + 1)
                step(*data)
                eager.train_on_batch(*data)
        assert count.frame_count == 1
        for a, b in zip(model.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(a, b)

    @pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    def test_copies_of_a_compiled_model_train_on(self, copier):
        model, _ = twins()
        model.compile(optimizers.Adam(0.01), "mse", metrics=["mae"])
        model.fit(X, Y, verbose=0)
        twin = copier(model)
        run = {"shuffle": False, "verbose": 0, "epochs": 2}
        assert model.fit(X, Y, **run).history == twin.fit(X, Y, **run).history
        assert all(a is not b for a, b in zip(model.parameters(), twin.parameters(), strict=True))

    @pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    def test_copies_made_while_training(self, copier):
        inputs = Input((5,))
        model = Model(inputs, Dense(1, kernel_constraint="non_neg", kernel_regularizer="l2")(inputs))
        model.compile("sgd", "mse")
        copies = []
        watch = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: copies.append(copier(model)))
        model.fit(X, Y, verbose=0, callbacks=watch)
        assert copies[0].evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)
        # A copy's penalties are those of its own weights.
        copies[0].layers[-1].weight.data.fill_(100.0)
        data = torch.from_numpy(X), torch.from_numpy(Y)
        assert copies[0].compute_loss(*data, copies[0](data[0])) > 5 * 0.01 * 100.0**2
