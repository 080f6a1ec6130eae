"""Layer: a `torch.nn.Module` that follows Keras' protocol and can be called on symbolic tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate

from torchfunc import regularizers
from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype, dtype_name
from torchfunc.graph import (
    Node,
    Spec,
    SymbolicTensor,
    contains_symbolic,
    example_shapes,
    fake_copy,
    infer,
    is_exporting,
    located,
    once_for_all,
    only_real,
    pass_over,
    record,
    record_input,
    symbolic_leaves,
    symbolic_tensors,
    with_own_code,
)
from torchfunc.graph_keys import settings_key
from torchfunc.layers.base.input_spec import check_input
from torchfunc.layers.base.introspection import NodeIntrospection
from torchfunc.layers.base.modes import kept_modes
from torchfunc.layers.base.shapes import (
    accepts,
    bind_call,
    call_with_shapes,
    declared_input_shape,
    map_shapes,
    merge_shapes,
    shapes_of,
)
from torchfunc.layers.base.tracking import retrack, track
from torchfunc.layers.base.weights import WeightHolder
from torchfunc.metrics import Metric
from torchfunc.metrics.attributes import metrics_in_attributes
from torchfunc.registry import to_snake_case
from torchfunc.structures import map_structure

__all__ = ["Layer"]

# What an attribute may be for a module to keep it elsewhere than among its plain attributes.
_KEPT_ELSEWHERE = (Tensor, nn.Module, list, tuple, dict)


class Layer(NodeIntrospection, WeightHolder):
    """The base of all layers.

    Write `call(self, inputs, training=None, mask=None)` as in Keras or `forward(self, x)` as in torch; make weights in
    `__init__` or, once the input's shape is known, in `build(self, input_shape)`.

    Args:
        activity_regularizer: name, config or callable on the output; its value joins the training loss.
        trainable: whether training may change the weights.
        dtype: the dtype of new weights; `config.floatx()` by default.
        autocast: taken for Keras' sake, without effect.
        name: the layer's name. Without one it is called after its class, and numbered by the first model it joins.
        input_shape, batch_input_shape, input_dim: the input's shape, for the first layer of a `Sequential`.
    """

    supports_masking = False
    input_spec: Any = None
    # Whether any layer has ever added a loss: as long as none has, no model looks for old ones.
    adds_losses = False
    built: bool
    _init_arguments: tuple[Sequence[Any], Mapping[str, Any]]
    declared_batch_shape: tuple[int | None, ...] | None
    _name: str | None
    has_explicit_name: bool
    inbound_nodes: list[Node]
    build_shapes: dict[str, Any] | None
    call_losses: list[Tensor]

    def __init__(
        self,
        *,
        activity_regularizer: Any = None,
        trainable: bool = True,
        dtype: Any = None,
        autocast: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if "_modules" not in self.__dict__:
            # A model drawn as a graph has been through torch.fx's own __init__ by now.
            nn.Module.__init__(self)
        declared_shape = declared_input_shape(kwargs) if kwargs else None
        if kwargs:
            raise ValueError(
                f"{type(self).__name__} was given arguments it does not take: {', '.join(map(repr, kwargs))}."
            )
        if name is not None and (not isinstance(name, str) or "/" in name or not name):
            raise ValueError(f"A layer's name is a non-empty string without '/', got {name!r}.")
        self._init_weights(trainable, dtype)
        # Past `__setattr__`, which looks for layers in lists and dicts.
        self.__dict__.update(
            declared_batch_shape=declared_shape,
            _name=name,
            has_explicit_name=name is not None,
            inbound_nodes=[],
            build_shapes=None,
            call_losses=[],
            built=False,
        )
        self.activity_regularizer = regularizers.get(activity_regularizer)
        if self.activity_regularizer is not None:
            self.register_forward_hook(_regularize_activity)

    def __new__(cls, *args: Any, **kwargs: Any) -> Layer:
        layer = super().__new__(cls)
        # The arguments a subclass was made with are its config, unless it writes `get_config` itself.
        object.__setattr__(layer, "_init_arguments", (args, kwargs))
        return layer

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # They may also come from a mixin that is no layer itself.
        own = [base for base in cls.__mro__ if base is cls or not issubclass(base, Layer)]
        builder = next((base for base in cls.__mro__ if "build" in vars(base)), None)
        if builder in own:
            cls.build = _marking_built(vars(builder)["build"])  # type: ignore[method-assign]
        caller = next((base for base in cls.__mro__ if "call" in vars(base) or "forward" in vars(base)), None)
        if caller in own and "forward" not in vars(caller):
            cls.forward = _resolving_training(vars(caller)["call"])

    def __setattr__(self, name: str, value: Any) -> None:
        if (
            not issubclass(type(value), _KEPT_ELSEWHERE)
            and "_modules" in self.__dict__
            and not (name in self._modules or name in self._parameters or name in self._buffers)
        ):
            # Most attributes: there is nothing to register and nothing that is registered to take away.
            object.__setattr__(self, name, value)
            return
        provisional = self.__dict__.get("_provisional")
        if provisional and isinstance(value, Tensor) and id(value) in provisional:
            self._adopt(name, value)
        elif not track(self, name, value):
            super().__setattr__(name, value)

    @property
    def name(self) -> str:
        """The name given, or the one the first model gave, or the class' name in snake case."""
        return self._name or to_snake_case(type(self).__name__)

    @name.setter
    def name(self, value: str) -> None:
        self._name, self.has_explicit_name = value, True

    @property
    def assigned_name(self) -> str | None:
        """The name that the user or a model gave the layer; None before it joins its first model."""
        return self._name

    def assign_name(self, name: str) -> None:
        """Give the layer a name that its user did not choose, as a model does for those without one."""
        self._name = name

    # Calling

    @pass_over
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # With nothing to record, convert or build, straight to torch, past the hook that plain modules need.
        if self.built and not kwargs and len(args) == 1 and type(args[0]) is Tensor:
            return self._wrapped_call_impl(args[0])
        if self.built and "training" not in kwargs and only_real(args) and only_real(kwargs.values()):
            return self._wrapped_call_impl(*args, **kwargs)
        if contains_symbolic(args, kwargs):
            return self._call_symbolically(args, kwargs)
        return self._call_eagerly(args, kwargs)

    @pass_over
    def _call_eagerly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        args = map_structure(self._to_tensor, tuple(args))
        kwargs = map_structure(self._to_tensor, dict(kwargs))
        asked = kwargs.get("training")
        training = self.training if asked is None else bool(asked)
        kwargs = {name: value for name, value in kwargs.items() if name != "training"}
        if not self.built:
            arguments = self._bind(args, kwargs)
            self._check_input(arguments)
            self._build_for(arguments)
        if training == self.training:
            return super().__call__(*args, **kwargs)
        with kept_modes(self):
            for module in self.modules():
                module.training = training
            return super().__call__(*args, **kwargs)

    def _to_tensor(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        tensor = torch.from_numpy(value)
        here = next(self.parameters(), None)
        tensor = tensor.to(as_dtype(floatx())) if tensor.dtype == torch.float64 else tensor
        return tensor if here is None else tensor.to(here.device)

    def _call_symbolically(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        node = self.record_call(args, kwargs)
        self.inbound_nodes.append(node)
        return node.outputs

    def record_call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Node:
        """A call on symbolic values as a node, which is not counted among the layer's own yet."""
        kwargs = dict(kwargs)
        training = kwargs.pop("training", None)
        arguments = self._bind(args, kwargs)
        first = next(iter(arguments.values()), None)
        self._check_input(arguments)
        masks = _masks_of(first)
        if masks is not None and "mask" not in arguments and self._takes_mask():
            kwargs["mask"] = arguments["mask"] = masks
        for name, value in list(arguments.items()):
            # As in Keras: `call(self, query, value, query_mask=None, value_mask=None)` gets the mask of each.
            own = _masks_of(value)
            if own is not None and f"{name}_mask" not in arguments and accepts(type(self).forward, f"{name}_mask"):
                kwargs[f"{name}_mask"] = arguments[f"{name}_mask"] = own
        if not self.built:
            self._build_for(arguments)
        specs = self._output_specs(args, kwargs, arguments)
        if training is not None:
            kwargs["training"] = training
        node = record("module", self, args, kwargs, specs)
        previous_mask = arguments.get("mask", masks)
        if previous_mask is not None or type(self).compute_mask is not Layer.compute_mask:
            self._set_masks(node.outputs, self.compute_mask(first, previous_mask))
        return node

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by parameter name."""
        return bind_call(type(self).forward, self, args, kwargs)

    def _takes_mask(self) -> bool:
        return accepts(type(self).forward, "mask")

    def _check_input(self, arguments: Mapping[str, Any]) -> None:
        if self.input_spec is not None and arguments:
            check_input(self.input_spec, next(iter(arguments.values())), self.describe)

    def _set_masks(self, outputs: Any, masks: Any) -> None:
        for output, mask in zip(symbolic_leaves(outputs), _leaves(masks), strict=False):
            if isinstance(output, SymbolicTensor):
                output.mask = mask

    def extra_repr(self) -> str:
        """The arguments the layer was made with, as far as they are short to write."""
        args, kwargs = self._init_arguments
        given = bind_call(type(self).__init__, self, args, kwargs) if args or kwargs else {}
        return ", ".join(f"{name}={value!r}" for name, value in given.items() if _is_short(value))

    def describe(self) -> str:
        """`Dense 'dense_1' (units=64, activation='relu')`, for messages."""
        arguments = self.extra_repr()
        return f"{type(self).__name__} {self.name!r}" + (f" ({arguments})" if arguments else "")

    # Shapes

    def build(self, input_shape: Any) -> None:
        """Make the weights. Override it; take one shape, or one `<argument>_shape` for each argument of `call`."""

    def _build_for(self, arguments: Mapping[str, Any]) -> None:
        self.build_from_shapes(shapes_of(arguments))

    def build_from_shapes(self, shapes: Mapping[str, Any]) -> None:
        """Call `build` with the shapes it takes, given as `{"<argument>_shape": shape}`, and remember them."""
        call_with_shapes(self.build, shapes)
        self.built = True
        if not self.build_shapes:
            self.__dict__["build_shapes"] = dict(shapes)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The output's shape for an input's shape, None standing for unknown sizes.

        Built-in layers know it by formula. A layer of yours that does not override this is run on fake tensors.
        """
        inputs = map_shapes(lambda shape: record_input("placeholder", shape, self.dtype).outputs, input_shape)
        if not self.built:
            self.build_from_shapes(shapes_of({"inputs": inputs}))
        specs = self._infer_by_running((inputs,), {})
        return map_structure(lambda leaf: leaf.shape if isinstance(leaf, Spec) else leaf, specs)

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        """The output's dtype: that of the weights if the layer has any, else of the inputs together."""
        if self._weights or not input_dtypes:
            return self.dtype
        return functools.reduce(torch.promote_types, input_dtypes)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The output's mask; by default the input's, if the layer says it `supports_masking`."""
        return previous_mask if self.supports_masking else None

    def _has_shape_formula(self) -> bool:
        """Whether `compute_output_shape` works without running anything."""
        return type(self).compute_output_shape is not Layer.compute_output_shape

    def _shape_formula(self, arguments: Mapping[str, Any]) -> Callable[..., Any]:
        """What gives the output's shape in a call with these arguments, from the shapes of those that are tensors."""
        return self.compute_output_shape

    def _output_specs(self, args: Sequence[Any], kwargs: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
        if not self._has_shape_formula():
            return self._infer_by_running(args, kwargs)
        tensors = symbolic_tensors(arguments)
        dtype = self.compute_output_dtype(*(tensor.dtype for tensor in tensors))
        try:
            shapes = call_with_shapes(self._shape_formula(arguments), shapes_of(arguments))
        except (ValueError, IndexError) as error:
            raise ValueError(
                located(f"{self.describe()} cannot be called on {_shape_text(tensors)}: {error}")
            ) from error
        examples = [self._example_output(arguments, trial, shapes) for trial in (0, 1)]
        return map_shapes(lambda shape, a, b: Spec(shape, dtype, (a, b)), shapes, *examples)

    def _example_output(self, arguments: Mapping[str, Any], trial: int, shapes: Any) -> Any:
        """The output's shape for the inputs' example shapes; where no formula fits them, any that fits `shapes`."""

        def example(tensor: Any) -> tuple[int, ...]:
            return tensor.spec.examples[trial] if isinstance(tensor, SymbolicTensor) else tuple(tensor.shape)

        try:
            found = call_with_shapes(self._shape_formula(arguments), shapes_of(arguments, example))
            return map_shapes(
                lambda shape, ours: ours if None not in ours else example_shapes(shape)[trial], shapes, found
            )
        except ValueError:
            return map_shapes(lambda shape: example_shapes(shape)[trial], shapes)

    def _infer_by_running(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run a fake copy of this layer, and build here what the copy built on its way."""
        copies: list[nn.Module] = []

        def prepare(mode: Any) -> nn.Module:
            copies.append(fake_copy(self, mode))
            return copies[-1]

        specs = infer(prepare, args, kwargs, self.describe())
        self._build_like(copies[0], copies[-1])
        return specs

    def _build_like(self, first: nn.Module, second: nn.Module) -> None:
        """Build the sublayers that two copies of this layer built, for what their input shapes have in common."""
        seconds = dict(second.named_modules())
        for path, copy in first.named_modules():
            if not isinstance(copy, Layer) or not copy.built or copy.build_shapes is None:
                continue
            mine = self.get_submodule(path)
            assert isinstance(mine, Layer)
            if not mine.built:
                other = seconds[path].build_shapes
                mine.build_from_shapes(
                    {key: merge_shapes(shape, other[key]) for key, shape in copy.build_shapes.items()}
                )

    # Losses and metrics

    def add_loss(self, loss: Any) -> None:
        """Add a scalar (or several) to the training loss; call it from `call`.

        The losses of a call stay until the model that holds the layer is called again, or until `clear_losses()`.
        """
        if is_exporting():
            # An exported program returns outputs only; a loss kept here would be left over from no call.
            return
        _expect_losses()
        self.call_losses.extend(loss if isinstance(loss, (list, tuple)) else [loss])

    @property
    def losses(self) -> list[Tensor]:
        """Penalties on the weights as they are now, and what the last call added."""
        added = [loss for module in self.modules() if isinstance(module, Layer) for loss in module.call_losses]
        return added + [penalty() for penalty in self.weight_penalties()]

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that the layer and the layers in it hold as attributes."""
        return metrics_in_attributes(self)

    def graph_key(self) -> Hashable | None:
        """The settings that a compiled step takes for constants: numbers, booleans and strings among the attributes.

        None for a class that is not torchfunc's or torch's, or if the layer holds something of such a class, an
        activation say: then torch.compile's guards have to notice what changes.
        """
        return settings_key(self)

    @pass_over
    def clear_losses(self) -> None:
        """Forget what calls have added to the losses."""
        for module in self.modules():
            if isinstance(module, Layer):
                module.call_losses.clear()

    # Configuration

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal layer."""
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "dtype": _dtype_config(self.dtype)}
        if self.activity_regularizer is not None:
            config["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        if type(self).get_config is Layer.get_config and type(self).__init__ is not Layer.__init__:
            args, kwargs = self._init_arguments
            given = bind_call(type(self).__init__, self, args, kwargs)
            config.update({key: value for key, value in given.items() if key not in config})
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Layer:
        """Make a layer from what `get_config` gave."""
        return cls(**config)

    def get_build_config(self) -> dict[str, Any] | None:
        """The shapes the layer was built with, None before it is built."""
        if not self.build_shapes:
            return None
        if len(self.build_shapes) == 1:
            return {"input_shape": next(iter(self.build_shapes.values()))}
        return {"shapes_dict": dict(self.build_shapes)}

    def build_from_config(self, config: Mapping[str, Any]) -> None:
        """Build with what `get_build_config` gave."""
        if "shapes_dict" in config:
            self.build_from_shapes(map_structure(lambda leaf: leaf, dict(config["shapes_dict"])))
        elif config.get("input_shape") is not None:
            self.build_from_shapes({"input_shape": map_shapes(tuple, config["input_shape"])})

    def __getstate__(self) -> dict[str, Any]:
        # A copy is a new layer: it has not been called on anything yet.
        return {**self.__dict__, "inbound_nodes": [], "call_losses": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        retrack(self)


# torch.compile (2.11) cannot set an attribute of a class.
@once_for_all
def _expect_losses() -> None:
    Layer.adds_losses = True


def _marking_built(build: Callable[..., None]) -> Callable[..., None]:
    """`build`, which afterwards says so and remembers the shapes, whoever called it."""

    @functools.wraps(build)
    def marked(self: Layer, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        self.built = True
        if self.build_shapes is None:
            shapes = bind_call(build, self, args, kwargs)
            self.__dict__["build_shapes"] = {name: shape for name, shape in shapes.items() if shape is not None}

    return marked


def _resolving_training(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` as `forward`: a `training` that is not given is the module's mode."""
    if not accepts(call, "training"):
        return call

    @functools.wraps(call)
    def forward(self: Layer, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        return call(self, *args, training=self.training if training is None else training, **kwargs)

    # Else torch.compile would keep one set of graphs for all layers.
    return functools.wraps(call)(with_own_code(forward))


def _regularize_activity(layer: Layer, args: Any, outputs: Any) -> None:
    for output in _leaves(outputs):
        # By sample, as in Keras: the penalty does not grow with the batch.
        layer.add_loss(layer.activity_regularizer(output) / max(output.shape[0] if output.ndim else 1, 1))


def _leaves(structure: Any) -> list[Any]:
    found: list[Any] = []
    map_aggregate(structure, lambda leaf: found.append(leaf))
    return found


def _masks_of(structure: Any) -> Any:
    """The masks in place of the tensors they belong to; None if there are none."""
    if isinstance(structure, SymbolicTensor):
        return structure.mask
    masks = map_aggregate(structure, lambda leaf: leaf.mask if isinstance(leaf, SymbolicTensor) else None)
    return masks if any(mask is not None for mask in _leaves(masks)) else None


def _is_short(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= 4 and all(isinstance(item, (int, float, str, type(None))) for item in value)
    return isinstance(value, (int, float, str, torch.dtype))


def _shape_text(tensors: Sequence[SymbolicTensor]) -> str:
    return ", ".join(str(tensor.shape) for tensor in tensors)


def _dtype_config(dtype: torch.dtype) -> dict[str, Any]:
    return {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": dtype_name(dtype)},
        "registered_name": None,
    }
