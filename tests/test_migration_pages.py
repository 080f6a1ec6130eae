"""Both blocks of each pair on the pages for those who come from elsewhere run, and print the same."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
from sklearn.datasets import load_digits

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
NUMBER = r"\d+\.\d+"


def run(code: str, label: str, namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    exec(compile(code, label, "exec"), namespace)
    return capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("page", ["from_keras", "from_a_loop"])
def test_pairs_print_the_same(
    page: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.chdir(tmp_path)
    data = load_digits()
    images = (data.images[:1280] / 16).astype("float32")
    images = images.reshape(-1, 64) if page == "from_keras" else images[:, None]
    text = (EXAMPLES / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == {"from_keras": 14, "from_a_loop": 14}[page]
    theirs: dict[str, Any] = {"__name__": "page", "images": images, "digits": data.target[:1280]}
    ours: dict[str, Any] = {}
    for pair, (before, after) in enumerate(zip(blocks[::2], blocks[1::2], strict=True), 1):
        expected = run(before, f"{page}, pair {pair}", theirs, capsys)
        ours = {**theirs, **ours}  # what the first block made can be used in the second
        found = run(after, f"{page}, pair {pair}", ours, capsys)
        assert expected
        assert re.sub(NUMBER, "_", found) == re.sub(NUMBER, "_", expected), f"pair {pair}"
        numbers = [[float(number) for number in re.findall(NUMBER, printed)] for printed in (found, expected)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.011), f"pair {pair}"


@pytest.mark.parametrize("page", ["from_keras", "from_a_loop"])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)]+)\)", (EXAMPLES / f"{page}.md").read_text(encoding="utf-8"))
    assert links
    assert all((EXAMPLES / link).exists() for link in links)
