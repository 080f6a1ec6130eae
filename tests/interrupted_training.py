"""A training that can be killed, for test_backup_and_restore.py: `interrupted_training.py FOLDER SEED CALLS ...`.

Whatever decides how training goes on is there: shuffling, dropout with and without a seed, batch normalization, Adam,
metrics, and callbacks that remember something. For each CALLS there is a process that kills itself after so many calls
of hooks; one for which they are 0 trains to the end and writes the result into FOLDER.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # else each process would import it by itself, at its first step

from torchfunc import callbacks, layers, utils
from torchfunc.models import Model
from torchfunc.saving.states import write_state

ROWS, BATCH, EPOCHS = 75, 5, 8  # of which 60 are trained on: 12 batches


class KillAfter(callbacks.Callback):
    """Ends the process at the hook of this number, as the kernel ends one that uses too much memory."""

    def __init__(self, calls):
        super().__init__()
        self.left = calls

    def _count(self, *args, logs=None):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    on_epoch_begin = on_epoch_end = on_train_batch_begin = on_train_batch_end = _count
    on_test_batch_begin = on_test_batch_end = _count


def build():
    inputs = layers.Input((4,))
    x = layers.Dense(8, activation="relu")(inputs[:, 1:])
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.3)(x)
    x = layers.Dropout(0.2, seed=5)(x)
    model = Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(folder, calls=None):
    """Train from the beginning or from the last backup; returns what there is at the end."""
    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS, 4)).astype("float32")
    x[:, 0] = np.arange(ROWS)  # so that it can be told which rows were trained on when
    y = random.integers(0, 3, ROWS)
    model = build()

    def note(module, arguments):
        if module.training:
            with open(folder / "order", "a") as order:
                print(int(model.optimizer.iterations), *arguments[0][:, 0].int().tolist(), file=order)

    model.register_forward_pre_hook(note)
    watch = [
        callbacks.BackupAndRestore(folder / "backup", save_freq=3),
        callbacks.EarlyStopping(patience=100, restore_best_weights=True),
        callbacks.ReduceLROnPlateau("loss", patience=0, factor=0.9, min_delta=0.05),
        callbacks.CSVLogger(folder / "log.csv"),
    ]
    if calls is not None:
        watch.append(KillAfter(calls))
    run = {"batch_size": BATCH, "epochs": EPOCHS, "validation_split": 0.2, "verbose": 0}
    history = model.fit(x, y, callbacks=watch, **run)
    rows = [line.split() for line in Path(folder / "order").read_text().splitlines()]
    return {
        "weights": {**dict(model.named_parameters()), **dict(model.named_buffers())},
        "optimizer": model.optimizer.variables,
        "history": history.history,
        "epochs": history.epoch,
        # A step that was lost is there twice: what counts is the last.
        "order": {step: rows for step, *rows in rows},
        "log": (folder / "log.csv").read_text(),
        "numbers to come": [torch.rand(3), np.random.random(3)],
    }


def in_processes(folder, seed, places):
    """One training after the other, each in a process of its own; prints how each of them ended."""
    for index, calls in enumerate(places):
        # A fork, so that torch is imported once for all of them; it knows nothing of another training.
        child = os.fork()
        if child == 0:
            utils.set_random_seed(seed + index)
            write_state(folder / "result", train(folder, calls or None))
            sys.exit()
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    in_processes(Path(sys.argv[1]), int(sys.argv[2]), [int(calls) for calls in sys.argv[3:]])
