"""BackupAndRestore: an interrupted `fit` that is run again ends as if it had not been, bit for bit."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from torchfunc import callbacks, layers, optimizers, utils
from torchfunc.models import Model

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


def make(optimizer, seed=0):
    utils.set_random_seed(seed)
    inputs = layers.Input((3,))
    x = layers.Dense(6, activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.3)(x)
    x = layers.Dropout(0.3, seed=1)(x)
    model = Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile(optimizer(), "sparse_categorical_crossentropy", metrics=["accuracy"])
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


def run(optimizer, data, *watching, seed=0):
    model = make(optimizer, seed)
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
        assert list(tmp_path.iterdir()) == []
