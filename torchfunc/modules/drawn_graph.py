"""DrawnGraph: what was drawn between some inputs and outputs, as one value that is handed around.

Lowering, the forwards for training and masks, configs, clones, copies, summaries and files take it instead of a model.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from torchfunc.graph import Node, SymbolicTensor, SymbolicValue, format_source, symbolic_tensors, topological_order
from torchfunc.layers import InputLayer, Layer
from torchfunc.modules.binding import InputBinding
from torchfunc.modules.keras_order import Part, in_keras_order, parts_by_depth
from torchfunc.modules.naming import Namer, name_nodes, submodule_key
from torchfunc.naming import unique_name
from torchfunc.structures import Structure, leaves, map_structure, path_leaves

__all__ = ["DrawnGraph", "RecordedTensor", "draw", "is_declared"]


class RecordedTensor(NamedTuple):
    """A parameter or constant tensor among the arguments of recorded calls.

    Moving a model to another dtype or device replaces its buffers, but not these, which are found by identity.

    Attributes:
        tensor: the tensor as it was met.
        path: the attribute of the model that holds it: `parameter`, `constant_1`, `dense.weight`.
        owner: "layer" where a layer of the model has it; "model" where the model itself does; "mask" where it is needed
            for masks only, and so is not saved.
    """

    tensor: Tensor
    path: str
    owner: Literal["layer", "model", "mask"]


@dataclass(frozen=True, eq=False)
class DrawnGraph:
    """The calls between some inputs and outputs, and what they are called in one model.

    Attributes:
        inputs, outputs: the symbolic tensors, nested as the user gave them.
        nodes: the calls in topological order, those of the declared inputs included.
        masks: the mask of each output, in flat order; None where it has none.
        mask_nodes: the calls that compute the masks and are not among `nodes`, in topological order.
        parts: the layers, the calls of functions and the outside inputs, in Keras' order, each with its depth.
        names: of each layer and module, and of each call of a function or method.
        keys: the submodule key of each layer and module, in Keras' order; input layers have none.
        tensors: the parameters and constants among the arguments of the calls.
        binding: which argument of a call is which input.
        output_tensors: the outputs in flat order.
        output_names: their names: the keys of a dict, else the layers that make them; with those around them, `b/c`.
        paths: the attribute of each recorded tensor, by `id`.
        known_specs: what it returns for other inputs, by the specs of these, as far as somebody has asked.
    """

    inputs: Structure
    outputs: Structure
    nodes: Sequence[Node]
    masks: Sequence[SymbolicTensor | None]
    mask_nodes: Sequence[Node]
    parts: Mapping[Part, int]
    names: Mapping[nn.Module | Node, str]
    keys: Mapping[nn.Module, str]
    tensors: Sequence[RecordedTensor]
    binding: InputBinding
    output_tensors: list[SymbolicTensor] = field(init=False)
    output_names: list[str] = field(init=False)
    paths: dict[int, str] = field(init=False)
    known_specs: dict[tuple[Any, ...], Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        # (Not cached properties, whose lock torch.compile cannot trace.)
        object.__setattr__(self, "output_tensors", symbolic_tensors(self.outputs))
        object.__setattr__(self, "output_names", self._name_outputs())
        object.__setattr__(self, "paths", {id(each.tensor): each.path for each in self.tensors})

    def _name_outputs(self) -> list[str]:
        names: list[str] = []
        for path, value in path_leaves(self.outputs):
            # As in Keras: `b/c`; what stands in a list goes by the layer that makes it.
            own = path[-1] if path and not isinstance(path[-1], int) else self.name_of(value.node)
            names.append(unique_name("/".join(map(str, (*path[:-1], own))), set(names)))
        return names

    @property
    def input_tensors(self) -> list[SymbolicTensor]:
        """The inputs in flat order."""
        return self.binding.tensors

    @property
    def layers(self) -> list[nn.Module]:
        """The layers and modules in Keras' order, input layers included."""
        return [part for part in self.parts if isinstance(part, nn.Module)]

    @property
    def outside_inputs(self) -> dict[str, SymbolicTensor]:
        """The inputs, by name, that are tensors which a layer made, and not declared by `Input(...)`."""
        named = zip(self.binding.names, self.input_tensors, strict=True)
        return {name: value for name, value in named if not is_declared(value)}

    def name_of(self, node: Node) -> str:
        """The name of the layer or function a node calls."""
        name = self.names.get(node.target if isinstance(node.target, nn.Module) else node)
        return name or str(node.target)

    def record_more(self, nodes: Iterable[Node]) -> DrawnGraph:
        """This graph, knowing also the tensors among the arguments of calls that only masks need."""
        more = _find_tensors(nodes, set(), self.keys, self.tensors)
        return dataclasses.replace(self, tensors=[*self.tensors, *more]) if more else self


def draw(
    inputs: Structure,
    outputs: Structure,
    owner: str,
    is_reserved: Callable[[str], bool],
    names: Mapping[nn.Module, str] | None = None,
    keys: Mapping[nn.Module, str] | None = None,
    tensor_names: Mapping[int, str] | None = None,
) -> DrawnGraph:
    """The graph from `inputs` to `outputs`, its layers named.

    Args:
        inputs, outputs: symbolic tensors, or lists, tuples and dicts of them.
        owner: the model, as messages call it.
        is_reserved: says of a key that the model needs it for itself.
        names, keys: of layers that have them already. (Without, all get new ones.)
        tensor_names: of parameters and constants among the arguments, by `id`. (Without, they are numbered.)

    Raises:
        TypeError: something else than a symbolic tensor was given.
        ValueError: the outputs depend on an input that is not among `inputs`, or two layers have one name.
    """
    values = _check_symbolic(inputs, "inputs")
    # Copies of the structures, since a list may be changed by whoever made it.
    inputs, outputs = map_structure(lambda leaf: leaf, inputs), map_structure(lambda leaf: leaf, outputs)
    results = _check_symbolic(outputs, "outputs")
    nodes = topological_order(results, values)
    _check_connected(nodes, values)
    nodes = sorted({*nodes, *(value.node for value in values if is_declared(value))}, key=lambda node: node.order)
    masks, mask_nodes = _find_masks(results, values, nodes)
    everything = [*nodes, *mask_nodes]
    ends = in_keras_order(inputs), in_keras_order(outputs)
    parts = parts_by_depth(*ends, {value for value in values if not is_declared(value)})
    if names is None:
        named = name_nodes(everything)
    else:
        functions = [node for node in everything if node.op in ("function", "method")]
        named = {**names, **name_nodes(functions, names.values())}
    keys = _submodule_keys(parts, named, is_reserved) if keys is None else keys
    called = {key: submodule_key(name, set(), is_reserved) for key, name in (tensor_names or {}).items()}
    tensors = _find_tensors(everything, set(nodes), keys, names=called)
    binding = InputBinding(inputs, _input_names(values, named), owner)
    for node in everything:
        target = node.target
        if isinstance(target, Layer):
            target.inbound_calls.release(node)
    return DrawnGraph(inputs, outputs, nodes, masks, mask_nodes, parts, named, keys, tensors, binding)


def is_declared(value: SymbolicTensor) -> bool:
    """Whether `Input(...)` made a tensor; another model input is one that a layer made."""
    return value.node.op == "input" and isinstance(value.node.target, InputLayer)


def _submodule_keys(
    parts: Iterable[Part], names: Mapping[nn.Module | Node, str], is_reserved: Callable[[str], bool]
) -> dict[nn.Module, str]:
    keys: dict[nn.Module, str] = {}
    taken: set[str] = set()
    # Where names differ only in what a key cannot hold, the earlier call gets the plain one.
    for target, name in names.items():
        if isinstance(target, nn.Module) and not isinstance(target, InputLayer):
            keys[target] = submodule_key(name, taken, is_reserved)
            taken.add(keys[target])
    return {part: keys[part] for part in parts if isinstance(part, nn.Module) and part in keys}


def _input_names(values: Iterable[SymbolicTensor], names: Mapping[Any, str]) -> list[str]:
    taken, found = set(names.values()), []
    for value in values:
        # An input may be a tensor that a layer made, and that layer may be part of this model as well.
        name = names[value.node.target] if is_declared(value) else unique_name(value.name, taken)
        taken.add(name)
        found.append(name)
    return found


def _find_masks(
    outputs: Sequence[SymbolicTensor], inputs: Sequence[SymbolicTensor], nodes: Sequence[Node]
) -> tuple[list[SymbolicTensor | None], list[Node]]:
    """The masks of a graph's outputs, and the calls they need beside `nodes`, those of the graph.

    A mask that needs another input than the graph's, or a layer that is not in it, is none.
    """
    if all(output.mask is None for output in outputs):
        return [None] * len(outputs), []
    known, modules = set(nodes), {node.target for node in nodes if node.op == "module"}
    added: set[Node] = set()

    def computable(mask: SymbolicTensor) -> bool:
        needed = {node for node in topological_order([mask], inputs) if node not in known}
        if any(node.op == "input" or (node.op == "module" and node.target not in modules) for node in needed):
            return False
        added.update(needed)
        return True

    masks = [None if output.mask is None or not computable(output.mask) else output.mask for output in outputs]
    return masks, sorted(added, key=lambda node: node.order)


def _find_tensors(
    nodes: Iterable[Node],
    saved: set[Node],
    keys: Mapping[nn.Module, str],
    known: Sequence[RecordedTensor] = (),
    names: Mapping[int, str] | None = None,
) -> list[RecordedTensor]:
    """The tensors among the arguments of calls that are not `known` yet.

    Args:
        nodes: the calls.
        saved: those whose tensors are saved with the model.
        keys: the model's submodules, whose own tensors keep their names.
        known: the tensors recorded before.
        names: what to call tensors that the model holds itself, by `id`; by default `parameter`, `constant` ...
    """
    found: list[RecordedTensor] = []
    seen = {id(each.tensor) for each in known}
    namer = Namer({*keys.values(), *(each.path for each in known)})
    paths: dict[int, str] | None = None
    for node in nodes:
        if not node.kwargs and all(isinstance(value, SymbolicValue) for value in node.args):
            continue
        for tensor in leaves((node.args, node.kwargs)):
            if not isinstance(tensor, Tensor) or id(tensor) in seen:
                continue
            paths = _paths_in_layers(keys) if paths is None else paths
            seen.add(id(tensor))
            if id(tensor) in paths:
                found.append(RecordedTensor(tensor, paths[id(tensor)], "layer"))
            else:
                base = "parameter" if isinstance(tensor, nn.Parameter) else "constant"
                name = namer.next((names or {}).get(id(tensor), base))
                is_saved = node in saved or isinstance(tensor, nn.Parameter)
                found.append(RecordedTensor(tensor, name, "model" if is_saved else "mask"))
    return found


def _paths_in_layers(keys: Mapping[nn.Module, str]) -> dict[int, str]:
    paths: dict[int, str] = {}
    for module, key in keys.items():
        for path, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
            paths.setdefault(id(tensor), f"{key}.{path}")
    return paths


def _check_symbolic(structure: Structure, what: str) -> list[SymbolicTensor]:
    """The symbolic tensors in a model's inputs or outputs.

    Raises:
        TypeError: there is something else among them.
        ValueError: there are none, or an input is given twice.
    """
    found = leaves(structure)
    for leaf in found:
        if not isinstance(leaf, SymbolicTensor):
            raise TypeError(
                f"The {what} of a Model are symbolic tensors, made by Input(...) and by calling layers on it, "
                f"but these hold {leaf!r} ({type(leaf).__name__})."
                + " Call it on a tensor: layer(x)."
                * isinstance(leaf, nn.Module)
            )
    if not found:
        raise ValueError(f"A Model needs {what}, got {structure!r}.")
    if what == "inputs" and len(set(found)) < len(found):
        raise ValueError("The inputs of a Model must differ, but one tensor is given twice.")
    return found


def _check_connected(nodes: Sequence[Node], inputs: Sequence[SymbolicTensor]) -> None:
    """Raise a ValueError if the calls of a graph depend on an input that is not among the model's."""
    given = ", ".join(repr(value.name) for value in inputs)
    for node in nodes:
        if node.op == "input":
            raise ValueError(
                f"Graph disconnected: the outputs depend on input {getattr(node.target, 'name', node.target)!r} "
                f"(made at {format_source(node.source)}), which is not among the model's inputs ({given}). "
                "Add it to `inputs`, or take the outputs from tensors that depend on the given inputs only."
            )
