"""Tables of many columns, and an embedding of a million rows: where a step's cost is that of its data."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from workloads.jobs import Job, Turn, seconds

__all__ = ["TABLES", "by_hand", "drawn"]

BATCHES = {"columns": 64, "frame": 64, "embedding": 256}
WORDS, WIDTH, UNITS = 1_000_000, 32, 64

# What a model is called in a `Job`: "columns-200" is a dict of so many columns, "frame-200" one of pandas.
TABLES = ("columns-200", "columns-1000", "frame-200", "embedding-0")


def _data(job: Job) -> tuple[Any, np.ndarray, int]:
    """Inputs, targets, and rows a batch."""
    kind, _, count = job.model.partition("-")
    batch = BATCHES[kind]
    rows, random = batch * job.amount, np.random.default_rng(0)
    target = random.random((rows, 1), dtype=np.float32)
    if kind == "embedding":
        return random.integers(WORDS, size=(rows, 1)), target, batch
    return {f"c{i}": random.random((rows, 1), dtype=np.float32) for i in range(int(count))}, target, batch


def drawn(job: Job, package: ModuleType, **compile_arguments: Any) -> Turn:
    """A step of `fit` of torchfunc or Keras."""
    x, y, batch = _data(job)
    if isinstance(x, dict):
        inputs: Any = [package.Input(shape=(1,), name=name) for name in x]
        hidden = package.layers.concatenate(inputs)
    else:
        inputs = package.Input(shape=(1,), dtype="int64")
        sparse = {"sparse_gradient": True} if package.__name__ == "torchfunc" else {}
        hidden = package.layers.Flatten()(package.layers.Embedding(WORDS, WIDTH, **sparse)(inputs))
    hidden = package.layers.Dense(UNITS, activation="relu")(hidden)
    model = package.Model(inputs, package.layers.Dense(1)(hidden))
    model.compile(package.optimizers.Adam(), package.losses.MeanSquaredError(), **compile_arguments)
    if job.model.startswith("frame"):
        import pandas  # not needed otherwise

        x = pandas.DataFrame({name: column[:, 0] for name, column in x.items()})
    return lambda: seconds(lambda: model.fit(x, y, batch_size=batch, epochs=1, verbose=0)) / job.amount


def by_hand(job: Job) -> Turn:
    """A step of a loop that indexes tensors; an embedding has sparse gradients and `SparseAdam`."""
    x, y, batch = _data(job)
    target = torch.from_numpy(y).to(job.device)
    columns = (
        {name: torch.from_numpy(column).to(job.device) for name, column in x.items()} if isinstance(x, dict) else {}
    )
    ids = torch.empty(0) if columns else torch.from_numpy(x).to(job.device)
    head = nn.Sequential(nn.Linear(len(columns) or WIDTH, UNITS), nn.ReLU(), nn.Linear(UNITS, 1)).to(job.device)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(head.parameters())]
    if not columns:
        table = nn.Embedding(WORDS, WIDTH, sparse=True).to(job.device)
        optimizers.append(torch.optim.SparseAdam(table.parameters()))

    def epoch() -> None:
        for picked in torch.randperm(len(target)).split(batch):
            for optimizer in optimizers:
                optimizer.zero_grad()
            if columns:
                features = torch.cat(list({name: column[picked] for name, column in columns.items()}.values()), 1)
            else:
                features = table(ids[picked]).flatten(1)
            F.mse_loss(head(features), target[picked]).backward()
            for optimizer in optimizers:
                optimizer.step()

    return lambda: seconds(epoch) / job.amount
