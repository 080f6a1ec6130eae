"""One training, in as many processes as a launcher starts, on one machine or on several.

    python examples/jobs/train.py
    torchrun --nproc-per-node 2 examples/jobs/train.py
    accelerate launch --multi_gpu --num_processes 2 examples/jobs/train.py

On several hosts each runs the same command, with their number and the address of one of them; `train.slurm` beside this
file does it on a cluster that Slurm runs:

    torchrun --nnodes 2 --nproc-per-node gpu --rdzv-backend c10d --rdzv-endpoint HOST:29500 examples/jobs/train.py

In a notebook it is `accelerate.notebook_launcher(main, num_processes=2)`. Launchers say by environment variables which
process is which, and `fit` joins them: batches are split, gradients summed, and the first process writes and prints.
"""

from __future__ import annotations

import argparse

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import distributed

from torchfunc import Input, Model, callbacks, layers, losses, utils


def build_model() -> Model:
    """Draw a network for 8 x 8 pixels."""
    inputs = Input(shape=(64,), name="pixels")
    x = layers.Dense(64, activation="relu")(inputs)
    return Model(inputs, layers.Dense(10)(x), name="digits")


def main(epochs: int = 10, backup: str | None = None) -> float:
    """Return the share of unseen digits that are read right.

    Args:
        epochs: how often to go through the data.
        backup: a folder that all hosts see. A job that was killed goes on from there.
    """
    utils.set_random_seed(0)
    images, digits = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(images / 16, digits, test_size=0.2, random_state=0)
    model = build_model()
    model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    kept = [callbacks.BackupAndRestore(backup)] if backup else []
    model.fit(x_train, y_train, batch_size=64, epochs=epochs, callbacks=kept, verbose=2)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    rank, processes = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    if rank == 0:
        print(f"Accuracy on {len(y_test)} unseen digits, trained by {processes} process(es): {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--backup")
    given = parser.parse_args()
    main(given.epochs, given.backup)
