"""The examples that hand the work to an engine: launched by it, they train as one process does."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from test_examples import load
from torch import distributed

JOBS = Path(__file__).parents[1] / "examples" / "jobs"
ROOT = JOBS.parents[1]
LOCAL = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}

together = pytest.mark.skipif(
    not distributed.is_available() or not hasattr(os, "fork"), reason="there is no torch.distributed, or no fork"
)


def epochs(printed: str) -> list[float]:
    """The losses that `fit` has printed."""
    return [float(each) for each in re.findall(r" loss: (\d+\.\d+)", printed)]


@pytest.fixture(name="alone")
def fixture_alone(capsys: pytest.CaptureFixture[str]) -> list[float]:
    """The losses of two epochs in this process."""
    load("train", JOBS).main(epochs=2)
    found = epochs(capsys.readouterr().out)
    assert len(found) == 2
    assert found[1] < found[0]
    return found


def launch(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        env={**os.environ, **LOCAL, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@together
@pytest.mark.slow  # It starts a process that imports torch and accelerate.
def test_accelerate_launches_fit(alone: list[float]) -> None:
    pytest.importorskip("accelerate")
    program = "import sys, accelerate, train; accelerate.debug_launcher(train.main, (2,), num_processes=2)"
    printed = launch([sys.executable, "-c", program], PYTHONPATH=os.pathsep.join((str(ROOT), str(JOBS))))
    assert epochs(printed) == pytest.approx(alone, rel=1e-3)  # (The first process prints, and no other.)
    assert printed.count("trained by 2 process(es)") == 1


@together
@pytest.mark.slow  # It starts torchrun, and that a worker.
def test_slurm_script(alone: list[float], tmp_path: Path) -> None:
    """Run by bash, with stand-ins for what Slurm has, on one host."""
    stand_ins = {
        "scontrol": 'echo "localhost"',
        "srun": 'exec "$@"',
        "torchrun": f'exec "{sys.executable}" -m torch.distributed.run "$@"',
    }
    for name, line in stand_ins.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    slurm = {"SLURM_JOB_NODELIST": "localhost", "SLURM_NNODES": "1", "SLURM_JOB_ID": "7"}
    here = {"SLURM_SUBMIT_DIR": str(tmp_path), "PROCESSES": "1", "PORT": "0"}
    path = os.pathsep.join((str(tmp_path), os.environ["PATH"]))
    printed = launch(["bash", str(JOBS / "train.slurm"), "--epochs", "2"], PATH=path, **slurm, **here)
    assert epochs(printed) == pytest.approx(alone, rel=1e-3)
    assert "trained by 1 process(es)" in printed


def test_optuna_ends_what_does_not_promise_well(capsys: pytest.CaptureFixture[str]) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, accuracy = load("optuna_search", JOBS).main(trials=8, epochs=3)
    states = [trial.state for trial in study.trials]
    assert set(states) == {optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED}
    assert study.best_value == max(trial.value for trial in study.trials if trial.value is not None)
    assert all(len(trial.intermediate_values) in (2, 3) for trial in study.trials)
    assert accuracy > 0.9
    assert "of unseen digits right" in capsys.readouterr().out
