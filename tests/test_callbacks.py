"""Callbacks: which hooks are called when, with which logs, against Keras'; what is read from the device, and when."""

import keras
import numpy as np
import pytest
import torch
from scripted_training import play

from torchfunc import callbacks, optimizers
from torchfunc.callbacks.callback_list import plain_logs
from torchfunc.layers import Dense, Input
from torchfunc.models import Model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

X = np.random.default_rng(0).standard_normal((20, 3)).astype("float32")
Y = X.sum(1, keepdims=True)


def make():
    inputs = Input((3,))
    model = Model(inputs, Dense(1)(inputs))
    model.compile(optimizers.SGD(0.01), "mse", metrics=["mae"])
    return model


def make_keras():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile(keras.optimizers.SGD(0.01), "mse", metrics=["mae"])
    return model


HOOKS = [name for name in dir(callbacks.Callback) if name.startswith("on_")]


def recorder(base):
    """A callback that notes each call: the hook, its first argument, and the names in its logs."""
    calls = []

    def note(hook):
        def method(self, *args, logs=None):
            *first, logs = (*args, logs) if not args or isinstance(args[-1], int) else args
            names = sorted(logs) if logs else []
            if "outputs" not in names:
                assert all(isinstance(value, float) for value in (logs or {}).values())
            calls.append((hook, *first, names))

        return method

    return type("Recorder", (base,), {hook: note(hook) for hook in HOOKS if "on_batch" not in hook})(), calls


class TestHooks:
    def test_keras_has_no_more_hooks(self):
        assert [name for name in dir(keras.callbacks.Callback) if name.startswith("on_")] == HOOKS

    @pytest.mark.parametrize(
        "run",
        [
            lambda model, watch: model.fit(
                X, Y, batch_size=8, epochs=2, validation_split=0.2, verbose=0, callbacks=[watch]
            ),
            lambda model, watch: model.evaluate(X, Y, batch_size=8, verbose=0, callbacks=[watch]),
            lambda model, watch: model.predict(X, batch_size=8, verbose=0, callbacks=[watch]),
        ],
        ids=["fit", "evaluate", "predict"],
    )
    def test_same_calls_as_keras(self, run):
        mine, calls = recorder(callbacks.Callback)
        theirs, expected = recorder(keras.callbacks.Callback)
        run(make(), mine)
        run(make_keras(), theirs)
        assert calls == expected
        assert len(calls) > 5

    def test_old_batch_hooks(self):
        class Old(callbacks.Callback):
            seen = 0

            def on_batch_end(self, batch, logs=None):
                self.seen += "loss" in logs

        watch = Old()
        make().fit(X, Y, batch_size=5, verbose=0, callbacks=watch)
        assert watch.seen == 4

    def test_nobody_asks_for_logs_nobody_reads_them(self, monkeypatch):
        model = make()
        model.fit(X, Y, verbose=0)
        reads = []
        read = type(model).get_metrics_result
        monkeypatch.setattr(Model, "get_metrics_result", lambda self: reads.append(1) or read(self))
        model.fit(X, Y, batch_size=2, verbose=0, epochs=3, callbacks=callbacks.Callback())
        assert len(reads) == 3

    def test_deferred_logs_are_read_when_looked_at(self, monkeypatch):
        class Sometimes(callbacks.Callback):
            defers_logs = True
            seen = []

            def on_train_batch_end(self, batch, logs=None):
                if batch in (3, 5):
                    self.seen.append((len(logs), list(logs), logs["loss"]))

        model = make()
        model.fit(X, Y, verbose=0)
        reads = []
        read = type(model).get_metrics_result
        monkeypatch.setattr(Model, "get_metrics_result", lambda self: reads.append(1) or read(self))
        every = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(dict(logs)))
        seen = []
        model.fit(X, Y, batch_size=2, verbose=0, callbacks=[Sometimes(), Sometimes()])
        assert len(reads) == 2 + 1  # the end of the epoch
        model.fit(X, Y, batch_size=2, verbose=0, callbacks=[every, Sometimes()])
        assert len(reads) == 3 + 10 + 1
        assert Sometimes.seen[-1] == (2, ["loss", "mae"], seen[5]["loss"])

    @pytest.mark.parametrize(
        "watch",
        [
            lambda folder: callbacks.BackupAndRestore(folder),
            lambda folder: callbacks.ModelCheckpoint(folder / "w.safetensors", save_weights_only=True),
            lambda folder: callbacks.TensorBoard(folder),
            lambda folder: callbacks.TorchLRScheduler(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1)),
            lambda folder: callbacks.EarlyStopping("loss"),
        ],
    )
    def test_callbacks_of_epochs_cost_nothing_in_batches(self, watch, tmp_path):
        hooks = callbacks.CallbackList(watch(tmp_path)).batch_hooks("train")
        assert hooks._begin == hooks._end == []

    def test_a_subclass_of_one_of_them_is_called(self, tmp_path):
        class Own(callbacks.TensorBoard):
            seen = 0

            def on_train_batch_end(self, batch, logs=None):
                self.seen += 1
                logs["more"] = logs.pop("mae")
                assert list(logs) == ["loss", "more"]
                super().on_train_batch_end(batch, logs)

        watch = Own(tmp_path)
        make().fit(X, Y, batch_size=5, verbose=0, callbacks=watch)
        assert watch.seen == 4

    def test_an_interval_thins_out_the_calls(self):
        class Slow(callbacks.Callback):
            batch_interval = 1000.0
            seen = 0

            def on_train_batch_end(self, batch, logs=None):
                self.seen += 1

        watch = Slow()
        make().fit(X, Y, batch_size=2, verbose=0, callbacks=watch)
        assert watch.seen == 1

    def test_model_and_params(self):
        seen = callbacks.Callback()
        model = make()
        model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=seen)
        assert seen.model is model
        assert seen.params == {"verbose": 0, "epochs": 2, "steps": 3}
        model.fit(((X, Y) for _ in range(4)), verbose=0, callbacks=seen)
        assert seen.params["steps"] == 4

    def test_stop_training_within_an_epoch(self):
        def stop(batch, logs):
            model.stop_training = batch == 1

        model = make()
        watch = callbacks.LambdaCallback(on_train_batch_end=stop)
        history = model.fit(X, Y, batch_size=2, epochs=5, verbose=0, callbacks=watch)
        assert history.epoch == [0]
        assert int(model.optimizer.iterations) == 2

    @pytest.mark.parametrize("what", ["evaluating", "predicting"])
    def test_stop_evaluating_and_predicting(self, what):
        model = make()
        watch = callbacks.LambdaCallback(
            on_test_batch_end=lambda batch, logs: setattr(model, "stop_evaluating", True),
            on_predict_batch_end=lambda batch, logs: setattr(model, "stop_predicting", True),
        )
        if what == "predicting":
            assert model.predict(X, batch_size=2, verbose=0, callbacks=watch).shape == (2, 1)
        else:
            found = model.evaluate(X, Y, batch_size=2, verbose=0, callbacks=watch)
            assert found == pytest.approx(model.test_on_batch(X[:2], Y[:2]))

    def test_a_callback_written_for_keras(self):
        theirs = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
        seen = []
        make().fit(X, Y, batch_size=10, verbose=0, callbacks=theirs)
        assert seen == [0, 1]

    def test_a_run_within_a_run(self):
        model = make()
        watch = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: model.evaluate(X, Y, verbose=0))
        plain = make()
        plain.set_weights(model.get_weights())
        run = {"epochs": 3, "shuffle": False, "verbose": 0}
        assert model.fit(X, Y, callbacks=watch, **run).history == plain.fit(X, Y, **run).history


class TestCallbackList:
    def test_given_as_a_list_of_its_own(self):
        model = make()
        told = callbacks.CallbackList([], add_history=True, model=model, verbose=0, epochs=1, steps=1)
        assert model.fit(X, Y, verbose=0, callbacks=told) is told.history
        bare = callbacks.CallbackList([], verbose=0, epochs=1, steps=1)
        assert list(model.fit(X, Y, verbose=0, callbacks=bare).history) == ["loss", "mae"]

    def test_by_hand(self):
        watch, calls = recorder(callbacks.Callback)
        told = callbacks.CallbackList([[watch]], model=make())
        told.append(callbacks.Callback())
        for hook in HOOKS:
            if "on_batch" in hook:
                continue
            first = (0,) if "batch" in hook or "epoch" in hook else ()
            getattr(told, hook)(*first, {"b": torch.tensor(1.0), "a": 2} if "predict" not in hook else None)
        assert len(calls) == 14
        assert ("on_epoch_end", 0, ["a", "b"]) in calls

    def test_one_that_runs_last(self):
        class Last(callbacks.Callback):
            runs_last = True

        last, first = Last(), callbacks.Callback()
        told = callbacks.CallbackList([last, first], add_history=True, model=make())
        assert told.callbacks == [first, told.history, last]
        told.append(first)
        assert told.callbacks[-1] is last

    @pytest.mark.parametrize(("wrong", "part"), [(callbacks.Callback, "instance"), (3, "3"), ("log", "'log'")])
    def test_what_is_no_callback(self, wrong, part):
        with pytest.raises(TypeError, match=part):
            make().fit(X, Y, callbacks=[wrong], verbose=0)

    def test_plain_logs(self):
        logs = {"b": torch.tensor(2.0), "a": np.float32(1), "c": {"d": 3}, "e": torch.ones(2), "f": "text"}
        found = plain_logs(logs)
        assert list(found) == ["a", "b", "d", "e", "f"]
        assert found["a"] == 1.0
        assert found["b"] == 2.0
        assert type(found["d"]) is float
        assert isinstance(found["e"], np.ndarray)
        assert plain_logs(None) == {}


class TestLambdaCallback:
    def test_any_hook(self):
        seen = []
        watch = callbacks.LambdaCallback(on_test_end=lambda logs: seen.append(logs["loss"]))
        model = make()
        assert [model.evaluate(X, Y, verbose=0, callbacks=watch)[0]] == seen

    def test_a_hook_that_does_not_exist(self):
        with pytest.raises(ValueError, match="'on_epoch_ends'"):
            callbacks.LambdaCallback(on_epoch_ends=print)


class TestEarlyStopping:
    def test_in_fit(self, capsys):
        model = make()
        model.optimizer.learning_rate = 10.0
        stop = callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True, verbose=1)
        start = model.evaluate(X, Y, verbose=0)[0]
        history = model.fit(X, Y, batch_size=20, epochs=9, verbose=0, callbacks=stop)
        assert history.epoch == [0, 1]
        assert model.history.history["loss"][0] == pytest.approx(start)
        assert np.isfinite(model.evaluate(X, Y, verbose=0)[0])
        out = capsys.readouterr().out
        assert "Epoch 2: early stopping" in out
        assert "best epoch: 1" in out

    @pytest.mark.parametrize(("name", "less"), [("val_mae", True), ("loss", True), ("val_head_loss", True)])
    def test_direction_is_found(self, name, less):
        stop = callbacks.EarlyStopping(name)
        model = make()
        model.evaluate(X, Y, verbose=0)
        stop.set_model(model)
        assert stop.is_improvement(0.5, 1.0) == less

    def test_direction_that_cannot_be_told(self):
        with pytest.raises(ValueError, match=r"'val_thing'.*mode='min'"):
            play(callbacks.EarlyStopping("val_thing"), [{"val_thing": 1.0}, {"val_thing": 2.0}])

    def test_a_name_that_is_not_logged(self):
        with pytest.warns(UserWarning, match="`val_loss` which is not available. Available metrics are: loss,mae"):
            make().fit(X, Y, verbose=0, callbacks=callbacks.EarlyStopping())

    def test_unknown_mode(self):
        with pytest.raises(ValueError, match="'best'"):
            callbacks.EarlyStopping(mode="best")
