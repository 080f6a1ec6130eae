"""Dense, Embedding, Identity, Lambda and TorchModule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfunc import regularizers
from torchfunc.arrays import as_tensor
from torchfunc.graph import heeds_masks
from torchfunc.layers.base.argument_types import (
    ActivationLike,
    Config,
    ConstraintLike,
    InitializerLike,
    RegularizerLike,
)
from torchfunc.layers.base.call_arguments import accepts, bind_call
from torchfunc.layers.base.checks import known_size, positive, refuse
from torchfunc.layers.base.elementwise import Elementwise
from torchfunc.layers.base.input_dtype import in_dtype_of
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.layer import Layer, known_specs
from torchfunc.layers.base.masks import Masks, mask_parameters
from torchfunc.layers.base.output_specs import Specs
from torchfunc.layers.base.shapes import Shape, Shapes
from torchfunc.layers.base.weighted_layer import KernelLayer, WeightedLayer
from torchfunc.layers.base.weights import LINEAR
from torchfunc.registry import deserialize_keras_object, serialize_keras_object

__all__ = ["Dense", "Embedding", "Identity", "Lambda", "TorchModule"]


class Dense(KernelLayer):
    """`activation(inputs @ kernel + bias)` on the last axis.

    Shape: `(batch, ..., features)` -> `(batch, ..., units)`.
    Parameters: `weight` (units, features), `bias` (units,), as in `torch.nn.Linear`.

    Args:
        units: the number of outputs.
        activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
        kernel_constraint, bias_constraint: see `KernelLayer`.
        activity_regularizer: a penalty on the output.
        lora_rank, lora_alpha, quantization_config: must be None.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    >>> layers.Dense(3)(Input((None, 5))).shape
    (None, None, 3)
    >>> layer = layers.Dense(2, activation="relu", kernel_initializer="ones", bias_initializer="ones")
    >>> layer(torch.tensor([[1.0, 2.0], [-5.0, 1.0]])).tolist()
    [[4.0, 4.0], [0.0, 0.0]]
    """

    supports_masking = True

    def __init__(
        self,
        units: int,
        activation: ActivationLike = None,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        quantization_config: object = None,
        **kwargs: Any,
    ) -> None:
        refuse(self, lora_rank=lora_rank, lora_alpha=lora_alpha, quantization_config=quantization_config)
        weights = {
            "kernel": (kernel_initializer, kernel_regularizer, kernel_constraint),
            "bias": (bias_initializer, bias_regularizer, bias_constraint),
        }
        super().__init__(activation, use_bias, weights, activity_regularizer=activity_regularizer, **kwargs)
        self.units = positive(units, "units", "Dense")
        self.declare_input(InputSpec(min_ndim=2))

    def build(self, input_shape: Shape) -> None:
        features = known_size(input_shape, -1, self)
        self._make_weight("kernel", (features, self.units), "weight", LINEAR)
        self._make_bias((self.units,))
        self.declare_input(InputSpec(min_ndim=2, axes={-1: features}))

    def before_activation(self, inputs: Tensor) -> Tensor:
        return F.linear(in_dtype_of(self.weight, inputs), self.weight, self.bias)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            **self._kernel_config(),
            "quantization_config": None,
        }


class Embedding(WeightedLayer):
    """A vector for each integer.

    Shape: integers `(batch, ...)` -> floats `(batch, ..., output_dim)`. Floats with integer values are accepted too.
    Parameters: `weight` (input_dim, output_dim), as in `torch.nn.Embedding`.

    Args:
        input_dim: the number of different integers, the largest plus one.
        output_dim: the length of the vectors.
        embeddings_initializer, embeddings_regularizer, embeddings_constraint: of the vectors.
        mask_zero: whether 0 is padding: layers behind this one, and the loss, then leave these steps out.
        sparse_gradient: whether a training step looks only at the vectors of its batch, so that it takes no longer the
            more of them there are. SGD without momentum and Adagrad, without weight decay, train as ever. RMSprop,
            Adam, AdamW, Adamax, Adadelta and Lion change the vectors they meet and the state that belongs to them, as
            `torch.optim.SparseAdam` does; otherwise they also move vectors, and let their state fade, while these are
            not met. All other optimizers, and these with `gradient_accumulation_steps` or loss scaling, take the
            gradient as a dense one; `use_ema` averages all vectors. Such steps are not compiled. Keras knows no such
            argument, and refuses a file of a model that has it.
        weights: the initial vectors, as an array (input_dim, output_dim) or a list of one.
        lora_rank, lora_alpha, quantization_config: must be None.
        input_length: accepted as in older guides, without effect.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    >>> layers.Embedding(input_dim=1000, output_dim=16)(Input((7,), dtype="int64")).shape
    (None, 7, 16)
    """

    weight: nn.Parameter

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: InitializerLike = "uniform",
        embeddings_regularizer: RegularizerLike = None,
        embeddings_constraint: ConstraintLike = None,
        mask_zero: bool = False,
        weights: np.ndarray | Tensor | Sequence[np.ndarray | Tensor] | None = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        quantization_config: object = None,
        input_length: int | None = None,
        activity_regularizer: RegularizerLike = None,
        sparse_gradient: bool = False,
        **kwargs: Any,
    ) -> None:
        refuse(self, lora_rank=lora_rank, lora_alpha=lora_alpha, quantization_config=quantization_config)
        if sparse_gradient and not (embeddings_regularizer is None and embeddings_constraint is None):
            raise ValueError(
                "Embedding(sparse_gradient=True) leaves alone the vectors that a batch does not use, but "
                "`embeddings_regularizer` and `embeddings_constraint` change all of them at each step. Leave out "
                "one or the other; `activity_regularizer` penalizes the vectors that are used."
            )
        table = {"embeddings": (embeddings_initializer, embeddings_regularizer, embeddings_constraint)}
        super().__init__(table, activity_regularizer=activity_regularizer, **kwargs)
        self.input_dim = positive(input_dim, "input_dim", "Embedding")
        self.output_dim = positive(output_dim, "output_dim", "Embedding")
        self.mask_zero = bool(mask_zero)
        self.sparse_gradient = bool(sparse_gradient)
        self.supports_masking = self.mask_zero
        if self.mask_zero:
            self.makes_masks = True
        if weights is not None:
            self.build(None)
            self.set_weights(weights if isinstance(weights, (list, tuple)) else [weights])

    def build(self, input_shape: Shape | None = None) -> None:
        if "weight" not in self._parameters:
            self._make_weight("embeddings", (self.input_dim, self.output_dim), "weight")

    def call(self, inputs: Tensor) -> Tensor:
        if inputs.dtype not in (torch.int64, torch.int32):
            inputs = inputs.to(torch.int64)
        try:
            return F.embedding(inputs, self.weight, sparse=self.sparse_gradient)
        except IndexError as error:
            # Only here, since to look at all ids would take as long as to embed them.
            outside = inputs[(inputs < 0) | (inputs >= self.input_dim)]
            raise ValueError(
                f"{self.describe()} has vectors for 0 to {self.input_dim - 1}, but was given {outside[0].item()}."
            ) from error

    def compute_mask(self, inputs: Any, mask: Masks = None) -> Masks:
        return torch.ne(as_tensor(inputs), 0) if self.mask_zero else None

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.output_dim)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            **self._weights_config(),
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
            "mask_zero": self.mask_zero,
            "quantization_config": None,
            **({"sparse_gradient": True} if self.sparse_gradient else {}),
        }


class Identity(Elementwise):
    """Returns its input. Shape: any, unchanged.

    >>> layers.Identity()(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """

    def call(self, inputs: Tensor) -> Tensor:
        return inputs


class Lambda(Layer):
    """A function as a layer.

    Torch functions and operators need no Lambda: they can be called on symbolic tensors directly.

    Args:
        function: called on the input; may take `mask` and `training`.
        output_shape: the output's shape, with or without the batch axis' size known, or a function of the input's
            shape; inferred by a run on fake tensors by default.
        mask: the output's mask, or a function `(inputs, mask)` that gives it.
        arguments: further keyword arguments of `function`.
        **kwargs: of `Layer`.

    Raises:
        TypeError: the function cannot be called.

    >>> layers.Lambda(lambda x: x**2)(torch.tensor([[3.0]]))
    tensor([[9.]])
    """

    def __init__(
        self,
        function: Callable[..., Any],
        output_shape: Shapes | None = None,
        mask: Masks = None,
        arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not callable(function):
            raise TypeError(f"Lambda takes a function, got {function!r}.")
        self.function = function
        self._named = tuple(name for name in ("mask", "training") if accepts(function, name))
        self.arguments = dict(arguments or {})
        self._output_shape = output_shape
        self.mask = mask
        self.supports_masking = mask is not None
        if mask is not None:
            self.makes_masks = True

    def call(self, inputs: Any, mask: Masks = None, training: bool | None = None) -> Any:
        extra = {"mask": mask, "training": training}
        return self.function(inputs, **self.arguments, **{name: extra[name] for name in self._named})

    def compute_output_shape(self, input_shape: Shapes) -> Shapes:
        if self._output_shape is None:
            return super().compute_output_shape(input_shape)
        if callable(self._output_shape):
            return self._output_shape(input_shape)
        batch = input_shape[0] if isinstance(input_shape[0], (int, type(None))) else input_shape[0][0]
        return (batch, *self._output_shape)

    def _has_shape_formula(self) -> bool:
        return self._output_shape is not None

    def compute_mask(self, inputs: Any, mask: Masks = None) -> Masks:
        return self.mask(inputs, mask) if callable(self.mask) else self.mask

    def get_config(self) -> Config:
        config = {**super().get_config(), "function": serialize_keras_object(self.function)}
        if self._output_shape is not None:
            shape = self._output_shape
            config["output_shape"] = serialize_keras_object(shape) if callable(shape) else shape
        if self.mask is not None:
            config["mask"] = serialize_keras_object(self.mask)
        return {**config, "arguments": self.arguments}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Lambda:
        written = ("function", "output_shape", "mask")
        return cls(
            **{key: deserialize_keras_object(value) if key in written else value for key, value in config.items()}
        )


class TorchModule(Layer):
    """Any `torch.nn.Module` as a layer; the module is `.module`.

    A module can also be called on symbolic tensors as it is. Use this to give it a name or an output shape. It takes
    part in masks if it has `supports_masking = True` (an argument `mask` of its `forward` then gets the input's) or a
    method `compute_mask(inputs, mask)`.

    Args:
        module: the module.
        name: the layer's name.
        output_shape: the output's shape with the batch axis (None), for a module whose result depends on data values;
            inferred by a run on fake tensors by default.
        **kwargs: of `Layer`.

    Raises:
        TypeError: it is no `torch.nn.Module`.

    >>> layers.TorchModule(torch.nn.Linear(5, 3), name="project")(Input((5,))).shape
    (None, 3)
    """

    def __init__(
        self,
        module: nn.Module,
        name: str | None = None,
        output_shape: Sequence[int | None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        if not isinstance(module, nn.Module):
            raise TypeError(f"TorchModule takes a torch.nn.Module, got {type(module).__name__}.")
        self.module = module
        self.supports_masking = bool(getattr(module, "supports_masking", False))
        # (Each layer has a `compute_mask`.)
        if getattr(module, "makes_masks", callable(getattr(module, "compute_mask", None))):
            self.makes_masks = True
        if heeds_masks(module):
            self.is_written = True
        self._output_shape = None if output_shape is None else tuple(output_shape)
        if not self.trainable:
            self.trainable = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        function = getattr(self.module.forward, "__func__", None)
        return super()._bind(args, kwargs) if function is None else bind_call(function, self.module, args, kwargs)

    def _called_class(self) -> type:
        return type(self.module)

    def _mask_parameters(self) -> Sequence[str]:
        return mask_parameters(type(self.module)) if self.supports_masking else ()

    def compute_mask(self, inputs: Any, mask: Masks = None) -> Masks:
        own = getattr(self.module, "compute_mask", None)
        return own(inputs, mask) if callable(own) else super().compute_mask(inputs, mask)

    def _has_shape_formula(self) -> bool:
        return self._output_shape is not None

    def compute_output_shape(self, input_shape: Shapes) -> Shapes:
        return super().compute_output_shape(input_shape) if self._output_shape is None else self._output_shape

    def _output_specs(self, args: Sequence[Any], kwargs: Mapping[str, Any], arguments: Mapping[str, Any]) -> Specs:
        module, specs = self.module, None
        if isinstance(module, Layer) and self._output_shape is None and not kwargs:
            # A model that was drawn knows what it returns. (A run takes a copy of it, and of the models within it.)
            specs = known_specs(module, args)
        return super()._output_specs(args, kwargs, arguments) if specs is None else specs

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return self.dtype

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "module": serialize_keras_object(self.module),
            "output_shape": self._output_shape,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TorchModule:
        return cls(**{**config, "module": deserialize_keras_object(config["module"])})
