"""Small calls in loops, as one makes them in serving and reinforcement learning: three Dense layers, one row."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from workloads.jobs import Job, Turn

__all__ = ["SMALL_CALLS", "by_hand", "drawn"]

FEATURES, UNITS, OUTPUTS = 8, 32, 4
X = np.random.default_rng(0).random((1, FEATURES), dtype=np.float32)
Y = np.random.default_rng(1).random((1, OUTPUTS), dtype=np.float32)

SMALL_CALLS = ("call", "call in eval mode", "predict_on_batch", "predict one row", "train_on_batch")


def drawn(job: Job, package: ModuleType) -> Turn:
    """The calls of a model of torchfunc or Keras."""
    inputs = package.Input(shape=(FEATURES,))
    x = package.layers.Dense(UNITS, activation="relu")(inputs)
    x = package.layers.Dense(UNITS, activation="relu")(x)
    model = package.Model(inputs, package.layers.Dense(OUTPUTS)(x))
    model.compile(package.optimizers.Adam(), package.losses.MeanSquaredError())
    tensor = torch.from_numpy(X).to(job.device)
    calls: dict[str, Callable[[], Any]] = {
        "call": lambda: model(tensor),
        "call in eval mode": lambda: model(tensor, training=False),
        "predict_on_batch": lambda: model.predict_on_batch(X),
        "predict one row": lambda: model.predict(X, verbose=0),
        "train_on_batch": lambda: model.train_on_batch(X, Y),
    }
    return _repeated(job, calls[job.work])


def by_hand(job: Job) -> Turn:
    """The same with a module and a loop by hand: arrays in, arrays or a number out."""
    layers = [nn.Linear(FEATURES, UNITS), nn.ReLU(), nn.Linear(UNITS, UNITS), nn.ReLU(), nn.Linear(UNITS, OUTPUTS)]
    module = nn.Sequential(*layers).to(job.device)
    optimizer = torch.optim.Adam(module.parameters())
    tensor = torch.from_numpy(X).to(job.device)
    if job.work != "train_on_batch":
        module.eval()

    def predict() -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(X).to(job.device)).cpu().numpy()

    def train() -> float:
        optimizer.zero_grad()
        loss = F.mse_loss(module(torch.from_numpy(X).to(job.device)), torch.from_numpy(Y).to(job.device))
        loss.backward()
        optimizer.step()
        return loss.item()

    calls: dict[str, Callable[[], Any]] = {"predict_on_batch": predict, "predict one row": predict}
    return _repeated(job, train if job.work == "train_on_batch" else calls.get(job.work, lambda: module(tensor)))


def _repeated(job: Job, call: Callable[[], Any]) -> Turn:
    def turn() -> float:
        start = time.perf_counter()
        for _ in range(job.amount):
            call()
        return (time.perf_counter() - start) / job.amount

    return turn
