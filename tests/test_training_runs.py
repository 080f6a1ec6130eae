"""Around the steps: settings that are put back, interruptions, steps of one's own, torch's parts, copies."""

import copy
import os
import pickle
import signal
import threading

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils.data import DataLoader, TensorDataset
from training_parity import LABELS, ROWS, WEIGHTS, X, Y, twins

from torchfunc import callbacks, losses, metrics, optimizers
from torchfunc.layers import Dense, Input
from torchfunc.models import Model, Sequential
from torchfunc.training import process_settings, run_modes
from torchfunc.training.step import train_batch

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")


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
        watch = callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(process_settings._flushes_denormals())
        )
        try:
            torch.set_flush_denormal(flush)
            model.fit(X, Y, verbose=0, callbacks=watch)
            assert seen == [True]
            assert process_settings._flushes_denormals() == flush
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
        assert not process_settings._flushes_denormals()
        assert torch.is_grad_enabled()
        assert all(p.grad is None for p in model.parameters())
        assert len(model.fit(X, Y, verbose=0).history["loss"]) == 1

    def test_ctrl_c(self, model):
        # A process that a shell started in the background ignores the signal.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                model.fit(X, Y, epochs=100_000, verbose=0)
        finally:
            signal.signal(signal.SIGINT, before)
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
        model.compile(optimizers.SGD(0.05), losses.MeanSquaredError())
        history = model.fit(X, Y, epochs=20, shuffle=False, verbose=0).history
        assert list(history) == ["my_loss"]
        assert history["my_loss"][-1] < 0.8 * history["my_loss"][0]

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
        settings = model.require_settings("fit")
        with (
            run_modes.training(model, settings, torch.device("cpu")) as run,
            torch._dynamo.config.patch(trace_autograd_ops=True),
        ):
            step = torch.compile(
                lambda *batch: train_batch(model, run, batch), fullgraph=True, dynamic=False, backend=count
            )
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


def test_hooks_of_a_prediction_heed_steps_per_execution():
    """As Keras documents it: one pair of calls for so many batches, with their outputs together."""

    class Watching(callbacks.Callback):
        def on_predict_batch_begin(self, batch, logs=None):
            seen.append(batch)

        def on_predict_batch_end(self, batch, logs=None):
            seen.append((batch, tuple(logs["outputs"].shape)))

    seen = []
    inputs = Input((3,))
    model = Model(inputs, Dense(1)(inputs))
    rows = np.random.default_rng(0).normal(size=(15, 3)).astype("float32")
    expected = model.predict(rows, batch_size=2, verbose=0)
    model.compile("sgd", "mse", steps_per_execution=3)
    np.testing.assert_array_equal(model.predict(rows, batch_size=2, verbose=0, callbacks=[Watching()]), expected)
    assert seen == [0, (2, (6, 1)), 3, (5, (6, 1)), 6, (7, (3, 1))]


@pytest.mark.parametrize(("steps", "trained"), [(None, [4]), (2, [2, 2]), (3, [3, 1]), (4, [4])])
def test_a_generator_that_ends_before_the_epochs(steps, trained):
    """Training ends with what was learned, and says so, as Keras' "Your input ran out of data" does."""

    class Counting(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            counts.append(0)

        def on_train_batch_end(self, batch, logs=None):
            counts[-1] += 1

    counts = []
    inputs = Input((3,))
    model = Model(inputs, Dense(1)(inputs))
    model.compile("sgd", "mse")
    batches = ((np.ones((2, 3), "float32"), np.zeros((2, 1), "float32")) for _ in range(4))
    with pytest.warns(UserWarning, match="ran out") as warned:
        history = model.fit(batches, epochs=3, steps_per_epoch=steps, verbose=0, callbacks=[Counting()])
    assert any(f"ran out before epoch {len(trained) + 1} of 3" in str(each.message) for each in warned)
    assert counts == trained
    assert history.epoch == list(range(len(trained)))
