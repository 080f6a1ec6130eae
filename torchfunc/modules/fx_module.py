"""FxModule: a `torch.fx.GraphModule` without a class of its own for each instance; and the class of drawn models.

torch.fx makes a new class for each graph module, to hang its generated forward on. Here the generated function is an
attribute of the instance: all drawn models are of one class, as `torch.func.stack_module_state` and pickles need it.
Everything that has to do with the classes of models stands in this file.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import linecache
import re
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import fx, nn
from torch.fx.graph import PythonCode

from torchfunc.graph import copy_mode, graph_specs, is_hooked

__all__ = [
    "FxModule",
    "GeneratedCode",
    "OwnedGraph",
    "class_parts",
    "drawn_class",
    "empty_model",
    "generate",
    "module_called_at",
    "unchanged",
    "value_made_at",
    "with_forward",
    "written_class",
    "written_to",
]

M = TypeVar("M", bound="FxModule")

_numbers = itertools.count()
_FILE = "<generated forward"
# How generated code calls a layer: `self.dense(x)`, or `getattr(self, "0")(x)`.
_CALL = re.compile(r"""(?:getattr\(self, "([^"]+)"\)|self\.(\w+))\(""")


_MADE = re.compile(r"\s*(\w+) = ")


class _GeneratedForward:
    """The attribute `forward`: of a model the function that was generated for it, of a class one for all of its models.

    A model's own has the signature of its graph, by which torch.export and others name the inputs.
    """

    def __get__(self, model: FxModule | None, owner: type | None = None) -> Callable[..., Any]:
        if model is None:
            return forward
        # torch.compile cannot trace the making of a method.
        bind = functools.partial if torch.compiler.is_dynamo_compiling() else MethodType
        # (While a pickle is read, a method of the model may come before the model's own state.)
        return bind(model.__dict__.get("generated_forward", forward), model)


def forward(self: FxModule, *inputs: Any) -> Any:
    """What torch.fx traces when a model is the root: it takes `forward` from the class, and one proxy for `inputs`.

    (It has the name under which a pickle looks for a method of it.)
    """
    if isinstance(inputs, fx.Proxy):
        count = sum(node.op == "placeholder" for node in self.graph.nodes)
        inputs = tuple(inputs[index] for index in range(count))
    # (Not `self.forward`: tools put a method of this function there.)
    return self.generated_forward(self, *inputs)


class OwnedGraph(fx.Graph):
    """A graph that does not keep the models alive that it is the graph of."""

    _owners_met: Sequence[weakref.ref[Any]] = ()

    @property
    def owning_module(self) -> Any:
        """The module that took the graph last, of those that are still there."""
        for owner in reversed(self._owners_met):
            living = owner()
            if living is not None:
                return living
        return None

    @owning_module.setter
    def owning_module(self, module: fx.GraphModule | None) -> None:
        living = [owner for owner in self._owners_met if owner() is not None]
        self._owners_met = [] if module is None else [*living, weakref.ref(module)]


class FxModule(fx.GraphModule):
    """A graph module whose instances are of one class.

    Attributes:
        generated_forward: the code of `graph` as a function of the module and its inputs.
        modules_read: see `GeneratedCode`.
    """

    generated_forward: Callable[..., Any]
    modules_read: frozenset[str]
    forward: Any = _GeneratedForward()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # In place of torch.fx's, which makes a class.
        return object.__new__(cls)

    def begin_graph(self) -> None:
        """Be a graph module of an empty graph, which is there to be replaced."""
        # (torch.fx sets the name of the class to what it is given.)
        fx.GraphModule.__init__(self, nn.Module(), OwnedGraph(), type(self).__name__)

    @property
    def graph(self) -> fx.Graph:
        """The `torch.fx.Graph`. Setting it generates `forward` anew."""
        return self._graph

    @graph.setter
    def graph(self, graph: fx.Graph) -> None:
        self._set_graph(graph)

    def _set_graph(self, graph: fx.Graph) -> None:
        self._graph = graph
        graph.owning_module = self
        self.recompile()

    def recompile(self) -> PythonCode:
        """Generate `forward` from `graph` anew. Call it after changing the graph in place."""
        specs = graph_specs(self._graph)
        if specs is not None:
            # The code looks these up.
            self._in_spec, self._out_spec = specs
        generated = generate(self._graph)
        python = generated.python
        # (The line numbers are for torch.fx's `print_readable`.)
        self._code, self._lineno_map, self._prologue_start = python.src, python._lineno_map, python._prologue_start
        self.__dict__.update(generated_forward=generated.function, modules_read=generated.modules_read)
        return python


@dataclass(frozen=True)
class GeneratedCode:
    """The code of a graph.

    Attributes:
        graph: the graph.
        python: what torch.fx generated.
        function: it as a function of the module and its inputs.
        modules_read: the submodules that it does more with than calling them: whose attributes it reads, say.
    """

    graph: fx.Graph
    python: PythonCode
    function: Callable[..., Any]
    modules_read: frozenset[str]


def unchanged(code: GeneratedCode) -> GeneratedCode:
    """The code as it is."""
    return code


def generate(graph: fx.Graph) -> GeneratedCode:
    """The code of a graph, ready to be called."""
    python = graph.python_code("self")
    names = dict(python.globals)
    # torch 2.11 names the classes of named tuples that are returned, and does not say which these are.
    for kind in _named_tuples([node.args for node in graph.nodes if node.op == "output"]):
        if kind not in python.globals.values() and names.setdefault(kind.__name__, kind) is not kind:
            raise ValueError(f"Two different things in a graph's outputs are called {kind.__name__!r}. Rename one.")
    file = f"{_FILE} {next(_numbers)}>"
    # As torch.fx does it: annotations in the code are to be types, not strings.
    exec(compile(python.src, file, "exec", dont_inherit=True), names)
    # (Left there, the function would refer to itself and outlive its last use.)
    function: Callable[..., Any] = names.pop("forward")
    # So that tracebacks, and what torch.compile says, show the line, for as long as there is the function.
    linecache.cache[file] = (len(python.src), None, python.src.splitlines(keepends=True), file)
    weakref.finalize(function, linecache.cache.pop, file, None).atexit = False
    read = frozenset(str(node.target).partition(".")[0] for node in graph.nodes if node.op == "get_attr")
    return GeneratedCode(graph, python, function, read)


def _named_tuples(structure: object) -> Iterator[type]:
    if isinstance(structure, (list, tuple)):
        if hasattr(structure, "_fields"):
            yield type(structure)
        for item in structure:
            yield from _named_tuples(item)
    elif isinstance(structure, Mapping):
        yield from _named_tuples(list(structure.values()))


def module_called_at(file: str, line: str) -> str | None:
    """The key of the submodule that a line of a traceback calls; None if it is not one of generated code that does.

    Args:
        file: the name of the file.
        line: the line's text.
    """
    found = _CALL.search(line) if file.startswith(_FILE) else None
    return found and (found[1] or found[2])


def with_forward(model: M, forward: Callable[..., Any]) -> M:
    """The model once more, with all that it holds, but with another function in place of its generated forward."""
    view = object.__new__(type(model))
    view.__dict__.update(model.__dict__, generated_forward=forward)
    copy_mode(model, view)
    return view


def written_to(model: FxModule, view: FxModule) -> contextlib.AbstractContextManager[None]:
    """Within this, what hooks set on a view of a model, by `with_forward`, is set on the model."""
    compiling = torch.compiler.is_compiling()
    return contextlib.nullcontext() if compiling or not is_hooked(model) else _written_to(model, view)


@contextlib.contextmanager
def _written_to(model: FxModule, view: FxModule) -> Iterator[None]:
    before = dict(view.__dict__)
    try:
        yield
    finally:
        for name, value in view.__dict__.items():
            if name not in before or before[name] is not value:
                model.__dict__[name] = value


def value_made_at(file: str, line: str) -> str | None:
    """The name of the value that a line of generated code makes; None if it is not one of generated code that does."""
    found = _MADE.match(line) if file.startswith(_FILE) else None
    return found and found[1]


@functools.cache
def drawn_class(cls: type, base: type) -> type:
    """The class of the drawn models of a user's model class: `cls` with `base`, that of all others, behind it."""
    if issubclass(cls, FxModule):
        return cls
    if issubclass(base, cls):
        return base
    return type(cls.__name__, (cls, base), {"__module__": cls.__module__, "_written_class": cls})


def written_class(cls: type) -> Any:
    """The class that somebody wrote, behind one that `drawn_class` made."""
    return cls.__dict__.get("_written_class", cls)


def class_parts(cls: type) -> tuple[type, type]:
    """What `drawn_class` makes the class of, for a pickle that cannot name it."""
    written = written_class(cls)
    return written, cls if written is cls else cls.__bases__[1]


def empty_model(written: type, base: type, *within: nn.Module) -> Any:
    """A model as it is before anything is set on it: where a copy or a pickle is unpacked, those within it before."""
    return object.__new__(drawn_class(written, base))
