"""The messages for wrong uses are those of `golden_errors.txt`, which is written by `python tests/wrong_uses.py`."""

from __future__ import annotations

import pytest
from wrong_uses import CHAPTERS, GOLDEN, TORCH, message_of, section

TEXT = GOLDEN.read_text(encoding="utf-8")
USES = {use.__name__: use for uses in CHAPTERS.values() for use in uses}


def test_there_are_enough_of_every_kind():
    assert len(USES) == sum(map(len, CHAPTERS.values())) >= 80
    assert min(map(len, CHAPTERS.values())) >= 5
    # One section each, and no section of a use that is gone.
    assert TEXT.count("\n\n\n") == len(USES) + len(CHAPTERS)
    assert TEXT.startswith(f"What torchfunc answers to {len(USES)} wrong uses")


@pytest.mark.parametrize("name", USES)
def test_a_wrong_use(name):
    if f"(torch {TORCH})" in TEXT.splitlines()[0]:
        assert section(USES[name]) in TEXT
    else:
        # Another torch may say it otherwise, but it is the same error.
        assert f"\n{message_of(USES[name]).partition(':')[0]}: " in TEXT
