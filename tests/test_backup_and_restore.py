"""BackupAndRestore: an interrupted `fit` that is run again ends as if it had not been, bit for bit."""

import signal
import subprocess
import sys
import threading
from functools import partial

import interrupted_training
import numpy as np
import pytest
import torch
from interrupted_training import train
from torch.utils.data import DataLoader, TensorDataset

from torchfunc import callbacks, layers, optimizers, utils
from torchfunc.models import Model
from torchfunc.saving import backups
from torchfunc.saving.states import read_state, write_state

RNG = np.random.default_rng(0)
X = RNG.standard_normal((44, 3)).astype("float32")
LABELS = RNG.integers(0, 3, 44)
STEPS = 6  # batches of 8
EPOCHS = 4


class Interrupted(Exception):
    pass


def interrupt(after):
    """A callback that ends training after so many batches, counted over all epochs, in the middle of things."""
    left = [after]

    def count(batch, logs):
        left[0] -= 1
        if left[0] == 0:
            raise Interrupted

    return callbacks.LambdaCallback(on_train_batch_end=count)


def make(optimizer, seed=0, **settings):
    utils.set_random_seed(seed)
    inputs = layers.Input((3,))
    x = layers.Dense(6, activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.3)(x)
    x = layers.Dropout(0.3, seed=1)(x)
    model = Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile(optimizer(), "sparse_categorical_crossentropy", metrics=["accuracy"], **settings)
    return model


def arrays():
    return {"x": X, "y": LABELS, "batch_size": 8, "validation_split": 0.1}


def continued_arrays():
    return {"x": X, "y": LABELS, "batch_size": 8, "steps_per_epoch": STEPS // 2, "epochs": 2 * EPOCHS}


def loader():
    data = TensorDataset(torch.tensor(X), torch.tensor(LABELS))
    return {"x": DataLoader(data, 8, shuffle=True), "validation_data": (X, LABELS)}


def generator():
    def batches():
        order = np.random.default_rng(3)
        while True:
            rows = order.integers(0, len(X), 8)
            yield X[rows], LABELS[rows]

    return {"x": batches(), "steps_per_epoch": STEPS}


def run(optimizer, data, *watching, seed=0, **settings):
    model = make(optimizer, seed, **settings)
    utils.set_random_seed(seed + 1)
    history = model.fit(**{"epochs": EPOCHS, **data()}, verbose=0, callbacks=list(watching))
    return model, history


def state(model):
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return [value.detach().clone() for value in (*weights.values(), *model.optimizer.variables)]


def assert_same(resumed, whole):
    (model, history), (expected_model, expected_history) = resumed, whole
    assert history.history == expected_history.history
    assert history.epoch == expected_history.epoch
    for value, expected in zip(state(model), state(expected_model), strict=True):
        assert torch.equal(value, expected)


OPTIMIZERS = {
    "adam": lambda: optimizers.Adam(0.01, use_ema=True),
    "torch": lambda: partial(torch.optim.SGD, lr=0.1, momentum=0.9),
}


class TestResume:
    @pytest.mark.parametrize(
        ("data", "optimizer", "save_freq", "after"),
        [
            (arrays, "adam", "epoch", 15),
            (arrays, "torch", 4, 15),
            (arrays, "adam", 1, STEPS),
            (arrays, "torch", 5, 3),
            (continued_arrays, "adam", "epoch", 10),
            (continued_arrays, "adam", 4, 15),
            (loader, "torch", "epoch", 15),
            (loader, "adam", 4, 15),
            (generator, "adam", "epoch", 15),
            (generator, "torch", 4, 15),
        ],
    )
    def test_ends_as_if_never_interrupted(self, tmp_path, data, optimizer, save_freq, after):
        make_optimizer = OPTIMIZERS[optimizer]
        whole = run(make_optimizer, data)
        end = torch.rand(3)
        backup = partial(callbacks.BackupAndRestore, tmp_path, save_freq)
        with pytest.raises(Interrupted):
            run(make_optimizer, data, backup(), interrupt(after))
        # Another seed: the first weights and all that is drawn come from the backup.
        resumed = run(make_optimizer, data, backup(), seed=0 if after < 4 else 7)
        assert torch.equal(torch.rand(3), end)
        assert_same(resumed, whole)
        assert not tmp_path.exists()

    def test_several_steps_at_once(self, tmp_path):
        settings = {"steps_per_execution": 3}
        whole = run(OPTIMIZERS["adam"], arrays, **settings)
        with pytest.raises(Interrupted):
            run(OPTIMIZERS["adam"], arrays, callbacks.BackupAndRestore(tmp_path, 2), interrupt(6), **settings)
        backup = callbacks.BackupAndRestore(tmp_path, 2)
        assert_same(run(OPTIMIZERS["adam"], arrays, backup, seed=7, **settings), whole)


class TestOtherCallbacks:
    """What others remember goes on too, and what they do at the beginning of an epoch is not done twice."""

    @pytest.mark.parametrize("after", [3, 15, 18])
    @pytest.mark.parametrize("save_freq", ["epoch", 2])
    def test_go_on(self, after, save_freq, tmp_path):
        def others(folder):
            folder.mkdir(exist_ok=True)
            return [
                callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.7),
                callbacks.ReduceLROnPlateau("loss", patience=0, factor=0.5, min_delta=10.0, cooldown=1),
                callbacks.SwapEMAWeights(swap_on_epoch=True),
                callbacks.ModelCheckpoint(folder / "{epoch}-{batch}.safetensors", "loss", 0, True, True, save_freq=4),
                callbacks.EarlyStopping("loss", restore_best_weights=True, patience=3, min_delta=0.05),
                callbacks.CSVLogger(folder / "log.csv"),
            ]

        make_optimizer = OPTIMIZERS["adam"]
        whole = run(make_optimizer, arrays, *others(tmp_path / "whole"))
        backup = partial(callbacks.BackupAndRestore, tmp_path / "backup", save_freq)
        folder = tmp_path / "parts"
        with pytest.raises(Interrupted):
            run(make_optimizer, arrays, backup(), *others(folder), interrupt(after))
        # Before the first save the script begins anew, with the seed that it has.
        resumed = run(make_optimizer, arrays, backup(), *others(folder), seed=0 if save_freq == "epoch" else 7)
        assert_same(resumed, whole)
        names = sorted(file.name for file in folder.iterdir())
        assert names == sorted(file.name for file in (tmp_path / "whole").iterdir())
        for name in names:
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_a_scheduler_of_torch(self, optimizer, tmp_path):
        def schedule():
            return callbacks.TorchLRScheduler(
                partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.2, total_steps=30), "batch"
            )

        whole = run(OPTIMIZERS[optimizer], arrays, schedule())
        with pytest.raises(Interrupted):
            run(OPTIMIZERS[optimizer], arrays, callbacks.BackupAndRestore(tmp_path, 3), schedule(), interrupt(11))
        assert_same(
            run(OPTIMIZERS[optimizer], arrays, callbacks.BackupAndRestore(tmp_path, 3), schedule(), seed=7), whole
        )

    def test_a_training_that_was_told_to_stop(self, tmp_path):
        """Killed after the last epoch, before `fit` could end: no epoch is run, but the end is."""

        class KilledAtTheEnd(callbacks.Callback):
            def on_train_end(self, logs=None):
                raise Interrupted

        def stop():
            return callbacks.EarlyStopping("loss", min_delta=10.0, patience=1, restore_best_weights=True)

        whole = run(OPTIMIZERS["adam"], arrays, stop())
        with pytest.raises(Interrupted):
            run(OPTIMIZERS["adam"], arrays, callbacks.BackupAndRestore(tmp_path), stop(), KilledAtTheEnd())
        resumed = run(OPTIMIZERS["adam"], arrays, callbacks.BackupAndRestore(tmp_path), stop(), seed=7)
        assert resumed[1].epoch == [0, 1]
        assert_same(resumed, whole)


class TestMetrics:
    def test_one_of_torchmetrics(self, tmp_path):
        torchmetrics = pytest.importorskip("torchmetrics")

        def fit(*watching):
            model = make(OPTIMIZERS["adam"])
            model.compile(
                "sgd", "sparse_categorical_crossentropy", metrics=[torchmetrics.classification.MulticlassAUROC(3)]
            )
            return model.fit(
                X, np.arange(len(X)) % 3, batch_size=8, shuffle=False, verbose=0, callbacks=list(watching)
            ).history

        whole = fit()
        with pytest.raises(Interrupted):
            fit(callbacks.BackupAndRestore(tmp_path, 2), interrupt(5))
        assert fit(callbacks.BackupAndRestore(tmp_path, 2)) == whole

    def test_logs_of_a_step_of_ones_own(self, tmp_path):
        class Own(Model):
            def train_step(self, data):
                super().train_step(data)
                return {"rows": torch.tensor(float(len(data[0])))}

        def fit(*watching):
            inputs = layers.Input((3,))
            model = Own(inputs, layers.Dense(1)(inputs))
            model.compile("sgd", "mse")
            return model.fit(X[:20], X[:20, :1], batch_size=8, verbose=0, callbacks=list(watching)).history

        class KilledAtTheEnd(callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                raise Interrupted

        with pytest.raises(Interrupted):
            fit(callbacks.BackupAndRestore(tmp_path, 3), KilledAtTheEnd())
        assert fit(callbacks.BackupAndRestore(tmp_path, 3)) == {"rows": [4.0]}


def interrupted(folder, save_freq=2, after=9, **options):
    backup = callbacks.BackupAndRestore(folder, save_freq, **options)
    with pytest.raises(Interrupted):
        run(OPTIMIZERS["adam"], arrays, backup, interrupt(after))


class TestFiles:
    def test_a_damaged_file(self, tmp_path):
        interrupted(tmp_path)
        (tmp_path / "latest.safetensors").write_bytes(b"half")
        with pytest.raises(ValueError, match=r"damaged.* Delete the folder '.*' to begin anew"):
            run(OPTIMIZERS["adam"], arrays, callbacks.BackupAndRestore(tmp_path))

    @pytest.mark.parametrize(
        "damage",
        [
            lambda path: path.write_bytes(b"half"),
            lambda path: path.write_bytes(path.read_bytes().replace(b"dense.weight", b"dense.weighu", 1)),
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
            lambda path: write_state(path, {"epoch": 1}),
            lambda path: write_state(path, {**read_state(path), "optimizer": []}),
        ],
    )
    def test_the_one_before_a_damaged_file(self, tmp_path, damage):
        interrupted(tmp_path, double_checkpoint=True)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["latest.safetensors", "previous.safetensors"]
        damage(tmp_path / "latest.safetensors")
        whole = run(OPTIMIZERS["adam"], arrays)
        why = "(damaged|not the state|another optimizer)"
        with pytest.warns(UserWarning, match=rf"{why}.* goes on from the save before it, .*previous\.safetensors"):
            resumed = run(OPTIMIZERS["adam"], arrays, callbacks.BackupAndRestore(tmp_path), seed=7)
        assert_same(resumed, whole)
        assert not tmp_path.exists()

    def test_files_that_are_kept(self, tmp_path):
        backup = callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
        model, _ = run(OPTIMIZERS["adam"], arrays, backup)
        found = read_state(tmp_path / "latest.safetensors")
        assert found["epoch"] == EPOCHS
        assert len(found["callbacks"]) == 2
        again, history = run(OPTIMIZERS["adam"], arrays, callbacks.BackupAndRestore(tmp_path, False))
        assert history.epoch == list(range(EPOCHS))
        assert all(torch.equal(*pair) for pair in zip(model.parameters(), again.parameters(), strict=True))

    def test_what_else_is_in_the_folder_stays(self, tmp_path):
        (tmp_path / "mine").write_text("precious")
        (tmp_path / ".latest.safetensors.123.tmp").write_text("left by a process that was killed")
        run(OPTIMIZERS["adam"], arrays, callbacks.BackupAndRestore(tmp_path))
        assert [file.name for file in tmp_path.iterdir()] == ["mine"]

    def test_training_goes_on_while_another_thread_writes(self, tmp_path, monkeypatch):
        # The thread waits for the third batch, so that it would hang, were it waited for.
        reached, written = threading.Event(), []
        write = backups.write_split_state

        def slow_write(path, plan, tensors):
            assert reached.wait(60)
            write(path, plan, tensors)
            written.append(read_state(path))

        def look(batch, logs):
            if batch == 3:
                weights.append(model.get_weights())
                reached.set()

        monkeypatch.setattr(backups, "write_split_state", slow_write)
        model, weights = make(OPTIMIZERS["adam"]), []
        saved = callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: batch == 1 and weights.append(model.get_weights()),
        )
        backup = callbacks.BackupAndRestore(tmp_path, 2, save_on_background=True)
        late = callbacks.LambdaCallback(on_train_batch_begin=look)
        model.fit(X, LABELS, batch_size=8, verbose=0, callbacks=[backup, saved, late])
        assert [each["batches"] for each in written] == [2, 4, 6]
        found = {key: value.numpy() for key, value in written[0]["weights"].items()}
        assert np.array_equal(found["dense.weight"].T, weights[0][0])
        assert not np.array_equal(weights[0][0], weights[1][0])
        assert not tmp_path.exists()

    def test_what_another_thread_could_not_write_is_told(self, tmp_path, monkeypatch):
        def full(*state):
            raise OSError(28, "No space left on device", "latest.safetensors")

        monkeypatch.setattr(backups, "write_split_state", full)
        backup = partial(callbacks.BackupAndRestore, tmp_path, 2, save_on_background=True)
        seen = []
        count = callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: seen.append(batch))
        with pytest.raises(OSError, match="No space left"):
            run(OPTIMIZERS["adam"], arrays, backup(), count)
        # The save after four batches waits for that after two.
        assert seen == [0, 1, 2, 3]
        with pytest.raises(OSError, match="No space left"):
            run(OPTIMIZERS["adam"], arrays, callbacks.BackupAndRestore(tmp_path, 20, save_on_background=True))
        # (An error of the training comes first.)
        with pytest.raises(Interrupted), pytest.warns(UserWarning, match="was not written: .*No space left"):
            run(OPTIMIZERS["adam"], arrays, backup(), interrupt(3))
        monkeypatch.undo()
        assert_same(run(OPTIMIZERS["adam"], arrays, backup()), run(OPTIMIZERS["adam"], arrays))

    def test_another_model(self, tmp_path):
        interrupted(tmp_path)
        inputs = layers.Input((3,))
        model = Model(inputs, layers.Dense(4)(inputs))
        model.compile("adam", "mse")
        with pytest.raises(ValueError, match=r"another model: .*dense\.bias.* Delete the folder"):
            model.fit(X, np.zeros((len(X), 4)), verbose=0, callbacks=callbacks.BackupAndRestore(tmp_path))

    def test_another_optimizer(self, tmp_path):
        interrupted(tmp_path)
        with pytest.raises(ValueError, match="another optimizer"):
            run(lambda: "sgd", arrays, callbacks.BackupAndRestore(tmp_path))

    def test_other_batches(self, tmp_path):
        interrupted(tmp_path)
        with pytest.raises(ValueError, match="after 3 of 5 batches in an epoch, but there are 3 now"):
            run(OPTIMIZERS["adam"], lambda: {**arrays(), "batch_size": 16}, callbacks.BackupAndRestore(tmp_path))

    def test_other_batches_from_the_next_epoch_on(self, tmp_path):
        """Saved between two epochs, a training may go on with other data."""
        backup = callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
        with pytest.raises(Interrupted):
            run(OPTIMIZERS["adam"], arrays, backup, interrupt(STEPS + 1))
        backup = callbacks.BackupAndRestore(tmp_path)
        model, history = run(OPTIMIZERS["adam"], lambda: {**arrays(), "batch_size": 16}, backup)
        assert history.epoch[-3:] == [1, 2, 3]
        assert int(model.optimizer.iterations) == 5 + 3 * 3

    def test_fewer_data(self, tmp_path):
        def batches(count):
            return lambda: {"x": iter([(X[:8], LABELS[:8])] * count), "steps_per_epoch": 3}

        with pytest.raises(Interrupted):
            run(OPTIMIZERS["adam"], batches(12), callbacks.BackupAndRestore(tmp_path, 1), interrupt(9))
        with pytest.raises(ValueError, match="interrupted after 8 batches, but the data have only 5"):
            run(OPTIMIZERS["adam"], batches(5), callbacks.BackupAndRestore(tmp_path, 1))

    @pytest.mark.parametrize(("arguments", "part"), [(("",), "empty"), (("x", "batch"), "'batch'"), (("x", -1), "-1")])
    def test_mistakes(self, arguments, part):
        with pytest.raises(ValueError, match=part):
            callbacks.BackupAndRestore(*arguments)


@pytest.mark.slow
def test_killed_at_five_places(tmp_path):
    utils.set_random_seed(0)
    (tmp_path / "whole").mkdir()
    whole = train(tmp_path / "whole")

    folder = tmp_path / "killed"
    folder.mkdir()
    places = np.random.default_rng(1).integers(15, 55, 5).tolist()
    # All processes but the first start from other seeds, which must not matter.
    calls = [*places, 0]
    command = [sys.executable, interrupted_training.__file__, folder, 0, *calls]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    ends = [signal.SIGKILL if count else 0 for count in calls]
    assert list(map(int, result.stdout.split())) == ends, result.stderr
    steps = len((folder / "order").read_text().splitlines())
    assert 5 < steps - len(whole["order"]) < 40  # some were lost and done again, most were not

    write_state(tmp_path / "whole" / "result", whole)
    expected, found = (read_state(place / "result") for place in (tmp_path / "whole", folder))
    assert_equal(found, expected)


def assert_equal(found, expected, where="result"):
    """Nested states are the same, bit for bit."""
    assert type(found) is type(expected), where
    if isinstance(expected, dict):
        assert list(found) == list(expected) or "order" in where, where
        for key in expected:
            assert_equal(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, pair in enumerate(zip(found, expected, strict=True)):
            assert_equal(*pair, f"{where}.{index}")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    else:
        assert np.array_equal(found, expected), where
