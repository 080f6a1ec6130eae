"""from_module: any traceable `torch.nn.Module` as symbolic calls of its parts."""

from __future__ import annotations

import inspect
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from torchfunc.graph import (
    CallMode,
    SymbolicTensor,
    SymbolicValue,
    entering,
    install_hook,
    record_function,
    record_method,
    record_module,
    symbolic_leaves,
)
from torchfunc.layers import InputLayer, Layer
from torchfunc.modules import plain
from torchfunc.modules.functional_config import name_parts
from torchfunc.modules.graph_network import GraphNetwork
from torchfunc.modules.torch_graph.tracing import DROPOUTS
from torchfunc.registry import to_snake_case
from torchfunc.structures import leaves, map_structure

__all__ = ["model_of_module"]

M = TypeVar("M", bound=GraphNetwork)

# What code that cannot be traced, drawn or exported may raise.
_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# What stands for our layers in plain PyTorch.
_PLAIN = plain.__name__
_IN_PLACE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ifloordiv: operator.floordiv,
    operator.imod: operator.mod,
    operator.ipow: operator.pow,
    operator.iand: operator.and_,
    operator.ior: operator.or_,
    operator.ixor: operator.xor,
    operator.imatmul: operator.matmul,
}


@dataclass(frozen=True)
class Drawing:
    """A module, drawn.

    Attributes:
        inputs, outputs: symbolic tensors; the outputs nested as the module returns them.
        names: of the modules that are called, their paths.
        tensors: the path of each parameter and buffer that is used by no module, by `id`.
    """

    inputs: list[SymbolicTensor]
    outputs: Any
    names: Mapping[nn.Module, str]
    tensors: Mapping[int, str]


def model_of_module(cls: type[M], module: nn.Module, example_inputs: Any, name: str | None) -> M:
    """The drawn model of a module, whose parts it shares.

    Args:
        cls: the class of drawn models.
        module: the module.
        example_inputs: a tensor, a list or tuple of them, or a dict by argument.
        name: the model's name; by default after the module's class.

    Raises:
        TypeError: the inputs are something else.
        ValueError: the module cannot be drawn; the message says why not.
    """
    drawing = _draw(module, example_inputs)
    inputs: Any = drawing.inputs[0] if len(drawing.inputs) == 1 else drawing.inputs
    model = cls(inputs, drawing.outputs, name=name or to_snake_case(type(module).__name__))
    name_parts(model, drawing.names, drawing.tensors)
    model.training = module.training
    return model


def _draw(module: nn.Module, example_inputs: Any) -> Drawing:
    """The calls of a module's parts, as its `forward` makes them.

    torch.fx traces it; where that fails, `forward` runs on symbolic tensors, and where that fails, torch.export finds
    the operators, which are functions and no layers.
    """
    examples = _examples(module, example_inputs)
    problems: list[str] = []
    ways: dict[str, Callable[[nn.Module, Mapping[str, Tensor]], tuple[list[SymbolicTensor], Any]]] = {
        "torch.fx": _by_tracing,
        "symbolic tensors": _by_drawing,
        "torch.export": _by_exporting,
    }
    for way, attempt in ways.items():
        try:
            inputs, outputs = attempt(module, examples)
        except _ERRORS as error:
            problems.append(f"{way}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            continue
        if symbolic_leaves(outputs):
            return _named(module, inputs, outputs)
        problems.append(f"{way}: the outputs do not depend on the inputs")
    listed = "\n  ".join(problems)
    raise ValueError(f"{type(module).__name__} cannot be drawn:\n  {listed}")


def _examples(module: nn.Module, given: Any) -> dict[str, Tensor]:
    """The example inputs by the name of the argument."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    plain_kinds = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    names = [each.name for each in plain_kinds]
    if isinstance(given, Mapping):
        found = dict(given)
    else:
        values = list(given) if isinstance(given, (list, tuple)) else [given]
        names += [f"input_{index}" for index in range(len(names) + 1, len(values) + 1)]
        found = dict(zip(names, values, strict=False))
    missing = [each.name for each in plain_kinds if each.default is each.empty and each.name not in found]
    if missing:
        raise ValueError(f"{type(module).__name__} takes {', '.join(names)}, but example_inputs lack {missing}.")
    strange = {name: type(value).__name__ for name, value in found.items() if not isinstance(value, Tensor)}
    if not found or strange:
        raise TypeError(
            f"from_module takes tensors as example_inputs, one for each argument, got {strange or given!r}."
        )
    return found


def _declare(examples: Mapping[str, Tensor]) -> dict[str, SymbolicTensor]:
    install_hook()
    return {
        name: InputLayer(
            batch_shape=(None, *value.shape[1:]) if value.ndim else (), dtype=value.dtype, name=name
        ).output
        for name, value in examples.items()
    }


def _is_part(module: nn.Module) -> bool:
    """Whether a module becomes a layer as a whole: those of torch, their subclasses, and ours; no containers."""
    if isinstance(module, _CONTAINERS) or type(module) is fx.GraphModule:
        return False
    bases = type(module).__mro__[: type(module).__mro__.index(nn.Module)]
    of_torch = any(base.__module__.startswith(("torch.nn.modules", "torch.ao.nn")) for base in bases)
    return of_torch or isinstance(module, Layer) or type(module).__module__.startswith(_PLAIN)


def _named(module: nn.Module, inputs: list[SymbolicTensor], outputs: Any) -> Drawing:
    names: dict[nn.Module, str] = {value.node.target: value.name for value in inputs}
    for path, part in module.named_modules():
        names.setdefault(part, path or type(module).__name__.lower())
    tensors = {id(tensor): path for path, tensor in [*module.named_parameters(), *module.named_buffers()]}
    return Drawing(inputs, outputs, names, tensors)


# torch.fx


class _Tracer(fx.Tracer):
    """Takes torchfunc's layers for one call each, too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_part(m)


def _by_tracing(module: nn.Module, examples: Mapping[str, Tensor]) -> tuple[list[SymbolicTensor], Any]:
    graph, follows = _trace(module)
    return _Replay(module, graph, examples, follows).run()


def _trace(module: nn.Module) -> tuple[fx.Graph, set[str]]:
    """The graph in the module's mode, and the names of its calls of dropout that are made in training alone."""
    graphs = {}
    for training in (not module.training, module.training):
        with CallMode(module, training):
            graphs[training] = _Tracer().trace(module)
    graph, other = graphs[module.training], graphs[not module.training]
    follows = set()
    for a, b in zip(graph.nodes, other.nodes, strict=False):
        if (a.op, str(a.args), str(a.kwargs), str(a.target)) == (b.op, str(b.args), str(b.kwargs), str(b.target)):
            continue
        if a.target is b.target and a.target in DROPOUTS and str(a.args[:1]) == str(b.args[:1]):
            follows.add(a.name)
        else:
            now = "training" if module.training else "evaluation"
            warnings.warn(
                f"{type(module).__name__} does other things in training. It is drawn as it is in {now} mode.",
                stacklevel=5,
            )
            break
    return graph, follows


class _Replay:
    """Makes the calls of a torch.fx graph on symbolic tensors.

    Args:
        module: what was traced.
        graph: its graph.
        examples: the inputs that are given.
        follows: the names of calls of dropout that are to be made in training alone.
    """

    def __init__(self, module: nn.Module, graph: fx.Graph, examples: Mapping[str, Tensor], follows: set[str]) -> None:
        self.module = module
        self.graph = graph
        self.follows = follows
        self.inputs = _declare(examples)
        self.values: dict[fx.Node, Any] = {}

    def run(self) -> tuple[list[SymbolicTensor], Any]:
        result: Any = None
        for node in self.graph.nodes:
            args, kwargs = self._read(list(node.args)), {key: self._read(each) for key, each in node.kwargs.items()}
            if node.op == "output":
                result = args[0]
            elif node.op == "placeholder":
                self.values[node] = self._input(node, args)
            elif node.op == "get_attr":
                self.values[node] = operator.attrgetter(node.target)(self.module)
            else:
                self._call(node, args, kwargs)
        return list(self.inputs.values()), result

    def _read(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return self.values[value]
        if isinstance(value, (list, tuple)):
            items = [self._read(each) for each in value]
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, Mapping):
            return {key: self._read(each) for key, each in value.items()}
        if isinstance(value, slice):
            return slice(self._read(value.start), self._read(value.stop), self._read(value.step))
        return value

    def _input(self, node: fx.Node, default: Sequence[Any]) -> Any:
        name = str(node.target).lstrip("*")
        if name in self.inputs:
            return self.inputs[name]
        if not default:
            raise ValueError(f"example_inputs lack {name!r}")
        return default[0]

    def _call(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> None:
        target: Any = node.target
        if node.op == "call_module":
            part = self.module.get_submodule(target)
            on_weights = not symbolic_leaves((args, kwargs)) and not isinstance(part, Layer)
            self.values[node] = record_module(part, args, kwargs) if on_weights else part(*args, **kwargs)
            return
        in_place = kwargs.pop("inplace", False) is True
        if node.op == "call_method":
            in_place = target.endswith("_") and not target.endswith("__")
            self.values[node] = _method(target.rstrip("_") if in_place else target, args, kwargs)
        else:
            in_place = in_place or target in _IN_PLACE
            self.values[node] = self._function(node, _IN_PLACE.get(target, target), args, kwargs)
        if in_place:
            # What read the old value from here on reads the new one.
            self.values[node.args[0]] = self.values[node]  # type: ignore[index]

    def _function(self, node: fx.Node, target: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if node.name in self.follows:
            share = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
            return DROPOUTS[target](share)(args[0])
        if target is getattr and args[1] == "shape" and isinstance(args[0], SymbolicTensor):
            return args[0].size()
        if target is getattr or (target is operator.getitem and not isinstance(args[0], (SymbolicValue, Tensor))):
            return target(*args, **kwargs)
        return record_function(target, args, kwargs) if _is_recorded((args, kwargs)) else target(*args, **kwargs)


def _method(name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if not _is_recorded((args, kwargs)):
        return getattr(args[0], name)(*args[1:], **kwargs)
    return record_method(name, args, kwargs)


def _is_recorded(arguments: Any) -> bool:
    """Whether a call belongs in the graph: what is computed from parameters alone has to follow them, too."""
    return any(isinstance(leaf, (SymbolicValue, Tensor)) for leaf in leaves(arguments))


# Symbolic tensors


def _by_drawing(module: nn.Module, examples: Mapping[str, Tensor]) -> tuple[list[SymbolicTensor], Any]:
    inputs = _declare(examples)
    with entering(lambda part: part is module or not _is_part(part)):
        outputs = type(module).forward(module, **inputs)
    return list(inputs.values()), outputs


# torch.export


def _by_exporting(module: nn.Module, examples: Mapping[str, Tensor]) -> tuple[list[SymbolicTensor], Any]:
    batch = torch.export.Dim("batch")
    shapes = {name: {0: batch} if value.ndim else {} for name, value in examples.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (), dict(examples), dynamic_shapes=shapes)
    inputs = _declare(examples)
    signature = program.graph_signature
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    if signature.buffers_to_mutate:
        raise ValueError("its buffers are changed")
    values: dict[fx.Node, Any] = {}
    names = iter(inputs.values())
    for node in program.graph.nodes:
        args, kwargs = (_look_up(values, each) for each in (list(node.args), dict(node.kwargs)))
        if node.op == "placeholder":
            if node.name in held:
                values[node] = operator.attrgetter(held[node.name])(module)
            elif node.name in signature.inputs_to_lifted_tensor_constants:
                values[node] = program.constants[signature.inputs_to_lifted_tensor_constants[node.name]]
            else:
                values[node] = next(names)
        elif node.op == "output":
            flat = leaves(args[0])
            return list(inputs.values()), torch.utils._pytree.tree_unflatten(flat, program.call_spec.out_spec)
        elif node.target is operator.getitem:
            values[node] = args[0][args[1]]
        else:
            recorded = _is_recorded((args, kwargs))
            values[node] = record_function(node.target, args, kwargs) if recorded else node.target(*args, **kwargs)
    raise ValueError("it returns nothing")


def _look_up(values: Mapping[fx.Node, Any], structure: Any) -> Any:
    return map_structure(lambda leaf: values[leaf] if isinstance(leaf, fx.Node) else leaf, structure)
