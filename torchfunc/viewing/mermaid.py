"""A diagram in Mermaid's language, which code hosts and notes draw by themselves."""

from __future__ import annotations

from collections.abc import Iterator

from torchfunc.viewing.diagram import Box, Diagram, Frame
from torchfunc.viewing.dot import COLORS, Style

__all__ = ["to_mermaid"]


def to_mermaid(diagram: Diagram, style: Style) -> str:
    """The diagram as a Mermaid flowchart."""
    numbers = {box.key: number for number, box in enumerate(diagram.frame.boxes())}
    lines = [f"flowchart {style.rankdir}", *_contents(diagram.frame, style, numbers, "  ")]
    for arrow in diagram.arrows:
        line = "-.->" if arrow.is_mask else "-->"
        lines.append(f"  box{numbers[arrow.start]} {line} box{numbers[arrow.end]}")
    for role, (dark, light) in COLORS.items():
        lines.append(f"  classDef {role} fill:{light},stroke:{dark},color:#111")
    return "\n".join([*lines, ""])


def _contents(frame: Frame, style: Style, numbers: dict[str, int], indent: str) -> Iterator[str]:
    for each in frame.contents:
        if isinstance(each, Box):
            yield f'{indent}box{numbers[each.key]}["{_label(each, style)}"]:::{each.role}'
            continue
        first = next(each.boxes(), None)
        number = "empty" if first is None else numbers[first.key]
        yield f'{indent}subgraph frame{number}_{len(indent)}["{_escaped(f"{each.name} ({each.kind})")}"]'
        yield from _contents(each, style, numbers, indent + "  ")
        yield f"{indent}end"


def _label(box: Box, style: Style) -> str:
    title = f"{box.name} ({box.kind})" if style.names and box.name != box.kind else box.kind
    return "<br/>".join(map(_escaped, [title, *(f"{name}: {value}" for name, value in style.facts(box))]))


def _escaped(text: str) -> str:
    """Mermaid's own escapes, by the number of the character."""
    return "".join(
        each if each.isalnum() or each in " _.,:()-" else f"#{ord(each)};" for each in " ".join(text.split())
    )
