"""A diagram in Graphviz' language, and its layout by a Graphviz: the system's, or the one that pip installs."""

from __future__ import annotations

import html
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torchfunc.viewing.diagram import Box, Diagram, Frame

__all__ = ["COLORS", "Style", "layout", "to_dot"]

COLORS = {
    "input": ("#37597f", "#edf2f8"),
    "layer": ("#2b2b33", "#ffffff"),
    "module": ("#a8481f", "#fdf3ee"),
    "function": ("#5f6470", "#f6f7f9"),
    "tensor": ("#8a7a1d", "#fbf8e6"),
    "model": ("#4d3a78", "#f4f0fb"),
}
"""The colors of a box's title and of what is below it, by role."""

_COLUMNS = 12


@dataclass(frozen=True)
class Style:
    """What is shown of each box, and how the drawing runs.

    Attributes:
        shapes, dtype, names, activations, trainable: whether the boxes tell them.
        rankdir: "TB" from top to bottom, "LR" from left to right, or "BT", "RL".
    """

    shapes: bool = False
    dtype: bool = False
    names: bool = True
    activations: bool = False
    trainable: bool = False
    rankdir: str = "TB"

    def facts(self, box: Box) -> Iterator[tuple[str, str]]:
        """What a box tells below its title: names and values."""
        if self.activations and box.activation is not None:
            yield "activation", box.activation
        if self.shapes:
            if box.inputs is not None:
                yield "input", box.inputs
            yield "output", box.outputs or "?"
        if self.dtype:
            yield "dtype", box.dtype or "?"
        if self.trainable and box.trains is not None:
            yield "trainable", "yes" if box.trains else "no"


def to_dot(diagram: Diagram, style: Style) -> str:
    """The diagram in Graphviz' language. Box 3, as `Frame.boxes` counts them, is the element `box3` of an SVG."""
    lines = [
        "digraph model {",
        f'  graph [rankdir={style.rankdir}, nodesep=0.3, ranksep=0.35, fontname="Helvetica", pad=0.15];',
        '  node [shape=plain, fontname="Helvetica", fontsize=12];',
        '  edge [color="#6b7280", arrowsize=0.7, penwidth=1.1];',
    ]
    numbers = {box.key: number for number, box in enumerate(diagram.frame.boxes())}
    lines.extend(_contents(diagram.frame, style, numbers, "  "))
    for arrow in diagram.arrows:
        dashes = " [style=dashed]" if arrow.is_mask else ""
        lines.append(f"  box{numbers[arrow.start]} -> box{numbers[arrow.end]}{dashes};")
    return "\n".join([*lines, "}", ""])


def _contents(frame: Frame, style: Style, numbers: dict[str, int], indent: str) -> Iterator[str]:
    for each in frame.contents:
        if isinstance(each, Box):
            number = numbers[each.key]
            yield f"{indent}box{number} [id=box{number}, label=<{_label(each, style)}>];"
            continue
        first = next(each.boxes(), None)
        yield f"{indent}subgraph cluster_{'empty' if first is None else numbers[first.key]}_{len(indent)} {{"
        yield f"{indent}  label={_quoted(f'{each.name} ({each.kind})')}; labeljust=l; fontsize=12;"
        yield f'{indent}  style="rounded,filled"; color="{COLORS["model"][0]}"; fillcolor="#faf8fd";'
        yield from _contents(each, style, numbers, indent + "  ")
        yield f"{indent}}}"


def _label(box: Box, style: Style) -> str:
    """A table, in Graphviz' HTML: the title, and below it a row of two cells, or one across, for each fact."""
    dark, light = COLORS[box.role]
    title = _escaped(box.name) if style.names else ""
    kind = _escaped(box.kind)
    if style.names and box.kind != box.name:
        title = f"<b>{title}</b> ({kind})"
    else:
        title = f"<b>{title or kind}</b>"
    # graphviz-pure shares out the width that a long title needs among all columns: most of it to those of the value.
    rows = [f'<tr><td colspan="{_COLUMNS}" bgcolor="{dark}"><font color="white">{title}</font></td></tr>']
    for name, value in style.facts(box):
        rows.append(
            f'<tr><td align="left" bgcolor="{light}"><font color="#6b7280">{name}</font></td>'
            f'<td colspan="{_COLUMNS - 1}" align="left" bgcolor="{light}">{_escaped(value)}</td></tr>'
        )
    return (
        f'<table border="0" cellborder="1" cellspacing="0" cellpadding="5" color="{dark}" bgcolor="{light}">'
        f"{''.join(rows)}</table>"
    )


def _escaped(text: str) -> str:
    # A line break would end the row.
    return html.escape(" ".join(text.split()) or " ")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def layout(source: str, output_format: str, dpi: float | None = None) -> bytes:
    """Have a Graphviz lay a drawing out.

    Args:
        source: it, in Graphviz' language.
        output_format: "svg" or "png".
        dpi: dots per inch of a PNG.

    Raises:
        ImportError: there is no Graphviz.
        ValueError: it could not lay the drawing out.
    """
    command = [_graphviz(), f"-T{output_format}", *([] if dpi is None else [f"-Gdpi={dpi:g}"])]
    done = subprocess.run(command, input=source.encode(), capture_output=True, check=False)
    if done.returncode or not done.stdout:
        raise ValueError(f"Graphviz could not lay the drawing out: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _graphviz() -> str:
    found = shutil.which("dot") or shutil.which("graphviz-pure", path=sysconfig.get_path("scripts"))
    found = found or shutil.which("graphviz-pure")
    if found is None:
        raise ImportError(
            "Drawing a model needs a Graphviz: pip install 'torchfunc[plot]', or the system's package graphviz. "
            "Files that end in .dot or .mmd need none."
        )
    return str(Path(found))
