"""EarlyStopping, ModelCheckpoint, ReduceLROnPlateau, LearningRateScheduler and TerminateOnNaN decide as Keras' do."""

import itertools
import math

import keras
import numpy as np
import pytest
from scripted_training import play

from torchfunc import Input, Model, callbacks, layers
from torchfunc.saving.tensor_files import read_tensors

RANDOM = np.random.default_rng(0)
SEQUENCES = [
    [1.0, 0.9, 0.95, 0.6, 0.7, 0.58, 0.8, 0.9, 0.5],
    [0.5, 0.6, 0.7, 0.8, 0.7, 0.6, 0.5, 0.4],  # in steps of just min_delta
    [0.1, 0.2, 0.3],
    [0.4] * 5,
    [0.5, math.nan, 0.4, math.inf, 0.3, -math.inf, 0.2],
    *RANDOM.random((4, 12)).tolist(),
]


# (Of a NaN in the first epoch Keras 3.15 makes the best for ever.)


def logs_of(values, name="val_loss"):
    return [{"loss": 0.0, name: value} for value in values]


def combinations(**choices):
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def assert_same_decisions(name, options, capsys, theirs=None, **script):
    """Both libraries' callbacks of this name decide and say the same over all sequences."""
    for values in SEQUENCES:
        run = {"epochs": logs_of(values), "capsys": capsys, **script}
        mine = play(getattr(callbacks, name)(**options), **run)
        expected = play(getattr(keras.callbacks, name)(**(theirs or options)), **run)
        assert repr(mine) == repr(expected), (options, values)


class TestEarlyStopping:
    @pytest.mark.parametrize("mode", ["auto", "min", "max"])
    @pytest.mark.parametrize("restore", [False, True])
    def test_as_in_keras(self, mode, restore, capsys):
        cases = combinations(
            patience=[0, 1, 3], min_delta=[0, 0.1], baseline=[None, 0.55], start_from_epoch=[0, 3], verbose=[1]
        )
        for options in cases:
            options |= {"mode": mode, "restore_best_weights": restore}
            assert_same_decisions("EarlyStopping", options, capsys)

    def test_a_number_that_is_not_logged(self, capsys):
        assert_same_decisions("EarlyStopping", {"monitor": "val_mae", "mode": "min"}, capsys)
        assert "val_mae" in play(callbacks.EarlyStopping("val_mae", mode="min"), logs_of([1.0]))[-1][0]


class TestReduceLROnPlateau:
    @pytest.mark.parametrize("mode", ["auto", "min", "max"])
    def test_as_in_keras(self, mode, capsys):
        cases = combinations(
            patience=[0, 1, 2], factor=[0.1, 0.5], cooldown=[0, 2], min_lr=[0.0, 0.3], min_delta=[1e-4, 0.1]
        )
        for options in cases:
            assert_same_decisions("ReduceLROnPlateau", options | {"mode": mode, "verbose": 1}, capsys)

    def test_a_number_that_is_not_logged(self, capsys):
        assert_same_decisions("ReduceLROnPlateau", {"monitor": "val_mae", "mode": "min"}, capsys)

    def test_a_factor_that_does_not_reduce(self):
        with pytest.raises(ValueError, match=r"factor >= 1\.0"):
            callbacks.ReduceLROnPlateau(factor=1.0)


class TestModelCheckpoint:
    BATCHES = [{"val_loss": value} for value in (0.9, 0.3, 0.7, 0.5)]

    @pytest.mark.parametrize("mode", ["auto", "min", "max"])
    def test_as_in_keras(self, mode, capsys, tmp_path):
        for options in combinations(save_best_only=[False, True], initial_value_threshold=[None, 0.55]):
            options |= {"mode": mode, "verbose": 1, "save_weights_only": True}
            path = f"{tmp_path}/{{epoch:02d}}-{{val_loss:.2f}}"
            mine, theirs = {"filepath": f"{path}.safetensors"}, {"filepath": f"{path}.weights.h5"}
            assert_same_decisions("ModelCheckpoint", options | mine, capsys, options | theirs)

    @pytest.mark.parametrize("save_freq", [1, 3, 4, 7])
    def test_every_so_many_batches_as_in_keras(self, save_freq, capsys, tmp_path):
        options = {"save_freq": save_freq, "verbose": 1, "save_weights_only": True}
        path = f"{tmp_path}/{{epoch}}-{{batch:03d}}-{{val_loss:.1f}}"
        mine, theirs = {"filepath": f"{path}.safetensors"}, {"filepath": f"{path}.weights.h5"}
        assert_same_decisions("ModelCheckpoint", options | mine, capsys, options | theirs, batches=self.BATCHES)

    def test_without_the_number(self, capsys, tmp_path):
        options = {"save_best_only": True, "save_weights_only": True, "monitor": "val_mae", "mode": "min"}
        mine, theirs = {"filepath": f"{tmp_path}/w.safetensors"}, {"filepath": f"{tmp_path}/w.weights.h5"}
        assert_same_decisions("ModelCheckpoint", options | mine, capsys, options | theirs)

    def test_a_number_that_is_an_array(self, tmp_path):
        checkpoint = callbacks.ModelCheckpoint(
            tmp_path / "w.safetensors", save_best_only=True, save_weights_only=True, mode="min"
        )
        *_, saved, _, _, told = play(checkpoint, logs_of([np.ones(2)]))
        assert len(saved) == 1
        assert "scalar" in told[0]


class TestLearningRateScheduler:
    @pytest.mark.parametrize(
        "schedule",
        [
            lambda epoch, rate: rate * 0.9,
            lambda epoch, rate: float(epoch) if epoch > 1 else rate,
            lambda epoch: 1.0 / (epoch + 1),
            lambda epoch: np.float32(0.5**epoch),
        ],
    )
    def test_as_in_keras(self, schedule, capsys):
        assert_same_decisions("LearningRateScheduler", {"schedule": schedule, "verbose": 1}, capsys)

    @pytest.mark.parametrize("library", [callbacks, keras.callbacks])
    def test_what_is_no_float(self, library):
        with pytest.raises(ValueError, match=r"should be a float\. Got: 1"):
            play(library.LearningRateScheduler(lambda epoch: 1), logs_of([1.0]))

    def test_an_error_in_the_schedule_is_not_swallowed(self):
        def schedule(epoch, rate=None):
            return len(epoch)

        with pytest.raises(TypeError, match="has no len"):
            play(callbacks.LearningRateScheduler(schedule), logs_of([1.0]))


class TestTerminateOnNaN:
    @pytest.mark.parametrize("raise_error", [False, True])
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0])
    def test_as_in_keras(self, raise_error, bad, capsys):
        batches = [{"loss": value} for value in (1.0, 0.5, bad, 0.3)]
        found = []
        for library in (callbacks, keras.callbacks):
            try:
                found.append(play(library.TerminateOnNaN(raise_error), logs_of([1.0, 0.5]), batches, capsys))
            except RuntimeError as error:
                found.append(str(error))
        assert repr(found[0]) == repr(found[1])
        assert (bad == 0) == (not isinstance(found[0], str) and not found[0][1])

    def test_logs_without_a_loss(self):
        assert play(callbacks.TerminateOnNaN(), logs_of([1.0]), [{}, {"mae": math.nan}])[1] is False


class Put(callbacks.Callback):
    """Logs of given values."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["val_x"] = self.values[epoch]


@pytest.mark.parametrize(("mode", "values"), [("min", [3.0, 2.0, 1.0, 4.0]), ("max", [1.0, 2.0, 3.0, 0.0])])
def test_a_nan_is_worse_than_any_number(mode, values, tmp_path):
    inputs = Input((3,))
    model = Model(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    stop = callbacks.EarlyStopping("val_x", mode=mode, patience=2, restore_best_weights=True)
    path = tmp_path / "best.safetensors"
    save = callbacks.ModelCheckpoint(path, "val_x", mode=mode, save_best_only=True, save_weights_only=True)
    halve = callbacks.ReduceLROnPlateau("val_x", 0.5, patience=2, mode=mode)
    seen = []
    watch = callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((model.get_weights()[0].copy(), path.exists()))
    )
    data = np.ones((4, 3)), np.ones((4, 1))
    called = [Put([math.nan, *values, math.nan]), stop, save, halve, watch]
    history = model.fit(*data, epochs=6, verbose=0, callbacks=called)
    assert len(history.epoch) == 6
    assert (stop.best, stop.best_epoch) == (values[2], 3)
    assert (save.best, halve.best) == (values[2], values[2])
    assert [there for _, there in seen] == [False, True, True, True, True, True]
    np.testing.assert_array_equal(model.get_weights()[0], seen[3][0])
    np.testing.assert_array_equal(read_tensors(path)[0]["dense.weight"], seen[3][0].T)
