"""The `.torchfunc` file: a zip of JSON and safetensors, nothing compressed.

metadata.json         the version of the format, which weights are frozen, which are one and the same
config.json           the architecture and the settings of `compile`, in Keras 3's form
model.safetensors     the weights under the names of `state_dict`
training.safetensors  the optimizer's state, and buffers that no state_dict holds
"""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from torchfunc.registry import custom_object_scope
from torchfunc.saving.archive import Member, WritingBehind, add_member, check_members
from torchfunc.saving.json_text import parse_json, write_json
from torchfunc.saving.model_config import config_of_model, model_of_config
from torchfunc.saving.model_weights import (
    build_layers,
    built_layers,
    distinct_weights,
    fill_weights,
    tie_weights,
)
from torchfunc.saving.safetensors_layout import Layout
from torchfunc.saving.tensor_files import TensorSection, write_section
from torchfunc.saving.training_state import restore_training_state, training_state
from torchfunc.unfilled_weights import unfilled_weights

__all__ = ["read_torchfunc_file", "write_torchfunc_file"]

_FORMAT = 1
_METADATA, _CONFIG = "metadata.json", "config.json"
_WEIGHTS, _TRAINING = "model.safetensors", "training.safetensors"
# Layers may make weights that they do not keep.
_SPARE_WEIGHTS = 100_000


def write_torchfunc_file(model: Any, file: IO[bytes], include_optimizer: bool) -> None:
    """Write a model to a file that is empty and open.

    Raises:
        ValueError: the model has a part that cannot be written; the message names it.
    """
    config = write_json(config_of_model(model, include_optimizer)).encode()
    weights, tied = distinct_weights(model)
    frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    metadata = {"format": _FORMAT, "frozen": frozen, "tied": tied, "built": built_layers(model)}
    sections = {_WEIGHTS: (Layout.of(weights), weights)}
    if include_optimizer and model.compiled:
        state = training_state(model)
        sections[_TRAINING] = (Layout.of(state.tensors, state.metadata), state.tensors)
    with WritingBehind(file) as behind, zipfile.ZipFile(behind, "w") as archive:
        for name, text in ((_METADATA, write_json(metadata).encode()), (_CONFIG, config)):
            add_member(archive, name, len(text), partial(_write_text, text))
        for name, (layout, tensors) in sections.items():
            size = len(layout.encode()) + layout.data_size
            add_member(archive, name, size, partial(write_section, layout=layout, tensors=tensors))


def _write_text(text: bytes, write: Callable[[bytes], object]) -> None:
    write(text)


def read_torchfunc_file(
    path: Path, custom_objects: Mapping[str, Any] | None, compile: bool, device: torch.device | None
) -> Any:
    """Read a model.

    Raises:
        ValueError: the file is damaged, or names something unknown.
    """
    with open(path, "rb") as file:
        reader = _Reader(file, os.fspath(path))
        model = reader.make_model(custom_objects)
        reader.fill(model, device)
        if device is not None:
            model.to(device)
        settings = reader.config.get("compile_config")
        if compile and settings:
            if device is not None:
                settings = {**settings, "device": str(device)}
            with reader.refusing("what it says of `compile` cannot be used"), custom_object_scope(custom_objects):
                model.compile_from_config(settings)
            reader.restore_training(model)
    return model


class _Reader:
    """A file that is open: its small parts read, its large ones found.

    Raises:
        ValueError: it is damaged.
    """

    def __init__(self, file: IO[bytes], label: str) -> None:
        self.file = file
        self.label = label
        with self.refusing():
            allowed = (_METADATA, _CONFIG, _WEIGHTS, _TRAINING)
            self.members = check_members(file, allowed, allowed[:3])
            self.metadata = _checked_metadata(parse_json(self.members[_METADATA].read(file)))
            self.config = parse_json(self.members[_CONFIG].read(file))
            if not isinstance(self.config, dict):
                raise ValueError("its config is damaged")
        self.weights = self._section(self.members[_WEIGHTS])

    @contextlib.contextmanager
    def refusing(self, what: str = "") -> Iterator[None]:
        """Let errors say which file cannot be read."""
        try:
            yield
        except Exception as error:
            if what:
                raise ValueError(f"{self.label} cannot be loaded, since {what}: {error}") from error
            raise ValueError(f"{self.label} is no .torchfunc file of a model, or it is damaged: {error}.") from error

    def _section(self, member: Member) -> TensorSection:
        return TensorSection(self.file, self.label, member.start, member.size, member.checksum)

    def make_model(self, custom_objects: Mapping[str, Any] | None) -> Any:
        """The model of the config, whose weights are still to be filled."""
        tied = self.metadata["tied"]
        places = self.weights.layout.places
        numbers = sum(math.prod(place.shape) for place in places.values())
        numbers += sum(math.prod(places[target].shape) for target in tied.values() if target in places)
        # A config may be wrong in any way, and a constructor raise whatever it likes.
        with (
            self.refusing("its config cannot be used"),
            torch.random.fork_rng(devices=[]),
            unfilled_weights(2 * numbers + _SPARE_WEIGHTS),
        ):
            model = model_of_config(self.config, custom_objects)
            build_layers(model, self.metadata["built"])
        return model

    def fill(self, model: nn.Module, device: torch.device | None) -> None:
        """Read the weights."""
        with self.refusing():
            tie_weights(model, self.metadata["tied"])
        fill_weights(model, self.weights, self.metadata["tied"], device)
        frozen = set(self.metadata["frozen"])
        for name, weight in model.named_parameters():
            if weight.is_floating_point() or weight.is_complex():
                weight.requires_grad_(name not in frozen)

    def restore_training(self, model: Any) -> None:
        """Read the optimizer's state, if it is there."""
        if _TRAINING in self.members:
            section = self._section(self.members[_TRAINING])
            with self.refusing("its state of the training cannot be used"):
                restore_training_state(model, section)


def _checked_metadata(metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, dict) or metadata.get("format") != _FORMAT:
        found = metadata.get("format") if isinstance(metadata, dict) else None
        raise ValueError(f"its format is {found!r}, where {_FORMAT} is the one that can be read")
    frozen, tied = metadata.get("frozen"), metadata.get("tied")
    texts = [*frozen, *tied, *tied.values()] if isinstance(frozen, list) and isinstance(tied, dict) else [None]
    if not all(isinstance(text, str) for text in texts) or not _are_shapes(metadata.get("built")):
        raise ValueError("its metadata are damaged")
    return metadata


def _are_shapes(built: Any) -> bool:
    return isinstance(built, dict) and all(isinstance(shapes, dict) for shapes in built.values())
