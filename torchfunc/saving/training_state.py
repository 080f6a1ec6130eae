"""The state of a compiled model beside its weights: its optimizer's, and buffers that no state_dict holds."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchfunc.optimizers import TorchOptimizer
from torchfunc.saving.json_text import parse_json
from torchfunc.saving.states import join_state, split_state
from torchfunc.saving.tensor_files import TensorSection

__all__ = ["StoredState", "restore_training_state", "training_state"]

# Beginnings of names: of the optimizer's variables, and of buffers.
_VARIABLE, _BUFFER = "optimizer.", "buffer."
_WEIGHTS, _PLAN = "weights", "state"


class StoredState(NamedTuple):
    """Tensors by name, and texts."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def training_state(model: Any) -> StoredState:
    """What a compiled model needs to train on, beside its weights.

    Raises:
        ValueError: the optimizer trains weights that are not the model's.
    """
    saved = model.state_dict(keep_vars=True)
    tensors = {f"{_BUFFER}{name}": buffer for name, buffer in model.named_buffers() if name not in saved}
    optimizer = model.optimizer
    if optimizer is None or not optimizer.built:
        return StoredState(tensors, {})
    names = {id(weight): name for name, weight in model.named_parameters()}
    if any(id(weight) not in names for weight in optimizer.trained_weights):
        raise ValueError("The optimizer trains weights that are not the model's, so its state cannot be written.")
    metadata = {_WEIGHTS: json.dumps([names[id(weight)] for weight in optimizer.trained_weights])}
    if isinstance(optimizer, TorchOptimizer):
        plan, own = split_state(optimizer.save_state(names))
        metadata[_PLAN] = plan
    else:
        own = {f"{_VARIABLE}{index}": variable for index, variable in enumerate(optimizer.variables)}
    return StoredState({**tensors, **own}, metadata)


def restore_training_state(model: Any, section: TensorSection) -> None:
    """Build the optimizer of a model that was compiled as the one in the file, and fill it.

    Raises:
        ValueError: the file does not fit the model, or is damaged.
    """
    saved, metadata, places = model.state_dict(keep_vars=True), section.layout.metadata, section.layout.places
    targets = {f"{_BUFFER}{name}": buffer for name, buffer in model.named_buffers() if name not in saved}
    optimizer = model.optimizer
    if _WEIGHTS in metadata:
        names, weights = parse_json(metadata[_WEIGHTS]), dict(model.named_parameters())
        if optimizer is None or not isinstance(names, list) or any(name not in weights for name in names):
            raise ValueError("the optimizer trains other weights than the model has")
        optimizer.name_weights(weights.items())
        optimizer.build([weights[name] for name in names])
    if _PLAN in metadata:
        read = {name: torch.empty(place.shape, dtype=place.dtype) for name, place in places.items()}
        read = {name: tensor for name, tensor in read.items() if name not in targets}
        section.read_into({**targets, **read})
        optimizer.load_state(join_state(metadata[_PLAN], read), weights)
        return
    if _WEIGHTS in metadata:
        targets |= {f"{_VARIABLE}{index}": variable for index, variable in enumerate(optimizer.variables)}
    differing = [
        name
        for name in {**targets, **places}
        if name not in targets
        or name not in places
        or (targets[name].dtype, tuple(targets[name].shape)) != (places[name].dtype, places[name].shape)
    ]
    if differing:
        raise ValueError(f"{', '.join(differing[:5])} is not as the optimizer of the config has it")
    section.read_into(targets)
