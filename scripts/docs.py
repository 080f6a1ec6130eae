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
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(
        ROOT / "examples",
        folder / "examples",
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("*.ipynb", "__pycache__"),
    )
    shutil.copy(ROOT / "CHANGELOG.md", folder)
    for notebook in sorted((ROOT / "examples").rglob("*.ipynb")):
        page = (folder / notebook.relative_to(ROOT)).with_suffix(".html")
        page.parent.mkdir(parents=True, exist_ok=True)
        _write(page, notebook.stem, notebook_body(json.loads(notebook.read_text(encoding="utf-8"))))
    write_reference(folder, names)
    links = [f'<a href="{name.replace(".", "/")}.html">{name}</a>' for name in names]
    readme = re.sub(r"(\(examples/[^)]*)\.ipynb\)", r"\1.html)", (ROOT / "README.md").read_text(encoding="utf-8"))
    _write(folder / "index.html", "torchfunc", f"<p>Reference: {' · '.join(links)}</p>\n{to_html(readme)}")


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
    classes = [member for module in pages.values() for member in module.members.values() if member.kind == "class"]
    public = {member.obj for member in classes}
    for member in classes:
        member.docstring = _complete(member.obj, public)
        if "__init__" in member.members and not member.obj.__init__.__doc__:
            member.members["__init__"].docstring = ""  # and not that of a base, torch's say
    for name, module in pages.items():
        page = folder / f"{name.replace('.', '/')}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(pdoc.render.html_module(module, pages), encoding="utf-8")
    (folder / "search.js").write_text(pdoc.render.search_index(pages), encoding="utf-8")


def _complete(cls: type, public: Collection[type]) -> str:
    """The docstring of a class, with that of a base without a page to which it refers, whose constructor it may use."""
    said = inspect.cleandoc(cls.__doc__ or "")
    for base in cls.__mro__[1:]:
        if f"`{base.__name__}`" in said and base not in public:
            said = f"{said}\n\n`{base.__name__}`: {inspect.cleandoc(base.__doc__ or '')}"
            break
    if "__init__" not in vars(cls) and cls.__init__ is not object.__init__:
        said = f"```python\n{cls.__name__}{inspect.signature(cls)}\n```\n\n{said}"
    return said


def notebook_body(notebook: dict[str, Any]) -> str:
    """The cells of a notebook as HTML, with what they showed."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(to_html(source))
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
    page.write_text(
        _PAGE.format(title=html.escape(title), colours=_COLOURS.get_style_defs(), body=body), encoding="utf-8"
    )


if __name__ == "__main__":
    build(Path(sys.argv[1]), sys.argv[2:])
