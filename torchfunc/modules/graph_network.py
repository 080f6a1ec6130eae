"""GraphNetwork: the graph between some inputs and outputs, as a `torch.fx.GraphModule`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph import PythonCode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from torchfunc.graph import (
    Node,
    SymbolicTensor,
    contains_symbolic,
    pass_over,
    record,
    symbolic_tensors,
    topological_order,
    with_own_code,
)
from torchfunc.layers import InputLayer, Layer
from torchfunc.layers.base.shapes import map_shapes
from torchfunc.layers.base.tracking import restore_tracking
from torchfunc.modules.binding import InputBinding
from torchfunc.modules.checks import check_connected, check_symbolic
from torchfunc.modules.codegen import ModuleTableCodeGen
from torchfunc.modules.direct_calls import DirectCalls
from torchfunc.modules.functional_config import graph_config, graph_from_config
from torchfunc.modules.hooks import is_hooked
from torchfunc.modules.lowering import BeforeActivation, lower
from torchfunc.modules.masked_graph import MaskedCalls
from torchfunc.modules.naming import Namer, name_nodes, submodule_key, unique_name
from torchfunc.modules.network import Network
from torchfunc.modules.output_activations import OutputActivation, find_activation
from torchfunc.modules.replaying import FlatGraph, flatten_fx, reinfer, restore_fx
from torchfunc.modules.training_forward import OutputDescription, TrainingForward, TrainingOutputs, find_masks
from torchfunc.structures import map_structure

__all__ = ["OWN_CALLS", "GraphNetwork", "become_graph", "graph_class"]

# What __getstate__ leaves out of a copy: it is rebuilt from the flat form of the graph.
_REBUILT = (
    *("_nodes", "_mask_nodes", "_inputs", "_outputs", "output_masks", "_names", "_keys", "_binding", "_graph"),
    *("inbound_nodes", "call_losses", "_training_forward", "_masked_calls", "_drawn_code", "_generated", "_direct"),
)
# How many calls on end may find hooks or other changes until they are adapted to: they may be there for one call only.
_PATIENCE = 3


class GraphNetwork(Network, fx.GraphModule):
    """A model drawn by calling layers on symbolic tensors.

    It is a `torch.fx.GraphModule`: `graph` has one `call_module` node for each layer call, `code` is its forward.

    Args:
        inputs: the symbolic inputs: a tensor, or a list, tuple or dict of them.
        outputs: the symbolic outputs, likewise; nested as the model shall return them.
        name: the model's name.
        trainable: whether training may change the weights.
        **kwargs: of `Layer`.

    Raises:
        ValueError: the outputs depend on an input that is not among `inputs`, or two layers have one name.
        TypeError: something else than a symbolic tensor was given.
    """

    _nodes: list[Node]
    # For each output its mask, and the calls that compute them and are not part of the graph otherwise.
    output_masks: Sequence[SymbolicTensor | None] = ()
    _mask_nodes: Sequence[Node] = ()
    # The code of the graph that was drawn. When somebody changes the graph, the two that know what was drawn are None.
    _drawn_code = ""
    _training_forward: TrainingForward | None = None
    _masked_calls: MaskedCalls | None = None
    # The forward that `recompile` made, and what stands for the model in it when layers need not be called as modules.
    _generated: Any = None
    _direct: DirectCalls | None = None
    # The tensors among the arguments of the calls, and what they are called in this model. Moving the model to another
    # dtype or device replaces its buffers, but not these.
    _recorded: list[tuple[Tensor, str]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        written = _without_fx(cls)
        # `type(model)(...)`: torch.fx would return a model of another class, which Python then does not initialize.
        return super().__new__(cls, *args, **kwargs) if written is cls else written(*args, **kwargs)

    def __init__(
        self, inputs: Any, outputs: Any, name: str | None = None, trainable: bool = True, **kwargs: Any
    ) -> None:
        self._start(name, trainable, **kwargs)
        self._draw(inputs, outputs)
        if not trainable:
            self.trainable = False

    def _start(self, name: str | None, trainable: bool, **kwargs: Any) -> None:
        """Be an empty model."""
        fx.GraphModule.__init__(self, nn.Module(), fx.Graph(), _class_name(type(self)))
        Layer.__init__(self, name=name, trainable=trainable, **kwargs)
        self._init_arguments = ((), {})
        self._recorded = []

    def _draw(self, inputs: Any, outputs: Any) -> None:
        values = check_symbolic(inputs, "inputs")
        # Copies of the structure: whose list it is may go on filling it.
        self._inputs, self._outputs = map_structure(_same, inputs), map_structure(_same, outputs)
        nodes = topological_order(check_symbolic(outputs, "outputs"), values)
        check_connected(nodes, values)
        nodes = sorted({*nodes, *(value.node for value in values if _is_declared(value))}, key=lambda n: n.order)
        self._adopt_nodes(nodes)
        self._take_graph(self._lower(self._nodes, self._outputs))
        self.built = True

    def _adopt_nodes(self, nodes: Sequence[Node]) -> None:
        """Name the layers of a graph and register them as submodules."""
        self._nodes = list(nodes)
        self._find_masks(symbolic_tensors(self._inputs))
        self._names = name_nodes([*nodes, *self._mask_nodes])
        self._keys: dict[Any, str] = {}
        for target, name in self._names.items():
            if isinstance(target, nn.Module) and not isinstance(target, InputLayer):
                key = submodule_key(name, self)
                self._keys[target] = key
                self._modules[key] = target
        self._bind_names()

    def _bind_names(self) -> None:
        taken, names = set(self._names.values()), []
        for value in symbolic_tensors(self._inputs):
            # An input may be a tensor that a layer made, and that layer may be part of this model as well.
            name = self._names[value.node.target] if _is_declared(value) else unique_name(value.name, taken)
            taken.add(name)
            names.append(name)
        self._binding = InputBinding(self._inputs, names, f"Model {self.name!r}")

    def _find_masks(self, inputs: Sequence[SymbolicTensor]) -> None:
        # Past the tracking of lists.
        self.__dict__["output_masks"], self.__dict__["_mask_nodes"] = find_masks(self.outputs, inputs, self._nodes)

    def _lower(self, nodes: Sequence[Node], outputs: Any) -> fx.Graph:
        inputs = dict(zip(self._binding.names, self._binding.tensors, strict=True))
        tensors = self._register_tensors([*self._nodes, *self._mask_nodes])
        return lower(nodes, inputs, outputs, self._names, self._keys, tensors)

    def _take_graph(self, graph: fx.Graph, as_drawn: bool = True) -> None:
        """Let `graph` be the torch.fx graph; one that was drawn, or changed since."""
        self.graph = graph
        if as_drawn:
            self._drawn_code = self._code
            self._training_forward, self._masked_calls = TrainingForward(self), MaskedCalls(self)

    def _register_tensors(self, nodes: Iterable[Node]) -> dict[int, str]:
        """Make the parameters and tensors met in recorded calls this model's, unless a layer in it has them.

        Constants that only masks are made of are not saved: drawing the model makes them.
        """
        saved = set(self._nodes)
        found = {id(tensor): path for tensor, path in self._recorded}
        found.update({id(tensor): path for path, tensor in (*self.named_parameters(), *self.named_buffers())})
        recorded = {id(tensor) for tensor, _ in self._recorded}
        namer = Namer({*self._modules, *self._parameters, *self._buffers})
        for node in nodes:
            if not node.kwargs and all(isinstance(value, SymbolicTensor) for value in node.args):
                continue
            for tensor in tree_leaves((node.args, dict(node.kwargs))):
                if not isinstance(tensor, Tensor) or id(tensor) in recorded:
                    continue
                if id(tensor) not in found:
                    found[id(tensor)] = self._register_tensor(tensor, namer, node in saved)
                self._recorded.append((tensor, found[id(tensor)]))
                recorded.add(id(tensor))
        return found

    def _register_tensor(self, tensor: Tensor, namer: Namer, saved: bool) -> str:
        name = namer.next("parameter" if isinstance(tensor, nn.Parameter) else "constant")
        if isinstance(tensor, nn.Parameter):
            self._parameters[name] = tensor
        elif saved:
            self._buffers[name] = tensor
        else:
            # The rest of the model may have moved since it was drawn.
            weight = self._first_weight()
            self.register_buffer(name, tensor if weight is None else tensor.to(weight.device), persistent=False)
        return name

    def recompile(self) -> PythonCode:
        """Generate `forward` from `graph` anew. Call it after changing the graph in place."""
        code: PythonCode = super().recompile()
        self.__dict__["_generated"] = type(self).forward
        if self._code != self._drawn_code:
            # (Drawing a model around this one recompiles this one as well.)
            self.__dict__.update(_training_forward=None, _masked_calls=None)
        # In place of torch.fx's, which prints generated code on errors: ours has to come first.
        type(self).__call__ = with_own_code(type(self).__mro__[1].__call__)  # type: ignore[method-assign]
        return code

    # Calling

    def __call__(self, *args: Any, training: bool | None = None, mask: Any = None, **kwargs: Any) -> Any:
        if mask is not None and "mask" in self._binding.names:
            kwargs, mask = {**kwargs, "mask": mask}, None
        if training is None and mask is None and not kwargs and self._binding.fits(args):
            direct = self.direct_calls()
            if direct is not None:
                return self.run_outermost(self._generated, direct, *args)
            values = args
        else:
            values = self.prepare_inputs(*args, **kwargs)
        given: dict[str, Any] = {} if training is None else {"training": training}
        if mask is not None and self._masked_calls is not None:
            given["mask"] = masks = self._binding.arrange((mask,), {})
            if not contains_symbolic(values, {}):
                return self._masked_calls.run(values, masks, training)
        return super().__call__(*values, **given)

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        # Of a torch.fx module within a module, torch.compile calls this and not `__call__`.
        return GraphNetwork.__call__(self, *args, **kwargs) if kwargs else super()._call_impl(*args)

    def is_hooked(self) -> bool:
        """Whether calling the model is any more than running its graph."""
        return is_hooked(self) or type(self).__mro__[1].__call__ not in OWN_CALLS

    def record_call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Node:
        own, given = [getattr(value, "mask", None) for value in args], dict(kwargs)
        masks = [a if a is not None else b for a, b in zip(given.pop("mask", own), own, strict=True)]
        used, found = (False, []) if self._masked_calls is None else self._masked_calls.draw(args, masks)
        if used:
            given["mask"] = masks[0] if len(masks) == 1 else masks
        node = record("module", self, args, given, self._output_specs(args, {}, {}))
        self._set_masks(node.outputs, found)
        return node

    def prepare_inputs(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        if not kwargs and self._binding.fits(args):
            return args
        return self._binding.convert(self._binding.arrange(args, kwargs), self._first_weight)

    @pass_over
    def direct_calls(self) -> DirectCalls | None:
        """What to give generated code as `self`, on plain tensors, to spare the calls of layers; None to be safe."""
        tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
        if tracing or type(self).forward is not self._generated:
            return None
        direct = self._direct
        if direct is None or direct.misses > _PATIENCE:
            if is_hooked(self):
                return None
            direct = self._direct = DirectCalls(self)
        return direct if direct.hold() else None

    def forward_for_training(self, *prepared: Any, logits_of: Sequence[int] = ()) -> TrainingOutputs:
        if self._training_forward is None:
            # Of a graph that somebody changed it is not known what belongs to an output.
            return super().forward_for_training(*prepared)
        return self._training_forward.run(prepared, logits_of)

    def lower_for_training(self, logits: Mapping[int, bool]) -> fx.Graph:
        """The graph that returns the outputs, a list of their masks and one of their logits.

        Args:
            logits: by the number of an output whose logits are wanted, whether they are met within the layer.
        """
        found: list[Any] = [None] * len(self.outputs)
        for index, within in logits.items():
            call = self.outputs[index].node
            found[index] = BeforeActivation(call) if within else call.args[0]
        return self._lower([*self._nodes, *self._mask_nodes], (self._outputs, list(self.output_masks), found))

    def output_activation(self, index: int) -> OutputActivation | None:
        """The softmax or sigmoid that an output ends in."""
        return find_activation(self.outputs[index], lambda drawn: self.get_submodule(self._keys[drawn]))

    def describe_outputs(self) -> list[OutputDescription] | None:
        if self._training_forward is None:
            return [OutputDescription()] * len(self.outputs)
        activations = [self.output_activation(index) for index in range(len(self.outputs))]
        return [
            OutputDescription(activation and activation.kind, mask is not None)
            for activation, mask in zip(activations, self.output_masks, strict=True)
        ]

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(self._binding.names, args, strict=True))

    def _takes_mask(self) -> bool:
        return True

    def _output_specs(self, args: Sequence[Any], kwargs: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
        pairs = zip(args, self.inputs, strict=True)
        if all(isinstance(given, SymbolicTensor) and given.spec == own.spec for given, own in pairs):
            return map_structure(lambda leaf: leaf.spec, self._outputs)
        return reinfer(self._nodes, self.inputs, self._outputs, args)

    def _has_shape_formula(self) -> bool:
        return True

    def compute_output_shape(self, input_shape: Any) -> Any:
        shapes: list[Any] = []
        map_shapes(shapes.append, input_shape)
        stand_ins = [
            InputLayer(batch_shape=shape, dtype=value.dtype).output
            for shape, value in zip(shapes, self.inputs, strict=True)
        ]
        specs, structure = tree_flatten(reinfer(self._nodes, self.inputs, self._outputs, stand_ins))
        return tree_unflatten([spec.shape for spec in specs], structure)

    # What it is made of

    @property
    def layers(self) -> list[nn.Module]:
        """The layers and modules in the order of their first calls, input layers included."""
        return list(dict.fromkeys(node.target for node in self._nodes if isinstance(node.target, nn.Module)))

    def layer_names(self) -> list[str]:
        return [self._names[layer] for layer in self.layers]

    @property
    def inputs(self) -> list[SymbolicTensor]:
        """The symbolic inputs, in order."""
        return self._binding.tensors

    @property
    def outputs(self) -> list[SymbolicTensor]:
        """The symbolic outputs, in order."""
        return symbolic_tensors(self._outputs)

    @property
    def input(self) -> Any:
        """The symbolic inputs, as the model was made with."""
        return self._inputs

    @property
    def output(self) -> Any:
        """The symbolic outputs, as the model was made with."""
        return self._outputs

    @property
    def input_shape(self) -> Any:
        return _shapes(self._inputs)

    @property
    def output_shape(self) -> Any:
        return _shapes(self._outputs)

    @property
    def input_names(self) -> list[str] | None:
        """The names of the inputs, in order."""
        return list(self._binding.names)

    @property
    def output_names(self) -> list[str] | None:
        """The names of the outputs, in order: the keys of a dict, else the layers that make them."""
        if isinstance(self._outputs, Mapping):
            return list(self._outputs)
        names: list[str] = []
        for value in self.outputs:
            names.append(unique_name(self.node_name(value.node), set(names)))
        return names

    def node_name(self, node: Node) -> str:
        """The name of the layer or function a node calls, in this model."""
        return self._names.get(node.target if isinstance(node.target, nn.Module) else node) or node.target

    @property
    def nodes(self) -> list[Node]:
        """The recorded calls of the model, in topological order."""
        return list(self._nodes)

    # Configuration

    @property
    def class_in_config(self) -> Any:
        """The class that a config of this model names: not the one torch.fx makes for each model."""
        return _written_class(type(self))

    def get_config(self) -> dict[str, Any]:
        """The layers' configs and how they are connected, as Keras writes a functional model."""
        return {"name": self.name, "trainable": self.trainable, **graph_config(self)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """Draw the model that `get_config` described, with new weights."""
        inputs, outputs = graph_from_config(config, custom_objects)
        return cls(inputs, outputs, name=config.get("name"), trainable=config.get("trainable", True))

    def get_build_config(self) -> None:
        return None

    # Copying

    def __reduce__(self) -> Any:
        return _empty, (_written_class(type(self)),), self.__getstate__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        duplicate = _empty(_written_class(type(self)))
        memo[id(self)] = duplicate
        duplicate.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return duplicate

    def intermediate_inputs(self) -> dict[str, SymbolicTensor]:
        """The inputs, by name, that are tensors which a layer made, and not declared by `Input(...)`."""
        named = zip(self._binding.names, self.inputs, strict=True)
        return {name: value for name, value in named if not _is_declared(value)}

    def __getstate__(self) -> dict[str, Any]:
        state = {key: value for key, value in self.__dict__.items() if key not in _REBUILT}
        nodes = [*self._nodes, *self._mask_nodes]
        flat = FlatGraph(nodes, self.intermediate_inputs(), {"inputs": self._inputs, "outputs": self._outputs})
        targets = [node.target if isinstance(node.target, nn.Module) else None for node in nodes]
        names = [self._names[target or node] for target, node in zip(targets, nodes, strict=True)]
        keys = [None if target is None else self._keys.get(target) for target in targets]
        as_drawn = self._training_forward is not None
        return {**state, "_flat": (flat, len(self._nodes), names, keys, flatten_fx(self._graph), as_drawn)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        flat, count, names, keys, calls, as_drawn = state.pop("_flat")
        self.__dict__.update(state)
        self.inbound_nodes, self.call_losses = [], []
        nodes, roots = flat.restore()
        self._nodes = nodes[:count]
        self._inputs, self._outputs = roots["inputs"], roots["outputs"]
        targets = [node.target if isinstance(node.target, nn.Module) else node for node in nodes]
        self._names = dict(zip(targets, names, strict=True))
        self._keys = {target: key for target, key in zip(targets, keys, strict=True) if key is not None}
        self._bind_names()
        self._find_masks(self.inputs)
        self._take_graph(restore_fx(calls, ModuleTableCodeGen), as_drawn)
        restore_tracking(self)


# The calls that are the forward and nothing more.
OWN_CALLS: list[Any] = [GraphNetwork.__call__]


@functools.cache
def graph_class(cls: type, base: type) -> type:
    """The class of the drawn models of a user's model class: `cls` with `base`, a `GraphNetwork`, behind it."""
    if issubclass(cls, GraphNetwork):
        return cls
    if issubclass(base, cls):
        return base
    return type(cls.__name__, (cls, base), {"__module__": cls.__module__, "_written_class": cls})


def become_graph(model: Any, cls: type) -> None:
    """Turn a model whose `__init__` has just begun into one of `cls`, a class of drawn models."""
    model.__class__ = type("GraphModuleImpl", (cls,), {"__module__": cls.__module__, "__qualname__": "GraphModuleImpl"})


def _written_class(cls: type) -> Any:
    """The class somebody wrote, behind the one torch.fx makes for each model and the one `graph_class` makes."""
    found = _without_fx(cls)
    return found.__dict__.get("_written_class", found)


def _without_fx(cls: type) -> type:
    return next(each for each in cls.__mro__ if each.__qualname__.rsplit(".", 1)[-1] != "GraphModuleImpl")


def _class_name(cls: type) -> str:
    name: str = _written_class(cls).__name__
    return "Functional" if name in ("GraphModule", "GraphNetwork") else name


def _empty(written: Any) -> GraphNetwork:
    """A model of a class as it is before anything is set on it: where a copy or a pickle is unpacked."""
    cls = written._graph_class()
    model: GraphNetwork = cls.__new__(cls)
    type(model).__name__ = _class_name(type(model))
    return model


def _same(value: Any) -> Any:
    return value


def _is_declared(value: SymbolicTensor) -> bool:
    """Whether `Input(...)` made a tensor; another model input is one that a layer made."""
    return value.node.op == "input" and isinstance(value.node.target, InputLayer)


def _shapes(structure: Any) -> Any:
    if isinstance(structure, SymbolicTensor):
        return structure.shape
    return map_structure(lambda leaf: leaf.shape if isinstance(leaf, SymbolicTensor) else leaf, structure)
