"""The README tells the truth: its code runs, in order, and prints what it says."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]


def comparable(text: str) -> list[str]:
    """The lines, less what differs from run to run: times, and the last digit of what training prints."""
    return [re.sub(r"\d+s - \d+[mu]?s/step", "", re.sub(r"(\d\.\d\d)\d\d", r"\1", line)) for line in text.splitlines()]


def test_python_blocks_run_in_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # the table is as wide as the terminal
    monkeypatch.chdir(tmp_path)
    assert len(PYTHON) == 8
    namespace: dict[str, Any] = {}
    printed = []
    for number, code in enumerate(PYTHON):
        exec(compile(code, f"README block {number + 1}", "exec"), namespace)
        printed.append(capsys.readouterr().out)

    assert namespace["accuracy"] > 0.95
    shown = next(text for language, text in BLOCKS if language == "text")
    start, end = (comparable(part) for part in shown.split("...\n"))
    assert comparable(printed[0])[: len(start) - 1] == start[:-1]  # up to the first epoch
    assert comparable(printed[0])[-1].startswith("Accuracy on digits it has not seen")
    assert end[-1].startswith("Accuracy on digits it has not seen")
    assert "def forward(self, pixels)" in printed[1]
    assert "'dense.weight', 'dense.bias', 'layer_norm.weight'" in printed[1]
    assert printed[2] == "40\n"
    assert printed[3] == "(None, None, 3)\n"
    assert "conv2d" in printed[4]
    assert "(None, 28, 28)" in printed[4]
    assert (tmp_path / "digits.svg").exists()
    assert "layer_norm (LayerNorm)" in printed[5]
    assert printed[6] == "True\nLinear\n"


def test_files_the_readme_names_are_there() -> None:
    root = pathlib.Path(__file__).parent.parent
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    scripts = re.findall(r"bash ([\w/.]+)", README)
    assert links
    assert set(scripts) == {"scripts/demo.sh", "scripts/docs.sh", "scripts/on_card.sh", "scripts/test.sh"}
    assert all((root / path).exists() for path in [*links, *scripts])
    assert {path.name for path in (root / "examples").glob("*.py")} <= {pathlib.Path(link).name for link in links} | {
        "quickstart.py"
    }
