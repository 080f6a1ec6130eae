"""The process of one contestant, `python -m workloads.worker CONTESTANT THREADS`: reads commands, a line each; answers.

    ["prepare", JOB]         make ready for a job and do it once; answers null
    ["turn"]                 do it; answers what a unit took
    ["peak"]                 answers the bytes of the GPU's memory that were in use at once, at most, since it was ready
    ["once", MEASURE, JOB]   for a process of its own: "import", "first step" or "memory"; answers it

Answers are JSON, `{"value": ...}`, or `{"error": "RecursionError: ..."}` as the last words of the process.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from workloads.contestants import CONTESTANTS, Contestant
from workloads.jobs import Job, Turn, seconds


def main(name: str, threads: int) -> None:
    """Answer commands until there are no more."""
    answers = _own_output()

    def last_words(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        traceback.print_exception(kind, error, where, limit=20)
        _answer(answers, error=f"{kind.__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:100])

    sys.excepthook = last_words
    if threads:
        # Beside what the environment tells OpenMP: jax counts the cores it may run on.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    contestant, turn = CONTESTANTS[name], None
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        value = None
        if command == "once":
            value = _once(contestant, *arguments)
        elif command == "peak":
            value = sys.modules["torch"].cuda.max_memory_allocated()
        elif command == "turn":
            assert turn is not None
            value = turn()
        else:
            turn = None
            _forget()
            job = Job(**arguments[0])
            turn = _prepare(contestant, job)
            turn()
            if job.device == "cuda" and "torch" in sys.modules:
                sys.modules["torch"].cuda.reset_peak_memory_stats()
        _answer(answers, value=value)


def _own_output() -> TextIO:
    """Where answers go: what was the standard output, which from now on is the error output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _answer(answers: TextIO, **what: Any) -> None:
    print(json.dumps(what), file=answers, flush=True)


def _prepare(contestant: Contestant, job: Job) -> Turn:
    return importlib.import_module(f"workloads.{contestant.family}").prepare(job, **contestant.options)


def _forget() -> None:
    """Let go of the job before: its memory, and what torch.compile knows."""
    gc.collect()
    if "torch" in sys.modules:
        sys.modules["torch"].compiler.reset()


# Of fresh processes --------------------------------------------------------------------------------------------------


def _once(contestant: Contestant, measure: str, job: dict[str, Any]) -> float:
    importlib.import_module("torch")
    taken = seconds(lambda: importlib.import_module(contestant.packages[0]))
    if measure == "import":
        return taken
    importlib.import_module(f"workloads.{contestant.family}")

    if measure == "first step":
        return seconds(lambda: _prepare(contestant, Job(**job))())
    _prepare(
        contestant, Job("fit", "empty", 1, job["device"])
    )()  # torch imports half of itself with the first optimizer
    return _peak(lambda: _prepare(contestant, Job(**job))(), job["device"])


def _peak(work: Callable[[], object], device: str) -> float:
    """Bytes that were in use at once, at most, beyond those in use before: data, model and training."""
    gc.collect()
    if device == "cuda":
        sys.modules["torch"].cuda.reset_peak_memory_stats()
        work()
        return float(sys.modules["torch"].cuda.max_memory_allocated())
    before = _resident("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as reset:
        reset.write("5")  # the peak starts anew
    work()
    return _resident("VmHWM") - before


def _resident(which: str) -> float:
    """What Linux says of this process' memory, in bytes."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        found = re.search(rf"{which}:\s+(\d+) kB", status.read())
    assert found is not None
    return float(found[1]) * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
