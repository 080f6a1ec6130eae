"""Random graphs beside Keras: a sample of what `scripts/fuzz_graphs.py` goes through."""

import importlib
from pathlib import Path

import pytest

FIRST = 10_000
TENS = range(10)


@pytest.fixture(scope="module")
def fuzzer():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
        yield importlib.import_module("fuzz_graphs")


# (As many as are drawn and trained in the time of two: what is rare is found by numbers only.)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tens", [pytest.param(tens, marks=[pytest.mark.slow] if tens else []) for tens in TENS])
def test_graphs_beside_keras(fuzzer, tens):
    for number in range(FIRST + 10 * tens, FIRST + 10 * (tens + 1)):
        fuzzer.check_graph(number)
