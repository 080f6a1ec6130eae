"""The source of functions and classes, with all that they need, as it goes into a file of its own."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["Helpers"]

_PACKAGE = __name__.partition(".")[0]
_LIBRARIES = {sysconfig.get_path(kind) for kind in ("stdlib", "platlib", "purelib")}


class Helpers:
    """Functions and classes that a file defines, and the imports that it begins with.

    Attributes:
        imports: the import statements.
        definitions: the sources, by name, each behind those that it needs.
    """

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.definitions: dict[str, str] = {}
        self._origins: dict[str, tuple[str, str]] = {}

    def use(self, thing: Any) -> str:
        """Define a function or class in the file, or import it; returns the name that it has there.

        What other packages have is imported; of this one, and of scripts and files beside them, the source is copied.

        Raises:
            ValueError: its source cannot be had, or another thing has its name.
        """
        name, module = thing.__name__, sys.modules.get(thing.__module__)
        if module is None or getattr(module, name, None) is not thing:
            raise ValueError(f"{thing!r} is not at the top of a module, so its source cannot be written to a file.")
        if _is_installed(module):
            self.imports.add(f"from {module.__name__} import {name}")
        else:
            self._define(module, name)
        return name

    def _define(self, module: ModuleType, name: str) -> None:
        origin = (module.__name__, name)
        if self._origins.setdefault(name, origin) != origin:
            raise ValueError(f"Both {'.'.join(origin)} and {'.'.join(self._origins[name])} are needed in one file.")
        if name in self.definitions:
            return
        statements, imports = _contents(module)
        statement = statements[name]
        # Its place is taken, should it need itself.
        self.definitions[name] = ""
        for needed in _names(statement):
            if needed in imports:
                self._import(*imports[needed])
            elif needed in statements and needed != name:
                self._define(module, needed)
        del self.definitions[name]
        self.definitions[name] = _text(module, statement)

    def _import(self, statement: str, origin: str, name: str) -> None:
        """What an import in the file of a helper gives it."""
        module = sys.modules.get(origin)
        if module is None or not name or _is_installed(module):
            self.imports.add(statement)
            return
        found = getattr(module, name)
        home = sys.modules.get(getattr(found, "__module__", None) or origin, module)
        self._define(home, name)


def _is_installed(module: ModuleType) -> bool:
    """Whether a module is of another package, there wherever that is installed; not a script or file beside one."""
    file = getattr(module, "__file__", None)
    if _is_ours(module) or module.__name__ == "__main__":
        return False
    return file is None or any(Path(file).is_relative_to(folder) for folder in _LIBRARIES)


def _is_ours(module: ModuleType) -> bool:
    return module.__name__.partition(".")[0] == _PACKAGE


@functools.cache
def _contents(module: ModuleType) -> tuple[dict[str, ast.stmt], dict[str, tuple[str, str, str]]]:
    """What a module defines at its top, and what it imports, by name: the statement, the module, the name there.

    Raises:
        ValueError: there is no source.
    """
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError) as error:
        raise ValueError(f"The source of {module.__name__} cannot be read: {error}.") from error
    statements: dict[str, ast.stmt] = {}
    imports: dict[str, tuple[str, str, str]] = {}
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            statements[statement.name] = statement
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
            statements.update(dict.fromkeys(names, statement))
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                called = alias.asname or alias.name.partition(".")[0]
                text = f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
                imports[called] = (text, alias.name, "")
        elif isinstance(statement, ast.ImportFrom) and statement.module != "__future__":
            for alias in statement.names:
                text = f"from {statement.module} import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
                imports[alias.asname or alias.name] = (text, statement.module or "", alias.name)
    return statements, imports


def _names(statement: ast.stmt) -> list[str]:
    """The names that a definition looks up, those in quoted annotations too."""
    found = [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
    if isinstance(statement, ast.AnnAssign):
        # A type alias may be written as text.
        quoted = statement.value
        if isinstance(quoted, ast.Constant) and isinstance(quoted.value, str):
            found += [node.id for node in ast.walk(ast.parse(quoted.value)) if isinstance(node, ast.Name)]
    return list(dict.fromkeys(found))


def _text(module: ModuleType, statement: ast.stmt) -> str:
    lines = inspect.getsource(module).splitlines()
    decorators = getattr(statement, "decorator_list", [])
    first = min([statement.lineno, *(each.lineno for each in decorators)])
    text = "\n".join(lines[first - 1 : statement.end_lineno])
    # What is meant for the tools that check this package.
    return re.sub(r"  # (type: ignore|noqa).*", "", text)
