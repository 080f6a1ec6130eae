"""The summary of a model: a table of its layers, and how much they hold."""

from __future__ import annotations

import html
import itertools
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy

from torchfunc.errors import did_you_mean
from torchfunc.graph import SymbolicValue
from torchfunc.layers import Layer
from torchfunc.layers.base.call_arguments import call_with_shapes
from torchfunc.layers.base.shapes import Shape, is_shape
from torchfunc.modules import GraphNetwork, Network
from torchfunc.structures import leaves, map_structure
from torchfunc.viewing.costs import Cost, Costs, costs_of, total_cost
from torchfunc.viewing.entries import Entry, connections, entries_of, select_range
from torchfunc.viewing.holdings import Holdings
from torchfunc.viewing.table import column_widths, draw_table

__all__ = ["Summary", "summarize"]

_CHAIN_COLUMNS = (("Layer (type)", "left"), ("Output Shape", "left"), ("Param #", "right"))
_GRAPH_COLUMNS = (*_CHAIN_COLUMNS, ("Connected to", "left"))
_CHAIN_LENGTH, _CHAIN_POSITIONS = 88, (0.45, 0.8, 1.0)
_GRAPH_LENGTH, _GRAPH_POSITIONS = 108, (0.3, 0.56, 0.74, 1.0)
_TRAINABLE_LENGTH = 12


_EXTRA_COLUMNS: dict[str, tuple[str, str]] = {
    "flops": ("FLOPs", "right"),
    "memory": ("Memory", "right"),
    "dtype": ("Dtype", "left"),
}
# The lines and blanks around a cell.
_AROUND = 4


@dataclass(frozen=True)
class Summary:
    """The table of a model's layers and its totals; text for a terminal, and HTML in a notebook.

    Attributes:
        title: what stands above.
        columns: the titles of the columns, each with the side that its cells are aligned to.
        rows: the cells.
        widths: the characters of each column as text.
        totals: what stands below.
    """

    title: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]
    widths: Sequence[int]
    totals: Sequence[str]

    def __str__(self) -> str:
        table = draw_table([title for title, _ in self.columns], self.rows, self.widths, [s for _, s in self.columns])
        return "\n".join([self.title, table, *self.totals])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def cells(tag: str, texts: Iterable[str]) -> str:
            pairs = zip(texts, self.columns, strict=True)
            return "".join(f'<{tag} style="text-align:{side}">{html.escape(text)}</{tag}>' for text, (_, side) in pairs)

        header = cells("th", [title for title, _ in self.columns])
        # What nested models hold is moved to the right, which HTML's blanks would not show.
        body = "".join(f"<tr>{cells('td', [row[0].replace('   ', chr(0x2003)), *row[1:]])}</tr>" for row in self.rows)
        below = "<br>".join(html.escape(line.strip()) for line in self.totals)
        return (
            f"<b>{html.escape(self.title)}</b>\n<table><thead><tr>{header}</tr></thead>"
            f"<tbody>{body}</tbody></table>\n<p>{below}</p>"
        )


def summarize(
    model: Network,
    line_length: int | None = None,
    positions: Sequence[float] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
    show: Sequence[str] = (),
) -> Summary:
    """What `model.summary()` shows: Keras 3's table of layers, output shapes and parameter counts, and the totals.

    A layer is one row, however often it is called. Torch functions and modules have rows like layers; so have
    parameters and constants that belong to the model itself. The column "Connected to" is there if
    the graph is not a plain chain: `dense[1][0]` is output 0 of call 1 of `dense`.

    Args:
        model: a drawn model, a `Sequential` or a subclassed model, built or not.
        line_length: the width of the table in characters; by default 88 (108 with "Connected to"), or what fits in
            the terminal.
        positions: where the columns end, as fractions of the width, or in characters if any is greater than 1.
        expand_nested: whether to show the layers of models within this one.
        show_trainable: whether to add a column that says which layers train.
        layer_range: the names, or regular expressions that match the beginning of the names, of the first and the
            last layer to show.
        show: further columns, see `Cost`: "flops", "memory", "dtype".

    Raises:
        ValueError: the table would be too narrow, there are not as many positions as columns, no layer matches
            `layer_range`, or there is no such column.
    """
    extra = _checked_show(show)
    entries, is_chain = entries_of(model)
    columns = _CHAIN_COLUMNS if is_chain else _GRAPH_COLUMNS
    connected = {} if is_chain else connections(model, entries)
    costs = costs_of(model, entries) if extra else {}
    rows, holdings = [], Holdings(model)
    for level, entry, cost in _expand(select_range(entries, layer_range), costs, expand_nested):
        prefix = "   " * level + "└ " if level else ""
        row = [f"{prefix}{entry.name} ({entry.kind})", _shape_text(entry), _count_text(entry, holdings)]
        if not is_chain:
            row.append(connected.get(id(entry.target)) or "-")
        row += [_cost_text(name, cost) for name in extra]
        if show_trainable:
            row.append(_trainable_text(entry, holdings))
        rows.append(row)
    base, added = columns, [_EXTRA_COLUMNS[name] for name in extra]
    columns = (*base, *added)
    # These are as wide as they need to be; the others can break their lines.
    first = len(base)
    needed = [
        max(map(len, [title, *(row[first + place] for row in rows)])) + _AROUND
        for place, (title, _) in enumerate(added)
    ]
    widths = _widths(base, line_length, positions, show_trainable, needed)
    if show_trainable:
        columns = (*columns, ("Trainable", "center"))
    return Summary(f'Model: "{model.name}"', columns, rows, widths, [*_totals(model), *_cost_totals(extra, costs)])


def _checked_show(show: Sequence[str]) -> Sequence[str]:
    names = [show] if isinstance(show, str) else list(show)
    for name in names:
        if name not in _EXTRA_COLUMNS:
            known = ", ".join(map(repr, _EXTRA_COLUMNS))
            raise ValueError(f"`show` is a list of {known}, got {name!r}.{did_you_mean(name, _EXTRA_COLUMNS)}")
    return names


def _widths(
    columns: Sequence[Any],
    line_length: int | None,
    positions: Sequence[float] | None,
    show_trainable: bool,
    added: Sequence[int],
) -> list[int]:
    """The characters of the cells of each column; `added` are the lengths of those behind Keras' own."""
    is_chain = columns is _CHAIN_COLUMNS
    default = (_CHAIN_LENGTH if is_chain else _GRAPH_LENGTH) + sum(added)
    ends: list[float] = list(positions or (_CHAIN_POSITIONS if is_chain else _GRAPH_POSITIONS))
    if len(ends) != len(columns):
        titles = ", ".join(repr(title) for title, _ in columns)
        raise ValueError(f"`positions` says where each of the columns {titles} ends, but {ends} has {len(ends)} items.")
    if any(end > 1 for end in ends):
        ends += [ends[-1] + so_far for so_far in itertools.accumulate(added)]
        line_length = line_length or int(ends[-1]) + (_TRAINABLE_LENGTH if show_trainable else 0)
        return column_widths(line_length, [*ends, line_length] if show_trainable else ends)
    length = line_length or min(
        default + (_TRAINABLE_LENGTH if show_trainable else 0), shutil.get_terminal_size().columns - 4
    )
    share = 0.9 if show_trainable else 1.0
    if added:
        own = 1 - sum(added) / (length * share)
        ends = [end * own for end in ends]
        ends += [own + so_far / (length * share) for so_far in itertools.accumulate(added)]
    return column_widths(length, [*(end * share for end in ends), 1.0] if show_trainable else ends)


def _expand(entries: Sequence[Entry], costs: Costs, expand_nested: bool) -> Iterable[tuple[int, Entry, Cost]]:
    """The entries with how deep they are nested and what they cost, each model's own entries behind it."""
    pending = [(0, entry, costs) for entry in entries][::-1]
    while pending:
        level, entry, costs = pending.pop()
        yield level, entry, costs.get(id(entry.target), Cost())
        if expand_nested and isinstance(entry.target, Network):
            inner, _ = entries_of(entry.target)
            within = costs_of(entry.target, inner) if costs else {}
            pending.extend((level + 1, each, within) for each in inner[::-1])


# Cells


def _shape_text(entry: Entry) -> str:
    """The shape, the list of shapes if there are several, or "?"."""
    shapes = _output_shapes(entry)
    if shapes is None:
        return "?"
    found = leaves(shapes, is_leaf=is_shape)
    if len(found) == 1:
        return _one_shape(found[0])
    return str(map_structure(_one_shape, shapes, is_leaf=is_shape)).replace("'", "") if found else "?"


def _one_shape(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))})"


def _output_shapes(entry: Entry) -> Any:
    target = entry.target
    if isinstance(target, Tensor):
        return None if is_lazy(target) else tuple(target.shape)
    if entry.calls:
        # As Keras does, the last call stands for all. An unknown size, as `x.size(0)` gives it, is a scalar.
        return [value.spec.shape or () for value in entry.calls[-1].output_values]
    if isinstance(target, SymbolicValue):
        return target.spec.shape
    if isinstance(target, GraphNetwork) and target.drawn is not None:
        return [value.shape for value in target.drawn.output_tensors]
    if isinstance(target, Layer) and target.build_shapes:
        try:
            return call_with_shapes(target.compute_output_shape, target.build_shapes)
        except (NotImplementedError, ValueError):
            return None
    return None


def _count_text(entry: Entry, holdings: Holdings) -> str:
    held = holdings.of(entry.target)
    unbuilt = isinstance(entry.target, Layer) and not entry.target.built
    return f"{held.numbers:,}{' (unbuilt)' if unbuilt or held.lazy else ''}"


def _trainable_text(entry: Entry, holdings: Holdings) -> str:
    held = holdings.of(entry.target)
    if not held.weights:
        return "-"
    frozen = not held.training
    if isinstance(entry.target, Layer):
        # Frozen Keras' way, or torch's. A layer of buffers alone is what it says it is.
        frozen = not entry.target.trainable or (bool(held.parameters) and frozen)
    return "N" if frozen else "Y"


def _cost_text(name: str, cost: Cost) -> str:
    if name == "dtype":
        return ", ".join(cost.dtypes) or "-"
    value = cost.flops if name == "flops" else cost.memory
    if value is None:
        return "?"
    return f"{value:,}" if name == "flops" else _readable_size(value)


# Totals


def _totals(model: Network) -> list[str]:
    groups = {"Trainable": model.trainable_weights, "Non-trainable": model.non_trainable_weights}
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and optimizer.built:
        groups["Optimizer"] = optimizer.variables
    everything = [tensor for group in groups.values() for tensor in group]
    return [f" {title} params: {_sizes(tensors)}" for title, tensors in {"Total": everything, **groups}.items()]


def _cost_totals(extra: Sequence[str], costs: Costs) -> list[str]:
    total, titles = total_cost(costs), {"flops": "FLOPs per sample", "memory": "Activation memory per sample"}
    found = {name: _cost_text(name, total) for name in extra if name in titles}
    unknown = " (some sizes are open, or it cannot be told without data)"
    return [f" {titles[name]}: {text}{unknown if text == '?' else ''}" for name, text in found.items()]


def _sizes(tensors: Sequence[Tensor]) -> str:
    return (
        f"{_count(tensors):,} ({_readable_size(sum(t.numel() * t.element_size() for t in tensors if not is_lazy(t)))})"
    )


def _count(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors if not is_lazy(tensor))


def _readable_size(size: float) -> str:
    """Bytes as Keras writes them: 1024 to a KB, two decimals."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} PB"
