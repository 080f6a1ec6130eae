"""Several processes that train one model together equal one process with the same batches (shared_training.py)."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

from torchfunc.models import load_model
from torchfunc.saving.checkpoint_folders import read_checkpoint
from torchfunc.saving.states import read_state
from torchfunc.saving.tensor_files import read_tensors

pytestmark = pytest.mark.skipif(
    not distributed.is_available() or not hasattr(os, "fork"), reason="there is no torch.distributed, or no fork"
)


LOCAL = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}


def results(folder):
    """What each process has found, by the number of processes."""
    program = [sys.executable, str(Path(__file__).with_name("shared_training.py")), str(folder), "1", "2", "4"]
    done = subprocess.run(
        program, capture_output=True, text=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1", **LOCAL}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {
        size: [torch.load(folder / f"{size}_{rank}.pt", weights_only=False) for rank in range(size)]
        for size in (1, 2, 4)
    }


def assert_alike(found, expected, where):
    """Equal but for the rounding of sums in another order."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name, value in expected.items():
            assert_alike(found[name], value, f"{where} {name}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for index, value in enumerate(expected):
            assert_alike(found[index], value, f"{where} {index}")
    elif expected is None:
        assert found is None, where
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=where)


def assert_bits_alike(first, other):
    """Else processes would drift apart, and take different decisions."""
    for scenario in ("mlp", "sequences", "few_rows"):
        assert first[scenario]["history"] == other[scenario]["history"]
        for name, weight in first[scenario]["weights"].items():
            assert np.array_equal(weight, other[scenario]["weights"][name]), f"{scenario} {name}"


def assert_files_alike(folder):
    """What two processes with a shard of each weight have written is what one has."""
    for ending in ("torchfunc", "keras"):
        alone, sharded = (load_model(folder / f"model_{size}.{ending}") for size in (1, 2))
        assert_alike(sharded.get_weights(), alone.get_weights(), ending)
        assert type(sharded.layers[1]) is type(alone.layers[1])
        assert len(alone.optimizer.variables) == 10
        assert_alike(sharded.optimizer.variables, alone.optimizer.variables, f"{ending}, optimizer")
    for name in ("ours", "torch's"):
        alone, sharded = (read_tensors(folder / f"{name}_{size}.safetensors")[0] for size in (1, 2))
        assert_alike(dict(sharded), dict(alone), name)
    alone = read_state(folder / "backup_1" / "latest.safetensors")
    sharded = read_checkpoint(folder / "backup_2" / "latest.dcp", {}, None)
    assert_alike(sharded["weights"], alone["weights"], "backup")
    assert_alike(sharded["optimizer"], alone["optimizer"], "backup, optimizer")


def test_several_processes_equal_one(tmp_path):
    # (One test, since the processes are started once.)
    found = results(tmp_path)
    (alone,) = found[1]
    for size in (2, 4):
        for rank, scenarios in enumerate(found[size]):
            assert_bits_alike(found[size][0], scenarios)
            for name, result in scenarios.items():
                assert_alike(result, alone[name], f"{name}, process {rank} of {size}:")
    assert len(found[2][1]) == len(alone)
    assert_files_alike(tmp_path)
    # What would make the comparison an empty one.
    assert 2 < len(alone["mlp"]["history"]["loss"]) < 6, "stopped early, not at once"
    assert len(set(alone["mlp"]["history"]["learning_rate"])) > 1
    assert alone["stopped"]["steps"] == 5
    assert alone["compiled"]["graphs"] == [1]
