"""SequentialNetwork: a stack of layers, drawn as a graph as soon as its input's shape is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn

from torchfunc.graph import SymbolicTensor, record_module, topological_order
from torchfunc.layers import InputLayer, Layer
from torchfunc.modules.binding import InputBinding
from torchfunc.modules.graph_network import OWN_CALLS, GraphNetwork
from torchfunc.modules.naming import Namer, name_nodes, submodule_key
from torchfunc.modules.network import Network
from torchfunc.modules.training_forward import OutputDescription, TrainingOutputs
from torchfunc.registry import custom_object_scope, deserialize_keras_object, serialize_keras_object

__all__ = ["SequentialNetwork"]


class SequentialNetwork(GraphNetwork):
    """Layers in a row, each called on the output of the one before.

    Args:
        layers: layers or modules; the first may be an `Input(...)`.
        trainable: whether training may change the weights.
        name: the model's name.
    """

    _stack: list[nn.Module]
    # Whether layers were added since the graph was lowered.
    _stale = False

    def __init__(self, layers: Iterable[Any] | None = None, trainable: bool = True, name: str | None = None) -> None:
        self._start(name, trainable)
        self._inputs: Any = None
        self._outputs: Any = None
        self._nodes = []
        self._names: dict[Any, str] = {}
        self._keys: dict[Any, str] = {}
        self._namer = Namer()
        # Past the tracking of lists: the layers are registered under their names.
        self.__dict__["_stack"] = []
        for layer in layers or ():
            self.add(layer)
        self._settle()

    def add(self, layer: Any) -> None:
        """Put a layer, module or `Input(...)` behind the others.

        Raises:
            TypeError: it is neither a layer nor a module.
            ValueError: an input comes after other layers, or the layer does not fit the output before it.
        """
        if isinstance(layer, SymbolicTensor):
            layer = layer.node.target
        if isinstance(layer, InputLayer):
            if self._stack or self._inputs is not None:
                raise ValueError(f"Sequential model {self.name!r} has its input already: an Input comes first, once.")
            self._begin(layer)
            return
        if not isinstance(layer, nn.Module):
            raise TypeError(f"A Sequential model holds layers and modules, got {layer!r} ({type(layer).__name__}).")
        if self._inputs is None and not self._stack:
            self._begin_as_declared(layer)
        output = None if self._inputs is None else self._call(layer, self._outputs)
        self._register(layer)
        self._stack.append(layer)
        if output is not None:
            self._outputs = output
            self._stale = True

    def pop(self, rebuild: bool = True) -> nn.Module:
        """Take the last layer off and return it."""
        if not self._stack:
            raise ValueError(f"Sequential model {self.name!r} has no layer to take off.")
        layer: nn.Module = self._stack.pop()
        if self._inputs is not None:
            node = self._outputs.node
            self._outputs = node.args[0]
            if isinstance(layer, Layer):
                layer.inbound_nodes.remove(node)
            self._stale = True
        if layer not in self._stack:
            del self._modules[self._keys.pop(layer)]
            self._namer.release(self._names.pop(layer))
        return layer

    def _register(self, layer: nn.Module) -> None:
        if layer in self._keys:
            return
        own = isinstance(layer, Layer) and layer.has_explicit_name
        self._names[layer] = self._namer.explicit(layer) if own else self._namer.automatic(layer)  # type: ignore[arg-type]
        self._keys[layer] = submodule_key(self._names[layer], self)
        self._modules[self._keys[layer]] = layer

    def _begin_as_declared(self, layer: nn.Module) -> None:
        """Start drawing, if the first layer says what it takes."""
        if isinstance(layer, GraphNetwork) and layer.built:
            first = layer.inputs[0]
            self._begin(InputLayer(batch_shape=first.shape, dtype=first.dtype))
        elif isinstance(layer, Layer) and layer.declared_batch_shape is not None:
            self._begin(InputLayer(batch_shape=layer.declared_batch_shape))

    def _begin(self, layer: InputLayer) -> None:
        output = layer.output
        for each in self._stack:
            output = self._call(each, output)
        self._inputs, self._outputs = layer.output, output
        self._names[layer] = self._namer.automatic(layer) if layer.assigned_name is None else layer.name
        self._binding = InputBinding(self._inputs, [self._names[layer]], f"Model {self.name!r}")
        self.built = self._stale = True

    def _call(self, layer: nn.Module, value: SymbolicTensor) -> SymbolicTensor:
        output = layer(value) if isinstance(layer, Layer) else record_module(layer, (value,), {})
        if not isinstance(output, SymbolicTensor):
            raise ValueError(
                f"The layers of a Sequential model return one tensor each, but {type(layer).__name__} returns "
                f"{output!r}. Draw the model with Input(...) and Model(inputs, outputs) instead."
            )
        return output

    def _settle(self) -> None:
        """Lower what has been added since the graph was last needed."""
        if self._stale:
            self._nodes = topological_order([self._outputs])
            self._find_masks([self._inputs])
            self._name_functions()
            self._take_graph(self._lower(self._nodes, self._outputs))
            self._stale = False

    def _name_functions(self) -> None:
        """Name the calls that compute masks; those of layers are named when they are added."""
        functions = [node for node in (*self._nodes, *self._mask_nodes) if node.op in ("function", "method")]
        layers = {target: name for target, name in self._names.items() if isinstance(target, nn.Module)}
        self._names = {**layers, **name_nodes(functions, layers.values())}

    @property
    def graph(self) -> fx.Graph:
        """The torch.fx graph."""
        self._settle()
        return self._graph

    @graph.setter
    def graph(self, graph: fx.Graph) -> None:
        fx.GraphModule.graph.fset(self, graph)  # type: ignore[attr-defined]

    @property
    def code(self) -> str:
        """The code of `forward`."""
        self._settle()
        return super().code

    @property
    def nodes(self) -> list[Any]:
        self._settle()
        return super().nodes

    # Calling

    def __call__(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        if self._inputs is None:
            self.build_from_inputs(*Network.prepare_inputs(self, *args))
        self._settle()
        return super().__call__(*args, training=training, **kwargs)

    def forward_for_training(self, *prepared: Any, logits_of: Sequence[int] = ()) -> TrainingOutputs:
        if self._inputs is None:
            self.build_from_inputs(*prepared)
        self._settle()
        return super().forward_for_training(*prepared, logits_of=logits_of)

    def describe_outputs(self) -> list[OutputDescription] | None:
        self._settle()
        return None if self._inputs is None else super().describe_outputs()

    def build(self, input_shape: Any = None) -> None:
        """Draw the model for an input of this shape, batch axis included."""
        if self._inputs is None:
            self._begin(InputLayer(batch_shape=tuple(input_shape)))
        self._settle()

    def build_from_inputs(self, *inputs: Any) -> None:
        if self._inputs is not None:
            return
        if len(inputs) != 1 or not isinstance(inputs[0], (Tensor, SymbolicTensor)):
            raise ValueError(f"Sequential model {self.name!r} takes one tensor, got {len(inputs)} arguments.")
        (value,) = inputs
        shape = value.shape if isinstance(value, SymbolicTensor) else (None, *value.shape[1:])
        self._begin(InputLayer(batch_shape=shape, dtype=value.dtype))
        self._settle()

    def is_fully_built(self) -> bool:
        return self._inputs is not None

    def prepare_inputs(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        prepare = Network.prepare_inputs if self._inputs is None else GraphNetwork.prepare_inputs
        return prepare(self, *args, **kwargs)

    # What it is made of

    @property
    def layers(self) -> list[nn.Module]:
        """The layers and modules in order, the input layer left out."""
        return list(self._stack)

    @property
    def input_names(self) -> list[str] | None:
        """The input's name, None if its shape is not known yet."""
        return None if self._inputs is None else super().input_names

    @property
    def output_names(self) -> list[str] | None:
        return None if self._inputs is None else [self._names[self._stack[-1]]] if self._stack else ["output"]

    def get_config(self) -> dict[str, Any]:
        """The layers' configs in order, as Keras writes a Sequential model."""
        stack = self._stack if self._inputs is None else [self._inputs.node.target, *self._stack]
        config = {**Layer.get_config(self), "layers": [serialize_keras_object(layer) for layer in stack]}
        return config if self._inputs is None else {**config, "build_input_shape": self._inputs.shape}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """Make the model that `get_config` described, with new weights."""
        with custom_object_scope(custom_objects):
            layers = [deserialize_keras_object(layer) for layer in config["layers"]]
        model = cls(layers, name=config.get("name"), trainable=config.get("trainable", True))
        if not model.built and config.get("build_input_shape") is not None:
            model.build(config["build_input_shape"])
        return model


OWN_CALLS.append(SequentialNetwork.__call__)
