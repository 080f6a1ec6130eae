"""Trainings with sharded weights: what some processes saved, others resume; what one holds (sharded_training.py)."""

import os
import re
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


def trained(folder):
    """Where all the trainings have written, and what was saved after each stage."""
    program = [sys.executable, str(Path(__file__).with_name("sharded_training.py")), str(folder)]
    local = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    done = subprocess.run(
        program, capture_output=True, text=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1", **local}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()


def assert_weights_alike(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, **tolerance)


def assert_resumed(folder, optimizer):
    """Through all stages, the training was one."""
    found, expected = (read_state(path / f"{optimizer} result") for path in (folder, folder / "alone"))
    assert_weights_alike(found["weights"], expected["weights"], rtol=1e-5, atol=1e-6)
    for name, values in expected["history"].items():
        np.testing.assert_allclose(found["history"][name], values, rtol=1e-5, err_msg=name)
    assert expected["history"]["loss"][-1] < expected["history"]["loss"][0]


def assert_shards(folder):
    """Half the memory; in low precision the losses of one process; files by hand."""
    whole, whole_config = read_state(folder / "others whole 0"), read_state(folder / "whole config")
    for rank in range(2):
        found = read_state(folder / f"others sharded {rank}")
        assert found["bytes"] <= 0.6 * whole["bytes"]
        # (Of 8 bits, which one process rounds in other places.)
        np.testing.assert_allclose(found["low"]["history"]["loss"], whole["low"]["history"]["loss"], rtol=2e-3)
        assert_weights_alike(found["low"]["weights"], whole["low"]["weights"], rtol=0, atol=0.05)
        assert found["config"] == whole_config
        assert "strategy=None lets each work for itself" in found["alone"]
        assert_weights_alike(found["loaded"], read_state(folder / "whole weights"), rtol=0, atol=0)
    assert_weights_alike(read_state(folder / "sharded weights"), found["saved"], rtol=0, atol=0)


def assert_damages_are_seen(found):
    """A folder that is not whole is never taken for one; the one before is taken in its place."""
    assert found.pop("half written") == [(0,)]
    (steps,), with_one_before = found.pop("nothing")
    assert with_one_before == (steps,)
    assert steps > 0
    for name, ((none, error), (resumed, warning)) in found.items():
        assert none is None, name
        assert re.search(r"latest\.dcp is damaged.* Delete the folder", error), name
        assert resumed == steps, name
        assert re.search(r"latest\.dcp is damaged.* goes on from the save before it.*previous\.dcp", warning), name


def test_sharded_trainings(tmp_path):
    # (One test, since the processes are started once.)
    files = [line.rpartition(", ")[2] for line in trained(tmp_path)]
    file, folder = "latest.safetensors", "latest.dcp"
    assert files == [folder, file, folder, file, folder, file, file, "None", "None"]
    for optimizer in ("ours", "torch's"):
        assert_resumed(tmp_path, optimizer)
    assert_shards(tmp_path)
    assert_damages_are_seen(read_state(tmp_path / "damaged"))
