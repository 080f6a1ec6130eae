"""The side that measures: worker processes, and giving each its turn."""

from __future__ import annotations

import json
import os
import pathlib
import select
import statistics
import subprocess
import sys
import tempfile
import time
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
        self.told = time.monotonic()
        print(json.dumps(command), file=self.process.stdin, flush=True)

    def answer(self, limit: float | None = None) -> Any:
        """Wait for the answer. Raises Failed if the process ends instead, or `limit` seconds after it was told."""
        assert self.process.stdout is not None
        left = None if limit is None else max(self.told + limit - time.monotonic(), 0)
        if not select.select([self.process.stdout], [], [], left)[0]:
            self.process.kill()
            self.close()
            raise Failed(f"no answer in {limit:g} s")
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
        limit: the seconds after which a contestant that has not answered is left out; None to wait for ever.
        workers: those that live, by contestant.
        peaks: the peak memory on the GPU, in bytes, of the contestants in the row that was measured last.
    """

    device: str
    threads: int
    rounds: int
    quick: bool
    verbose: bool
    limit: float | None = None
    workers: dict[str, Worker] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)

    def measure(self, row: Row, names: list[str]) -> dict[str, Result]:
        """The result of each of these contestants, in the row's unit."""
        job = asdict(Job(row.work, row.model, row.amount[self.quick], self.device))
        taken, errors = self._fresh(row, names, job) if row.measure != "turns" else self._waves(row, names, job)
        medians = {name: statistics.median(values) * row.scale for name, values in taken.items() if name not in errors}
        return medians | errors

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()

    def _worker(self, name: str, environment: dict[str, str] | None = None) -> Worker:
        return Worker(name, self.device, self.threads, self.verbose, environment or {})

    def _waves(self, row: Row, names: list[str], job: dict[str, Any]) -> tuple[dict[str, list[float]], dict[str, str]]:
        """The turns of all, or of as many at a time as there is memory for."""
        taken: dict[str, list[float]] = {}
        errors: dict[str, str] = {}
        self.peaks.clear()
        size = row.together or len(names)
        for wave in (names[first : first + size] for first in range(0, len(names), size)):
            found, failed = self._turns(wave, job)
            taken |= found
            errors |= failed
            if self.device != "cuda":
                continue
            for name in wave:
                # (What is measured so far is not lost if all of it is stopped.)
                print(f"  {name}: {failed.get(name) or statistics.median(found[name])}", file=sys.stderr, flush=True)
                if name not in failed:
                    self.workers[name].tell("peak")
                    self.peaks[name] = float(self.workers[name].answer())
            if row.together:
                self.close()
        return taken, errors

    def _turns(self, names: list[str], job: dict[str, Any]) -> tuple[dict[str, list[float]], dict[str, str]]:
        """Rounds in which each contestant has one turn, while all others wait."""
        taken: dict[str, list[float]] = {name: [] for name in names}
        errors: dict[str, str] = {}
        for name in names:  # all make ready at the same time: that is not measured
            if name not in self.workers:
                self.workers[name] = self._worker(name)
            self.workers[name].tell("prepare", job)
        for turn in range(-1, self.rounds):
            for name in names:
                if name in errors:
                    continue
                worker = self.workers[name]
                try:
                    if turn < 0:
                        worker.answer(self.limit)
                        continue
                    worker.tell("turn")
                    taken[name].append(worker.answer(self.limit))
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
