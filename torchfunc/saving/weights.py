"""The weights of a model in a file, under torch's names or in Keras' layout, as the end of the name says."""

from __future__ import annotations

import os
import warnings
from collections.abc import Container

from torch import Tensor, nn

from torchfunc.dtypes import dtype_name
from torchfunc.layers.base.weights import WeightHolder
from torchfunc.meta_weights import make_room, off_meta, without_values
from torchfunc.modules import Network
from torchfunc.saving.files import PathLike, replacing
from torchfunc.saving.hdf5_reading import read_hdf5
from torchfunc.saving.keras_file import weights_in_keras_file
from torchfunc.saving.keras_weights import fill_model, write_keras_weights
from torchfunc.saving.legacy_h5 import fill_from_legacy
from torchfunc.saving.model_weights import copied_weights
from torchfunc.saving.safetensors_layout import Place
from torchfunc.saving.sharded import gathered, own_classes
from torchfunc.saving.tensor_files import TensorSection, write_tensors

__all__ = ["check_weights_path", "load_weights", "save_weights"]

_KERAS, _TORCH, _KERAS_MODEL, _LEGACY = ".weights.h5", ".safetensors", ".keras", (".h5", ".hdf5")


def check_weights_path(path: PathLike) -> None:
    """Raise ValueError if the end of the name says no format that weights can be written in."""
    if not os.fspath(path).endswith((_KERAS, _TORCH)):
        raise ValueError(
            f"The name of a file of weights ends in {_KERAS!r} (Keras' layout) or {_TORCH!r} (torch's), "
            f"got {os.fspath(path)!r}."
        )


def save_weights(model: WeightHolder, path: PathLike) -> None:
    """Write the model's weights, atomically.

    The name of the file ends in ".safetensors" for its `state_dict`, or in ".weights.h5" for Keras' format, which holds
    the optimizer's state too.

    Raises:
        ValueError: the name ends otherwise.
    """
    check_weights_path(path)
    with gathered(model, os.fspath(path).endswith(_KERAS)) as has_all:
        if not has_all:
            return
        if os.fspath(path).endswith(_KERAS):
            with replacing(path) as file:
                write_keras_weights(model, file)
        else:
            write_tensors(path, model.state_dict())


def load_weights(model: Network, path: PathLike, skip_mismatch: bool = False, by_name: bool = False) -> None:
    """Fill the model from a file that `save_weights`, or Keras, wrote. Weights on the meta device get memory now.

    Args:
        model: the model, built.
        path: the file: of weights, or of Keras' also one of a whole model, ".keras" or legacy ".h5".
        skip_mismatch: whether to leave alone what is missing in the file, or has another shape there.
        by_name: whether layers are found by their names in a legacy file, and not in the order of both.

    Raises:
        ValueError: the name ends otherwise, the file is damaged, or (without `skip_mismatch`) it does not fit; then
            nothing is changed.
    """
    with off_meta():
        _load_weights(model, path, skip_mismatch, by_name)
    left = without_values(model)
    if left:
        warnings.warn(
            f"{os.fspath(path)} holds no values for {', '.join(map(repr, left[:5]))}, which stay on the meta device. "
            "(The constants of a graph are in '.safetensors' files only.)",
            stacklevel=3,
        )


def _load_weights(model: Network, path: PathLike, skip_mismatch: bool, by_name: bool) -> None:
    name = os.fspath(path)
    if name.endswith(_TORCH) and not by_name:
        _load_state_dict(model, path, skip_mismatch)
        return
    if not name.endswith((_KERAS_MODEL, *_LEGACY)):
        check_weights_path(path)
    with open(path, "rb") as file, own_classes(model):
        root = weights_in_keras_file(file, name) if name.endswith(_KERAS_MODEL) else read_hdf5(file, name)
        if "layer_names" in root.text or root.find("model_weights") is not None:
            fill_from_legacy(model, root, name, skip_mismatch, by_name)
        elif by_name:
            raise ValueError(f"{name} is no legacy file, so its weights have a place each: `by_name` has no meaning.")
        else:
            fill_model(model, root, name, skip_mismatch)


def _load_state_dict(model: nn.Module, path: PathLike, skip_mismatch: bool) -> None:
    own = _state_of(model)
    with open(path, "rb") as file:
        section = TensorSection(file, os.fspath(path))
        stored = section.layout.places
        fitting = {name: own[name] for name, place in stored.items() if name in own and place.fits(own[name])}
        differing = [name for name in {**own, **stored} if name not in fitting]
        if differing and not skip_mismatch:
            listed = ", ".join(f"{name} ({_difference(own.get(name), stored.get(name))})" for name in differing[:5])
            raise ValueError(
                f"{os.fspath(path)} does not fit this model in {len(differing)} of {len(own)} weights: {listed}. "
                "skip_mismatch=True loads the others."
            )
        # Nothing is changed before all is known to be right.
        if copied_weights(model):
            values = section.empty_tensors()
            section.read_into(values)
            make_room(model, fitting.values())
            model.load_state_dict({name: values[name] for name in fitting}, strict=False)
        else:
            section.check()
            make_room(model, fitting.values())
            section.read_into(_state_of(model, fitting))


def _state_of(model: nn.Module, names: Container[str] | None = None) -> dict[str, Tensor]:
    """The tensors of a model's `state_dict`, or those of these names."""
    state = model.state_dict(keep_vars=True).items()
    return {name: value for name, value in state if isinstance(value, Tensor) and (names is None or name in names)}


def _difference(tensor: Tensor | None, place: Place | None) -> str:
    """How a weight and what is in the file differ: in shape, else in dtype."""
    if tensor is None or place is None or tuple(tensor.shape) != place.shape:
        own, stored = ("missing" if each is None else str(tuple(each.shape)) for each in (tensor, place))
    else:
        own, stored = dtype_name(tensor.dtype), dtype_name(place.dtype)
    return f"{own}, in the file {stored}"
