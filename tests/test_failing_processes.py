"""What happens if one of several processes that train a model fails: the others end, too, or all start again."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

from torchfunc.saving.states import read_state

pytestmark = pytest.mark.skipif(
    not distributed.is_available() or not hasattr(os, "fork"), reason="there is no torch.distributed, or no fork"
)
PLACES = np.random.default_rng(2).integers(2, 40, 5)


def run(program, *arguments):
    path = str(Path(__file__).with_name(program))
    alone = {**os.environ, "OMP_NUM_THREADS": "1", **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {})}
    done = subprocess.run(
        [sys.executable, path, *map(str, arguments)], capture_output=True, text=True, timeout=900, env=alone
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()


# What the process that fails writes at its end, how it ends, and what the other one writes.
GONE = "another process of this job has ended"
FAILURES = {
    "raises": ("KeyError: 'my own error'", 1, GONE),
    "is interrupted": ("KeyboardInterrupt", -2, GONE),
    "is killed": ("", -9, GONE),
    "leaves": ("", 3, GONE),
    "has another model": ("dense.bias is not there, and (8,) float32 trained in process 0", 1, "dense.bias"),
    "has other rows": ("'36 rows, batches of 8', but process 0 has '40 rows, batches of 8'", 1, "'36 rows"),
    "has bad data": ("got [4] at entry 0 and [3] at entry 1", 1, GONE),
}


def test_nobody_waits_for_a_process_that_fails(tmp_path):
    lines = run("failing_training.py", tmp_path)
    assert len(lines) == len(FAILURES)
    for line in lines:
        kind, first, second = line.split(",")
        error, end, other = FAILURES[kind]
        # (Its own watch ends a process that hangs, by signal 14.)
        assert (int(first), int(second)) == (1, end), line
        assert error in (tmp_path / f"{kind}_1.err").read_text()
        assert other in (tmp_path / f"{kind}_0.err").read_text()


def test_processes_that_are_killed_and_started_again_end_with_the_same_bits(tmp_path):
    run("restarted_training.py", tmp_path, *PLACES)
    for rank in range(3):
        killed, undisturbed = (read_state(tmp_path / name / f"result_{rank}") for name in ("killed", "undisturbed"))
        assert killed["history"] == undisturbed["history"]
        assert undisturbed["history"]["loss"][-1] < undisturbed["history"]["loss"][0]
        for name, weight in undisturbed["weights"].items():
            assert torch.equal(killed["weights"][name], weight), name
        for found, expected in zip(killed["optimizer"], undisturbed["optimizer"], strict=True):
            assert torch.equal(found, expected)
    assert (tmp_path / "killed" / "log.csv").read_text() == (tmp_path / "undisturbed" / "log.csv").read_text()
    # What three processes saved, one goes on with.
    resumed, alone = (read_state(tmp_path / name / "result_0") for name in ("given up", "alone"))
    for name, weight in alone["weights"].items():
        torch.testing.assert_close(resumed["weights"][name], weight, rtol=1e-5, atol=1e-6)
    for name, values in alone["history"].items():
        np.testing.assert_allclose(resumed["history"][name], values, rtol=1e-5, err_msg=name)
