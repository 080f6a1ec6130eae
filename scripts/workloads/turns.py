"""The side that measures: worker processes, and giving each its turn."""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from typing import Any

from workloads.contestants import CONTESTANTS
from workloads.jobs import Job
from workloads.rows import Row

__all__ = ["Contest", "Result"]

SCRIPTS = pathlib.Path(__file__).parent.parent

# The median of a contestant's turns, or why there is none.
Result = float | str


class Failed(Exception):
    """A worker that ended, with its last words."""


class Worker:
    """The process of one contestant."""

    def __init__(self, name: str, device: str, threads: int, verbose: bool, environment: dict[str, str]) -> None:
        # The scripts' folder beside what the path has already, that the project may be one that is not installed.
        path = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        settings = {
            "PYTHONPATH": path,
        }
        if device == "cpu":
            settings |= {"TORCHINDUCTOR_COMPILE_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        if threads:
            settings |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workloads.worker", name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if verbose else subprocess.DEVNULL,
            text=True,
            env=os.environ | settings | CONTESTANTS[name].environment | environment,
        )

    def tell(self, *command: Any) -> None:
        """Send a command, without waiting for the answer."""
        assert self.process.stdin is not None
        print(json.dumps(command), file=self.process.stdin, flush=True)

    def answer(self) -> Any:
        """Wait for the answer. Raises Failed if the process ends instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"ended with code {self.process.wait()}"}
        if "error" in answer:
            self.close()
            raise Failed(answer["error"])
        return answer["value"]

    def close(self) -> None:
        """End the process: it finds no more commands."""
        self.process.communicate()


@dataclass
class Contest:
    """Rows measured one after the other, by workers that live on from row to row.

    Attributes:
        device: "cpu" or "cuda".
        threads: how many each contestant may use; 0 leaves it to them.
        rounds: turns of each contestant that count.
        quick: whether rows do less.
        verbose: whether what the workers print is shown.
        workers: those that live, by contestant.
    """

    device: str
    threads: int
    rounds: int
    quick: bool
    verbose: bool
    workers: dict[str, Worker] = field(default_factory=dict)

    def measure(self, row: Row, names: list[str]) -> dict[str, Result]:
        """The result of each of these contestants, in the row's unit."""
        job = asdict(Job(row.work, row.model, row.amount[self.quick], self.device))
        taken, errors = self._fresh(row, names, job) if row.measure != "turns" else self._turns(names, job)
        medians = {name: statistics.median(values) * row.scale for name, values in taken.items() if name not in errors}
        return medians | errors

    def peaks(self, names: list[str]) -> dict[str, float]:
        """The peak memory on the GPU, in bytes, of each of these contestants in the row that was measured last."""
        found = {}
        for name in names:
            if name in self.workers:
                self.workers[name].tell("peak")
                found[name] = float(self.workers[name].answer())
        return found

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()

    def _worker(self, name: str, environment: dict[str, str] | None = None) -> Worker:
        return Worker(name, self.device, self.threads, self.verbose, environment or {})

    def _turns(self, names: list[str], job: dict[str, Any]) -> tuple[dict[str, list[float]], dict[str, str]]:
        """Rounds in which each contestant has one turn, while all others wait."""
        taken: dict[str, list[float]] = {name: [] for name in names}
        errors: dict[str, str] = {}
        for name in names:  # all make ready at the same time: that is not measured
            self.workers.setdefault(name, self._worker(name)).tell("prepare", job)
        for turn in range(-1, self.rounds):
            for name in names:
                if name in errors:
                    continue
                worker = self.workers[name]
                try:
                    if turn < 0:
                        worker.answer()
                        continue
                    worker.tell("turn")
                    taken[name].append(worker.answer())
                except Failed as failed:
                    errors[name] = str(failed)
                    del self.workers[name]
        return taken, errors

    def _fresh(self, row: Row, names: list[str], job: dict[str, Any]) -> tuple[dict[str, list[float]], dict[str, str]]:
        """Rounds of processes that live for one measurement: a round that only fills caches, then those that count.

        Under `quick` there is one round, with whatever the caches hold.
        """
        taken: dict[str, list[float]] = {name: [] for name in names}
        errors: dict[str, str] = {}
        with tempfile.TemporaryDirectory() as folder:
            for turn in range(1, 2) if self.quick else range(self.rounds + 1):
                for name in names:
                    if name in errors:
                        continue
                    cache = f"{folder}/{turn}-{names.index(name)}" if row.cold else folder
                    worker = self._worker(name, {"TORCHINDUCTOR_CACHE_DIR": cache})
                    worker.tell("once", row.measure, job)
                    try:
                        value = worker.answer()
                    except Failed as failed:
                        errors[name] = str(failed)
                        continue
                    worker.close()
                    if turn:
                        taken[name].append(value)
        return taken, errors
