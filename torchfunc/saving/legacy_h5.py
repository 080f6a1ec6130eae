"""Keras' files of old, for reading: whole models in `.h5` files, and weights by layers in one order or by name."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torchfunc.layers.base.weights import Weight, WeightHolder
from torchfunc.meta_weights import make_room
from torchfunc.modules import Network
from torchfunc.saving.hdf5_reading import Array, Group, read_hdf5
from torchfunc.saving.json_text import parse_json
from torchfunc.saving.keras_optimizer import read_state, state_shapes
from torchfunc.saving.legacy_config import modern_config, modern_settings
from torchfunc.saving.model_config import model_of_config
from torchfunc.unfilled_weights import unfilled_weights

__all__ = ["fill_from_legacy", "read_legacy_file"]

_SPARE_WEIGHTS = 100_000


def read_legacy_file(
    path: Path, custom_objects: Mapping[str, Any] | None, compile: bool, device: torch.device | None
) -> Any:
    """Read a model from an `.h5` file of Keras'.

    Raises:
        ValueError: the file is damaged, holds no model, or names something unknown.
    """
    label = os.fspath(path)
    with open(path, "rb") as file:
        root = read_hdf5(file, label)
        config, weights = root.text.get("model_config"), root.find("model_weights")
        if not isinstance(config, str) or weights is None:
            raise ValueError(f"{label} holds no model, only weights: make the model, and call its load_weights().")
        numbers = sum(math.prod(array.shape) for _, array in weights.walk())
        try:
            with torch.random.fork_rng(devices=[]), unfilled_weights(2 * numbers + _SPARE_WEIGHTS):
                model = model_of_config(modern_config(parse_json(config)), custom_objects)
        # A config may be wrong in any way, and a constructor raise whatever it likes.
        except Exception as error:
            raise ValueError(f"{label} cannot be used, or it is damaged: its config is wrong ({error}).") from error
        fill_from_legacy(model, root, label)
        if compile:
            _compile(model, root, label)
    return model if device is None else model.to(device)


def _compile(model: Any, root: Group, label: str) -> None:
    """Compile the model as it was, and fill its optimizer, as far as today's classes allow it."""
    settings = root.text.get("training_config")
    if not isinstance(settings, str):
        return
    try:
        model.compile_from_config(modern_settings(parse_json(settings)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        warnings.warn(
            f"The model of {label} is not compiled, since its settings are not understood: {error}", stacklevel=4
        )
        return
    weights, group = [each for each in model.parameters() if each.requires_grad], root.find("optimizer_weights")
    if group is None or not weights or model.optimizer is None:
        return
    model.optimizer.name_weights(model.named_parameters())
    model.optimizer.build(weights)
    arrays = _arrays_of(group, label)
    if [array.shape for array in arrays] == state_shapes(model.optimizer, model):
        read_state(model.optimizer, model, [array.read() for array in arrays])
    else:
        warnings.warn(
            f"The optimizer of {label} starts anew: its state is that of an older optimizer of this name.", stacklevel=4
        )


def fill_from_legacy(
    model: Network, root: Group, label: str, skip_mismatch: bool = False, by_name: bool = False
) -> None:
    """Fill a model from the weights of a legacy file.

    Args:
        model: the model, with its weights made.
        root: what is in the file.
        label: what messages call the file.
        skip_mismatch: whether to leave alone the layers that the file has other weights for.
        by_name: whether layers are found by their names; by default, in the order of both.

    Raises:
        ValueError: the file does not fit the model; then nothing is changed.
    """
    group = root.find("model_weights") if "layer_names" not in root.text else root
    group = root if group is None else group
    stored = {name: _arrays_of(_layer_group(group, name, label), label) for name in _texts(group, "layer_names")}
    stored = {name: arrays for name, arrays in stored.items() if arrays}
    own = dict(zip(model.layer_names(), model.layers, strict=True))
    entries = {name: _legacy_entries(layer) for name, layer in own.items()}
    entries = {name: found for name, found in entries.items() if found}
    if by_name:
        pairs = [(name, entries[name], arrays) for name, arrays in stored.items() if name in entries]
    elif len(entries) != len(stored):
        raise ValueError(
            f"{label} does not fit the model {model.name!r}: it has weights for {len(stored)} layers "
            f"({_listed(stored)}), the model has {len(entries)} with weights ({_listed(entries)})."
        )
    else:
        pairs = list(zip(entries, entries.values(), stored.values(), strict=True))
    fitting, problems = [], []
    for name, found, arrays in pairs:
        shapes = [tuple(weight.get(owner).shape) for owner, weight in found], [array.shape for array in arrays]
        if shapes[0] == shapes[1]:
            fitting += list(zip(found, arrays, strict=True))
        else:
            problems.append(f"{name} has {_listed(map(str, shapes[0]))}, in the file {_listed(map(str, shapes[1]))}")
    if problems:
        text = f"{label} does not fit the model {model.name!r} in {len(problems)} layers: {'; '.join(problems[:5])}."
        if not skip_mismatch:
            raise ValueError(f"{text} skip_mismatch=True loads the others.")
        warnings.warn(f"{text} These are left as they are.", stacklevel=3)
    make_room(model, [tensor for (owner, weight), _ in fitting for tensor in weight.tensors(owner)])
    for (owner, weight), array in fitting:
        weight.set(owner, torch.from_numpy(array.read()))


def _legacy_entries(layer: nn.Module) -> list[tuple[nn.Module, Weight]]:
    """The weights of a layer in the order of old: first those that train."""
    entries = list(layer.weight_entries()) if isinstance(layer, WeightHolder) else []
    return sorted(entries, key=lambda entry: not entry[1].tensors(entry[0])[0].requires_grad)


def _layer_group(group: Group, name: str, label: str) -> Group:
    found = group.find(*name.split("/"))
    if found is None:
        raise ValueError(f"{label} is damaged: it names the layer {name!r}, which it has no weights of.")
    return found


def _arrays_of(group: Group, label: str) -> list[Array]:
    """The arrays that a group lists, in that order."""
    found: list[Array] = []
    for name in _texts(group, "weight_names"):
        *path, last = name.split("/")
        within = group.find(*path)
        array = None if within is None else within.members.get(last)
        if not isinstance(array, Array):
            raise ValueError(f"{label} is damaged: it names the weight {name!r}, which is not there.")
        found.append(array)
    return found


def _texts(group: Group, name: str) -> list[str]:
    """An attribute that is a list of texts, and may be in several parts."""
    parts = [group.text[name]] if name in group.text else []
    while not parts or f"{name}{len(parts)}" in group.text:
        part = group.text.get(f"{name}{len(parts)}")
        if part is None:
            break
        parts.append(part)
    return [text for part in parts for text in (part if isinstance(part, list) else [part])]


def _listed(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
