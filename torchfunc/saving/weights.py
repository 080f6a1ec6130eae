"""The weights of a model in a file, under torch's names."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor, nn

from torchfunc.saving.files import PathLike, read_tensors, write_tensors

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
    stored, _ = read_tensors(path)
    own: Mapping[str, Tensor] = model.state_dict()
    fitting = {name: value for name, value in stored.items() if name in own and own[name].shape == value.shape}
    differing = [name for name in {**own, **stored} if name not in fitting]
    if differing and not skip_mismatch:
        listed = ", ".join(
            f"{name} ({_shape(own, name)}, in the file {_shape(stored, name)})" for name in differing[:5]
        )
        raise ValueError(
            f"{os.fspath(path)} does not fit this model in {len(differing)} of {len(own)} weights: {listed}. "
            "skip_mismatch=True loads the others."
        )
    model.load_state_dict(fitting, strict=False)


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return str(tuple(tensors[name].shape)) if name in tensors else "missing"
