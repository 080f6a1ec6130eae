"""Layers around another layer: Wrapper, TimeDistributed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from torchfunc.graph import Spec, SymbolicTensor, record
from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.layer import Layer, output_specs, takes_mask
from torchfunc.layers.base.masks import Masks, check_mask
from torchfunc.layers.base.output_specs import Specs
from torchfunc.layers.base.shapes import Shape, Shapes, map_shapes
from torchfunc.registry import deserialize_keras_object, serialize_keras_object
from torchfunc.structures import map_structure

__all__ = ["TimeDistributed", "Wrapper"]


class Wrapper(Layer):
    """The base of layers around another one, `.layer`.

    Args:
        layer: a layer, a model, or any `torch.nn.Module`.
        **kwargs: `activity_regularizer`, `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: `layer` is none of these.

    >>> class Twice(layers.Wrapper):
    ...     def call(self, inputs):
    ...         return 2 * self.layer(inputs)
    >>> Twice(layers.ReLU())(torch.tensor([-1.0, 3.0]))
    tensor([0., 6.])
    """

    def __init__(self, layer: nn.Module, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(layer, nn.Module):
            raise ValueError(f"{type(self).__name__} goes around a layer or a torch.nn.Module, got {layer!r}.")
        self.layer = layer
        if not self.trainable:
            self.trainable = False

    def build(self, input_shape: Shapes | None = None) -> None:
        self._build_layer(input_shape)

    def _build_layer(self, input_shape: Shapes) -> None:
        if isinstance(self.layer, Layer) and not self.layer.built:
            self.layer.build_from_shapes({"input_shape": input_shape})

    def get_config(self) -> Config:
        return {**super().get_config(), "layer": serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Wrapper:
        layer = deserialize_keras_object(config["layer"], custom_objects)
        return cls(layer, **{key: value for key, value in config.items() if key != "layer"})


class TimeDistributed(Wrapper):
    """Applies one layer to every step of a sequence.

    Shape: `(batch, time, ...)` -> `(batch, time, ...)`, where the layer makes `(batch, ...)` of `(batch, ...)`.

    The layer runs once, on all steps of all samples as one large batch; what depends on the batch, such as the
    statistics of batch normalization, is taken over all steps together.

    Args:
        layer: a layer, a model with one input, or any `torch.nn.Module`, whose output has the batch axis first.
        **kwargs: `activity_regularizer`, `name`, `trainable`, `dtype`, `input_shape`.

    A mask `(batch, time, ...)` is passed on, and given to the layer as `(batch * time, ...)` if it takes one.

    >>> layers.TimeDistributed(layers.Conv2D(8, 3))(Input((10, 28, 28, 3))).shape
    (None, 10, 26, 26, 8)
    """

    supports_masking = True

    def __init__(self, layer: nn.Module, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.input_spec = InputSpec(min_ndim=3)
        # Looked up here, since compiled code cannot inspect signatures.
        self._passes_mask = isinstance(layer, Layer) and takes_mask(layer)

    def build(self, input_shape: Any = None) -> None:
        # A model records the batch size it is built with, and this one depends on the number of steps.
        self._build_layer((None, *self._step_shape(input_shape)[1:]))

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Any:
        sizes = inputs.shape[:2]
        given = {}
        if mask is not None:
            self._check_mask(inputs, mask)
            if self._passes_mask:
                given["mask"] = mask.flatten(0, 1)
        outputs = self.layer(inputs.flatten(0, 1), **given)
        return tree_map(lambda leaf: leaf.unflatten(0, sizes) if isinstance(leaf, Tensor) else leaf, outputs)

    def _check_mask(self, inputs: Any, mask: Any) -> None:
        check_mask(mask, (*inputs.shape[:2], *mask.shape[2:]), "(batch, time, ...)", self.describe)

    def compute_mask(self, inputs: Any, mask: Masks = None) -> Masks:
        if mask is None or mask.ndim == 2:
            return mask
        inner = self.layer.compute_mask(inputs, mask) if isinstance(self.layer, Layer) else None
        # Where the layer makes one output of the masked positions within a step, any of them makes the step count.
        return mask.flatten(2).any(-1) if inner is None else mask

    def _step_shape(self, input_shape: Shape) -> Shape:
        """The shape of the layer's input: the first two axes as one."""
        if len(input_shape) < 3:
            raise ValueError(
                f"{self.describe()} takes inputs (batch, time, ...) of at least 3 axes, got {tuple(input_shape)}."
            )
        batch, steps, *rest = input_shape
        return (None if batch is None or steps is None else batch * steps, *rest)

    def compute_output_shape(self, input_shape: Shape) -> Shapes:
        step_shape = self._step_shape(input_shape)
        if not isinstance(self.layer, Layer):
            return super().compute_output_shape(input_shape)
        batch, steps = input_shape[:2]
        return map_shapes(lambda shape: (batch, steps, *shape[1:]), self.layer.compute_output_shape(step_shape))

    def _output_specs(self, args: Sequence[Any], kwargs: Mapping[str, Any], arguments: Mapping[str, Any]) -> Specs:
        if not isinstance(self.layer, Layer):
            return self._infer_by_running(args, kwargs)
        inputs: SymbolicTensor = arguments["inputs"]
        first, second = (self._step_shape(example) for example in inputs.spec.examples)
        step = Spec(self._step_shape(inputs.shape), inputs.dtype, (first, second))
        stand_in = record("input", "step", (), {}, step).outputs
        specs = output_specs(self.layer, stand_in)

        def unfold(leaf: Any) -> Any:
            if not isinstance(leaf, Spec) or leaf.shape is None:
                return leaf
            sizes = (inputs.shape[:2], *(example[:2] for example in inputs.spec.examples))
            shape, *examples = (
                (*two, *rest[1:]) for two, rest in zip(sizes, (leaf.shape, *leaf.examples), strict=True)
            )
            return Spec(shape, leaf.dtype, (examples[0], examples[1]))

        return map_structure(unfold, specs)
