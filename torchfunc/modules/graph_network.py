"""GraphNetwork: a drawn graph as a `torch.fx.GraphModule`."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.graph import PythonCode

from torchfunc.graph import (
    CallMode,
    Node,
    ReturnedMask,
    SymbolicTensor,
    contains_symbolic,
    copies_to_share,
    is_hooked,
    pass_over,
    record,
    with_own_code,
)
from torchfunc.graph_keys import is_known_code
from torchfunc.layers import InputLayer, Layer
from torchfunc.layers.base.losses import is_inside_a_call, thread_calls
from torchfunc.layers.base.masks import set_masks
from torchfunc.layers.base.shapes import differ, is_shape
from torchfunc.layers.base.tracking import restore_tracking
from torchfunc.modules.copying import FlatGraph
from torchfunc.modules.direct_calls import DirectCalls
from torchfunc.modules.drawn_graph import DrawnGraph, RecordedTensor, draw
from torchfunc.modules.functional_config import GRAPH_KEYS, graph_config, graph_from_config
from torchfunc.modules.fx_module import (
    FxModule,
    GeneratedCode,
    class_parts,
    empty_model,
    generate,
    with_forward,
    written_class,
    written_to,
)
from torchfunc.modules.graph_introspection import GraphIntrospection
from torchfunc.modules.lowering import lower
from torchfunc.modules.masked_forward import MaskedForwards
from torchfunc.modules.masks_outside import call_handing_on, call_with_masks, masks_of_inputs, with_own_masks
from torchfunc.modules.nesting import announce, innermost_first, models_within
from torchfunc.modules.network import Network, OutputDescription, TrainingOutputs
from torchfunc.modules.output_activations import OutputActivation, find_activation
from torchfunc.modules.own_arguments import accepted, draws_itself, own_arguments
from torchfunc.modules.replaying import reinferring
from torchfunc.modules.training_forward import TrainingForwards
from torchfunc.recursion import Steps, unrolled
from torchfunc.registry import deserialize_arguments, innermost_serialized
from torchfunc.structures import Structure, leaves, map_structure

__all__ = ["GraphNetwork"]

# What is derived from the drawn graph, and made anew for a copy.
_DERIVED = ("_drawn", "_graph", "_entry", "_training", "_masked", "_direct", "generated_forward", "modules_read")
# How many calls on end may find hooks or other changes until they are adapted to: they may be there for one call only.
_PATIENCE = 3
_PLAIN = {Tensor}  # The types of values on which layers may be called directly.


class GraphNetwork(GraphIntrospection, Network, FxModule):
    """A model drawn by calling layers on symbolic tensors.

    It is a `torch.fx.GraphModule`: `graph` has one `call_module` node for each layer call, `code` is its forward.

    Args:
        inputs: the symbolic inputs: a tensor, or a list, tuple or dict of them.
        outputs: the symbolic outputs, likewise; nested as the model shall return them.
        name: the model's name.
        trainable: whether training may change the weights.
        **kwargs: of `Layer`.

    Attributes:
        graph_was_changed: whether `graph` is no longer what was drawn, so that nothing is known of it but its code.

    Raises:
        ValueError: the outputs depend on an input that is not among `inputs`, or two layers have one name.
        TypeError: something else than a symbolic tensor was given.
    """

    graph_was_changed = False
    records_in_steps = True
    # Whether an output may have a mask; that is not known before there is a graph.
    gives_masks = True
    # Whether a call of a model of this class is no more than running its graph.
    runs_its_graph = True
    # The parameters of `__init__` that say what the graph is.
    drawn_from: tuple[str, ...] = ("inputs", "outputs")
    _drawn_code = ""
    _entry: Callable[..., Any]
    _training: TrainingForwards
    _masked: MaskedForwards
    # By the submodules that the code which is run needs as they are.
    _direct: dict[frozenset[str], DirectCalls]

    def __init__(
        self, inputs: Structure, outputs: Structure, name: str | None = None, trainable: bool = True, **kwargs: Any
    ) -> None:
        self._begin_empty(name, trainable, **kwargs)
        self._take_graph(draw(inputs, outputs, self._label, self._is_reserved))
        if not trainable:
            self.trainable = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.runs_its_graph = cls.__call__ is GraphNetwork.__call__ and cls.forward is GraphNetwork.forward

    def _begin_empty(self, name: str | None, trainable: bool, **kwargs: Any) -> None:
        """Be a model that nothing is drawn of yet."""
        self.begin_graph()
        self.__dict__["_entry"] = with_own_code(GraphNetwork._enter)
        Layer.__init__(self, name=name, trainable=trainable, **kwargs)
        # Not by `__setattr__`, which would look for layers in it.
        own = own_arguments(self, *self._init_arguments, self.drawn_from)
        self.__dict__["_init_arguments"] = ((), own)

    @property
    def _label(self) -> str:
        return f"Model {self.name!r}"

    def _is_reserved(self, key: str) -> bool:
        return key in vars(self) or hasattr(type(self), key)

    # What was drawn

    @property
    def drawn(self) -> DrawnGraph | None:
        """What was drawn; None for a Sequential model that does not know its input yet."""
        return self._drawn

    @property
    def masked_forwards(self) -> MaskedForwards:
        """The variants of the graph for masks of its inputs."""
        return self._masked

    def _take_graph(self, drawn: DrawnGraph) -> None:
        """Be the model of this graph: register its layers, and lower it."""
        for module, key in drawn.keys.items():
            self._modules[key] = module
        self._register_tensors(drawn.tensors)
        self._set_drawn(drawn)
        self.graph = lower(drawn)
        self._drawn_code, self.graph_was_changed = self._code, False
        self.built = True

    def _set_drawn(self, drawn: DrawnGraph) -> None:
        self.__dict__.update(
            _drawn=drawn,
            _training=TrainingForwards(drawn),
            _masked=MaskedForwards(drawn, self._register_tensors),
            _direct={},
            gives_masks=any(mask is not None for mask in drawn.masks) or self.makes_masks,
            constants={each.path for each in drawn.tensors if each.owner == "model"},
        )
        self.follow_weights()

    def _register_tensors(self, tensors: Sequence[RecordedTensor]) -> None:
        """Make parameters and constants that were met in recorded calls the model's own, unless they are a layer's."""
        for tensor, name, owner in tensors:
            if owner == "layer":
                continue
            if isinstance(tensor, nn.Parameter):
                self._parameters[name] = tensor
            elif owner == "model":
                self._buffers[name] = tensor
            else:
                # Drawing the model makes it again, so it is not saved. The rest may have moved since it was drawn.
                weight = self._first_weight()
                self.register_buffer(name, tensor if weight is None else tensor.to(weight.device), persistent=False)

    def recompile(self) -> PythonCode:
        """Generate `forward` from `graph` anew. Call it after changing the graph in place."""
        code = super().recompile()
        self.graph_was_changed = self._code != self._drawn_code
        return code

    # Calling

    @pass_over
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if (self.gives_masks or (kwargs and "mask" in kwargs)) and not contains_symbolic(args, kwargs):
            return self._entry(self, *args, hands_on=True, **kwargs)
        return self._entry(self, *args, **kwargs)

    def _enter(
        self,
        *args: Any,
        training: bool | None = None,
        mask: Any = None,
        return_masks: bool = False,
        hands_on: bool = False,
        **kwargs: Any,
    ) -> Any:
        """A call. Each model has a copy of this function, where torch.compile starts and keeps its graphs."""
        drawn = self._drawn or self._draw_for(args)
        if hands_on and not return_masks:
            return call_handing_on(self, args, training, mask, kwargs)
        if mask is not None and "mask" in drawn.binding.names:
            kwargs, mask = {**kwargs, "mask": mask}, None
        if mask is None and not return_masks and not kwargs and drawn.binding.fits(args):
            direct = self._direct_calls(self.modules_read)
            if direct is not None:
                if training is None or bool(training) == self.training:
                    if thread_calls.inside:
                        # So that models many levels deep can be called, with few frames for each.
                        return self.generated_forward(direct.calls, *args)
                    return self.run_outermost_eagerly(self.generated_forward, direct.calls, *args)
                with CallMode(self, bool(training)):
                    return self.run_outermost_eagerly(self.generated_forward, direct.calls, *args)
            values = args
        else:
            try:
                values = self.prepare_inputs(*args, **kwargs)
            except ValueError:
                if not self._forward_pre_hooks:
                    raise
                # A hook may make of them what the model takes.
                return self._call_with_hooks(args, {**kwargs, **({} if training is None else {"training": training})})
            found = mask if self.masks_are_settled else masks_of_inputs(drawn.binding, args, kwargs, mask)
            if found is not mask and not return_masks:
                return call_handing_on(self, args, training, found, kwargs)
            mask = found
        if return_masks or mask is not None:
            return call_with_masks(self, values, mask, training, return_masks)
        return self.call_as_layer(values, training)

    def _draw_for(self, args: Sequence[Any]) -> DrawnGraph:
        """Draw a graph that waits for its first inputs, for these."""
        if self.drawn is None:
            self.build_from_inputs(*Network.prepare_inputs(self, *args))
        return self._known_graph()

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        # Of a torch.fx module within a module, torch.compile calls this and not `__call__`.
        return GraphNetwork.__call__(self, *args, **kwargs) if kwargs else super()._call_impl(*args)

    def _call_on_masked(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        # (What masks have to do with has been done.)
        return self._wrapped_call_impl(*args, **kwargs)

    def is_hooked(self) -> bool:
        return is_hooked(self) or not self.runs_its_graph

    @pass_over
    def _direct_calls(self, modules_read: frozenset[str]) -> DirectCalls | None:
        """What to give generated code as `self`, on plain tensors, to spare the calls of layers; None to be safe."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
            return None
        direct = self._direct.get(modules_read)
        if direct is None or direct.misses > _PATIENCE:
            if self.is_hooked():
                return None
            direct = self._direct[modules_read] = DirectCalls(self, modules_read)
        return direct if direct.hold(self) else None

    def run_code(self, code: GeneratedCode, values: Sequence[Any], *further: Any, training: bool | None = None) -> Any:
        """Call the model on prepared inputs, with code in place of its own that takes `further` arguments as well."""
        if training is None and not self.is_hooked():
            direct = self._direct_calls(code.modules_read) if set(map(type, values)) <= _PLAIN else None
            return self.run_outermost(code.function, self if direct is None else direct.calls, *values, *further)
        function = code.function
        view = with_forward(self, lambda this, *inputs: function(this, *inputs, *further))
        view.__dict__.update(gives_masks=False, masks_are_settled=True)
        with written_to(self, view):
            return view(*values) if training is None else view(*values, training=training)

    def run_for_more(
        self, code: GeneratedCode, values: Sequence[Any], *further: Any, training: bool | None = None
    ) -> tuple[Any, list[Any]]:
        """`run_code`, where the code returns more than the outputs, which is no business of hooks.

        Returns:
            The outputs, and all else. A `forward` of the model's own knows of nothing else.
        """
        beside: list[Any] = []

        def forward(this: Any, *inputs: Any) -> Any:
            outputs, *others = code.function(this, *inputs)
            beside.extend(others)
            return outputs

        return self.run_code(dataclasses.replace(code, function=forward), values, *further, training=training), beside

    def _call_with_hooks(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the model on arguments that its forward pre-hooks, and not it, know how to take."""
        function = self.generated_forward
        view = with_forward(self, lambda this, *inputs: function(this, *this.prepare_inputs(*inputs)))
        with written_to(self, view):
            return super(GraphNetwork, view).__call__(*args, **kwargs)

    def call_as_layer(self, values: Sequence[Any], training: bool | None, **given: Any) -> Any:
        """A call on prepared inputs, with all that a call of a layer does."""
        return super().__call__(*values, **given, **({} if training is None else {"training": training}))

    def prepare_inputs(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        drawn = self.drawn
        if drawn is None:
            return super().prepare_inputs(*args, **kwargs)
        values = None if kwargs else drawn.binding.as_given(args)
        if values is not None:
            return tuple(values)
        return drawn.binding.convert(drawn.binding.arrange(args, kwargs), self._first_weight, is_inside_a_call())

    # Training

    def forward_for_training(self, *prepared: Any, logits_of: Sequence[int] = ()) -> TrainingOutputs:
        if self._drawn is None:
            self._draw_for(prepared)
        if self.graph_was_changed:
            # It is not known what belongs to an output.
            return super().forward_for_training(*prepared)
        masked = self._training.masked
        if not logits_of and not masked:
            direct = self._direct_calls(self.modules_read) if set(map(type, prepared)) <= _PLAIN else None
            if direct is None:
                return TrainingOutputs(self(*prepared))
            return TrainingOutputs(self.run_outermost_eagerly(self.generated_forward, direct.calls, *prepared))
        # A model that is hooked may return something else than its graph does, so there are no logits for that.
        found = () if self.is_hooked() else [(index, self.output_activation(index)) for index in logits_of]
        wanted = tuple((index, activation.within) for index, activation in found if activation is not None)
        if not wanted and not masked:
            return TrainingOutputs(self(*prepared))
        y_pred, beside = self.run_for_more(self._training.get(wanted), prepared)
        masks, logits = beside or (None, None)
        return TrainingOutputs(y_pred, masks if masked else None, logits if wanted else None)

    def compute(self, values: Structure, *prepared: Any, training: bool | None = None) -> Any:
        """What values of the graph other than the model's outputs are for a batch.

        Args:
            values: symbolic tensors of this model, in any nesting.
            *prepared: what `prepare_inputs` made.
            training: the mode; the model's own by default.
        """
        return self.run_code(generate(lower(self._known_graph(), values)), prepared, training=training)

    def output_activation(self, index: int) -> OutputActivation | None:
        """The softmax or sigmoid that an output, by its number, ends in."""
        drawn = self._known_graph()
        return find_activation(drawn.output_tensors[index], lambda module: self.get_submodule(drawn.keys[module]))

    def describe_outputs(self) -> list[OutputDescription] | None:
        drawn = self.drawn
        if drawn is None:
            return None
        if self.graph_was_changed:
            return [OutputDescription()] * len(drawn.output_tensors)
        activations = [self.output_activation(index) for index in range(len(drawn.output_tensors))]
        return [
            OutputDescription(activation and activation.kind, mask is not None)
            for activation, mask in zip(activations, drawn.masks, strict=True)
        ]

    # Being a layer of another model

    def record_call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Node:
        node: Node = unrolled(self.recording(args, kwargs))
        return node

    def recording(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Steps:
        """`record_call` for `unrolled`."""
        own, given = [getattr(value, "mask", None) for value in args], dict(kwargs)
        masks = [a if a is not None else b for a, b in zip(leaves(given.pop("mask", own)), own, strict=True)]
        if self.graph_was_changed:
            # It is not known what belongs to an output.
            specs, _ = yield reinferring(self._known_graph(), args)
            return record("module", self, args, given, specs)
        specs, found, are_taken = yield self._masked.drawing(args, masks)
        if are_taken:
            given["mask"] = masks[0] if len(masks) == 1 else masks
        node = record("module", self, args, given, specs)
        found = [node.mask_value(mask) if isinstance(mask, ReturnedMask) else mask for mask in found]
        set_masks(node.outputs, with_own_masks(self, args, masks, found))
        return node

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(self._known_graph().binding.names, args, strict=True))

    def _takes_mask(self) -> bool:
        return True

    def _output_specs(self, args: Sequence[Any], kwargs: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
        return unrolled(reinferring(self._known_graph(), args))[0]

    def _known_specs(self, args: Sequence[Any]) -> Any:
        declared = [] if self._drawn is None else self._drawn.input_tensors
        fit = len(args) == len(declared) and all(
            isinstance(value, SymbolicTensor) and value.dtype == own.dtype and not differ(value.shape, own.shape)
            for value, own in zip(args, declared, strict=True)
        )
        return self._output_specs(args, {}, {}) if fit and not self.is_hooked() and not self.graph_was_changed else None

    def _has_shape_formula(self) -> bool:
        return True

    def compute_output_shape(self, input_shape: Any) -> Any:
        drawn = self._known_graph()
        stand_ins = [
            InputLayer(batch_shape=shape, dtype=value.dtype).output
            for shape, value in zip(leaves(input_shape, is_leaf=is_shape), drawn.input_tensors, strict=True)
        ]
        return map_structure(lambda spec: spec.shape, unrolled(reinferring(drawn, stand_ins))[0])

    # Configuration

    @property
    def class_in_config(self) -> Any:
        """The class that a config of this model names: the one that was written, of a drawn model of a subclass."""
        return written_class(type(self))

    def get_config(self) -> dict[str, Any]:
        """The layers' configs and how they are connected, as Keras writes a functional model, and own arguments.

        Of a class that draws itself from other arguments, those arguments.
        """
        common = {"name": self.name, "trainable": self.trainable}
        if self.draws_itself():
            return {**accepted(type(self).__init__, common), **self.own_arguments}
        with innermost_serialized(innermost_first(self, GraphNetwork.models_in_config)):
            return {**common, **graph_config(self._known_graph()), **self.own_arguments}

    def models_in_config(self) -> list[GraphNetwork]:
        """The drawn models whose configs are part of this one's."""
        contains_all = is_known_code(type(self).get_config) and not self.draws_itself()
        return [each for each in self._modules.values() if isinstance(each, GraphNetwork)] if contains_all else []

    @property
    def own_arguments(self) -> Mapping[str, Any]:
        """The arguments that only this model's class takes, by name."""
        return self._init_arguments[1]

    @classmethod
    def draws_itself(cls) -> bool:
        """Whether the class is made from other arguments than what a drawn model is made from."""
        return draws_itself(cls.__init__, cls.drawn_from)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """Draw the model that `get_config` described, with new weights."""
        if "input_layers" not in config:
            return cls(**deserialize_arguments(config, custom_objects))
        read = graph_from_config(config, custom_objects)
        own = {key: value for key, value in config.items() if key not in GRAPH_KEYS}
        return read.named(cls(read.inputs, read.outputs, **{"name": None, "trainable": True, **own}))

    def get_build_config(self) -> None:
        return None

    # Copying

    def __reduce_ex__(self, protocol: Any) -> Any:
        return empty_model, (*class_parts(type(self)), *announce(self, GraphNetwork)), self.__getstate__()

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo.update(copies_to_share(self))
        for model in models_within(self, GraphNetwork):
            if id(model) not in memo:
                model.copy_alone(memo)
        return self.copy_alone(memo)

    def copy_alone(self, memo: dict[int, Any]) -> Any:
        """What `copy.deepcopy` does, when the models within this one and what has to be shared were copied."""
        duplicate: GraphNetwork = empty_model(*class_parts(type(self)))
        memo[id(self)] = duplicate
        duplicate.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return duplicate

    def __getstate__(self) -> dict[str, Any]:
        drawn = self.drawn
        state = {name: value for name, value in super().__getstate__().items() if name not in _DERIVED}
        return {**state, "_flat": None if drawn is None else FlatGraph(drawn, self._graph)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        flat = state["_flat"]
        changed = state.get("graph_was_changed", False)
        self.begin_graph()
        self.__dict__.update({name: value for name, value in state.items() if name != "_flat"})
        self.__dict__["_entry"] = with_own_code(GraphNetwork._enter)
        if flat is not None:
            drawn, graph = flat.restore()
            self._set_drawn(drawn)
            self.graph = graph
            if not changed:
                self._drawn_code, self.graph_was_changed = self._code, False
        restore_tracking(self)
