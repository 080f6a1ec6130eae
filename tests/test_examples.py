"""Every example runs, at a small size; the first one as large as it is, for what it promises. So does the benchmark."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def load(name: str, folder: pathlib.Path = EXAMPLES) -> ModuleType:
    """The script as a module, without running it."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def falls(values: list[float]) -> bool:
    return values[-1] < values[0]


# The arguments of each main(), what must be true of its result, and words it prints.
RUNS: dict[str, tuple[dict[str, int], Callable[[Any], bool], str]] = {
    "quickstart": ({}, lambda accuracy: accuracy > 0.95, "Accuracy on 360 unseen digits: 9"),
    "multi_input_output": (
        {"count": 320, "epochs": 2},
        lambda logs: logs["val_department_accuracy"] > 0.9 and logs["val_loss"] < 1,
        "Unseen tickets sent to the right department",
    ),
    "shared_layers": ({"count": 2000, "epochs": 3}, lambda accuracy: accuracy > 0.65, "image_a and image_b"),
    "toy_resnet": ({"count": 64, "epochs": 2}, lambda history: falls(history["loss"]), "223,242"),
    "autoencoder": ({"count": 96, "epochs": 2}, falls, "28,241"),
    "callbacks": ({}, lambda found: found[0] > 0.93 and falls(found[1]), "early stopping"),
    "custom_training": ({"epochs": 15}, lambda shares: all(0.75 < share < 0.97 for share in shares), "90 % quantile"),
    "mixed_data": ({"epochs": 8}, lambda accuracy: accuracy > 0.9, "Growers found of 45 unseen wines"),
    "transfer_learning": ({"epochs": 6}, lambda found: found[2] > found[0] and found[2] > 0.6, "on frozen features"),
    "torch_modules": ({"epochs": 3}, lambda accuracy: accuracy > 0.8, "self.multihead_attention"),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_example_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, as_promised, words = RUNS[name]
    assert as_promised(load(name).main(**arguments))
    assert words in capsys.readouterr().out


def test_counts_the_guides_print() -> None:
    encoder, decoder, autoencoder = load("autoencoder").build_models()
    assert [model.count_params() for model in (encoder, decoder, autoencoder)] == [18_672, 9_569, 28_241]
    assert load("toy_resnet").build_model().count_params() == 223_242


@pytest.mark.slow
def test_benchmark_measures_in_turns_and_prints_ratios(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    benchmark = load("benchmark", ROOT / "scripts")
    benchmark.main(["--quick", "--only", "empty", "--no-compile", "--rounds", "2", "--threads", "1"])
    machine, blank, header, rule, line = capsys.readouterr().out.splitlines()[-5:]
    assert re.search(r"torch \d.* cores, 1 threads; medians of 2 rounds\.$", machine)
    assert blank == ""
    assert header.count("|") == rule.count("|") == line.count("|") == 7
    work, against, ours, theirs, ratio, asked = (cell.strip() for cell in line.strip("|").split("|"))
    assert (work, against, asked) == ("fit of one Dense(1), a step of 64 [µs]", "indexing loop by hand", "1.00")
    ours, theirs = (float(cell.replace(",", "")) for cell in (ours, theirs))
    assert float(ratio) == pytest.approx(ours / theirs, abs=0.02, rel=0.02)
