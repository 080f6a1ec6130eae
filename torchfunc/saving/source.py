"""to_source: a model as a file of plain PyTorch."""

from __future__ import annotations

import builtins
import copy
import inspect
import keyword
import operator
import sys
from collections.abc import Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, fx, nn

from torchfunc.graph import CallMode
from torchfunc.layers import Layer
from torchfunc.modules.torch_graph.convert import to_torch
from torchfunc.naming import unique_name
from torchfunc.saving.source_helpers import Helpers
from torchfunc.saving.source_text import assignment, call, literal
from torchfunc.torch_functions import function_name
from torchfunc.torch_module_config import is_of_torch, module_arguments

__all__ = ["to_source"]

_INFIX = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.pow: "**",
    operator.matmul: "@",
    operator.and_: "&",
    operator.or_: "|",
    operator.xor: "^",
    operator.lshift: "<<",
    operator.rshift: ">>",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.eq: "==",
    operator.ne: "!=",
}
_PREFIX = {operator.neg: "-", operator.invert: "~", operator.pos: "+"}
# What code that cannot be traced may raise.
_TRACE_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_HOLDERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterDict, nn.ParameterList)


def to_source(model: Any, class_name: str | None = None) -> str:
    """The model as the text of a Python file of plain PyTorch.

    Args:
        model: a model that is built.
        class_name: what the class is called; by default after the model.

    Raises:
        ValueError: the model is not built yet, holds something that cannot be written so, or the name is none that a
            class can have.
    """
    if class_name is not None and (not class_name.isidentifier() or keyword.iskeyword(class_name)):
        raise ValueError(f"to_source takes a name that a class can have for class_name, got {class_name!r}.")
    return _File().write(to_torch(model), class_name, model.name)


class _File:
    """One file in the making: imports, helpers, classes."""

    def __init__(self) -> None:
        self.helpers = Helpers()
        self.classes: dict[str, str] = {}
        self.names: dict[nn.Module, str] = {}

    def write(self, module: fx.GraphModule, class_name: str | None, model_name: str) -> str:
        name = self.define(module, class_name or type(module).__name__, f"The model {model_name!r}.", is_outermost=True)
        imports = {"import torch", "from torch import nn", *self.helpers.imports}
        text = "\n\n\n".join([*self.helpers.definitions.values(), *self.classes.values()])
        if "F." in text:
            imports.add("import torch.nn.functional as F")
        parts = [
            f'"""{name}: a model in plain PyTorch."""',
            "from __future__ import annotations",
            *_import_blocks(imports),
            f'__all__ = ["{name}"]',
        ]
        return "\n\n".join(parts) + "\n\n\n" + text + "\n"

    def define(self, module: fx.GraphModule, name: str, about: str, is_outermost: bool = False) -> str:
        """Write the class of a graph module, unless it is there; returns its name."""
        if module in self.names:
            return self.names[module]
        name = unique_name(name, {*self.classes, *self.names.values()})
        self.names[module] = name
        constructor = _Constructor(self, module).write(is_outermost)
        forward = _Forward(self, module).write()
        about = about.replace("\\", "\\\\").replace('"""', "'''")
        self.classes[name] = f'class {name}(nn.Module):\n    """{about}"""\n\n{constructor}\n\n{forward}'
        return name

    def function(self, function: Any) -> str:
        """How the code names a function."""
        if isinstance(function, FunctionType) and not function.__module__.startswith("torch."):
            return self.helpers.use(function)
        name = function_name(function)
        if name.startswith("operator."):
            self.helpers.imports.add("import operator")
        return name.replace("torch.nn.functional.", "F.")

    def value(self, value: Any) -> str:
        """A constructor's argument."""
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, (list, tuple)):
            items = [self.value(each) for each in value]
            if isinstance(value, list):
                return f"[{', '.join(items)}]"
            return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{self.value(key)}: {self.value(each)}" for key, each in value.items()) + "}"
        if callable(value) and not isinstance(value, type):
            return self.function(value)
        return literal(value)

    def tensor(self, tensor: Tensor) -> str:
        """A tensor of that size; the values come with the state_dict."""
        kind = "" if tensor.dtype == torch.float32 else f", dtype={tensor.dtype}"
        text = f"torch.zeros({self.value(tuple(tensor.shape))}{kind})"
        if not isinstance(tensor, nn.Parameter):
            return text
        return f"nn.Parameter({text})" if tensor.requires_grad else f"nn.Parameter({text}, requires_grad=False)"

    def module(self, module: nn.Module) -> str:
        """The expression that makes a module."""
        if isinstance(module, fx.GraphModule):
            return f"{self.define(module, type(module).__name__, 'A part of the model.')}()"
        if isinstance(module, Layer):
            raise ValueError(
                f"{module.describe()} cannot be written as plain PyTorch: its code asks for values, does other things "
                "in training, or it has hooks. Write it as a torch.nn.Module."
            )
        if type(module) in _HOLDERS or (type(module) is nn.Module and not module._parameters):
            return self.holder(module)
        try:
            arguments = module_arguments(module)
        except ValueError as error:
            return f"{self.traced(module, error)}()"
        name = f"nn.{type(module).__name__}" if is_of_torch(type(module)) else self.helpers.use(type(module))
        return self.constructed(name, type(module), arguments)

    def holder(self, module: nn.Module) -> str:
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            plain = list(module._modules) == [str(index) for index in range(len(module._modules))]
            if isinstance(module, nn.Sequential) and not plain:
                self.helpers.imports.add("from collections import OrderedDict")
                return f"nn.Sequential(OrderedDict({self.value(dict(module._modules))}))"
            items = [self.value(each) for each in module._modules.values()]
            return (
                call("nn.Sequential", items, {})
                if plain and isinstance(module, nn.Sequential)
                else (f"nn.ModuleList([{', '.join(items)}])")
            )
        if isinstance(module, nn.ModuleDict) or type(module) is nn.Module:
            return f"nn.ModuleDict({self.value(dict(module._modules))})"
        entries = dict(module._parameters)
        return f"nn.ParameterDict({self.value(entries)})"

    def constructed(self, name: str, cls: type, arguments: Mapping[str, Any]) -> str:
        """The call of a class, without the arguments that have their defaults."""
        parameters = dict(inspect.signature(cls).parameters)
        if is_of_torch(cls) and issubclass(cls, nn.RNNBase):
            # Of its own it only says that it takes anything.
            parameters = dict(inspect.signature(nn.RNNBase).parameters)
        args, kwargs, positional = [], {}, True
        for key, parameter in parameters.items():
            if key not in arguments:
                positional = positional and key == "mode"
                continue
            value = arguments[key]
            if parameter.default is not parameter.empty and _same(value, parameter.default):
                positional = False
            elif positional and parameter.kind is not parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
                args.append(self.value(value))
            else:
                kwargs[key] = self.value(value)
        return call(name, args, kwargs)

    def traced(self, module: nn.Module, error: ValueError) -> str:
        """A module of the user's as the calls it makes."""
        graphs = []
        try:
            for training in (True, False):
                with CallMode(module, training):
                    graphs.append(fx.symbolic_trace(module))
        except _TRACE_ERRORS as problem:
            raise ValueError(f"{error} Nor can torch.fx trace it ({type(problem).__name__}: {problem}).") from error
        if graphs[0].code != graphs[1].code:
            raise ValueError(f"{error} Nor is it the same in training, so that its calls could be written.")
        return self.define(graphs[0], type(module).__name__, "A part of the model.")


def _import_blocks(imports: set[str]) -> list[str]:
    """The imports as they are sorted by convention: the standard library's, then others'."""

    def order(line: str) -> tuple[bool, str]:
        return line.startswith("from"), line.lower()

    merged: dict[str, set[str]] = {}
    lines = []
    for line in imports:
        if line.startswith("from ") and " as " not in line:
            module, _, name = line.removeprefix("from ").partition(" import ")
            merged.setdefault(module, set()).add(name)
        else:
            lines.append(line)
    lines += [f"from {module} import {', '.join(sorted(names, key=_isort))}" for module, names in merged.items()]
    standard = sys.stdlib_module_names
    blocks = [[line for line in lines if (line.split()[1].split(".")[0] in standard) == own] for own in (True, False)]
    return ["\n".join(sorted(block, key=order)) for block in blocks if block]


def _isort(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2), name


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, tuple) and isinstance(default, int):
        # One number stands for all axes.
        return all(each == default for each in value)
    return type(value) is type(default) and bool(value == default)


class _Constructor:
    """The `__init__` of a graph module's class."""

    def __init__(self, file: _File, module: fx.GraphModule) -> None:
        self.file = file
        self.module = module
        self.lines: list[str] = []

    def write(self, is_outermost: bool) -> str:
        for name, parameter in self.module._parameters.items():
            self.lines.append(assignment(f"self.{name}", "None" if parameter is None else self.file.tensor(parameter)))
        for name, buffer in self.module._buffers.items():
            if buffer is not None:
                self._buffer(name, buffer)
        for name, module in self.module._modules.items():
            if module is not None:
                self._child(name, module)
        if is_outermost:
            self._dtype()
        return "\n".join(["    def __init__(self) -> None:", "        super().__init__()", *self.lines])

    def _buffer(self, name: str, buffer: Tensor) -> None:
        persistent = name not in self.module._non_persistent_buffers_set
        if persistent:
            self.lines.append(f'        self.register_buffer("{name}", {self.file.tensor(buffer)})')
        else:
            text = f"torch.tensor({self.file.value(buffer.tolist())}, dtype={buffer.dtype})"
            self.lines.append(f'        self.register_buffer("{name}", {text}, persistent=False)')

    def _child(self, name: str, module: nn.Module) -> None:
        target = f"self.{name}"
        activation = None if isinstance(module, (fx.GraphModule, Layer, *_HOLDERS)) else _added_activation(module)
        if activation is not None:
            shell = copy.copy(module)
            shell._modules = {key: each for key, each in module._modules.items() if key != "activation"}
            self._assign(name, self.file.module(shell))
            self.lines.append(assignment(f"{target}.activation", self.file.module(activation)))
        else:
            self._assign(name, self.file.module(module))
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own) and not isinstance(module, fx.GraphModule):
            self.lines.append(f"        {_access('self', self.module, name)}.requires_grad_(False)")

    def _assign(self, name: str, value: str) -> None:
        if name.isidentifier() and not keyword.iskeyword(name):
            self.lines.append(assignment(f"self.{name}", value))
        else:
            self.lines.append(f"        self.add_module({literal(name)}, {value})")

    def _dtype(self) -> None:
        """The precision of the weights, if it is one, and another than the default."""
        found = {parameter.dtype for parameter in self.module.parameters() if parameter.is_floating_point()}
        if len(found) == 1 and found != {torch.float32}:
            self.lines.append(f"        self.to({found.pop()})")


def _added_activation(module: nn.Module) -> nn.Module | None:
    """The module that follows another one, registered in it."""
    if "activation" not in module._modules or "activation" in inspect.signature(type(module)).parameters:
        return None
    return module._modules["activation"]


def _access(start: str, root: nn.Module, path: str) -> str:
    """How code reaches what is at a path."""
    module: Any = root
    for name in path.split("."):
        if isinstance(module, (nn.Sequential, nn.ModuleList)) and name.isdigit():
            start = f"{start}[{name}]"
        elif type(module) in (nn.ModuleDict, nn.Module) and not name.isidentifier():
            start = f"{start}[{literal(name)}]"
        elif name.isidentifier() and not keyword.iskeyword(name):
            start = f"{start}.{name}"
        else:
            start = f"getattr({start}, {literal(name)})"
        module = getattr(module, name, None)
    return start


class _Forward:
    """The `forward` of a graph module's class."""

    def __init__(self, file: _File, module: fx.GraphModule) -> None:
        self.file = file
        self.module = module
        self.texts: dict[fx.Node, str] = {}
        self.taken = {"torch", "nn", "F", "self", "operator", *dir(builtins)}

    def write(self) -> str:
        parameters = ["self"]
        lines: list[str] = []
        written: dict[fx.Node, str] = {}
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self._name(node)
                default = "".join(f" = {literal(value)}" for value in node.args)
                parameters.append(f"{self.texts[node]}: torch.Tensor{' | None' if default else ''}{default}")
        for node in self.module.graph.nodes:
            if node.op == "output":
                if isinstance(node.args[0], fx.Node) and node.args[0] is node.prev and node.args[0] in written:
                    lines[-1] = assignment("return", written[node.args[0]])
                else:
                    lines.append(assignment("return", self._value(node.args[0])))
            elif node.op != "placeholder":
                text = self._expression(node)
                if node.op == "get_attr" or node.target is operator.getitem or node.target is getattr:
                    # Cheap, and clearer where it is used.
                    self.texts[node] = text
                elif node.users:
                    self._name(node)
                    written[node] = text
                    lines.append(assignment(self.texts[node], text))
                elif node.op != "call_method":
                    lines.append(f"        {text}")
        signature = f"    def forward({', '.join(parameters)}):"
        if len(signature) > 120:
            signature = "    def forward(\n        " + ",\n        ".join(parameters) + ",\n    ):"
        return "\n".join([signature, *lines])

    def _name(self, node: fx.Node) -> None:
        names = {*self.taken, *self.file.helpers.definitions}
        name = f"{node.name}_" if node.name in names or keyword.iskeyword(node.name) else node.name
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        self.texts[node] = name

    def _expression(self, node: fx.Node) -> str:
        if node.op == "get_attr":
            return _access("self", self.module, str(node.target))
        kwargs = {key: self._value(value) for key, value in node.kwargs.items()}
        if node.op == "call_module":
            return call(_access("self", self.module, str(node.target)), self._values(node.args), kwargs)
        if node.op == "call_method":
            first, *rest = node.args
            return call(f"{self._operand(first)}.{node.target}", self._values(rest), kwargs)
        function: Any = node.target
        if function is operator.getitem:
            return f"{self._operand(node.args[0])}[{self._index(node.args[1])}]"
        if function is getattr:
            return f"{self._operand(node.args[0])}.{node.args[1]}"
        if function in _INFIX and len(node.args) == 2:
            left, right = node.args
            return f"{self._operand(left)} {_INFIX[function]} {self._value(right)}"
        if function in _PREFIX and len(node.args) == 1:
            return f"{_PREFIX[function]}{self._operand(node.args[0])}"
        return call(self.file.function(function), self._values(node.args), kwargs)

    def _values(self, values: Any) -> list[str]:
        return [self._value(value) for value in values]

    def _operand(self, value: Any) -> str:
        """A value that something follows."""
        text = self._value(value)
        return f"({text})" if isinstance(value, (int, float)) and text.startswith("-") else text

    def _value(self, value: Any) -> str:
        if isinstance(value, fx.Node):
            return self.texts[value]
        if isinstance(value, (list, tuple)):
            items = self._values(value)
            if isinstance(value, list):
                return f"[{', '.join(items)}]"
            return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{literal(key)}: {self._value(each)}" for key, each in value.items()) + "}"
        if isinstance(value, slice):
            return f"slice({self._value(value.start)}, {self._value(value.stop)}, {self._value(value.step)})"
        return self.file.value(value)

    def _index(self, index: Any) -> str:
        """What stands in the brackets of `x[...]`."""
        if isinstance(index, slice):
            start, stop = ("" if each is None else self._value(each) for each in (index.start, index.stop))
            return f"{start}:{stop}" + ("" if index.step is None else f":{self._value(index.step)}")
        if isinstance(index, tuple) and index:
            return ", ".join(map(self._index, index)) + ("," if len(index) == 1 else "")
        return self._value(index)
