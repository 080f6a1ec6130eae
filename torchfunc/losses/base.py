"""`Loss`, the base of every loss, and the losses that are one function."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from torchfunc.batch_parts import BatchPart
from torchfunc.config import floatx
from torchfunc.dtypes import DTypeLike, as_dtype, dtype_name
from torchfunc.graph_keys import settings_key
from torchfunc.losses.shapes import TensorLike, as_tensors, match_ranks
from torchfunc.losses.weighting import MEANS, Reduction, check_reduction, reduce_weighted, trailing_axes
from torchfunc.registry import deserialize_keras_object, serialize_keras_object, to_snake_case
from torchfunc.tensor_masks import MASK

__all__ = ["FunctionLoss", "Loss", "LossFunctionWrapper", "written_arguments"]

T = TypeVar("T", bound="Loss")


class Loss:
    """Base of all losses: `call` gives one loss a sample, and `__call__` weighs and reduces them.

    A subclass defines `call(y_true, y_pred)`, which keeps the batch axis and reduces the last one.

    Args:
        name: shown in logs; the class's name in snake case by default.
        reduction: "sum_over_batch_size" or "mean": the weighted sum divided by the number of losses;
            "mean_with_sample_weight": divided by the sum of the weights; "sum": not divided;
            None or "none": not summed.
        dtype: what the loss is computed in. By default that of the predictions, but no less than
            `config.floatx()`: float16 predictions are taken to float32, float64 ones stay.

    Raises:
        ValueError: there is no such reduction.

    >>> class MeanFourthPower(losses.Loss):
    ...     def call(self, y_true, y_pred):
    ...         return ((y_true - y_pred) ** 4).mean(-1)
    >>> MeanFourthPower()([[0.0], [0.0]], [[1.0], [2.0]])  # (1 + 16) / 2
    tensor(8.5000)
    >>> MeanFourthPower(reduction=None)([[0.0], [0.0]], [[1.0], [2.0]], sample_weight=[1.0, 0.5])
    tensor([1., 8.])
    """

    # How the targets say a class, if they do: "indices", "labels" of 0 and 1, "one_hot" along `axis`.
    target_form: str | None = None
    _per_sample_advice = "Return one loss per sample, shape (batch,), and leave the mean to `reduction`."

    def __init__(
        self,
        name: str | None = None,
        reduction: Reduction = "sum_over_batch_size",
        dtype: DTypeLike | None = None,
    ) -> None:
        self.name = name or to_snake_case(type(self).__name__)
        self.reduction = check_reduction(reduction)
        self.dtype = as_dtype(dtype or floatx())
        self._exact_dtype = dtype is not None

    def __call__(
        self,
        y_true: TensorLike,
        y_pred: TensorLike,
        sample_weight: TensorLike | None = None,
        mask: TensorLike | None = None,
        part: BatchPart | None = None,
    ) -> Tensor:
        """The loss of one batch.

        Args:
            y_true: targets, `(batch, ...)`. They are cast to the dtype of the computation, except integers of
                another number than the predictions: those are class indices, and become int64.
            y_pred: predictions, `(batch, ...)`.
            sample_weight: `(batch,)`, or the shape of what `call` returns.
            mask: bool, True where a sample or timestep counts: the shape of what `call` returns, or its first axes.
                By default that which the layer has given to `y_pred`.
            part: which part of a batch of several processes this is, if there are several. The mean of their losses,
                each counted by its rows, is then the loss of the whole batch.

        Returns:
            a scalar; with reduction None, the weighted losses.

        Raises:
            ValueError: the shapes of targets, predictions, weights do not fit each other.
        """
        if not (isinstance(y_true, Tensor) and isinstance(y_pred, Tensor)):
            y_true, y_pred = as_tensors(y_true, y_pred)
        mask = getattr(y_pred, MASK, None) if mask is None else mask
        y_true, y_pred = self._prepare(y_true, y_pred)
        plain = sample_weight is None and mask is None and (part is None or self._counts_rows)
        if plain and self.reduction in MEANS and y_pred.numel():
            return self._mean(y_true, y_pred)
        values = self._values(y_true, y_pred) if part is None else self._values_of_part(y_true, y_pred, part)
        if sample_weight is not None and not isinstance(sample_weight, Tensor):
            sample_weight = torch.as_tensor(sample_weight, device=values.device)
        if mask is not None and not isinstance(mask, Tensor):
            mask = torch.as_tensor(mask, device=values.device)
        return self._reduce(y_true, values, sample_weight, mask, part)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample: `(batch,)`, or `(batch, time)` where the targets have a time axis.

        >>> losses.MeanSquaredError().call(torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [2.0, 4.0]]))
        tensor([ 1., 10.])
        """
        raise NotImplementedError(f"{type(self).__name__} has to define call(self, y_true, y_pred).")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments. `dtype` is among them only if it was given (Keras never writes it).

        >>> losses.MeanSquaredError(reduction="sum").get_config()
        {'name': 'mean_squared_error', 'reduction': 'sum'}
        """
        config: dict[str, Any] = {"name": self.name, "reduction": self.reduction}
        return {**config, "dtype": dtype_name(self.dtype)} if self._exact_dtype else config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Loss:
        """A loss with these constructor's arguments.

        >>> losses.Huber.from_config({"delta": 2.0}).get_config()["delta"]
        2.0
        """
        return cls(**config)

    def to(self, device: torch.device | str) -> Loss:
        """Move what the loss holds to `device`, in place. Most hold nothing."""
        return self

    def for_shapes(self, y_true_shape: Sequence[int | None] | None, y_pred_shape: Sequence[int | None] | None) -> Loss:
        """The loss for targets and predictions of these shapes: this one, unless it stands for a choice by shape."""
        return self

    def graph_key(self) -> Hashable | None:
        """The settings that a compiled step takes for constants: numbers, booleans and strings among the attributes.

        None if the loss is, or is made of, code that is not torchfunc's or torch's: then torch.compile's guards have to
        notice what changes.
        """
        return settings_key(self)

    def on_logits(self: T, activation: str | None = None, axis: int = -1, ndim: int | None = None) -> T | None:
        """This loss for a model without the sigmoid or softmax that ends it: stabler, and fewer kernels.

        Where probabilities stay clear of 0 and 1 it gives the same number; within `config.epsilon()` of them the
        probability form clips, and the one on logits does not.

        Args:
            activation: "sigmoid" or "softmax", what ended the model; None if the caller knows that it fits.
            axis: of the softmax.
            ndim: axes of the predictions, to compare a positive with a negative axis.

        Returns:
            a twin of this loss (the reduction, name and everything else as they are), or None where there is none:
            it is no crossentropy, takes logits already, goes with another activation or axis, or redefines `call`.
        """
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"

    def _prepare(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        same = self._exact_dtype or y_pred.dtype is self.dtype
        dtype = self.dtype if same else torch.promote_types(y_pred.dtype, self.dtype)
        if not (y_true.is_floating_point() or y_true.dtype is torch.bool or y_true.numel() == y_pred.numel()):
            dtype_true = torch.int64
        else:
            dtype_true = dtype
        # A conversion to the same dtype costs as much as a small kernel.
        y_true = y_true if y_true.dtype is dtype_true else y_true.to(dtype_true)
        return y_true, y_pred if y_pred.dtype is dtype else y_pred.to(dtype)

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        values = self.call(y_true, y_pred)
        if not isinstance(values, Tensor):
            raise TypeError(f"{self.name} returned {type(values).__name__}, a loss is a torch.Tensor.")
        return values

    def _values_of_part(self, y_true: Tensor, y_pred: Tensor, part: BatchPart) -> Tensor:
        """The values; what is one number for the whole batch already is as `part` in `__call__` says."""
        return self._values(y_true, y_pred)

    def _mean(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss under a mean reduction when nothing is weighed: the everyday path, worth a faster kernel."""
        return self._reduce(y_true, self._values(y_true, y_pred), None, None)

    def _reduce(
        self,
        y_true: Tensor,
        values: Tensor,
        sample_weight: Tensor | None,
        mask: Tensor | None,
        part: BatchPart | None = None,
    ) -> Tensor:
        if values.ndim == 0:
            if sample_weight is not None:
                raise ValueError(
                    f"{self.name} returns one number for the whole batch, so sample_weight (or class_weight) cannot "
                    f"weigh its samples. {self._per_sample_advice}"
                )
            return values
        own_mask = self._mask_of(y_true, values)
        if own_mask is not None:
            mask = own_mask if mask is None else own_mask & trailing_axes(mask.bool(), own_mask.ndim)
        return reduce_weighted(self.name, values, sample_weight, mask, self.reduction, part)

    @property
    def _counts_rows(self) -> bool:
        """Whether the mean, if nothing is weighed, is over all rows, so that two halves of a batch count alike."""
        return type(self)._mask_of is Loss._mask_of

    def _mask_of(self, y_true: Tensor, values: Tensor) -> Tensor | None:
        """True where the loss itself says that a value counts, in the shape of `values`; None: everywhere."""
        return None


class LossFunctionWrapper(Loss):
    """A loss made of a function `fn(y_true, y_pred, **kwargs)` that returns one loss a sample.

    A last axis of size 1 that only one of targets and predictions has is removed or added before `fn` sees them.

    Args:
        fn: the function. It may also return a scalar, which is then the loss.
        reduction, name, dtype: as for `Loss`.
        **kwargs: further arguments for `fn`.

    >>> loss = losses.LossFunctionWrapper(lambda y_true, y_pred, power: ((y_true - y_pred) ** power).mean(-1), power=4)
    >>> loss([[0.0], [0.0]], [[1.0], [2.0]])
    tensor(8.5000)
    """

    def __init__(
        self,
        fn: Callable[..., Tensor],
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = None,
        dtype: DTypeLike | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.fn = fn
        self._fn_kwargs = kwargs

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = match_ranks(y_true, y_pred)
        return self.fn(y_true, y_pred, **self._fn_kwargs)

    def get_config(self) -> dict[str, Any]:
        fn = serialize_keras_object(self.fn)
        return {**super().get_config(), "fn": fn, **serialize_keras_object(self._fn_kwargs)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Loss:
        return cls(**deserialize_keras_object(dict(config)))


def written_arguments(arguments: Mapping[str, Any], unwritten: Mapping[str, Any]) -> dict[str, Any]:
    """What of a function's arguments belongs in a config: all but those still at their `unwritten` value."""
    return {name: value for name, value in arguments.items() if name not in unwritten or value != unwritten[name]}


class FunctionLoss(LossFunctionWrapper):
    """A built-in loss: one function under a class's name, whose config holds the arguments but not the function."""

    # The same loss as one scalar, for functions that torch can average in the same kernel: fused(y_true, y_pred, ...).
    _fused: Callable[..., Tensor] | None = None
    # Arguments that Keras leaves out of its config (and so loses); here they are left out at these values only.
    _unwritten: ClassVar[Mapping[str, Any]] = {}

    def get_config(self) -> dict[str, Any]:
        return {**Loss.get_config(self), **written_arguments(self._fn_kwargs, self._unwritten)}

    def _mean(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        # A subclass that redefines `call` means its own loss.
        if self._fused is None or type(self).call is not LossFunctionWrapper.call:
            return super()._mean(y_true, y_pred)
        return self._fused(y_true, y_pred, **self._fn_kwargs)
