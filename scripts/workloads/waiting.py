"""What a person waits for in a training: the second step, the longest pause, and the end; each run a fresh process."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torchfunc
from workloads.data import BATCH, bare, make_data
from workloads.drawn import DRAWN

__all__ = ["waiting_table"]

MODELS = ("mlp", "ticket", "resnet", "vgg", "encoder", "siamese")
# How long the trainings take eagerly, in seconds.
LENGTHS = {"mlp": (1, 10, 60, 300)}
LENGTH, QUICK_LENGTH = (60,), (5,)
# The value of jit_compile, and the folder for the compiler's caches: the second to use one finds it full.
WAYS = {
    "eager": ("false", "unused"),
    "compiled, caches empty": ("true", "one"),
    "compiled, caches full": ("true", "one"),
    "auto, caches empty": ("auto", "other"),
}
# Batches of data, over which a training goes again and again.
BATCHES = 100
HEADER = "| model | | steps | 2nd step [s] | longest pause [s] | all steps [s] | of eager | first in a graph |"


def waiting_table(quick: bool, threads: int) -> Iterator[str]:
    """The lines of a table: every model, trained in every way for as many steps as take so long eagerly."""
    yield HEADER
    yield "|---|---|" + "---:|" * 6
    for model in MODELS[:1] if quick else MODELS:
        for length in QUICK_LENGTH if quick else LENGTHS.get(model, LENGTH):
            eager = None
            with tempfile.TemporaryDirectory() as caches:
                for way, (jit, folder) in WAYS.items():
                    amount = length if eager is None else eager["steps"]
                    found = _in_a_process(model, jit, amount, threads, os.path.join(caches, folder))
                    eager = eager or found
                    yield _line(model, way, found, eager)


def _line(model: str, way: str, found: dict[str, Any], eager: dict[str, Any]) -> str:
    cells = (model, way, f"{found['steps']:,}", *(f"{found[name]:.3g}" for name in ("second", "longest", "all")))
    return f"| {' | '.join(cells)} | {found['all'] / eager['all']:.2f} | {found['graph'] or '-'} |"


def _in_a_process(model: str, jit: str, amount: float, threads: int, caches: str) -> dict[str, Any]:
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": caches}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    ran = subprocess.run(
        [sys.executable, "-m", "workloads.waiting", model, jit, str(amount)],
        stdout=subprocess.PIPE,
        cwd=pathlib.Path(__file__).parents[1],
        env=environment,
        check=True,
    )
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def _train(name: str, jit: str, amount: str) -> dict[str, Any]:
    """Train for so many seconds if it is done eagerly, else for so many steps."""
    ends: list[float] = []
    graph: list[int] = []

    class Notes(torchfunc.callbacks.Callback):
        """Notes when each step ends, and the first one that ran in a graph."""

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            ends.append(time.perf_counter())
            if not graph and any(step.graphs for step in settings.graphs.get("train_step", {}).values()):
                graph.append(len(ends))
            self.model.stop_training = is_long_enough()

    def is_long_enough() -> bool:
        return ends[-1] - begin >= float(amount) if jit == "false" else len(ends) >= int(amount)

    drawn = DRAWN[name]
    model = drawn.draw(torchfunc)
    model.compile(**drawn.settings(torchfunc), jit_compile={"true": True, "false": False}.get(jit, jit))
    x, y = map(bare, make_data(name, BATCH[name] * BATCHES))
    # (`auto` has to know how many steps there will be.)
    epochs = 1_000_000 if jit == "false" else -(-int(amount) // BATCHES)
    settings = model.require_settings("fit")
    begin = time.perf_counter()
    model.fit(x, y, batch_size=BATCH[name], epochs=epochs, verbose=0, callbacks=[Notes()])
    pauses = [after - before for before, after in itertools.pairwise(ends)]
    return {
        "steps": len(ends),
        "second": ends[1] - begin,
        "longest": max(pauses),
        "all": ends[-1] - begin,
        "graph": graph[0] if graph else None,
    }


if __name__ == "__main__":
    print(json.dumps(_train(*sys.argv[1:])))
