"""The house: which part of torchfunc knows which, how long its files and functions are, and what is nobody else's.

All of it is read from the source; nothing is imported.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "torchfunc"

# The floors, lowest first. A room (a folder or file of torchfunc/) imports from the floors below its own: not from
# those above, nor from another room of its floor.
FLOORS = (
    ("absent", "frames", "readable_arrays"),
    ("assignable", "errors"),
    (
        *("batch_parts", "dtypes", "graph_keys", "naming", "recursion", "shards", "snapshots", "structures"),
        *("meta_weights", "torch_functions", "unfilled_weights"),
    ),
    ("tensor_masks", "torch_module_config"),
    ("config", "registry", "graph"),
    ("arrays", "families"),
    ("activations", "initializers", "regularizers", "constraints", "losses", "schedules"),
    ("metrics", "optimizers", "ops", "random"),
    ("layers",),
    ("modules",),
    ("saving", "viewing"),
    ("callbacks",),
    ("training",),
    ("mixed_precision", "models", "utils"),
    ("applications", "backend", "datasets", "preprocessing"),
    ("__init__",),
)

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60

# The private attributes of others that a room uses all the same: (room, attribute) and the reason. At most ten.
PRIVATE_EXCEPTIONS: dict[tuple[str, str], str] = {}
# The one file for names of torch that are private; it says for which versions of torch they were read.
TORCH_INTERNALS = "graph/torch_internals.py"
# Not private in spite of their names: the tables of torch.nn.Module, and what the standard library documents.
NOT_PRIVATE = {
    *("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"),
    *("_replace", "_asdict", "_fields", "_make", "_getframe"),
}


class Source:
    """One file of the package.

    Attributes:
        path: the file.
        module: its dotted name; of an `__init__.py`, that of the package.
        room: the folder or file of torchfunc/ that it is in or is.
        tree: what it says.
    """

    def __init__(self, path: Path) -> None:
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        self.path = path
        self.is_package = parts[-1] == "__init__"
        self.module = ".".join(parts[:-1] if self.is_package else parts)
        self.room = parts[1]
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        self.nodes = list(ast.walk(self.tree))

    def place(self, node: ast.AST) -> str:
        return f"{self.path.relative_to(PACKAGE.parent)}:{node.lineno}"

    @property
    def name(self) -> str:
        return self.path.relative_to(PACKAGE).as_posix()


@cache
def sources() -> dict[str, Source]:
    """All files of the package, by dotted name."""
    found = (Source(path) for path in sorted(PACKAGE.rglob("*.py")))
    return {source.module: source for source in found}


def imported(nodes: list[ast.AST]) -> Iterator[tuple[ast.AST, str, str | None, str]]:
    """The package's own imports among these: the node, the module, the name taken from it, and what it is called."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports within torchfunc are absolute"
            if (node.module or "").split(".")[0] == "torchfunc":
                for alias in node.names:
                    yield node, node.module, alias.name, alias.asname or alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "torchfunc":
                    yield node, alias.name, None, alias.asname or alias.name


@cache
def resolve(module: str, name: str) -> tuple[str, bool]:
    """The file that defines `name`, which can be imported from `module`; and whether it is that file as a whole."""
    if f"{module}.{name}" in sources():
        return f"{module}.{name}", True
    if sources()[module].is_package:
        for _, origin, taken, called in imported(sources()[module].tree.body):
            if called == name and taken is not None and origin != module:
                return resolve(origin, taken)
    return module, False


def file_imports(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """The files that one imports: behind a package's `__init__`, those that define what is taken from it."""
    packages = {}
    for node, module, name, called in imported(source.nodes):
        found, whole = (module, True) if name is None else resolve(module, name)
        if whole and sources()[found].is_package:
            packages[called] = found
        else:
            yield node, found
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in packages:
            yield node, resolve(packages[node.value.id], node.attr)[0]


def circles(edges: dict[str, set[str]]) -> list[str]:
    """For each group of files that depend on each other, the shortest circle through its first one."""
    reached: dict[str, set[str]] = {}
    for start in edges:
        seen: set[str] = set()
        pending = [start]
        while pending:
            new = edges.get(pending.pop(), set()) - seen
            seen |= new
            pending.extend(new)
        reached[start] = seen
    groups = {frozenset(b for b in reached[a] if a in reached.get(b, ())) for a in edges if a in reached[a]}
    return [_shortest_circle(min(group), edges, len(group)) for group in sorted(groups, key=min)]


def _shortest_circle(start: str, edges: dict[str, set[str]], size: int) -> str:
    paths = [[start]]
    seen: set[str] = set()
    for path in paths:
        for following in sorted(edges.get(path[-1], ())):
            if following == start:
                return f"{' -> '.join([*path, start])} (in a group of {size} files)"
            if following not in seen:
                seen.add(following)
                paths.append([*path, following])
    raise AssertionError("there is a circle")


def test_no_circles():
    edges: dict[str, set[str]] = defaultdict(set)
    for source in sources().values():
        edges[source.module] |= {found for _, found in file_imports(source)}
    assert circles(edges) == []


def test_no_folder_imports_its_own_facade():
    """`from torchfunc.losses import mse` within losses/ would be a circle that only the order of imports hides."""
    found = []
    for source in sources().values():
        for node, module, name, _ in imported(source.nodes):
            own = source.module == module or source.module.startswith(f"{module}.")
            submodule = name is not None and f"{module}.{name}" in sources() and f"{module}.{name}" != source.module
            inside = submodule and source.module.startswith(f"{module}.{name}.")
            if (own and not submodule) or inside:
                found.append(f"{source.place(node)} imports {module}" + (f".{name}" if name else ""))
    assert found == []


def test_every_room_has_a_floor():
    table = [room for floor in FLOORS for room in floor]
    assert sorted(table) == sorted({source.room for source in sources().values()} | {"__init__"})


def _room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_arrows_point_to_lower_floors():
    floor_of = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    found = []
    for source in sources().values():
        for node, module, name, _ in imported(source.nodes):
            # The room that is entered, not the one a name may come from behind it.
            target = f"{module}.{name}" if f"{module}.{name}" in sources() else module
            room = _room_of(target)
            if room != source.room and floor_of[room] >= floor_of[source.room]:
                found.append(f"{source.place(node)}: {source.room} imports {room}")
    assert found == []


def functions(nodes: list[ast.AST]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def test_no_imports_within_functions():
    found = []
    for source in sources().values():
        inside = [(function.lineno, function.end_lineno) for function in functions(source.nodes)]
        for node, *_ in imported(source.nodes):
            if any(first <= node.lineno <= last for first, last in inside):
                found.append(source.place(node))
    assert found == []


def test_files_are_short():
    lengths = {source.name: len(source.text.splitlines()) for source in sources().values()}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its docstring."""
    length = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        docstring = function.body[0]
        length -= docstring.end_lineno - docstring.lineno + 1
    return length


def test_functions_are_short():
    found = [
        f"{source.place(function)}: {function.name} has {_length(function)} lines"
        for source in sources().values()
        for function in functions(source.nodes)
        if _length(function) > MAX_FUNCTION_LINES
    ]
    assert found == []


def is_private(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"_[A-Za-z0-9]\w*", name) is not None


def own_names(source: Source) -> set[str]:
    """The private attributes that a file defines: in classes, on `self` and `cls`, in `__slots__` and `__dict__`."""
    found: set[str] = set()
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_own(node.value):
            found.add(node.attr)
        elif isinstance(node, ast.ClassDef):
            found |= _class_names(node)
        elif (
            isinstance(node, ast.Subscript)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.slice, ast.Constant)
            and ast.unparse(node.value) in ("self.__dict__", "cls.__dict__")
        ):
            found.add(node.slice.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "self.__dict__.update":
            found |= {keyword.arg for keyword in node.keywords if keyword.arg is not None}
    # What the file itself has at its top is reached as `module._name`.
    return {name for name in found | _bound(source.tree.body) if is_private(name)}


def _class_names(node: ast.ClassDef) -> set[str]:
    found = _bound(node.body)
    if "__slots__" in found:
        slots = next(each.value for each in node.body if isinstance(each, ast.Assign) and "__slots__" in _bound([each]))
        found |= set(_strings(slots))
    return found


def _bound(body: list[ast.stmt]) -> set[str]:
    """The names that statements define."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def _strings(node: ast.AST) -> list[str]:
    return [each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)]


def _is_own(value: ast.AST) -> bool:
    """Whether something is the object that the code belongs to: `self`, `cls`, `super()`, `type(self)`."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return value.func.id == "super" or (value.func.id == "type" and len(value.args) == 1 and _is_own(value.args[0]))
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def private_accesses(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Where a file reads or sets a private attribute of another object, by a dot or by `getattr` and its like."""
    of_torch = {
        (alias.asname or alias.name).split(".")[0]
        for node in source.nodes
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
        if (getattr(node, "module", None) or alias.name).split(".")[0] == "torch" and _is_module(node, alias)
    }
    for node in source.nodes:
        value, names = _read_names(node)
        private = [name for name in names if is_private(name) and name not in NOT_PRIVATE]
        if private and not _is_own(value) and ast.unparse(value).split(".")[0] not in of_torch:
            yield from ((node, name) for name in private)


def _read_names(node: ast.AST) -> tuple[ast.AST, list[object]]:
    """The object and the names of attributes of it, where an expression reads or sets them."""
    if isinstance(node, ast.Attribute):
        return node.value, [node.attr]
    if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
        called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        if called in ("getattr", "setattr", "hasattr", "delattr") and len(node.args) > 1:
            return node.args[0], [getattr(node.args[1], "value", None)]
        if called == "attrgetter":
            return node, [name for text in _strings(node) for name in text.split(".")]
    return node, []


def _is_module(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> bool:
    """Whether an import from torch is of a module: `import torch._dynamo`, `from torch import nn`"""
    return isinstance(node, ast.Import) or alias.name.islower()


def test_private_attributes_stay_within_their_room():
    defined: dict[str, set[str]] = defaultdict(set)
    for source in sources().values():
        defined[source.room] |= own_names(source)
    found, used = [], set()
    for source in sources().values():
        for node, name in private_accesses(source):
            if name in defined[source.room]:
                continue
            if (source.room, name) in PRIVATE_EXCEPTIONS:
                used.add((source.room, name))
                continue
            rooms = ", ".join(sorted(room for room, names in defined.items() if name in names))
            if source.name == TORCH_INTERNALS and not rooms:
                continue
            found.append(f"{source.place(node)}: {name} ({rooms or 'nobody in torchfunc'})")
    assert sorted(found) == []
    assert set(PRIVATE_EXCEPTIONS) == used, "exceptions that are not needed"
    assert len(PRIVATE_EXCEPTIONS) <= 10
    assert all(PRIVATE_EXCEPTIONS.values())


@pytest.mark.parametrize(
    ("edges", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"a"}}, ["a -> a (in a group of 1 files)"]),
        (
            {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"a", "c"}, "e": {"a"}},
            ["a -> b -> c -> a (in a group of 4 files)"],
        ),
    ],
)
def test_circles_are_found(edges, found):
    assert circles(edges) == found
