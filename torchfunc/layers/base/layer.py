"""Layer: a `torch.nn.Module` that follows Keras' protocol and can be called on symbolic tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchfunc import regularizers
from torchfunc.config import floatx
from torchfunc.dtypes import DTypeLike, as_dtype, dtype_name
from torchfunc.errors import did_you_mean
from torchfunc.frames import frame_to_array, is_frame
from torchfunc.graph import (
    CallMode,
    Node,
    ReturnedMask,
    Spec,
    SymbolicTensor,
    are_calls_watched,
    check_modes,
    contains_symbolic,
    fake_copy,
    flipped,
    infer,
    located,
    only_real,
    pass_over,
    record,
    record_input,
    returned_masks,
    symbolic_tensors,
    with_own_code,
)
from torchfunc.graph_keys import settings_key
from torchfunc.layers.base.argument_types import Config, RegularizerLike
from torchfunc.layers.base.build_record import BuildRecord, marking_built
from torchfunc.layers.base.call_arguments import accepts, bind_call, parameter_names, shapes_of
from torchfunc.layers.base.file_hooks import FileHooks
from torchfunc.layers.base.input_spec import DeclaredInput, check_input
from torchfunc.layers.base.introspection import WITHOUT_INIT, InboundNodes, NodeIntrospection
from torchfunc.layers.base.layer_name import LayerName
from torchfunc.layers.base.losses import LossHolder, expect_losses, regularize_activity, starts_call
from torchfunc.layers.base.masked_calls import MaskedCalls
from torchfunc.layers.base.masks import masks_of_tensors, masks_to_pass, set_masks
from torchfunc.layers.base.output_specs import Specs, specs_by_formula
from torchfunc.layers.base.shapes import Shapes, declared_input_shape, map_shapes, merge_shapes
from torchfunc.layers.base.tracking import restore_tracking, track
from torchfunc.layers.base.weights import set_trainable
from torchfunc.metrics import Metric
from torchfunc.metrics.attributes import metrics_in_attributes
from torchfunc.readable_arrays import readable
from torchfunc.registry import deserialize_arguments
from torchfunc.structures import leaves, map_structure
from torchfunc.tensor_masks import MASK, MASKS_OF_INPUTS

__all__ = ["Layer", "build_sublayers", "has_shape_formula", "known_specs", "output_specs", "takes_mask"]

# The types of values that are registered, in tables of the module, and not plain attributes.
_REGISTERED_TYPES = (Tensor, nn.Module, list, tuple, dict)


class Layer(LayerName, NodeIntrospection, MaskedCalls, LossHolder, DeclaredInput, FileHooks, BuildRecord):
    """The base of all layers.

    Write `call(self, inputs, training=None, mask=None)` as in Keras or `forward(self, x)` as in torch; make weights in
    `__init__` or, once the input's shape is known, in `build(self, input_shape)`.

    Args:
        activity_regularizer: name, config or callable on the output; its value joins the training loss.
        trainable: whether training may change the weights.
        dtype: the dtype of new weights; `config.floatx()` by default.
        autocast: accepted for compatibility with Keras, without effect.
        name: the layer's name. Without one it is called after its class, and numbered by the first model it joins.
        input_shape, batch_input_shape, input_dim: the input's shape, for the first layer of a `Sequential`.

    Raises:
        ValueError: an argument is unknown, or the name is empty or holds a "/".

    >>> class Linear(layers.Layer):
    ...     def __init__(self, units, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.units = units
    ...
    ...     def build(self, input_shape):
    ...         self.kernel = self.add_weight(shape=(input_shape[-1], self.units), initializer="ones")
    ...
    ...     def call(self, inputs):
    ...         return inputs @ self.kernel
    >>> Linear(3)(Input((5,))).shape
    (None, 3)
    >>> Linear(2)(torch.tensor([[1.0, 2.0]])).tolist()
    [[3.0, 3.0]]
    """

    declared_batch_shape: tuple[int | None, ...] | None
    inbound_calls: InboundNodes

    def __init__(
        self,
        *,
        activity_regularizer: RegularizerLike = None,
        trainable: bool = True,
        dtype: DTypeLike | None = None,
        autocast: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if "_modules" not in self.__dict__:
            # The __init__ of torch.fx has already run for a model drawn as a graph.
            nn.Module.__init__(self)
        declared_shape = declared_input_shape(kwargs) if kwargs else None
        if kwargs:
            raise ValueError(
                f"{type(self).__name__} was given arguments it does not take: {', '.join(map(repr, kwargs))}."
                f"{did_you_mean(next(iter(kwargs)), parameter_names(type(self)))}"
            )
        if name is not None and (not isinstance(name, str) or "/" in name or not name):
            raise ValueError(f"A layer's name is a non-empty string without '/', got {name!r}.")
        self._init_weights(trainable, dtype)
        # Not through `__setattr__`, which looks for layers in lists and dicts.
        self.__dict__.update(
            declared_batch_shape=declared_shape,
            _name=name,
            has_explicit_name=name is not None,
            inbound_calls=InboundNodes(),
            build_shapes=None,
            call_losses=[],
            built=False,
            activity_regularizer=None,
        )
        if activity_regularizer is not None:
            self.activity_regularizer = regularizers.get(activity_regularizer)
        if self.activity_regularizer is not None:
            expect_losses()
            self.register_forward_hook(regularize_activity)

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
            cls.build = marking_built(vars(builder)["build"])  # type: ignore[method-assign]
        caller = next((base for base in cls.__mro__ if "call" in vars(base) or "forward" in vars(base)), None)
        if caller in own and "forward" not in vars(caller):
            cls.forward = _resolving_training(vars(caller)["call"])

    def __setattr__(self, name: str, value: Any) -> None:
        if (
            not issubclass(type(value), _REGISTERED_TYPES)
            and "_modules" in self.__dict__
            and not (name in self._modules or name in self._parameters or name in self._buffers)
        ):
            # Most attributes: nothing to register, and nothing registered under the name to remove.
            object.__setattr__(self, name, value)
            return
        if isinstance(value, (nn.Parameter, nn.Module)) and "_modules" not in self.__dict__:
            raise AttributeError(WITHOUT_INIT.format(type(self).__name__))
        if isinstance(value, Tensor) and self.__dict__.get("_provisional") and self.rename_weight(name, value):
            # It may have been None before `build`.
            self.__dict__.pop(name, None)
            return
        if isinstance(value, Tensor) and any(
            name == weight.keras_name and name not in weight.names for weight in self.__dict__.get("_weights", ())
        ):
            raise AttributeError(
                f"{type(self).__name__}.{name} shows torch's parameters as Keras has them and cannot be replaced. "
                f"Write into it: layer.{name}.assign(value)."
            )
        if isinstance(value, nn.Module) and name != "layers" and hasattr(type(self), name):
            raise AttributeError(
                f"{type(self).__name__}.{name} is an attribute of the class, which hides a layer of that name: "
                f"`self.{name}` would not give the {type(value).__name__}. Call it something else."
            )
        if not track(self, name, value):
            super().__setattr__(name, value)
        if not self.__dict__.get("_trainable", True):
            self._freeze_added(value)

    def _freeze_added(self, value: Any) -> None:
        """Freeze what a frozen layer gets, as all that it had before."""
        if isinstance(value, nn.Module):
            set_trainable(value, False)
        elif isinstance(value, nn.Parameter):
            value.requires_grad_(False)

    # Calling

    @pass_over
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if starts_call() and not torch.compiler.is_compiling():
            return self.run_outermost_eagerly(Layer.__call__, self, *args, **kwargs)
        # With nothing to record, convert or build, straight to torch, without the hook that plain modules need.
        if self.built and not are_calls_watched():
            if not kwargs and len(args) == 1 and type(args[0]) is Tensor:
                if self.makes_masks or getattr(args[0], MASK, None) is not None:
                    return self._call_on_masked(args, kwargs)
                return self._wrapped_call_impl(args[0])
            if "training" not in kwargs and only_real(args) and only_real(kwargs.values()):
                if self._meets_masks(args, kwargs):
                    return self._call_on_masked(args, kwargs)
                return self._wrapped_call_impl(*args, **kwargs)
        if contains_symbolic(args, kwargs):
            return self._call_symbolically(args, kwargs)
        return self._call_eagerly(args, kwargs)

    @pass_over
    def _call_eagerly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        args = map_structure(self._to_tensor, tuple(args))
        kwargs = map_structure(self._to_tensor, dict(kwargs))
        given = kwargs.get("training")
        training = self.training if given is None else bool(given)
        kwargs = {name: value for name, value in kwargs.items() if name != "training"}
        if not self.built:
            arguments = self._bind(args, kwargs)
            self._check_input(arguments)
            self._build_for(arguments)
        if training == self.training:
            return self._call_plainly(args, kwargs)
        with flipped(self, training) if torch.compiler.is_compiling() else CallMode(self, training):
            return self._call_plainly(args, kwargs)

    @pass_over
    def _call_plainly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if self._meets_masks(args, kwargs):
            return self._call_on_masked(args, kwargs)
        return super().__call__(*args, **kwargs)

    def _to_tensor(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value
        if is_frame(value):
            value = frame_to_array(value, "the input")
        elif not isinstance(value, np.ndarray):
            return value
        # A copy: not all that is called here leaves its arguments as they are.
        tensor = torch.from_numpy(readable(value.copy()))
        here = next(self.parameters(), None)
        tensor = tensor.to(as_dtype(floatx())) if tensor.dtype == torch.float64 else tensor
        return tensor if here is None else tensor.to(here.device)

    def _call_symbolically(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        node = self.record_call(args, kwargs)
        self.inbound_calls.add(node, held=True)
        return node.outputs

    def record_call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Node:
        """A call on symbolic values as a node, which is not counted among the layer's own yet."""
        kwargs = dict(kwargs)
        training = kwargs.pop("training", None)
        arguments = self._bind(args, kwargs)
        first = next(iter(arguments.values()), None)
        self._check_input(arguments)
        found = masks_to_pass(self._mask_parameters(), arguments, kwargs)
        kwargs.update(found)
        arguments.update(found)
        if arguments.get("mask") is not None:
            self._check_mask(first, arguments["mask"])
        if not self.built:
            self._build_for(arguments)
        specs = self._output_specs(args, kwargs, arguments)
        on_tensors = masks_of_tensors((args, kwargs)) if self.is_written else None
        if on_tensors is not None:
            kwargs[MASKS_OF_INPUTS] = on_tensors
            self.has_masks_in_graphs = True
        node = record("module", self, args, kwargs if training is None else {**kwargs, "training": training}, specs)
        masks = self._output_masks(first, arguments)
        if masks is not None:
            set_masks(node.outputs, masks)
        if self.is_written:
            kwargs.pop(MASKS_OF_INPUTS, None)
            self._note_returned_masks(node, returned_masks(self, args, kwargs, on_tensors, self.describe()))
        return node

    def _note_returned_masks(self, node: Node, masks: Sequence[Spec | None]) -> None:
        places = [index for index, leaf in enumerate(leaves(node.outputs)) if isinstance(leaf, SymbolicTensor)]
        for index, value, mask in zip(places, symbolic_tensors(node.outputs), masks, strict=False):
            if mask is not None:
                node.masks[value.path] = ReturnedMask(index, mask)
                self.has_masks_in_graphs = True

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by parameter name."""
        return bind_call(type(self).forward, self, args, kwargs)

    def _check_input(self, arguments: Mapping[str, Any]) -> None:
        spec = self.input_spec
        if spec is not None and arguments:
            check_input(spec, next(iter(arguments.values())), self.describe)

    # Shapes

    def build(self, input_shape: Shapes) -> None:
        """Make the weights. Override it; take one shape, or one `<argument>_shape` for each argument of `call`.

        >>> layer = layers.Dense(3)
        >>> layer.build((None, 5))
        >>> layer.built, tuple(layer.weight.shape)
        (True, (3, 5))
        """
        self.built = True

    def _build_for(self, arguments: Mapping[str, Any]) -> None:
        self.build_from_shapes(shapes_of(arguments))

    def compute_output_shape(self, input_shape: Shapes) -> Shapes:
        """The output's shape for an input's shape, None standing for unknown sizes.

        Built-in layers have a formula. A custom layer that does not override this is run on fake tensors.

        >>> layers.Conv2D(8, 3).compute_output_shape((None, 28, 28, 1))
        (None, 26, 26, 8)
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

    def _has_shape_formula(self) -> bool:
        """Whether `compute_output_shape` is a formula, and runs nothing."""
        return type(self).compute_output_shape is not Layer.compute_output_shape

    def _shape_formula(self, arguments: Mapping[str, Any]) -> Callable[..., Any]:
        """The function from the shapes of these arguments to the output's shape."""
        return self.compute_output_shape

    def _output_specs(self, args: Sequence[Any], kwargs: Mapping[str, Any], arguments: Mapping[str, Any]) -> Specs:
        if not self._has_shape_formula():
            specs = self._infer_by_running(args, kwargs)
            check_modes(self, args, kwargs, self.describe(), specs)
            return specs
        dtype = self.compute_output_dtype(*(tensor.dtype for tensor in symbolic_tensors(arguments)))
        return specs_by_formula(self._shape_formula(arguments), arguments, dtype, self.describe)

    def _known_specs(self, args: Sequence[Any]) -> Specs | None:
        """`known_specs`, of a model that was drawn."""
        return None

    def _infer_by_running(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Specs:
        """Run a fake copy of this layer, and build here what the copy built."""
        copies: list[nn.Module] = []

        def prepare(mode: Any) -> nn.Module:
            copies.append(fake_copy(self, mode))
            return copies[-1]

        specs = infer(prepare, args, kwargs, self.describe(), self)
        self._build_like(copies[0], copies[-1])
        return specs

    def _build_like(self, first: nn.Module, second: nn.Module) -> None:
        """Build the sublayers that two copies of this layer built, for what their input shapes have in common."""
        own, seconds = dict(self.named_modules()), dict(second.named_modules())
        for path, copy in first.named_modules():
            if not isinstance(copy, Layer) or not copy.built or copy.build_shapes is None:
                continue
            if path not in own:
                raise ValueError(
                    located(f"{self.describe()} makes the layer {path!r} in `call`. Make it in `__init__` or `build`.")
                )
            mine = own[path]
            assert isinstance(mine, Layer)
            if not mine.built:
                other = seconds[path].build_shapes
                mine.build_from_shapes(
                    {key: merge_shapes(shape, other[key]) for key, shape in copy.build_shapes.items()}
                )

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that are attributes of the layer or of the layers in it."""
        return metrics_in_attributes(self.modules())

    @property
    def metrics_variables(self) -> list[Tensor]:
        """The state of the `metrics`."""
        return [variable for metric in self.metrics for variable in metric.variables]

    def graph_key(self) -> Hashable | None:
        """The settings that a compiled step takes for constants: numbers, booleans and strings among the attributes.

        None for a class that is not torchfunc's or torch's, or if the layer holds something of such a class, an
        activation say: then torch.compile's guards have to notice what changes.
        """
        return settings_key(self)

    # Configuration

    def get_config(self) -> Config:
        """The arguments that make an equal layer.

        >>> config = layers.Dense(3, activation="relu", name="hidden").get_config()
        >>> config["name"], config["units"], config["activation"]
        ('hidden', 3, 'relu')
        """
        config: Config = {"name": self.name, "trainable": self.trainable, "dtype": _dtype_config(self.dtype)}
        if self.activity_regularizer is not None:
            config["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        if type(self).get_config is Layer.get_config and type(self).__init__ is not Layer.__init__:
            args, kwargs = self._init_arguments
            given = bind_call(type(self).__init__, self, args, kwargs)
            config.update({key: value for key, value in given.items() if key not in config})
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Layer:
        """Make a layer from what `get_config` gave.

        >>> layers.Dense.from_config({"units": 3}).units
        3
        """
        if cls.get_config is Layer.get_config:
            # The arguments as they were given, and a file may hold the configs of layers among them.
            config = deserialize_arguments(config)
        return cls(**config)

    def __getstate__(self) -> dict[str, Any]:
        # A copy is a new layer: it has not been called on anything yet.
        return {**self.__dict__, "inbound_calls": InboundNodes(), "call_losses": [], "_provisional": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        restore_tracking(self)
        self.place_weights()


# For layers around other layers; functions, since a name in `Layer` would be taken from its subclasses.


def has_shape_formula(layer: Layer) -> bool:
    """Whether drawing a call of the layer runs nothing."""
    return layer._has_shape_formula()


def takes_mask(layer: Layer) -> bool:
    """Whether a call passes the mask of its input on to `call` or `forward`."""
    return layer._takes_mask()


def output_specs(layer: Layer, *args: Any) -> Specs:
    """What a call on these symbolic values returns: a `Spec` for each tensor. Nothing is recorded."""
    return layer._output_specs(args, {}, layer._bind(args, {}))


def known_specs(layer: Layer, args: Sequence[Any]) -> Specs | None:
    """What a call on exactly these symbolic values surely returns; None where only a run would tell."""
    return layer._known_specs(args)


def build_sublayers(layer: Layer, *args: Any) -> None:
    """Build the sublayers that a call on these symbolic values would build, by a run on fake tensors."""
    layer._infer_by_running(args, {})


def _resolving_training(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` as `forward`: a `training` that is not given is the module's mode."""
    if not accepts(call, "training"):
        return call

    @functools.wraps(call)
    def forward(self: Layer, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        return call(self, *args, training=self.training if training is None else training, **kwargs)

    # Else torch.compile would share one cache of graphs among all layers.
    return functools.wraps(call)(with_own_code(forward))


def _dtype_config(dtype: torch.dtype) -> Config:
    return {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": dtype_name(dtype)},
        "registered_name": None,
    }
