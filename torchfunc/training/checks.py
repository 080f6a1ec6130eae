"""Checks of arguments, and of data against the model and what it was compiled for, before the first step."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial
from numbers import Integral
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from torchfunc import losses
from torchfunc.config import is_interactive_logging_enabled
from torchfunc.optimizers import LossScaleOptimizer, Optimizer, TorchOptimizer
from torchfunc.structures import leaves
from torchfunc.training.class_weight import ClassWeights
from torchfunc.training.data.array_batches import ArrayBatches
from torchfunc.training.data.arrays import Data, WeighByClass, unpack_x_y_sample_weight
from torchfunc.training.data.stream import EpochStream
from torchfunc.training.odd_values import list_values
from torchfunc.training.outputs import Objectives, OutputObjective
from torchfunc.training.settings import Execution, TrainingSettings
from torchfunc.training.trainable import Trainable

__all__ = [
    "check_counts",
    "check_data",
    "check_fit",
    "check_labels",
    "check_labels_of_output",
    "checked_verbose",
    "class_weigher",
    "set_offloading",
]

_Shape: TypeAlias = "tuple[int | None, ...]"
_MUCH = 2**20
_OWN_STEP = ("train_step", "test_step", "compute_loss", "compute_metrics")


def check_counts(least: int = 1, optional: bool = True, **counts: Any) -> None:
    """Raise ValueError, naming the argument, for what is no integer of at least `least` (nor, if `optional`, None)."""
    for name, count in counts.items():
        if count is None and optional:
            continue
        if isinstance(count, bool) or not isinstance(count, Integral) or int(count) < least:
            raise ValueError(
                f"`{name}` is an integer of at least {least}{' or None' if optional else ''}, got {count!r}."
            )


def checked_verbose(verbose: Any) -> int:
    """0, 1 or 2; "auto" is 1, or 2 where no progress bar is wanted. Raises ValueError for anything else."""
    if verbose == "auto":
        return 1 if is_interactive_logging_enabled() else 2
    if verbose in (0, 1, 2):
        return int(verbose)
    raise ValueError(f"`verbose` is 'auto', 0, 1 or 2, got {verbose!r}.")


def check_fit(epochs: Any, initial_epoch: Any, validation_freq: Any, **counts: Any) -> None:
    """Raise ValueError, naming the argument, for a number that `fit` can't do with; `counts` as for `check_counts`."""
    check_counts(0, False, epochs=epochs, initial_epoch=initial_epoch)
    check_counts(**counts)
    numbers = [validation_freq] if isinstance(validation_freq, Integral) else validation_freq
    if isinstance(numbers, (str, bytes)) or not isinstance(numbers, Collection):
        raise ValueError(f"`validation_freq` is an integer or a list of epochs, got {validation_freq!r}.")
    for number in numbers:
        check_counts(optional=False, validation_freq=number)


def set_offloading(offload: Any, optimizer: Optimizer | None, execution: Execution) -> None:
    """Tell an optimizer where its state is to be. Raises ValueError, and does nothing, if it cannot be there."""
    if not isinstance(offload, bool):
        raise ValueError(f"`offload_optimizer` is True or False, got {offload!r}.")
    if optimizer is None:
        return
    if not offload:
        optimizer.offloads = False
        return
    name = type(optimizer).__name__
    if isinstance(optimizer, TorchOptimizer):
        raise ValueError(
            f"offload_optimizer=True needs an optimizer of torchfunc.optimizers, and {name} keeps a torch optimizer, "
            "whose state is where the weights are."
        )
    if isinstance(optimizer, LossScaleOptimizer):
        raise ValueError(
            f"offload_optimizer=True does not work with {name}, which looks at gradients on the device. In place of "
            "the precision '16-mixed' take 'bf16-mixed'."
        )
    if execution.shards:
        raise ValueError(
            "offload_optimizer=True is for one device. strategy='fsdp' and meshes shard the optimizer's state: leave "
            "one of both out."
        )
    optimizer.offloads = True


def class_weigher(class_weight: Any, model: Trainable, settings: TrainingSettings) -> WeighByClass | None:
    """What weighs targets by class. Raises ValueError, as `ClassWeights.parse` does, for what are no such weights."""
    if class_weight is None:
        return None
    shapes, losses = _output_shapes(model), [loss for loss in leaves(settings.parsed.loss) if loss is not None]
    loss = losses[0] if len(losses) == 1 else None
    parsed = ClassWeights.parse(class_weight, loss, shapes[0] if shapes is not None and len(shapes) == 1 else None)
    return None if parsed is None else parsed.of


def check_data(model: Trainable, objectives: Objectives | None, stream: EpochStream) -> None:
    """Check data against the model's inputs and outputs and their losses, without running the model.

    Arrays are checked here: their keys, number and shapes, and class indices. Of batches from elsewhere the class
    indices are checked as they come, while they are on the host. Models whose outputs are known only when they run,
    and steps of the user's own, have their data checked by what is done with them.

    Raises:
        ValueError: something does not fit; the message names it.
    """
    shapes = _output_shapes(model)
    if objectives is None or shapes is None or any(map(model.overrides, _OWN_STEP)):
        return
    batches = stream.batches
    if not isinstance(batches, ArrayBatches):
        batches.check = partial(_check_batch, objectives, shapes)
        return
    size, arrays = batches.batch_size, batches.arrays
    first = arrays.first(size)
    model.prepare_inputs(first.x)
    targets, weights = objectives.match_data(arrays.y, arrays.sample_weight)
    for output, shape, target, weight in zip(objectives.outputs, shapes, targets, weights, strict=True):
        if target is not None and output.loss is not None:
            with output.named():
                loss = output.loss.for_shapes(target.shape, shape)
                _check_real(loss, target, output.of)
                _rehearse(loss, shape, target[:size], None if weight is None else weight[:size])
            _check_labels(loss, shape, target, weight, output.of)


def check_labels(model: Trainable, objectives: Objectives | None, batch: Data) -> None:
    """Check the class indices of one batch, as `check_data` does those of a stream."""
    shapes = _output_shapes(model)
    if objectives is not None and shapes is not None and not any(map(model.overrides, _OWN_STEP)):
        _check_batch(objectives, shapes, batch)


def check_labels_of_output(output: OutputObjective, shape: _Shape, target: Tensor, weight: Tensor | None) -> None:
    """Raise ValueError for labels or class indices of an output that are none; `shape` is that of the predictions."""
    if output.loss is not None:
        _check_labels(output.loss, shape, target, weight, output.of)


def _check_batch(objectives: Objectives, shapes: list[_Shape], batch: Data) -> None:
    """Check the class indices of a batch, without asking a device for values."""
    _, y, sample_weight = unpack_x_y_sample_weight(batch)
    targets, weights = objectives.match_data(y, sample_weight)
    for output, shape, target, weight in zip(objectives.outputs, shapes, targets, weights, strict=True):
        if target is not None and output.loss is not None and target.is_cpu:
            loss = output.loss.for_shapes(target.shape, shape)
            _check_real(loss, target, output.of)
            _check_labels(loss, shape, target, weight, output.of)


def _output_shapes(model: Trainable) -> list[_Shape] | None:
    """The outputs' shapes in the order of their names; None if they are known only when the model runs."""
    outputs = getattr(model, "outputs", None) if model.output_names is not None and model.is_fully_built() else None
    return None if outputs is None else [tuple(output.shape) for output in outputs]


def _rehearse(loss: losses.Loss, shape: _Shape, target: Tensor, weight: Tensor | None) -> None:
    """Let a loss see the shapes of a batch, on numbers that mean nothing."""
    sizes = [size for size in shape[1:] if size is not None]
    if len(sizes) < len(shape) - 1 or not _can_rehearse(loss):
        return
    # (Not on the meta device: for that, torch imports its compiler.)
    rows = len(target) if len(target) * math.prod(sizes) <= _MUCH else 1
    prediction = torch.full((rows, *sizes), 0.5, device=target.device)
    with torch.no_grad():
        loss(torch.zeros_like(target[:rows]), prediction, None if weight is None else torch.zeros_like(weight[:rows]))


def _can_rehearse(loss: losses.Loss) -> bool:
    """Whether this is a loss of ours that asks for no values; functions of the user's are not called without data."""
    ours = type(loss).__module__.startswith(losses.__name__ + ".")
    return (
        ours and not isinstance(loss, losses.CTC) and type(loss) not in (losses.LossFunctionWrapper, losses.TorchLoss)
    )


def _check_real(loss: losses.Loss, target: Tensor, of: str) -> None:
    if target.is_complex() and _can_rehearse(loss):
        raise ValueError(f"The targets{of} are complex numbers, of which {loss.name} knows nothing.")


def _check_labels(loss: losses.Loss, shape: _Shape, target: Tensor, weight: Tensor | None, of: str) -> None:
    """Raise ValueError for labels and class indices that are none; `of` says whose they are."""
    if len(shape) < 2 or not target.numel():
        return
    if loss.target_form == "labels" and not isinstance(loss, (losses.Hinge, losses.SquaredHinge)):
        # (Keras' losses take labels with noise on them, with which people train GANs; torch's takes none.)
        noise = 0.0 if isinstance(getattr(loss, "loss", None), nn.BCELoss) else 0.5
        _check_binary(target, weight, of, noise)
    axis, ignored = _classes_axis(loss, target, shape)
    classes = None if axis is None else shape[axis]
    if classes is not None:
        _check_indices(target, classes, ignored, of)


def _classes_axis(loss: losses.Loss, target: Tensor, shape: _Shape) -> tuple[int | None, int | None]:
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


def _check_binary(target: Tensor, weight: Tensor | None, of: str, noise: float) -> None:
    """Raise ValueError for labels that are neither within [0, 1] nor less than `noise` away from 0 or 1."""
    values = target.detach()
    if values.dtype is torch.bool:
        return
    low, high = torch.stack(values.aminmax()).tolist()
    if low >= 0 and high <= 1:
        return
    outside = ~((values >= 0) & (values <= 1) | (values > -noise) & (values < 1 + noise))
    if weight is not None and weight.shape[:1] == values.shape[:1]:
        # Labels that do not count may stand for none.
        counts = weight.detach() != 0
        outside &= counts if counts.shape == values.shape else counts.reshape(len(values), *[1] * (values.ndim - 1))
    if outside.any():
        raise ValueError(
            f"Labels{of} lie between 0 and 1, but y holds {list_values(values, outside)}. For classes 1 and 2 count "
            "from 0; for -1 and 1 use a hinge loss; for more classes a categorical crossentropy."
        )


def _check_indices(target: Tensor, classes: int, ignored: int | None, of: str) -> None:
    values = target.detach()
    if values.is_floating_point():
        broken = values != values.round()
        if bool(broken.any()):
            raise ValueError(
                f"Class indices{of} are integers from 0 to {classes - 1}, but y holds {list_values(values, broken)}. "
                "If these are no classes, a loss such as 'mse' is meant."
            )
    elif values.dtype == torch.bool:
        values = values.byte()
    low, high = torch.stack(values.aminmax()).tolist()
    if low >= 0 and high < classes:
        return
    outside = (values < 0) | (values >= classes)
    outside = outside if ignored is None else outside & (values != ignored)
    if bool(outside.any()):
        raise ValueError(
            f"Class indices{of} are integers from 0 to {classes - 1}, since it has {classes} values a sample, but y "
            f"holds {list_values(values.long(), outside)}. Count the classes from 0, or give the last layer as many "
            "units as there are classes."
        )
