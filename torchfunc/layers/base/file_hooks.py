"""What a layer writes to Keras' files and reads from them: methods that a layer of a user's may override."""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import nn

from torchfunc.layers.base.weights import Weight, WeightHolder, own_weights

__all__ = ["FileHooks", "load_own_variables", "made_weights", "misfits", "save_own_variables"]


class FileHooks(WeightHolder):
    """Keras' hooks for what a layer itself has, without the layers in it.

    Attributes:
        constants: the names of buffers that Keras counts among the config, not the weights.
    """

    constants: Collection[str] = ()

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Write the layer's own weights, in Keras' layout, as "0", "1" ...

        Args:
            store: takes arrays and tensors by name.
        """
        save_own_variables(self, store)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Read what `save_own_variables`, ours or Keras', wrote. Nothing is changed if it does not fit.

        Args:
            store: gives arrays by name.

        Raises:
            ValueError: their number, a shape, or a kind of numbers is another than the layer's.
        """
        load_own_variables(self, store)

    def save_assets(self, dir_path: str) -> None:
        """Write files, a vocabulary say, to a folder. Override it; by default there are none."""

    def load_assets(self, dir_path: str) -> None:
        """Read the files that `save_assets` wrote."""


# Functions, since the modules of torch that are parts of a model are saved likewise.


def made_weights(module: nn.Module) -> list[Weight]:
    """The weights of this very module that are there, in the order in which Keras keeps them in files."""
    found = [weight for weight in own_weights(module) if weight.tensors(module)[0] is not None]
    constants = module.constants if isinstance(module, FileHooks) else ()
    return [weight for weight in found if weight.trainable or weight.names[0] not in constants]


def save_own_variables(module: nn.Module, store: MutableMapping[str, Any]) -> None:
    """Write a module's own weights. See `FileHooks`."""
    for index, weight in enumerate(made_weights(module)):
        store[str(index)] = weight.get(module).detach()


def load_own_variables(module: nn.Module, store: Mapping[str, Any]) -> None:
    """Fill a module's own weights. See `FileHooks`."""
    values = {key: torch.as_tensor(np.asarray(store[key])) for key in store}
    differing = misfits(module, {key: (tuple(each.shape), each.is_floating_point()) for key, each in values.items()})
    if differing:
        raise ValueError("; ".join(differing))
    for index, weight in enumerate(made_weights(module)):
        weight.set(module, values[str(index)])


def misfits(module: nn.Module, stored: Mapping[str, tuple[tuple[int, ...], bool]]) -> list[str]:
    """How what is stored differs from the module's own weights: a few words for each weight.

    Args:
        module: the layer or module.
        stored: by name, the shape in Keras' layout and whether the numbers are floats.
    """
    names: dict[str, str] = {}
    expected: dict[str, tuple[tuple[int, ...], bool]] = {}
    for index, weight in enumerate(made_weights(module)):
        value = weight.get(module)
        names[str(index)] = " and ".join(weight.names)
        expected[str(index)] = tuple(value.shape), value.is_floating_point()
    return [
        f"{names.get(key, key)} is {_described(expected.get(key))}, in the file {_described(stored.get(key))}"
        for key in dict.fromkeys([*expected, *stored])
        if expected.get(key) != stored.get(key)
    ]


def _described(value: tuple[tuple[int, ...], bool] | None) -> str:
    if value is None:
        return "missing"
    shape, is_float = value
    return f"{shape}{'' if is_float else ' of integers'}"
