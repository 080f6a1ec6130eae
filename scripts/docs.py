"""Build the reference of all public names, the README, examples and notebooks as pages that need no network.

python scripts/docs.py FOLDER [MODULE ...]    (all public modules by default; `scripts/docs.sh` installs what it takes)
"""

from __future__ import annotations

import html
import inspect
import json
import re
import shutil
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pdoc.doc
import pdoc.render
import pygments
from pdoc.render_helpers import to_html
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from undocumented import METHODS

import torchfunc

ROOT = Path(__file__).parents[1]
_COLOURS = HtmlFormatter(cssclass="pdoc-code")
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
pre {{ overflow-x: auto; background: #f6f8fa; padding: .6rem; line-height: 1.3; }}
.output pre {{ background: none; border-left: 3px solid #d0d7de; }}
img, svg {{ max-width: 100%; height: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ border: 1px solid #d0d7de; padding: .2rem .6rem; text-align: left; }}
{colours}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def build(folder: Path, modules: Sequence[str] = ()) -> None:
    """Write the pages to a folder: `index.html`, one page a module, and the examples.

    Args:
        folder: where to.
        modules: the names of the modules to document; all public ones by default.
    """
    names = list(modules) or [module.__name__ for module in public_modules()]
    texts = ("*.ipynb", "*.md")
    shutil.copytree(
        ROOT / "examples",
        folder / "examples",
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns(*texts, "__pycache__"),
    )
    for text in [ROOT / "CHANGELOG.md", *(path for pattern in texts for path in (ROOT / "examples").rglob(pattern))]:
        source = text.read_text(encoding="utf-8")
        body = _markdown(source) if text.suffix == ".md" else notebook_body(json.loads(source))
        _write((folder / text.relative_to(ROOT)).with_suffix(".html"), text.stem, body)
    write_reference(folder, names)
    links = [f'<a href="{name.replace(".", "/")}.html">{name}</a>' for name in names]
    readme = _markdown((ROOT / "README.md").read_text(encoding="utf-8"))
    _write(folder / "index.html", "torchfunc", f"<p>Reference: {' · '.join(links)}</p>\n{readme}")


def public_modules() -> Iterator[ModuleType]:
    """torchfunc, and what it exports that are modules."""
    pending = [torchfunc]
    for module in pending:
        yield module
        pending.extend(value for value in (getattr(module, name) for name in module.__all__) if inspect.ismodule(value))


def write_reference(folder: Path, names: Sequence[str]) -> None:
    """A page for each module, and the index for searching them."""
    # Types are shown as they are written; pdoc tries to make links of them, and says so where it cannot.
    warnings.filterwarnings("ignore", "Error parsing type annotation")
    pdoc.render.configure(docformat="google", show_source=False, footer_text=f"torchfunc {torchfunc.__version__}")
    pages = {name: pdoc.doc.Module(sys.modules[name]) for name in names}
    for name, module in pages.items():
        module.submodules = [page for other, page in pages.items() if other.rpartition(".")[0] == name]
    members = [member for module in pages.values() for member in module.members.values()]
    public = {member.obj for member in members if member.kind == "class"}
    for member in members:
        if member.kind == "class":
            _complete(member, public)
        elif member.kind == "variable" and callable(member.default_value):
            call = member.default_value
            member.docstring = f"{_signature(member.name, call)}{inspect.cleandoc(call.__call__.__doc__ or '')}"
    for name, module in pages.items():
        page = folder / f"{name.replace('.', '/')}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(pdoc.render.html_module(module, pages), encoding="utf-8")
    (folder / "search.js").write_text(pdoc.render.search_index(pages), encoding="utf-8")


def _complete(member: pdoc.doc.Class, public: Collection[type]) -> None:
    """Show what a class has from bases without a page, to which its docstring refers: the constructor, methods."""
    cls = member.obj
    said = inspect.cleandoc(cls.__doc__ or "")
    for base in cls.__mro__[1:]:
        if f"`{base.__name__}`" in said and base not in public:
            said = f"{said}\n\n`{base.__name__}`: {inspect.cleandoc(base.__doc__ or '')}"
            break
    if "__init__" not in vars(cls) and cls.__init__ is not object.__init__:
        said = _signature(cls.__name__, cls) + said
    member.docstring = said
    if "__init__" in member.members and not cls.__init__.__doc__:
        member.members["__init__"].docstring = ""  # and not that of a base, torch's say
    if cls in METHODS:
        own = {each.name for each in member.own_members}
        member.own_members = member.own_members + [
            each
            for each in member.members.values()
            if each.name not in own and each.docstring and each.taken_from[0].startswith(torchfunc.__name__)
        ]


def _signature(name: str, called: Any) -> str:
    parameters = [f"    {each},\n" for each in map(str, inspect.signature(called).parameters.values())]
    return f"```python\n{name}(\n{''.join(parameters)})\n```\n\n"


def _markdown(text: str) -> str:
    """Markdown as HTML, with links to the pages that texts and notebooks become."""
    return str(to_html(re.sub(r"(\]\((?!http)[^)#]+)\.(?:ipynb|md)([)#])", r"\1.html\2", text)))


def notebook_body(notebook: dict[str, Any]) -> str:
    """The cells of a notebook as HTML, with what they showed."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(_markdown(source))
        elif cell["cell_type"] == "code":
            parts.append(pygments.highlight(source, PythonLexer(), _COLOURS))
            parts.extend(f'<div class="output">{shown}</div>' for shown in map(_output, cell["outputs"]))
    return "\n".join(parts)


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {"text/plain": output.get("text", "")})
    by_kind = {kind: "".join(value) for kind, value in data.items() if isinstance(value, (str, list))}
    for kind in ("text/html", "image/svg+xml"):
        if kind in by_kind:
            return by_kind[kind]
    if "image/png" in by_kind:
        return f'<img alt="" src="data:image/png;base64,{by_kind["image/png"]}">'
    return f"<pre>{html.escape(by_kind.get('text/plain', ''))}</pre>"


def _write(page: Path, title: str, body: str) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(
        _PAGE.format(title=html.escape(title), colours=_COLOURS.get_style_defs(), body=body), encoding="utf-8"
    )


if __name__ == "__main__":
    build(Path(sys.argv[1]), sys.argv[2:])
