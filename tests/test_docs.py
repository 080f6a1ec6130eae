"""`scripts/docs.py` builds the reference: pages that show signatures and examples, and ask for nothing of a network."""

from __future__ import annotations

import importlib
import re
import warnings
from pathlib import Path

import pytest

pytest.importorskip("pdoc")

ROOT = Path(__file__).parents[1]
MODULES = ("torchfunc.datasets.mnist", "torchfunc.models", "torchfunc.schedules")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.syspath_prepend(str(ROOT / "scripts"))
        importlib.import_module("docs").build(folder, MODULES)
    return folder


def text(page: Path) -> str:
    return re.sub(r"<[^>]*>", "", page.read_text(encoding="utf-8"))


def test_a_module_has_a_page_with_signatures_and_examples(folder):
    page = text(folder / "torchfunc" / "schedules.html")
    assert "initial_learning_rate: float" in page
    assert "end_learning_rate: float = 0.0001" in page
    assert "&gt;&gt;&gt; schedule = schedules.PolynomialDecay(1.0" in page


def test_a_model_shows_what_it_has_from_its_bases(folder):
    page = (folder / "torchfunc" / "models.html").read_text(encoding="utf-8")
    assert all(f'id="Model.{method}"' in page for method in ("fit", "get_weights", "rewire", "save"))
    assert "validation_split: float = 0.0" in text(folder / "torchfunc" / "models.html")


def test_texts_and_notebooks_lead_to_what_is_there(folder):
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert 'href="torchfunc/datasets/mnist.html"' in index
    assert 'href="examples/notebooks/1-draw.html"' in index
    broken = []
    for page in [folder / "index.html", *(folder / "examples").rglob("*.html")]:
        links = re.findall(r'(?:href|src)="([^"#]+)', page.read_text(encoding="utf-8"))
        broken += [link for link in links if ":" not in link and not (page.parent / link).exists()]
    assert broken == []


def test_notebooks_show_their_pictures(folder):
    page = (folder / "examples" / "notebooks" / "1-draw.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert 'class="output"><pre>&lt;SymbolicTensor' in page


def test_pages_ask_for_nothing_elsewhere(folder):
    pages = list(folder.rglob("*.html"))
    asked = [re.findall(r'(?:src|<link[^>]*href)="(https?:[^"]*)', page.read_text(encoding="utf-8")) for page in pages]
    assert len(pages) > len(MODULES)
    assert not any(asked)
