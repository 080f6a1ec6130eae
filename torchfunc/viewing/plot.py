"""Drawings of models: `plot_model`, `model_to_dot` and what they return."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import string
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from torchfunc.modules import Network
from torchfunc.viewing.diagram import Diagram, diagram_of, facts_of
from torchfunc.viewing.dot import Style, layout, to_dot
from torchfunc.viewing.mermaid import to_mermaid

__all__ = ["Drawing", "model_to_dot", "plot_model"]

_DIRECTIONS = ("TB", "LR", "BT", "RL")
_ENDINGS = ("svg", "png", "pdf", "dot", "mmd", "html")


class Drawing:
    """A drawing of a model, in Graphviz' language and whatever it is asked for. A notebook shows it.

    Args:
        diagram: what it shows.
        style: how.
        dpi: dots per inch of a PNG.

    Attributes:
        source: the drawing in Graphviz' language.
    """

    def __init__(self, diagram: Diagram, style: Style, dpi: float = 200) -> None:
        self._diagram, self._style, self._dpi = diagram, style, dpi
        self.source = to_dot(diagram, style)

    def to_string(self) -> str:
        """The drawing in Graphviz' language, as pydot calls it."""
        return self.source

    def create(self, prog: str = "dot", format: str = "svg") -> bytes:
        """The contents of a file of this drawing.

        Args:
            prog: for compatibility with pydot; it is always "dot" that lays a drawing out.
            format: "svg", "png", "pdf", "dot", "mmd" (Mermaid) or "html".

        Raises:
            ImportError: it needs a package of the extra `plot`.
            ValueError: another format.
        """
        if format == "dot":
            return self.source.encode()
        if format == "mmd":
            return to_mermaid(self._diagram, self._style).encode()
        if format == "html":
            return self._page().encode()
        if format == "pdf":
            return layout(self.source, "pdf") if shutil.which("dot") else _to_pdf(layout(self.source, "svg"))
        if format not in ("svg", "png"):
            raise ValueError(f"A drawing can be {', '.join(_ENDINGS)}, got {format!r}.")
        return layout(self.source, format, self._dpi if format == "png" else None)

    def write(self, path: str | os.PathLike[str], format: str | None = None) -> None:
        """Write the drawing to a file. Its ending says the format, if `format` does not."""
        path = Path(path)
        path.write_bytes(self.create(format=format or path.suffix[1:].lower()))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """What a notebook shows."""
        try:
            return {"image/svg+xml": self.create().decode(), "text/plain": repr(self)}
        except ImportError as error:
            return {"text/plain": f"{self!r}: {error}"}

    def __repr__(self) -> str:
        frame = self._diagram.frame
        return f"<Drawing of {frame.name!r}: {sum(1 for _ in frame.boxes())} boxes, {len(self._diagram.arrows)} arrows>"

    def _page(self) -> str:
        """A page that needs nothing else: the drawing to pan and zoom, and what is known of the box that is clicked."""
        svg = re.sub(r"^.*?(?=<svg)", "", self.create().decode(), flags=re.DOTALL)
        known = {
            f"box{number}": {"name": box.name, "facts": facts_of(box)}
            for number, box in enumerate(self._diagram.frame.boxes())
        }
        template = string.Template(resources.files("torchfunc.viewing").joinpath("page.html").read_text("utf-8"))
        # So that no text of the user's ends the script.
        boxes = json.dumps(known).replace("<", "\\u003c")
        title = self._diagram.frame.name.replace("&", "&amp;").replace("<", "&lt;")
        return template.substitute(title=title, svg=svg, boxes=boxes)


def _to_pdf(svg: bytes) -> bytes:
    try:
        from reportlab.graphics import renderPDF
        from svglib.svglib import svg2rlg
    except ImportError as error:
        raise ImportError("Drawing a model as PDF needs svglib: pip install 'torchfunc[plot]'") from error
    return bytes(renderPDF.drawToString(svg2rlg(io.BytesIO(svg))))


def model_to_dot(
    model: Network,
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: float = 200,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    show_masks: bool = False,
    layer_range: Sequence[str] | None = None,
) -> Drawing:
    """A drawing of a built model: a box for each layer, module and function, and arrows for what goes where.

    A shared layer is one box with several arrows in. See `plot_model` for the arguments.

    Raises:
        ValueError: the model is not built, `rankdir` is not a direction, or no layer matches `layer_range`.

    >>> inputs = Input((4,), name="x")
    >>> drawing = utils.model_to_dot(Model(inputs, layers.Dense(2)(inputs)))
    >>> drawing
    <Drawing of 'functional': 2 boxes, 1 arrows>
    >>> "box0 -> box1;" in drawing.source
    True
    """
    if rankdir not in _DIRECTIONS:
        raise ValueError(f"`rankdir` is one of {', '.join(_DIRECTIONS)}, got {rankdir!r}.")
    style = Style(show_shapes, show_dtype, show_layer_names, show_layer_activations, show_trainable, rankdir)
    return Drawing(diagram_of(model, expand_nested, show_masks, layer_range), style, dpi)


def plot_model(
    model: Network,
    to_file: str | os.PathLike[str] = "model.png",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = False,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: float = 200,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    show_masks: bool = False,
    layer_range: Sequence[str] | None = None,
) -> Drawing:
    """Draw a built model to a file.

    Args:
        model: a drawn model, a `Sequential` or a subclassed model.
        to_file: where to. The ending says the format: `.png`, `.svg`, `.pdf`, `.html` (a page to pan, zoom and click
            in), `.dot` (Graphviz' language) or `.mmd` (Mermaid).
        show_shapes: whether boxes tell the shapes of inputs and outputs.
        show_dtype: whether they tell the dtype of outputs.
        show_layer_names: whether they tell names, or classes alone.
        rankdir: "TB" from top to bottom, "LR" from left to right, or "BT", "RL".
        expand_nested: whether models within the model are shown as frames with their insides.
        dpi: dots per inch of a PNG.
        show_layer_activations: whether boxes tell the activation.
        show_trainable: whether they tell if weights are trained.
        show_masks: whether masks that layers hand on by themselves are shown, as dashed arrows.
        layer_range: the names, or regular expressions that match the beginning of the names, of the first and the
            last layer to show.

    Returns:
        the drawing, which a notebook shows.

    Raises:
        ImportError: there is no Graphviz, or no svglib for a `.pdf`. The extra `plot` brings them.
        ValueError: the model is not built, the file's ending is unknown, `rankdir` is not a direction, or no layer
            matches `layer_range`.

    >>> inputs = Input((4,), name="x")
    >>> model = Model(inputs, layers.Dense(1)(inputs))
    >>> utils.plot_model(model, "model.mmd", show_layer_names=True)
    <Drawing of 'functional': 2 boxes, 1 arrows>
    >>> with open("model.mmd") as file:
    ...     print(file.readline().strip())
    flowchart TB
    """
    ending = Path(to_file).suffix[1:].lower()
    if ending not in _ENDINGS:
        raise ValueError(f"`to_file` ends in .{', .'.join(_ENDINGS)}, got {os.fspath(to_file)!r}.")
    drawing = model_to_dot(
        model,
        show_shapes,
        show_dtype,
        show_layer_names,
        rankdir,
        expand_nested,
        dpi,
        show_layer_activations,
        show_trainable,
        show_masks,
        layer_range,
    )
    drawing.write(to_file)
    return drawing
