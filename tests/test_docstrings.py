"""Every public name has an example in its docstring, and all examples show what they say."""

from __future__ import annotations

import doctest
import importlib
import io
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

import torchfunc

PACKAGE = Path(torchfunc.__file__).parent
WITH_EXAMPLES = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))

# What the examples leave out, as the package's docstring says.
GIVEN = {"np": np, "torch": torch, **{name: getattr(torchfunc, name) for name in torchfunc.__all__}}


# torch's, where torch.func.jvp is used for the first time.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
# torch.export.load's, in torch 2.11.
@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")
@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_examples_show_what_they_say(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    report = io.StringIO()
    found = doctest.DocTestFinder(exclude_empty=True).find(module, globs=GIVEN)
    assert sum(len(each.examples) for each in found) >= path.read_text(encoding="utf-8").count(">>> "), "not all found"
    with mock.patch.dict(torchfunc.saving.get_custom_objects()):
        for each in found:
            torch.manual_seed(0)
            runner.run(each, out=report.write)
    if report.getvalue():
        pytest.fail(report.getvalue(), pytrace=False)


def test_every_public_name_has_an_example(monkeypatch):
    monkeypatch.syspath_prepend(str(PACKAGE.parent / "scripts"))
    undocumented = importlib.import_module("undocumented")
    names = [name for name, _ in undocumented.public_names()]
    assert {"torchfunc.Model.fit", "torchfunc.ops.image.resize", "torchfunc.losses.CTC"} <= set(names)
    assert undocumented.without_example() == []
    assert set(undocumented.NOT_RUN) <= set(names), "reasons for names that are gone"
