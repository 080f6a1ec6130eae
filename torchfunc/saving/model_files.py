"""Whole models in files: `save_model` and `load_model`, and which format the end of a name stands for.

A format is a function that writes a model to an open file, and one that reads it. That a file appears at once and
whole, and that no other is overwritten, is seen to here for all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from torchfunc.meta_weights import off_meta
from torchfunc.saving.files import PathLike, replacing
from torchfunc.saving.keras_file import read_keras_file, write_keras_file
from torchfunc.saving.legacy_h5 import read_legacy_file
from torchfunc.saving.sharded import gathered
from torchfunc.saving.torchfunc_file import read_torchfunc_file, write_torchfunc_file

__all__ = ["ModelReader", "ModelWriter", "check_model_path", "load_model", "save_model"]

ModelWriter = Callable[[Any, IO[bytes], bool], None]
"""Writes a model (first) to a file that is empty and open to write and read (second), with compile settings and
optimizer state or without (third)."""

ModelReader = Callable[[Path, Mapping[str, Any] | None, bool, torch.device | None], Any]
"""Reads a model: from a path, with custom objects, compiled or not, onto a device (None: the default one)."""


class _Format(NamedTuple):
    read: ModelReader
    write: ModelWriter | None


# By the end of the name.
_FORMATS: dict[str, _Format] = {
    ".keras": _Format(read_keras_file, write_keras_file),
    ".torchfunc": _Format(read_torchfunc_file, write_torchfunc_file),
    ".h5": _Format(read_legacy_file, None),
    ".hdf5": _Format(read_legacy_file, None),
}


def check_model_path(path: PathLike) -> str:
    """The end of the name, if it is one that a whole model can be written under.

    Raises:
        ValueError: it is not.
    """
    name = os.fspath(path)
    ending = _ending(name)
    if ending is None or _FORMATS[ending].write is None:
        writable = [ending for ending, each in _FORMATS.items() if each.write is not None]
        raise ValueError(f"The name of a file of a whole model ends in {_listed(writable)}, got {name!r}.")
    return ending


def save_model(model: Any, filepath: PathLike, overwrite: bool = True, include_optimizer: bool = True) -> None:
    """Write a model to a file: its architecture and weights, how it was compiled, and the state of its optimizer.

    The file appears at once and whole: whatever goes wrong, a file that was there stays as it was.

    Args:
        model: a drawn model, a `Sequential` or a subclassed model.
        filepath: the file; its name ends in ".keras" for Keras 3's own format, or in ".torchfunc", which also takes
            torch modules and torch functions.
        overwrite: whether a file that is there may be replaced.
        include_optimizer: whether to write the settings of `compile` and the optimizer's state, too.

    Raises:
        ValueError: the name ends otherwise, or the model has a part that cannot be written; the message names it.
        FileExistsError: the file is there and must not be replaced.
        OSError: the file cannot be written.

    >>> models.save_model(Sequential([Input((4,)), layers.Dense(1)]), "model.torchfunc")
    >>> models.load_model("model.torchfunc").count_params()
    5
    """
    write = _FORMATS[check_model_path(filepath)].write
    assert write is not None
    if not overwrite and Path(filepath).exists():
        raise FileExistsError(f"{os.fspath(filepath)} exists already, and overwrite=False.")
    with gathered(model, include_optimizer) as has_all:
        if has_all:
            with replacing(filepath) as file:
                write(model, file, include_optimizer)


def load_model(
    filepath: PathLike,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
    device: str | torch.device | None = None,
) -> Any:
    """Read a model that `save_model`, or Keras, wrote.

    Args:
        filepath: the file.
        custom_objects: classes and functions that the file may name, by name, beside those that are registered.
        compile: whether to compile the model as it was, and restore the optimizer's state.
        safe_mode: accepted for Keras' sake; nothing unsafe is ever loaded, whatever it says.
        device: where to put the model; by default torch's default device, or the CPU where that is the meta device.

    Raises:
        ValueError: the file is damaged, or names a class or function that is not known.
        OSError: the file cannot be read.

    >>> Sequential([Input((4,)), layers.Dense(1)]).save("model.keras")
    >>> models.load_model("model.keras").predict(np.ones((2, 4)), verbose=0).shape
    (2, 1)
    """
    name = os.fspath(filepath)
    ending = _ending(name)
    if ending is None:
        raise ValueError(f"The name of a file of a whole model ends in {_listed(list(_FORMATS))}, got {name!r}.")
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {name!r} to load a model from.")
    with off_meta():
        return _FORMATS[ending].read(path, custom_objects, compile, None if device is None else _available(device))


def _available(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    # (torch says with an AssertionError that it was built without CUDA.)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"The device {str(device)!r} cannot be used: {error}") from error


def _ending(name: str) -> str | None:
    return next((ending for ending in _FORMATS if name.endswith(ending)), None)


def _listed(endings: list[str]) -> str:
    return " or ".join(map(repr, endings))
