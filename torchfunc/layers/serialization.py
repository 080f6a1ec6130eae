"""`layers.serialize` and `layers.deserialize`: a layer as Keras' config of it, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchfunc.layers.base.layer import Layer
from torchfunc.registry import deserialize_keras_object, serialize_keras_object

__all__ = ["deserialize", "serialize"]


def serialize(layer: Layer) -> dict[str, Any]:
    """The config of a layer, without its weights, as Keras writes it: `class_name`, `config` and where it is from.

    Raises:
        TypeError: it is no layer.

    >>> layers.serialize(layers.Dense(3))["config"]["units"]
    3
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"layers.serialize() takes a layer, got {layer!r} ({type(layer).__name__}).")
    config: dict[str, Any] = serialize_keras_object(layer)
    return config


def deserialize(config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Layer:
    """A new layer as a config describes it, ours or Keras'.

    Args:
        config: what `serialize` returned, or `{"class_name": ..., "config": ...}` alone.
        custom_objects: classes and functions by name, beside those that are registered.

    Raises:
        ValueError: the config describes no layer.

    >>> layers.deserialize({"class_name": "Dense", "config": {"units": 3}}).units
    3
    """
    made = deserialize_keras_object(config, custom_objects)
    if not isinstance(made, Layer):
        raise ValueError(f"layers.deserialize() takes a config of a layer, but this one is of {made!r}.")
    return made
