"""Data held against the model and what it was compiled for, before a step is made with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from torchfunc import losses
from torchfunc.training.data.array_batches import ArrayBatches
from torchfunc.training.data.arrays import map_leaves, unpack_x_y_sample_weight
from torchfunc.training.data.stream import EpochStream
from torchfunc.training.outputs import OutputPlan, Plan
from torchfunc.training.trainable import Trainable

__all__ = ["check_class_weight", "check_data"]

_Shape: TypeAlias = "tuple[int | None, ...]"
_MUCH = 2**20
_OWN_STEP = ("train_step", "test_step", "compute_loss", "compute_metrics")


def check_class_weight(class_weight: Any, model: Trainable) -> None:
    """Check what `class_weight` was given: numbers by class index.

    Raises:
        ValueError: it is no dict, a key is no class of the model's output, or a weight is no number.
    """
    if class_weight is None:
        return
    if not isinstance(class_weight, Mapping):
        raise ValueError(
            f"`class_weight` is a dict of weights by class index, such as {{0: 1.0, 1: 5.0}}, got {class_weight!r}."
        )
    shapes = _output_shapes(model)
    classes = max(shapes[0][-1] or 0, 2) if shapes is not None and len(shapes) == 1 and len(shapes[0]) > 1 else 0
    valid = f"0 to {classes - 1}" if classes else "from 0 on"
    for key, weight in class_weight.items():
        if isinstance(key, bool) or not isinstance(key, Integral):
            raise ValueError(f"`class_weight` has the key {key!r}, but its keys are class indices, integers {valid}.")
        if not 0 <= int(key) < (classes or math.inf):
            raise ValueError(f"`class_weight` has the key {key}, but the model's classes are {valid}.")
        if isinstance(weight, bool) or not isinstance(weight, Real):
            raise ValueError(f"`class_weight` holds numbers, got {weight!r} for class {key}.")


def check_data(model: Trainable, data: EpochStream | None) -> None:
    """Hold data against the model's inputs and outputs and their losses, without running the model.

    Arrays are checked here: their keys, number and shapes, and class indices. Of batches from elsewhere the class
    indices are checked as they come, while they are on the host. Models whose outputs are known only when they run,
    and steps of the user's own, have their data checked by what is done with them.

    Raises:
        ValueError: something does not fit; the message names it.
    """
    plan, shapes = model.compiled_state("check").plan, _output_shapes(model)
    if data is None or plan is None or shapes is None or any(map(model.overrides, _OWN_STEP)):
        return
    arrays = data.batches
    if not isinstance(arrays, ArrayBatches):
        arrays.check = partial(_check_labels, plan, shapes, on_host=True)
        return
    size = arrays.batch_size
    x, y, sample_weight = map_leaves(lambda leaf: leaf[:size], unpack_x_y_sample_weight(arrays.tensors))
    model.prepare_inputs(x)
    _rehearse(plan, shapes, y, sample_weight)
    _check_labels(plan, shapes, arrays.tensors)


def _output_shapes(model: Trainable) -> list[_Shape] | None:
    """The outputs' shapes in the order of their names; None if they are known only when the model runs."""
    outputs = getattr(model, "outputs", None) if model.output_names is not None and model.is_fully_built() else None
    return None if outputs is None else [tuple(output.shape) for output in outputs]


def _rehearse(plan: Plan, shapes: list[_Shape], y: Any, sample_weight: Any) -> None:
    """Let losses see the shapes of a batch, on numbers that mean nothing."""
    targets = plan.match_targets(y)
    weights = plan.match_weights(sample_weight)
    for output, shape, target, weight in zip(plan.outputs, shapes, targets, weights, strict=True):
        sizes = [size for size in shape[1:] if size is not None]
        if target is None or output.loss is None or len(sizes) < len(shape) - 1:
            continue
        loss = _loss_of(output, target, shape)
        if _can_rehearse(loss):
            # (Not on the meta device: for that, torch imports its compiler.)
            rows = len(target) if len(target) * math.prod(sizes) <= _MUCH else 1
            stand_ins = [None if each is None else torch.zeros_like(each[:rows]) for each in (target, weight)]
            with torch.no_grad():
                loss(stand_ins[0], torch.full((rows, *sizes), 0.5, device=target.device), stand_ins[1])


def _can_rehearse(loss: Any) -> bool:
    """Whether this is a loss of ours that asks for no values; functions of the user's are not called without data."""
    ours = type(loss).__module__.startswith(losses.__name__ + ".")
    return (
        ours and not isinstance(loss, losses.CTC) and type(loss) not in (losses.LossFunctionWrapper, losses.TorchLoss)
    )


def _loss_of(output: OutputPlan, target: Tensor, shape: _Shape) -> Any:
    return losses.as_loss(output.loss, None, target.shape, shape)


def _check_labels(plan: Plan, shapes: list[_Shape], data: Any, on_host: bool = False) -> None:
    """Raise ValueError for class indices that are none; with `on_host`, without asking a device for values."""
    _, y, _ = unpack_x_y_sample_weight(data)
    for output, shape, target in zip(plan.outputs, shapes, plan.match_targets(y), strict=True):
        if target is None or output.loss is None or len(shape) < 2 or not target.numel():
            continue
        if on_host and not target.is_cpu:
            continue
        axis, ignored = _classes_axis(_loss_of(output, target, shape), target, shape)
        classes = None if axis is None else shape[axis]
        if classes is not None:
            of = f" of the output {output.name!r}" if output.name else ""
            _check_indices(target, classes, ignored, of)


def _classes_axis(loss: Any, target: Tensor, shape: _Shape) -> tuple[int | None, int | None]:
    """The axis of the predictions that the targets are indices of, and the index that stands for no class."""
    if isinstance(loss, losses.SparseCategoricalCrossentropy):
        return loss.axis, loss.ignore_class
    if isinstance(loss, losses.CategoricalGeneralizedCrossEntropy):
        return -1, None
    module = getattr(loss, "loss", None)
    are_indices = target.ndim < len(shape) or target.shape[-1] == 1
    if isinstance(module, (nn.CrossEntropyLoss, nn.NLLLoss)) and are_indices:
        return 1, module.ignore_index
    return None, None


def _check_indices(target: Tensor, classes: int, ignored: int | None, of: str) -> None:
    values = target.detach()
    if values.is_floating_point():
        broken = values[values != values.round()]
        if broken.numel():
            raise ValueError(
                f"Class indices{of} are integers from 0 to {classes - 1}, but y holds {broken[0].item()}. If these are "
                "no classes, a loss such as 'mse' is meant."
            )
    elif values.dtype == torch.bool:
        values = values.byte()
    low, high = torch.stack(values.aminmax()).tolist()
    if low >= 0 and high < classes:
        return
    outside = values[(values < 0) | (values >= classes)]
    outside = outside if ignored is None else outside[outside != ignored]
    if outside.numel():
        raise ValueError(
            f"Class indices{of} are integers from 0 to {classes - 1}, since it has {classes} values a sample, but y "
            f"holds {int(outside[0])}. Count the classes from 0, or give the last layer as many units as there are "
            "classes."
        )
