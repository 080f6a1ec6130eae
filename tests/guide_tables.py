"""Reading a summary back, to compare it with the tables that the guides print."""

from __future__ import annotations

from torchfunc import Model


def summary_lines(model: Model) -> list[str]:
    """The summary, drawn wide enough that nothing in it is cut off."""
    texts: list[str] = []
    model.summary(line_length=200, print_fn=texts.append)
    return "\n".join(texts).splitlines()


def rows(model: Model) -> list[tuple[str, ...]]:
    """Name and type, output shape, parameters and, in a graph, connections of each layer, as the table has them."""
    found: list[list[str]] = []
    for line in summary_lines(model):
        if not line.startswith("│"):
            continue
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        if cells[0]:
            found.append(cells)
        else:
            # A cell of several lines goes on: more connections.
            found[-1] = [f"{one} {more}".strip() for one, more in zip(found[-1], cells, strict=True)]
    return [tuple(cells) for cells in found]


def totals(model: Model) -> list[str]:
    """The lines below the table."""
    return [line.strip() for line in summary_lines(model) if "params:" in line]
