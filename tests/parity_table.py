"""`pytest --parity-table`: which checks of which layers have held against Keras, and how often.

A pytest plugin, also under xdist, whose workers hand their counts over when they are done.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from layer_parity import HELD

CHECKS = ("outputs", "gradients", "float64", "masks", "weights", "config", "symbolic", "formula")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-table", action="store_true", help="print how often each layer was held against Keras")


def pytest_sessionfinish(session: pytest.Session) -> None:
    handed_over = getattr(session.config, "workeroutput", None)
    if handed_over is not None:
        handed_over["parity"] = [(*key, count) for key, count in HELD.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # A worker that crashed has nothing to hand over.
    handed_over = getattr(node, "workeroutput", {}).get("parity", [])
    HELD.update({(layer, check): count for layer, check, count in handed_over})


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("--parity-table"):
        terminalreporter.section("parity with Keras")
        terminalreporter.write_line(table(HELD))


def table(held: Counter[tuple[str, str]]) -> str:
    """One row a layer, one column a check, and the sums."""
    layers = sorted({layer for layer, _ in +held})
    rows = [[layer, *(held[layer, check] for check in CHECKS)] for layer in layers]
    sums = [sum(row[column] for row in rows) for column in range(1, len(CHECKS) + 1)]
    lines = [["layer", *CHECKS, "all"], *([*row, sum(row[1:])] for row in rows)]
    lines.append([f"{len(layers)} layers", *sums, sum(sums)])
    return "\n".join(f"{line[0]:28}" + "".join(f"{each or '-':>10}" for each in line[1:]) for line in lines)
