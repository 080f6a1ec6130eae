"""The weights of a model in a file, under torch's names."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor, nn

from torchfunc.dtypes import dtype_name
from torchfunc.saving.files import PathLike
from torchfunc.saving.safetensors_layout import Place
from torchfunc.saving.tensor_files import TensorSection, write_tensors

__all__ = ["check_weights_path", "load_weights", "save_weights"]


def check_weights_path(path: PathLike) -> None:
    """Raise ValueError if the end of the name says no format that weights can be written in."""
    name = os.fspath(path)
    if name.endswith(".weights.h5"):
        raise ValueError(f"Keras' weights format comes later; end the name in '.safetensors'. Got {name!r}.")
    if not name.endswith(".safetensors"):
        raise ValueError(f"The name of a file of weights ends in '.safetensors', got {name!r}.")


def save_weights(model: nn.Module, path: PathLike) -> None:
    """Write the model's `state_dict` as a safetensors file, atomically.

    Raises:
        ValueError: the name does not end in ".safetensors".
    """
    check_weights_path(path)
    write_tensors(path, model.state_dict())


def load_weights(model: nn.Module, path: PathLike, skip_mismatch: bool = False) -> None:
    """Fill the model from a safetensors file of a `state_dict`.

    Args:
        model: the model, built.
        path: the file, whose name ends in ".safetensors".
        skip_mismatch: whether to leave alone what is missing in the file, or has another shape there.

    Raises:
        ValueError: the name ends otherwise, the file is damaged, or (without `skip_mismatch`) it does not fit; then
            nothing is changed.
    """
    check_weights_path(path)
    own: Mapping[str, Tensor] = model.state_dict(keep_vars=True)
    with open(path, "rb") as file:
        section = TensorSection(file, os.fspath(path))
        stored = section.layout.places
        fitting = {name: own[name] for name, place in stored.items() if name in own and _fits(own[name], place)}
        differing = [name for name in {**own, **stored} if name not in fitting]
        if differing and not skip_mismatch:
            listed = ", ".join(f"{name} ({_difference(own.get(name), stored.get(name))})" for name in differing[:5])
            raise ValueError(
                f"{os.fspath(path)} does not fit this model in {len(differing)} of {len(own)} weights: {listed}. "
                "skip_mismatch=True loads the others."
            )
        # Nothing is changed before all is known to be right.
        section.check()
        section.read_into(fitting)


def _fits(tensor: Tensor, place: Place) -> bool:
    """Whether a weight can be filled with what is in the file: floats of another precision are converted."""
    same_kind = tensor.dtype == place.dtype or (tensor.is_floating_point() and place.dtype.is_floating_point)
    return same_kind and tuple(tensor.shape) == place.shape


def _difference(tensor: Tensor | None, place: Place | None) -> str:
    """How a weight and what is in the file differ: in shape, else in dtype."""
    if tensor is None or place is None or tuple(tensor.shape) != place.shape:
        own, stored = ("missing" if each is None else str(tuple(each.shape)) for each in (tensor, place))
    else:
        own, stored = dtype_name(tensor.dtype), dtype_name(place.dtype)
    return f"{own}, in the file {stored}"
