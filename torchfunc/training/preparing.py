"""What happens between a call of the user's and the loop: arguments checked, data and callbacks made, weights built."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from numbers import Integral
from typing import Any

import torch

from torchfunc.callbacks import CallbackList
from torchfunc.training.checks import check_class_weight
from torchfunc.training.data.arrays import (
    check_counts,
    check_rows,
    class_weights_to_sample_weights,
    is_array_like,
    map_leaves,
    pack_x_y_sample_weight,
    to_tensors,
    train_validation_split,
    unpack_x_y_sample_weight,
)
from torchfunc.training.data.frames import columns_or_frame
from torchfunc.training.data.stream import EpochStream, make_batches, takes_batch_size
from torchfunc.training.trainable import Trainable

__all__ = [
    "build_for",
    "callback_list",
    "check_fit",
    "checked_verbose",
    "columns_by_name",
    "one_batch",
    "returned",
    "split_off",
    "validation_batches",
]


def checked_verbose(verbose: Any) -> int:
    """0, 1 or 2; "auto" is 1. Raises ValueError for anything else."""
    if verbose == "auto":
        return 1
    if verbose in (0, 1, 2):
        return int(verbose)
    raise ValueError(f"`verbose` is 'auto', 0, 1 or 2, got {verbose!r}.")


def callback_list(
    model: Trainable, callbacks: Any, verbose: int, epochs: int, steps: int | None, add_history: bool = False
) -> CallbackList:
    """The user's callbacks, with a progress line and a history if asked for; a `CallbackList` is taken as it is."""
    if isinstance(callbacks, CallbackList):
        if add_history:
            callbacks.ensure_history(model)
        return callbacks
    return CallbackList(callbacks, add_history, verbose != 0, model, verbose=verbose, epochs=epochs, steps=steps)


def split_off(x: Any, y: Any, sample_weight: Any, fraction: float) -> tuple[Any, Any]:
    """Training and validation data, each `(x, y, sample_weight)`. Raises ValueError for anything but arrays."""
    if not is_array_like(x):
        raise ValueError(f"`validation_split` needs arrays, got {type(x).__name__}; use `validation_data`.")
    arrays = to_tensors(x, "x"), to_tensors(y, "y"), to_tensors(sample_weight, "sample_weight")
    return train_validation_split(*arrays, fraction)


def columns_by_name(model: Trainable, x: Any, y: Any = None) -> tuple[Any, Any]:
    """x and y with frames taken apart, if the model's several inputs or outputs are named like their columns."""
    return columns_or_frame(x, "x", model.input_names), columns_or_frame(y, "y", model.output_names)


def validation_batches(
    model: Trainable, data: Any, batch_size: int | None, steps: int | None, device: torch.device
) -> EpochStream | None:
    """The batches of `fit(validation_data=...)`: `(x, y)`, `(x, y, sample_weight)`, or what gives such batches.

    `batch_size` is for those that come without one, arrays and Datasets.
    """
    if data is None:
        return None
    x, y, sample_weight = unpack_x_y_sample_weight(data)
    x, y = columns_by_name(model, x, y)
    if not takes_batch_size(x):
        batch_size = None
    return make_batches(x, y, sample_weight, batch_size=batch_size, steps=steps, device=device)


def one_batch(
    model: Trainable,
    x: Any,
    y: Any,
    sample_weight: Any,
    class_weight: Mapping[int, float] | None,
    device: torch.device,
) -> Any:
    """Arrays as one batch on the device, such as an iterator of batches gives, with the model built for it."""
    check_class_weight(class_weight, model)
    x, y = columns_by_name(model, x, y)
    data = to_tensors(x, "x"), to_tensors(y, "y"), to_tensors(sample_weight, "sample_weight")
    check_rows(*data)
    x, y, sample_weight = map_leaves(lambda leaf: leaf.to(device), data)
    if class_weight is not None:
        sample_weight = class_weights_to_sample_weights(y, class_weight, sample_weight)
    _build_on(model, x, device)
    return pack_x_y_sample_weight(x, y, sample_weight)


def build_for(model: Trainable, data: EpochStream, device: torch.device) -> None:
    """Make the weights of a model that has none yet, for the first batch of the data."""
    if not model.is_fully_built():
        _build_on(model, unpack_x_y_sample_weight(data.peek())[0], device)


def _build_on(model: Trainable, x: Any, device: torch.device) -> None:
    if not model.is_fully_built():
        # Weights made during an evaluation have to be trainable afterwards.
        with torch.inference_mode(False):
            model.build_from_inputs(*model.prepare_inputs(x))
        model.to(device)


def check_fit(epochs: Any, initial_epoch: Any, validation_freq: Any, **counts: Any) -> None:
    """Raise ValueError, naming the argument, for a number that `fit` can't do with; `counts` as for `check_counts`."""
    check_counts(0, False, epochs=epochs, initial_epoch=initial_epoch)
    check_counts(**counts)
    numbers = [validation_freq] if isinstance(validation_freq, Integral) else validation_freq
    if isinstance(numbers, (str, bytes)) or not isinstance(numbers, Collection):
        raise ValueError(f"`validation_freq` is an integer or a list of epochs, got {validation_freq!r}.")
    for number in numbers:
        check_counts(optional=False, validation_freq=number)


def returned(model: Trainable, logs: dict[str, Any], return_dict: bool) -> Any:
    """What `evaluate` returns: the logs, or their values with the loss first, or the loss alone."""
    if return_dict:
        return logs
    values = [logs[name] for name in model.compiled_state("evaluate").in_order(logs)]
    return values[0] if len(values) == 1 else values
