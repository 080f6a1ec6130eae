"""Helpers under Keras' names."""

from torchfunc.config import (
    disable_interactive_logging,
    enable_interactive_logging,
    is_interactive_logging_enabled,
)
from torchfunc.registry import (
    custom_object_scope,
    deserialize_keras_object,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    serialize_keras_object,
)
from torchfunc.registry import custom_object_scope as CustomObjectScope
from torchfunc.registry import register_serializable as register_keras_serializable
from torchfunc.training.data.arrays import pack_x_y_sample_weight, unpack_x_y_sample_weight
from torchfunc.utils.datasets import split_dataset, timeseries_dataset_from_array
from torchfunc.utils.downloads import get_file
from torchfunc.utils.graphs import get_source_inputs, is_keras_tensor
from torchfunc.utils.images import array_to_img, img_to_array, load_img, save_img
from torchfunc.utils.numerical import normalize, standardize_dtype, to_categorical
from torchfunc.utils.py_dataset import PyDataset
from torchfunc.utils.py_dataset import PyDataset as Sequence
from torchfunc.utils.sequences import pad_sequences
from torchfunc.utils.session import clear_session, set_random_seed
from torchfunc.viewing import model_to_dot, plot_model

__all__ = [
    "CustomObjectScope",
    "PyDataset",
    "Sequence",
    "array_to_img",
    "clear_session",
    "custom_object_scope",
    "deserialize_keras_object",
    "disable_interactive_logging",
    "enable_interactive_logging",
    "get_custom_objects",
    "get_file",
    "get_registered_name",
    "get_registered_object",
    "get_source_inputs",
    "img_to_array",
    "is_interactive_logging_enabled",
    "is_keras_tensor",
    "load_img",
    "model_to_dot",
    "normalize",
    "pack_x_y_sample_weight",
    "pad_sequences",
    "plot_model",
    "register_keras_serializable",
    "save_img",
    "serialize_keras_object",
    "set_random_seed",
    "split_dataset",
    "standardize_dtype",
    "timeseries_dataset_from_array",
    "to_categorical",
    "unpack_x_y_sample_weight",
]
