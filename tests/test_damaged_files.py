"""Files that are damaged or written with intent: each is read right, or refused with the library's own error."""

import importlib.util
import mmap
import random
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz_files.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz_files", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.slow  # 300 files are read, and models made of some.
def test_300_cases(fuzz):
    bad = [f"case {number}: {outcome}" for number, outcome in fuzz.run_cases(0, 300, seed=1) if not outcome.is_good]
    assert bad == []


def test_what_the_cases_would_notice(fuzz, tmp_path, monkeypatch):
    """A reader that is wrong in each of the ways."""

    def judge(read, expected=1, changed=lambda: False):
        kind = fuzz.Kind(".x", bytes(range(256)) * 4, read, expected, changed)
        return fuzz.run_case({"kind": kind}, 0, 0, tmp_path).verdict

    def raising(error):
        def read(path):
            raise error

        return read

    def executing(path):
        import os

        os.system("true")

    def taking(path):
        # Straight from the system: the process may have kept as much that others gave back.
        with mmap.mmap(-1, 100_000_000) as room:
            room[:] = bytes(len(room))
        return 1

    assert judge(lambda path: 1) == "loaded"
    assert judge(lambda path: 2) == "other numbers"
    assert judge(raising(ValueError("no"))) == "refused"
    assert judge(raising(ValueError("no")), changed=lambda: True) == "refused, but the model was changed"
    assert judge(raising(KeyError("a"))) == "raw error"
    assert judge(executing) == "executed or written"
    assert judge(lambda path: path.with_name("new").write_text("") + 1) == "executed or written"
    monkeypatch.setattr(fuzz, "BYTES", 10_000_000)
    assert judge(taking).startswith("took")


@pytest.mark.parametrize("change", ["flipped_bits", "truncated", "moved", "overwritten", "changed_letter"])
def test_changes_change(fuzz, change):
    data = random.Random(0).randbytes(4000)
    changed = [getattr(fuzz, change)(data, random.Random(seed)) for seed in range(20)]
    assert sum(each != data for each in changed) > 15
