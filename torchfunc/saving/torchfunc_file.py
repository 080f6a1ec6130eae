"""The `.torchfunc` file: a zip of config.json and of safetensors files, nothing compressed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch

from torchfunc.saving.model_config import config_of_model, model_of_config

__all__ = ["read_torchfunc_file", "write_torchfunc_file"]

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


def write_torchfunc_file(model: Any, file: IO[bytes], include_optimizer: bool) -> None:
    """Write a model to a file that is empty and open.

    Raises:
        ValueError: the model has a part that cannot be written.
    """
    config = json.dumps(config_of_model(model, include_optimizer))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_CONFIG, config)
        archive.writestr(_WEIGHTS, safetensors.torch.save(weights))


def read_torchfunc_file(
    path: Path, custom_objects: Mapping[str, Any] | None, compile: bool, device: torch.device | None
) -> Any:
    """Read a model.

    Raises:
        ValueError: the file is damaged, or names something unknown.
    """
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read(_CONFIG))
        weights = safetensors.torch.load(archive.read(_WEIGHTS))
    model = model_of_config(config, custom_objects)
    model.load_state_dict(weights)
    settings = config.get("compile_config")
    if compile and settings:
        model.compile_from_config(settings)
    return model if device is None else model.to(device)
