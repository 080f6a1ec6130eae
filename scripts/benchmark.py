"""How long things take beside others that do the same: contestants in turn, medians, ratios, a markdown table.

    python scripts/benchmark.py [--quick] [--threads N]

Run it on a machine that does nothing else. In each round every contestant has one turn, so that whatever else slows
the machine slows them all. Needs the extra `parity` (Keras, here on its torch backend).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchfunc
from torchfunc import Input, Model, layers, losses, optimizers

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras

OURS = "torchfunc"
BATCH = 64
DEPTH = 250


@dataclass
class Work:
    """Something to do, and who does it.

    Attributes:
        name: what is done, and the unit it is counted in.
        scale: units per second.
        contestants: for each name a function that does the work once and returns the seconds one unit took.
    """

    name: str
    scale: float
    contestants: dict[str, Callable[[], float]]


def seconds(function: Callable[[], object], repeats: int = 1) -> float:
    """The time of one call."""
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def fit_mlp(steps: int) -> Work:
    """Training steps of the guide's MLP on data in memory."""
    x = np.random.default_rng(0).random((BATCH * steps, 784), dtype=np.float32)
    y = np.random.default_rng(1).integers(10, size=BATCH * steps)

    inputs = Input((784,))
    hidden = layers.Dense(64, activation="relu")(layers.Dense(64, activation="relu")(inputs))
    model = Model(inputs, layers.Dense(10)(hidden))
    model.compile(optimizers.RMSprop(), losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])

    by_hand = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.RMSprop(by_hand.parameters(), lr=1e-3, alpha=0.9, eps=1e-7)
    criterion = nn.CrossEntropyLoss()
    batches = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=BATCH, shuffle=True)

    def loop() -> None:
        total, right = torch.zeros(()), torch.zeros(())
        for data, target in batches:
            optimizer.zero_grad()
            output = by_hand(data)
            loss = criterion(output, target)
            loss.backward()
            optimizer.step()
            total += loss.detach()
            right += (output.argmax(-1) == target).sum()

    def fit() -> None:
        model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)

    contestants = {OURS: lambda: seconds(fit) / steps, "DataLoader loop by hand": lambda: seconds(loop) / steps}
    return Work(f"MLP fit, eager, a step of {BATCH} [µs]", 1e6, contestants)


class Chain(nn.Module):
    """Linear layers in a row, as one writes them by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Linear(4, 4) for _ in range(DEPTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            x = step(x)
        return x


def forward_chain(repeats: int) -> Work:
    """The forward pass of many small layers, where the time goes into calling them."""
    inputs = outputs = Input((4,))
    for _ in range(DEPTH):
        outputs = layers.Dense(4)(outputs)
    model, by_hand, x = Model(inputs, outputs), Chain(), torch.randn(32, 4)

    def run(module: nn.Module) -> Callable[[], float]:
        def timed() -> float:
            with torch.inference_mode():
                return seconds(lambda: module(x), repeats)

        return timed

    return Work(f"forward of {DEPTH} Dense(4) [µs]", 1e6, {OURS: run(model), "module by hand": run(by_hand)})


def build_chain(depth: int) -> Work:
    """Drawing a deep model."""

    def ours() -> None:
        inputs = outputs = Input((4,))
        for _ in range(depth):
            outputs = layers.Dense(4)(outputs)
        Model(inputs, outputs)

    def theirs() -> None:
        inputs = outputs = keras.Input((4,))
        for _ in range(depth):
            outputs = keras.layers.Dense(4)(outputs)
        keras.Model(inputs, outputs)

    contestants = {OURS: lambda: seconds(ours), "Keras on torch": lambda: seconds(theirs)}
    return Work(f"build of {depth} Dense(4) [ms]", 1e3, contestants)


def import_time() -> Work:
    """What an import costs a process that has torch already."""

    def imported(module: str) -> Callable[[], float]:
        code = f"import time, torch; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
        return lambda: float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)

    contestants = {OURS: imported("torchfunc"), "Keras on torch": imported("keras")}
    return Work("import, torch being there [ms]", 1e3, contestants)


def measure(work: Work, rounds: int) -> dict[str, float]:
    """The median of each contestant, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in work.contestants}
    for turn in range(rounds + 1):
        for name, contestant in work.contestants.items():
            taken = contestant()
            if turn:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def report(works: list[Work], rounds: int) -> list[str]:
    """The table, line by line: ours, theirs, and ours over theirs."""
    lines = ["| work | torchfunc | beside | time | ratio |", "|---|---:|---|---:|---:|"]
    for work in works:
        medians = measure(work, rounds)
        ours = medians.pop(OURS)
        for name, theirs in medians.items():
            cells = (
                work.name,
                f"{ours * work.scale:,.0f}",
                name,
                f"{theirs * work.scale:,.0f}",
                f"{ours / theirs:.2f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def processor() -> str:
    """The processor's name, where the system tells it."""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def machine(rounds: int) -> str:
    """What this was measured on, and with what."""
    versions = f"torchfunc {torchfunc.__version__}, torch {torch.__version__}, Keras {keras.__version__}"
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{versions}, Python {platform.python_version()}; {processor()}, {threads}; medians of {rounds} rounds."


def main(arguments: list[str] | None = None) -> list[str]:
    """Run everything; return the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="less of everything: to see that it works")
    parser.add_argument("--threads", type=int, help="how many threads torch uses; its own choice by default")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    rounds = 3 if options.quick else 7
    works = [
        fit_mlp(steps=20 if options.quick else 300),
        forward_chain(repeats=5 if options.quick else 50),
        build_chain(depth=100 if options.quick else 500),
        import_time(),
    ]
    lines = report(works, rounds)
    print(machine(rounds), "", *lines, sep="\n")
    return lines


if __name__ == "__main__":
    main()
