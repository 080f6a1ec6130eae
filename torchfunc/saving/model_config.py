"""A model as one config, in Keras 3's form: architecture and settings of `compile`; and the model of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from torchfunc.registry import deserialize_keras_object, serialize_keras_object

__all__ = ["config_of_model", "model_of_config"]


def config_of_model(model: Any, include_optimizer: bool = True) -> dict[str, Any]:
    """The config of a model: `module`, `class_name`, `config`, `registered_name`, `build_config`, `compile_config`.

    Raises:
        ValueError: a part of the model has no config; the message names it.
    """
    config: dict[str, Any] = serialize_keras_object(model)
    settings = model.get_compile_config() if include_optimizer else None
    return config if settings is None else {**config, "compile_config": settings}


def model_of_config(config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The model that a config describes, with new weights and not compiled.

    Raises:
        ValueError: the config names something unknown, or describes no model.
    """
    model = deserialize_keras_object(config, custom_objects)
    if not isinstance(model, nn.Module):
        raise ValueError(f"The config describes no model, but {model!r}.")
    return model
