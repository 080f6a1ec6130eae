"""`ClassWeights`: weights of samples by the class of their targets, which the loss knows how to read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.losses import Loss

__all__ = ["ClassWeights"]


@dataclass(frozen=True)
class ClassWeights:
    """Weights by class index: 1 for classes that are not mentioned.

    Attributes:
        weights: by class index.
        loss: what reads the targets; None if it is not known, or there are several.
        output_shape: of the predictions, None if it is not known.
    """

    weights: Mapping[int, float]
    loss: Loss | None = None
    output_shape: Sequence[int | None] | None = None

    @classmethod
    def parse(
        cls, class_weight: Any, loss: Loss | None, output_shape: Sequence[int | None] | None
    ) -> ClassWeights | None:
        """Check what `class_weight` was given: numbers by class index, or None.

        Raises:
            ValueError: it is no dict, a key is no class of the model's output, or a weight is no number.
        """
        if class_weight is None:
            return None
        if not isinstance(class_weight, Mapping):
            raise ValueError(
                f"`class_weight` is a dict of weights by class index, such as {{0: 1.0, 1: 5.0}}, got {class_weight!r}."
            )
        classes = max(output_shape[-1] or 0, 2) if output_shape is not None and len(output_shape) > 1 else 0
        valid = f"0 to {classes - 1}" if classes else "from 0 on"
        for key, weight in class_weight.items():
            if isinstance(key, bool) or not isinstance(key, Integral):
                raise ValueError(
                    f"`class_weight` has the key {key!r}, but its keys are class indices, integers {valid}."
                )
            if not 0 <= int(key) < (classes or math.inf):
                raise ValueError(f"`class_weight` has the key {key}, but the model's classes are {valid}.")
            if isinstance(weight, bool) or not isinstance(weight, Real):
                raise ValueError(f"`class_weight` holds numbers, got {weight!r} for class {key}.")
        return cls(class_weight, loss, output_shape)

    def of(self, target: Tensor) -> Tensor:
        """The weight of each sample, or step, of a target.

        Raises:
            ValueError: the targets say no single class.
        """
        classes = self._classes(target)
        weights = torch.ones(classes.shape, dtype=as_dtype(floatx()), device=classes.device)
        for index, weight in self.weights.items():
            weights.masked_fill_(classes == index, weight)
        return weights

    def _classes(self, target: Tensor) -> Tensor:
        """The class of each sample: what the loss reads as an index, a label of 0 and 1, or one hot."""
        shape = self.output_shape
        loss = None if self.loss is None else self.loss.for_shapes(target.shape, shape or target.shape)
        form = None if loss is None else loss.target_form
        if form is None:
            # Anything else is read by its shape.
            fewer_axes = shape is not None and target.ndim < len(shape) and shape[-1] != 1
            form = "indices" if fewer_axes else "one_hot"
        if target.ndim > 1 and target.shape[-1] == 1:
            target = target.squeeze(-1)
        elif target.ndim > 1 and form != "indices":
            axis = getattr(loss, "axis", -1) if form == "one_hot" else -1
            return self._hot(target, axis if isinstance(axis, int) else -1, form)
        target = target.round() if target.is_floating_point() else target
        # Hinge losses take -1 for 0.
        return target.clamp(min=0) if form == "labels" and target.dtype is not torch.bool else target

    def _hot(self, target: Tensor, axis: int, form: str) -> Tensor:
        values = target.to(as_dtype(floatx()))
        if form == "labels" and not bool(((values > 0.5).sum(axis) == 1).all()):
            raise ValueError(
                f"`class_weight` weighs samples by their one class, but targets of shape {tuple(target.shape)} say "
                "several of them, or none. Use `sample_weight`."
            )
        return values.argmax(axis)
