"""Trainings with sharded weights, for test_sharded_training.py: `sharded_training.py FOLDER`.

A training goes from some processes to others: what some have saved, others resume, more or fewer or one, with sharded
weights or whole ones. Then what a process holds of a model, lower precision, and files that torch writes by hand.
"""

import functools
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # else each process would import it by itself
from together import together
from torch.distributed import checkpoint, fsdp  # noqa: F401

from torchfunc import callbacks, layers, optimizers
from torchfunc.models import Model
from torchfunc.saving.states import write_state

OPTIMIZERS = {
    "ours": lambda: optimizers.Adam(0.02, gradient_accumulation_steps=2),
    "torch's": lambda: functools.partial(torch.optim.AdamW, lr=0.02),
}
# How many processes train on, and with what: which optimizer, which strategy, whether another thread writes the files,
# and after how many batches they are stopped, if they are.
JOBS = [
    (2, [("torch's", "fsdp", True, 4), ("ours", "ddp", True, 4), ("ours", "fsdp", False, 5)]),
    (1, [("torch's", None, False, 5)]),
    (4, [("ours", "fsdp", True, 5)]),
    (2, [("ours", "ddp", False, 8), ("torch's", "ddp", True, 4), ("torch's", "fsdp", False, None)]),
    (1, [("ours", None, True, None)]),
]


class Stopped(Exception):
    """What a training ends with that others go on with."""


class StopAfter(callbacks.Callback):
    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise Stopped


def build(optimizer, width=8, **how):
    torch.manual_seed(0)
    inputs = layers.Input((4,))
    hidden = layers.Dense(width, activation="relu", kernel_regularizer="l2")(inputs)
    model = Model(inputs, layers.Dense(3, activation="softmax")(hidden))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **how)
    return model


def fit(model, epochs=5, watch=()):
    random = np.random.default_rng(0)
    x, y = random.standard_normal((58, 4)).astype("float32"), random.integers(0, 3, 58)
    return model.fit(x, y, batch_size=8, epochs=epochs, callbacks=list(watch), verbose=0).history


def whole(weight):
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def weights_of(model):
    return {name: whole(weight) for name, weight in model.named_parameters()}


def stage(folder, name, strategy, in_background, batches, rank=0):
    model = build(OPTIMIZERS[name](), **({"strategy": strategy} if strategy else {}))
    watch = [
        callbacks.BackupAndRestore(f"{folder}/{name}", save_freq=3, save_on_background=in_background),
        callbacks.ReduceLROnPlateau("loss", patience=0, factor=0.9, min_delta=0.05),
        *([StopAfter(batches)] if batches else []),
    ]
    try:
        history = fit(model, watch=watch)
    except Stopped:
        return
    result = {"weights": weights_of(model), "history": history}
    if rank == 0:
        write_state(f"{folder}/{name} result", result)


def bytes_held(how):
    """The bytes of weights, gradients and optimizer state that this process has in the step of a wide model."""
    model = build("adam", 1000, **how)
    gradients = []
    apply = model.optimizer.apply

    def watched(found, weights, *arguments):
        gradients[:] = found
        return apply(found, weights, *arguments)

    model.optimizer.apply = watched
    fit(model, 1)
    held = [*model.parameters(), *gradients, *model.optimizer.variables]
    own = [getattr(tensor, "_local_tensor", tensor) for tensor in held]
    return sum(tensor.numel() * tensor.element_size() for tensor in own)


def low_precision(how):
    model = build(optimizers.Adam(0.02), precision="bf16-mixed", **how)
    seen = set()
    model.layers[1].register_forward_hook(lambda layer, inputs, output: seen.add(output.dtype))
    history = fit(model, 2)
    assert seen == {torch.bfloat16}, seen
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    return {"history": history, "weights": weights_of(model)}


def others(folder, rank=0, **how):
    """All that is no resuming; in one process, which has whole weights, or in two, which have shards."""
    found = {"bytes": bytes_held(how), "low": low_precision(how)}
    if how:
        model = build("adam", **how)
        fit(model, 1)
        found["config"] = json.loads(model.to_json())
        model.compile("sgd", "sparse_categorical_crossentropy", strategy=None)
        try:
            fit(model, 1)
        except ValueError as error:
            found["alone"] = str(error)
        # What torch has written of whole weights, sharded ones are read from, and the other way round.
        checkpoint.save(model.state_dict(), checkpoint_id=f"{folder}/sharded.by_hand")
        found["saved"] = weights_of(model)
        state = model.state_dict()
        checkpoint.load(state, checkpoint_id=f"{folder}/whole.by_hand")
        model.load_state_dict(state)
        found["loaded"] = weights_of(model)
    write_state(f"{folder}/others {'sharded' if how else 'whole'} {rank}", found)


def work(folder, stages, is_first, rank=0):
    """What a process of a job does."""
    for each in stages:
        stage(folder, *each, rank=rank)
        if rank == 0:
            saved = f"{folder}/{each[0]}"
            files = sorted(os.listdir(saved)) if os.path.exists(saved) else []
            print(*each, *files, sep=", ")
            if each[:2] == ("ours", "fsdp"):
                shutil.rmtree(f"{folder}/kept", ignore_errors=True)
                shutil.copytree(saved, f"{folder}/kept")
    if is_first:
        others(folder, rank, strategy="fsdp")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


# What may have happened to a folder.
DAMAGES = {
    "half the tensors": lambda folder: cut(min(folder.glob("*.distcp"))),
    "no tensors of one process": lambda folder: min(folder.glob("*.distcp")).unlink(),
    "no index": lambda folder: (folder / ".metadata").unlink(),
    "half an index": lambda folder: cut(folder / ".metadata"),
    "half a plan": lambda folder: cut(folder / "state.json"),
    "no plan": lambda folder: (folder / "state.json").unlink(),
    "nothing": lambda folder: None,
}


class Look(callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        raise Stopped(int(self.model.optimizer.iterations))


def resumed(folder):
    """How a training goes on that finds this folder: after how many steps, if it does; and what is said."""
    watch = [
        callbacks.BackupAndRestore(folder, delete_checkpoint=False, save_freq=False),
        callbacks.ReduceLROnPlateau("loss", patience=0, factor=0.9, min_delta=0.05),
        Look(),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit(build(OPTIMIZERS["ours"]()), watch=watch)
        except ValueError as error:
            return None, str(error)
        except Stopped as stopped:
            return stopped.args[0], *(str(warning.message) for warning in caught)


def damaged(folder):
    """What is said of folders that are not whole, alone and with the one before."""
    kept, new = folder / "kept/latest.dcp", folder / "new"
    shutil.copytree(kept, new / ".latest.dcp.tmp")
    found = {"half written": [resumed(new)]}
    for name, damage in DAMAGES.items():
        shutil.rmtree(new)
        shutil.copytree(kept, new / "latest.dcp")
        damage(new / "latest.dcp")
        found[name] = [resumed(new)]
        shutil.copytree(kept, new / "previous.dcp")
        found[name].append(resumed(new))
    write_state(folder / "damaged", found)


def launch(folder):
    warnings.simplefilter("error")
    others(folder)
    model = build("adam")
    with warnings.catch_warnings():
        # One process is what is meant.
        warnings.filterwarnings("ignore", message="torch.distributed is")
        checkpoint.save(model.state_dict(), checkpoint_id=f"{folder}/whole.by_hand")
        write_state(f"{folder}/whole weights", weights_of(model))
        write_state(f"{folder}/whole config", json.loads(model.to_json()))
        for number, (size, stages) in enumerate(JOBS):
            if size > 1:
                together(size, functools.partial(work, folder, stages, number == 0))
            else:
                work(folder, stages, False)
        state = model.state_dict()
        checkpoint.load(state, checkpoint_id=f"{folder}/sharded.by_hand")
        model.load_state_dict(state)
        write_state(f"{folder}/sharded weights", weights_of(model))
    for name in OPTIMIZERS:
        stage(f"{folder}/alone", name, None, False, None)
    damaged(Path(folder))


if __name__ == "__main__":
    os.makedirs(f"{sys.argv[1]}/alone")
    launch(sys.argv[1])
