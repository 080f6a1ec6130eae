"""A shared training whose processes are killed and started again, for test_failing_processes.py.

Three processes train under torch's own launcher, as torchrun starts it. At each start one of them kills itself after
some calls of hooks, and all are started again. `restarted_training.py FOLDER PLACE ...`: the places are for FOLDER's
"killed"; in "undisturbed" nobody is; in "given up" they are not started again, but one process goes on with a model
whose results do not depend on how many there are, which in "alone" one trains from the beginning.
"""

import logging
import os
import sys

import numpy as np
import torch
import torch._dynamo  # else each process would import it by itself
from interrupted_training import KillAfter
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from torchfunc import callbacks, layers, optimizers
from torchfunc.models import Model
from torchfunc.saving.states import write_state

SIZE = 3


def build(plain):
    inputs = layers.Input((4,))
    x = layers.Dense(8, activation="relu")(inputs)
    if not plain:
        x = layers.Dropout(0.2, seed=5)(layers.Dropout(0.3)(layers.BatchNormalization()(x)))
    model = Model(inputs, layers.Dense(3, activation="softmax")(x))
    optimizer = optimizers.Adam(0.01, gradient_accumulation_steps=2)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(folder, plain, places=()):
    """Train from the beginning, or from the last backup; returns what there is at the end."""
    rank, attempt = int(os.environ.get("RANK", "0")), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    torch.manual_seed(0 if plain else rank)
    random = np.random.default_rng(0)
    x, y = random.standard_normal((58, 4)).astype("float32"), random.integers(0, 3, 58)
    model = build(plain)
    watch = [
        callbacks.BackupAndRestore(f"{folder}/backup", save_freq=3),
        callbacks.ReduceLROnPlateau("loss", patience=0, factor=0.9, min_delta=0.05),
        callbacks.CSVLogger(f"{folder}/log.csv"),
    ]
    if attempt < len(places) and rank == attempt % SIZE:
        watch.append(KillAfter(places[attempt]))
    history = model.fit(x, y, batch_size=8, epochs=5, callbacks=watch, verbose=0)
    return {
        "weights": {**dict(model.named_parameters()), **dict(model.named_buffers())},
        "optimizer": model.optimizer.variables[:-1],
        "history": history.history,
    }


def work(folder, plain, places):
    os.makedirs(folder, exist_ok=True)
    write_state(f"{folder}/result_{os.environ.get('RANK', '0')}", train(folder, plain, places))


def launch(folder, places, restarts, plain=False):
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=SIZE,
        run_id=os.path.basename(folder),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=restarts,
        monitor_interval=0.1,
        # So that torch is imported once for all of them.
        start_method="fork",
    )
    elastic_launch(config, work)(folder, plain, places)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    root, moments = sys.argv[1], [int(place) for place in sys.argv[2:]]
    launch(f"{root}/undisturbed", [], 0)
    launch(f"{root}/killed", moments, len(moments))
    try:
        launch(f"{root}/given up", moments, 0, plain=True)
    except ChildFailedError:
        work(f"{root}/given up", True, ())
    work(f"{root}/alone", True, ())
