"""Curves of what `fit` has logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Curve", "plot_curves"]

Curve = tuple[Sequence[int], Sequence[float]]
"""Epochs, from 0, and a value for each."""


def plot_curves(curves: Mapping[str, Curve], metrics: str | Sequence[str] | None = None) -> Any:
    """Draw logged numbers over the epochs, with matplotlib's pyplot.

    Args:
        curves: what to draw, by log name.
        metrics: the names to draw, without "val_"; all by default.

    Returns:
        an array of matplotlib axes, one for each name; "loss" and "val_loss" share theirs, and so on. Their figure is
        `axes[0].figure`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is nothing to draw, or a name is unknown.
    """
    try:
        from matplotlib import pyplot, ticker
    except ImportError as error:
        raise ImportError("Drawing curves needs matplotlib: pip install 'torchfunc[plot]'") from error
    known = list(dict.fromkeys(name.removeprefix("val_") for name in curves))
    names = known if metrics is None else [metrics] if isinstance(metrics, str) else list(metrics)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"There is no curve of {unknown[0]!r}; there are {', '.join(map(repr, known))}.")
    if not names:
        raise ValueError("There are no curves to draw: no epoch was logged.")
    _, grid = pyplot.subplots(1, len(names), squeeze=False, figsize=(5 * len(names), 4), layout="constrained")
    for axes, name in zip(grid[0], names, strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in curves:
                epochs, values = curves[key]
                axes.plot([epoch + 1 for epoch in epochs], values, marker=".", label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axes.legend()
    return grid[0]
