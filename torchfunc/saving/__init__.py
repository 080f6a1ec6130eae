"""Models in files, objects and configs, under Keras' import path."""

from torchfunc.registry import (
    custom_object_scope,
    deserialize_keras_object,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_serializable,
    serialize_keras_object,
)
from torchfunc.registry import custom_object_scope as CustomObjectScope
from torchfunc.saving.model_files import load_model, save_model

__all__ = [
    "CustomObjectScope",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "load_model",
    "register_keras_serializable",
    "register_serializable",
    "save_model",
    "serialize_keras_object",
]

register_keras_serializable = register_serializable
