"""A model as one config, in Keras 3's form: architecture and settings of `compile`; and the model of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from torchfunc.registry import custom_object_scope, deserialize_keras_object, serialize_keras_object
from torchfunc.saving.json_text import parse_json
from torchfunc.saving.sharded import own_classes

__all__ = ["config_of_model", "model_from_json", "model_of_config"]


def config_of_model(model: Any, include_optimizer: bool = True) -> dict[str, Any]:
    """The config of a model: `module`, `class_name`, `config`, `registered_name`, `build_config`, `compile_config`.

    Raises:
        ValueError: a part of the model has no config; the message names it.
    """
    try:
        with own_classes(model):
            config: dict[str, Any] = serialize_keras_object(model)
    except RecursionError:
        raise ValueError(
            f"The model {model.name!r} cannot be written to a config: it holds models within models within models, "
            "more levels than Python's recursion limit allows."
        ) from None
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


def model_from_json(json_string: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The model that `model.to_json()`, ours or Keras', describes, with new weights; compiled if that one was.

    Args:
        json_string: the text.
        custom_objects: classes and functions that it may name, by name, beside those that are registered.

    Raises:
        ValueError: it is no JSON of a model, or names something unknown.

    >>> text = Sequential([Input((4,)), layers.Dense(1)]).to_json()
    >>> models.model_from_json(text).count_params()
    5
    """
    config = parse_json(json_string)
    if not isinstance(config, dict):
        raise ValueError(f"The JSON describes no model, but {config!r}.")
    model = model_of_config(config, custom_objects)
    settings = config.get("compile_config")
    if settings:
        with custom_object_scope(custom_objects):
            model.compile_from_config(settings)
    return model
