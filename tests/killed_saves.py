"""Saves that are killed, or whose disk is full, in processes of their own: what is left behind. See test_killed_saves.

    python killed_saves.py FOLDER ENDING (kill | full) TIMES SEED

Prints one line of JSON for each save: whether the file is the old or the new one, what else lies beside it, and the
error, if there was one.
"""

import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from torchfunc import Input, Model, layers, saving


def make(value):
    """A model of 3 MB, all of whose weights are one number."""
    x = Input((500,))
    model = Model(x, layers.Dense(500)(layers.Dense(500)(layers.Dense(500)(x))))
    fill(model, value)
    return model


def fill(model, value):
    with torch.no_grad():
        for weight in model.weights:
            weight.fill_(value)


def save(model, path):
    model.save(path) if path.suffix in (".keras", ".torchfunc") else model.save_weights(path)


def number_in(path, reader):
    """The number that all weights in a file are; None if the file is not whole."""
    if path.suffix in (".keras", ".torchfunc"):
        reader = saving.load_model(path)
    else:
        reader.load_weights(path)
    numbers = {float(value) for weight in reader.weights for value in (weight.min(), weight.max())}
    return numbers.pop() if len(numbers) == 1 else None


def in_a_process(model, path, limit, message):
    """Save in a forked process, which writes to a pipe how that ended; returns its number."""
    child = os.fork()
    if child:
        return child
    try:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        os.write(message, b"begins\n")
        save(model, path)
    except OSError as error:
        os.write(message, f"{type(error).__name__}: {error}".encode())
    except Exception:  # noqa: BLE001
        os.write(message, traceback.format_exc().encode())
    finally:
        os._exit(0)


def main(folder, ending, what, times, seed):
    torch.set_num_threads(1)
    rng = random.Random(int(seed))
    path = Path(folder) / f"model{ending}"
    reader, model = make(0.0), make(0.0)
    save(model, path)
    began = time.perf_counter()
    save(model, path)
    seconds, size, old = time.perf_counter() - began, path.stat().st_size, 0.0
    for number in range(1, int(times) + 1):
        fill(model, float(number))
        reading, writing = os.pipe()
        child = in_a_process(model, path, rng.randrange(size) if what == "full" else None, writing)
        os.close(writing)
        told = os.read(reading, 7)
        if what == "kill":
            time.sleep(rng.uniform(0, 1.3 * seconds))
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told += os.read(reading, 10_000)
        os.close(reading)
        found = number_in(path, reader)
        names = {old: "old", float(number): "new"}
        litter = sorted(set(os.listdir(folder)) - {path.name})
        print(json.dumps([names.get(found), litter, told.decode().partition("\n")[2]]), flush=True)
        old = found


if __name__ == "__main__":
    main(*sys.argv[1:])
