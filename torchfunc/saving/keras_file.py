"""The `.keras` file: Keras 3's own, a zip of JSON, of weights in HDF5 and of what layers keep in files of their own.

metadata.json     the version of Keras and the date
config.json       the architecture and the settings of `compile`
model.weights.h5  the weights and the optimizer's state
assets/           files that layers write with `save_assets`, by the path of the layer
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from torchfunc.graph import record_input
from torchfunc.layers.base.file_hooks import FileHooks
from torchfunc.layers.base.shapes import is_shape
from torchfunc.modules import GraphNetwork, Network
from torchfunc.saving.archive import MemberFile, add_member, check_members
from torchfunc.saving.hdf5_reading import Group, read_hdf5
from torchfunc.saving.json_text import parse_json
from torchfunc.saving.keras_config import keras_config
from torchfunc.saving.keras_layout import parts_of
from torchfunc.saving.keras_weights import fill_model, write_keras_weights
from torchfunc.saving.model_config import model_of_config
from torchfunc.structures import map_structure
from torchfunc.unfilled_weights import unfilled_weights

__all__ = ["read_keras_file", "weights_in_keras_file", "write_keras_file"]

_METADATA, _CONFIG, _WEIGHTS, _ASSETS = "metadata.json", "config.json", "model.weights.h5", "assets/"
# The version of Keras whose format this is.
_KERAS_VERSION = "3.15.1"
# Layers may make weights that they do not keep.
_SPARE_WEIGHTS = 100_000


def write_keras_file(model: Any, file: IO[bytes], include_optimizer: bool) -> None:
    """Write a model to a file that is empty and open.

    Raises:
        ValueError: the model has a part that Keras does not; the message names it.
    """
    date = datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
    metadata = json.dumps({"keras_version": _KERAS_VERSION, "date_saved": date}).encode()
    config = keras_config(model, include_optimizer)
    # HDF5 goes back and forth in a file, which a member of an archive cannot.
    weights = io.BytesIO()
    write_keras_weights(model, weights, include_optimizer)
    with zipfile.ZipFile(file, "w") as archive:
        parts: list[tuple[str, bytes | memoryview]] = [(_METADATA, metadata), (_CONFIG, config)]
        for name, content in (*parts, (_WEIGHTS, weights.getbuffer()), *_assets_of(model)):
            add_member(archive, name, len(content), functools.partial(_write, content))


def _write(content: bytes | memoryview, write: Callable[[Any], object]) -> None:
    write(content)


def _assets_of(model: Any) -> Iterator[tuple[str, bytes]]:
    """The files that layers keep, with their names in the archive."""
    for part in parts_of(model):
        if _overrides(part.holder, "save_assets"):
            assert isinstance(part.holder, FileHooks)
            with tempfile.TemporaryDirectory() as folder:
                part.holder.save_assets(folder)
                for path in sorted(Path(folder).rglob("*")):
                    if path.is_file():
                        within = path.relative_to(folder).as_posix()
                        yield _ASSETS + "/".join((*part.path, within)), path.read_bytes()


def _overrides(holder: object, name: str) -> bool:
    return isinstance(holder, FileHooks) and getattr(type(holder), name) is not getattr(FileHooks, name)


def read_keras_file(
    path: Path, custom_objects: Mapping[str, Any] | None, compile: bool, device: torch.device | None
) -> Any:
    """Read a model.

    Raises:
        ValueError: the file is damaged, or names something unknown.
    """
    with open(path, "rb") as file:
        reader = _Reader(file, os.fspath(path))
        model = reader.make_model(custom_objects)
        settings = reader.config.get("compile_config")
        if compile and settings:
            with reader.refusing("what it says of `compile` cannot be used"):
                model.compile_from_config(settings)
                _build_optimizer(model)
        fill_model(model, reader.weights, reader.label, needs_state=True)
        reader.load_assets(model)
    return model if device is None else model.to(device)


def weights_in_keras_file(file: IO[bytes], label: str) -> Group:
    """The weights in a file of a whole model.

    Raises:
        ValueError: the file is damaged.
    """
    return _Reader(file, label).weights


class _Reader:
    """A file that is open: its small parts read, its large ones found.

    Raises:
        ValueError: it is damaged.
    """

    def __init__(self, file: IO[bytes], label: str) -> None:
        self.file = file
        self.label = label
        with self.refusing():
            self.members = check_members(file, (_METADATA, _CONFIG, _WEIGHTS), (_CONFIG, _WEIGHTS), _ASSETS)
            self.config = parse_json(self.members[_CONFIG].read(file))
            if not isinstance(self.config, dict):
                raise ValueError("its config is damaged")
            weights = self.members[_WEIGHTS]
            weights.verify(file)
        self.weights = read_hdf5(MemberFile(file, weights), f"{_WEIGHTS} in {label}")

    @contextlib.contextmanager
    def refusing(self, what: str = "") -> Iterator[None]:
        """Let errors say which file cannot be read."""
        try:
            yield
        except Exception as error:
            why = f"{what} ({error})" if what else str(error)
            raise ValueError(f"{self.label} is no .keras file of a model, or it is damaged: {why}.") from error

    def make_model(self, custom_objects: Mapping[str, Any] | None) -> Any:
        """The model of the config, whose weights are still to be filled."""
        numbers = sum(math.prod(array.shape) for _, array in self.weights.walk())
        # A config may be wrong in any way, and a constructor raise whatever it likes.
        with (
            self.refusing("its config cannot be used"),
            torch.random.fork_rng(devices=[]),
            unfilled_weights(2 * numbers + _SPARE_WEIGHTS),
        ):
            model = model_of_config(self.config, custom_objects)
            _build_by_call(model, self.config.get("build_config"))
        return model

    def load_assets(self, model: Any) -> None:
        """Let layers read the files that they keep."""
        for part in parts_of(model):
            if _overrides(part.holder, "load_assets"):
                assert isinstance(part.holder, FileHooks)
                start = _ASSETS + "".join(f"{name}/" for name in part.path)
                with tempfile.TemporaryDirectory() as folder, self.refusing(f"the files of {'/'.join(part.path)}"):
                    for name, member in self.members.items():
                        if name.startswith(start) and not name.endswith("/"):
                            target = Path(folder, *name.removeprefix(start).split("/"))
                            target.parent.mkdir(parents=True, exist_ok=True)
                            target.write_bytes(member.read(self.file))
                    part.holder.load_assets(folder)


def _build_by_call(model: Any, build_config: Any) -> None:
    """Make the weights that a call of a subclassed model makes, for inputs of the shapes that it was built with."""
    if isinstance(model, GraphNetwork) or not isinstance(model, Network) or model.is_fully_built():
        return
    shapes = build_config.get("input_shape") if isinstance(build_config, dict) else None
    if shapes is not None:
        dtype = model.dtype
        model.build_from_inputs(
            map_structure(lambda shape: record_input("data", tuple(shape), dtype).outputs, shapes, is_leaf=is_shape)
        )


def _build_optimizer(model: Any) -> None:
    """Make the variables of a compiled model's optimizer, as `fit` does."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if model.optimizer is not None and weights:
        model.optimizer.name_weights(model.named_parameters())
        model.optimizer.build(weights)
