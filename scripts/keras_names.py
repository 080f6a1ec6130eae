"""Write `examples/keras_names.md`: each public name of Keras' namespaces, and whether it is here.

Needs the extra `parity` (Keras). What is said of absent names is in `torchfunc/absent.py`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras

import torchfunc
from torchfunc.absent import instead_of

PAGE = Path(__file__).parents[1] / "examples" / "keras_names.md"
HEAD = """# Keras' names

Every public name of Keras {version}, by namespace: those that are here under the same name (`keras.layers.Dense` is
`torchfunc.layers.Dense`), and those that are not, with the package that each is left to and the line to write instead,
or why it is not planned. torchfunc says the same when it is asked for an absent name. (`images` is a batch such as
`torch.zeros(1, 3, 224, 224)`.) `scripts/keras_names.py` writes this page.
"""


def namespaces(package: ModuleType = keras) -> Iterator[tuple[str, ModuleType]]:
    """Keras' public packages, as ("", keras), ("layers", keras.layers) ..."""
    yield package.__name__.partition(".")[2], package
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if info.ispkg and info.name not in ("keras.src", "keras._tf_keras"):
            yield from namespaces(importlib.import_module(info.name))


def names_in(module: ModuleType) -> list[str]:
    """The public names of a namespace, other than namespaces within it."""
    return [name for name in dir(module) if not name.startswith("_") and not inspect.ismodule(getattr(module, name))]


def is_here(namespace: str, name: str) -> bool:
    """Whether torchfunc has the name."""
    found = torchfunc
    for part in [*namespace.split("."), name] if namespace else [name]:
        found = getattr(found, part, None)
    return found is not None


def section(namespace: str, module: ModuleType) -> str:
    """The part of the page that tells of a namespace."""
    absent: dict[str, list[str]] = {}
    here = []
    for name in names_in(module):
        if is_here(namespace, name):
            here.append(name)
        else:
            absent.setdefault(instead_of(namespace, name) or "MISSING", []).append(name)
    lines = [f"## `{f'keras.{namespace}'.rstrip('.')}`"]
    if here:
        lines += ["", f"Here ({len(here)}): {', '.join(f'`{name}`' for name in here)}."]
    if absent:
        lines += ["", "| Absent | Instead |", "|---|---|"]
        lines += [f"| {', '.join(f'`{name}`' for name in names)} | {text} |" for text, names in absent.items()]
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    sections = [section(namespace, module) for namespace, module in namespaces() if names_in(module)]
    return "\n\n".join([HEAD.format(version=keras.__version__).rstrip(), *sections]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
