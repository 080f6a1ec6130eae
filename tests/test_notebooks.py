"""The notebooks run from top to bottom, and show what they are committed with."""

from __future__ import annotations

import pathlib
import re

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))


def shown(notebook) -> list[list[tuple[str, ...]]]:
    """What each cell shows: the kinds of it and, where it is not a number or a picture, the text."""
    cells = []
    for cell in notebook.cells:
        outputs = [each for each in cell.get("outputs", []) if each.get("name") != "stderr"]
        cells.append([_summary(each) for each in outputs])
    return cells


def _summary(output) -> tuple[str, ...]:
    if output.output_type == "stream":
        return "text", _without_numbers(output.text)
    kinds = tuple(sorted(output.data))
    return (*kinds, "" if "image/png" in kinds else _without_numbers(output.data.get("text/plain", "")))


def _without_numbers(text: str) -> str:
    """Times and losses differ from machine to machine, and torch 2.11 shows no biases of normalizations."""
    return re.sub(r"[\d.,]+|\s+|-+", " ", text.replace("affine=True, bias=True", "affine=True"))


def test_there_are_three():
    assert [path.name for path in NOTEBOOKS] == ["1-draw.ipynb", "2-train.ipynb", "3-torch.ipynb"]


# Each starts a kernel, which imports torch: 5 s and more.
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_did(path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    committed = shown(notebook)
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    assert shown(notebook) == committed
