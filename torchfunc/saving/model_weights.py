"""The weights of a whole model for a file, each once; and a new model that is filled with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchfunc.layers import Layer
from torchfunc.layers.base.shapes import map_shapes
from torchfunc.saving.tensor_files import TensorSection

__all__ = ["build_layers", "built_layers", "copied_weights", "distinct_weights", "fill_weights", "tie_weights"]


def distinct_weights(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a model's `state_dict`; and of those that are there under several names, which name is which.

    Returns:
        the tensors by their first name, and the first name by each further one.

    Raises:
        ValueError: a module keeps something else than tensors in its state.
    """
    found: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    copied = set(copied_weights(model))
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"The model's state holds {name!r}, a {type(tensor).__name__}, which cannot be written.")
        if name in copied:
            raise ValueError(f"{name!r} is made by a hook for the model's `state_dict`, so it cannot be read back.")
        if id(tensor) in first:
            tied[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            found[name] = tensor
    if isinstance(model, Layer) and any(id(weight) not in first for weight in model.weights):
        raise ValueError("A weight that a layer made by `add_weight` is not in the model's `state_dict`.")
    return found, tied


def copied_weights(model: nn.Module) -> list[str]:
    """The tensors of a model's `state_dict`, by name, that are not the model's own, but made by a hook for the dict."""
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    state = model.state_dict(keep_vars=True)
    return [name for name, tensor in state.items() if isinstance(tensor, Tensor) and id(tensor) not in own]


def built_layers(model: nn.Module) -> dict[str, Any]:
    """The shapes that each layer in a model was built with, by its path: those that a call has built have weights."""
    return {
        path: dict(layer.build_shapes)
        for path, layer in model.named_modules()
        if isinstance(layer, Layer) and layer.built and layer.build_shapes
    }


def build_layers(model: nn.Module, built: Mapping[str, Any]) -> None:
    """Build the layers of a model that `built_layers` listed, and that are not built yet.

    Raises:
        ValueError: there is no such layer, or it cannot be built with these shapes.
    """
    # (Layers whose `build` makes others come before these.)
    for path, shapes in built.items():
        try:
            layer = model.get_submodule(path)
        except AttributeError as error:
            raise ValueError(f"it says how the layer {path!r} was built, which the model does not have") from error
        if not isinstance(layer, Layer):
            raise ValueError(f"it says how {path!r} was built, which is no layer")
        if not layer.built:
            layer.build_from_shapes({name: map_shapes(tuple, shape) for name, shape in shapes.items()})


def tie_weights(model: nn.Module, tied: Mapping[str, str]) -> None:
    """Let a weight be the very one of another name.

    Raises:
        ValueError: there is no such weight.
    """
    for name, target in tied.items():
        try:
            path, _, leaf = name.rpartition(".")
            owner = model.get_submodule(path)
            theirs, _, their_leaf = target.rpartition(".")
            weight = getattr(model.get_submodule(theirs), their_leaf)
            own = getattr(owner, leaf)
        except AttributeError as error:
            raise ValueError(f"it ties the weights {name!r} and {target!r}, which the model does not have") from error
        tables = owner._parameters, owner._buffers
        if not any(leaf in table for table in tables) or type(weight) is not type(own) or weight.shape != own.shape:
            raise ValueError(f"it ties {name!r} to {target!r}, which is no weight of that kind and shape")
        if own is not weight:
            setattr(owner, leaf, weight)


def fill_weights(
    model: nn.Module, section: TensorSection, tied: Mapping[str, str], device: torch.device | None
) -> None:
    """Read all weights of a new model, which take over the dtype that they have in the file.

    Args:
        model: the model; all of its weights are read, none of their values is kept.
        section: the tensors of the file.
        tied: further names of weights of the file.
        device: where the weights are to be; where they are by default. They are never there twice.

    Raises:
        ValueError: the file holds others than the model has, or is damaged.
    """
    own: dict[str, Tensor] = {
        name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name not in tied
    }
    places = section.layout.places
    both = own.keys() & places.keys()
    differing = [name for name in {**own, **places} if name not in both or not places[name].fits(own[name])]
    if differing:
        raise ValueError(
            f"{section.label} holds other weights than the model of its config has: {', '.join(differing[:5])} "
            f"{'differs' if len(differing) == 1 else 'differ'} in name, shape or kind."
        )
    for name, tensor in own.items():
        where = tensor.device if device is None or device.type == "meta" else device
        if tensor.dtype is not places[name].dtype or tensor.device != where:
            tensor.data = torch.empty(tensor.shape, dtype=places[name].dtype, device=where)
    section.read_into(own)
