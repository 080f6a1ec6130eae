"""Weights in Keras' layout and paths: `.weights.h5` files, and the file of weights within a `.keras` file."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from typing import IO, Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from torchfunc.layers.base.file_hooks import FileHooks, load_own_variables, made_weights, misfits, save_own_variables
from torchfunc.layers.base.weights import WeightHolder
from torchfunc.meta_weights import make_room
from torchfunc.optimizers import Optimizer
from torchfunc.saving.hdf5_format import CHECKSUM, checksum
from torchfunc.saving.hdf5_reading import Array, Group
from torchfunc.saving.keras_layout import Part, parts_of
from torchfunc.saving.keras_optimizer import read_state, state_shapes, write_state

__all__ = ["fill_model", "write_keras_weights"]

# Where Keras before 3.0 kept the layers of a drawn model.
_OLD_NAME = "_layer_checkpoint_dependencies"
# What files of Keras may have that is no part of a model here: the state of random generators and metrics.
_IGNORED = {"seed_generator", "metrics", "_metrics", "loss_tracker", "_loss_tracker", "_compile_metrics"}


def write_keras_weights(model: WeightHolder, file: IO[bytes], include_optimizer: bool = True) -> None:
    """Write the weights, and the optimizer's state, as Keras does.

    Args:
        model: the model.
        file: open for writing; it is written from here on.
        include_optimizer: whether to write the state of optimizers that have any.
    """
    with h5py.File(file, "w") as root:
        for part in parts_of(model):
            store = _NewVariables(root, part)
            if isinstance(part.holder, Optimizer):
                if include_optimizer:
                    store.update({str(index): value for index, value in enumerate(write_state(part.holder, model))})
            elif isinstance(part.holder, FileHooks):
                part.holder.save_own_variables(store)
            else:
                save_own_variables(part.holder, store)


class _NewVariables(MutableMapping[str, Any]):
    """What a layer writes its variables to: it takes arrays and tensors. Its group is made for the first of them."""

    def __init__(self, root: h5py.File, part: Part) -> None:
        self._root = root
        self._path = "/".join(part.variables_path)
        self._name = getattr(part.holder, "name", None)
        self._group: h5py.Group | None = None

    def __setitem__(self, key: str, value: Any) -> None:
        if self._group is None:
            self._group = self._root.create_group(self._path)
            if isinstance(self._name, str):
                self._group.attrs["name"] = self._name
        is_bfloat16 = isinstance(value, Tensor) and value.dtype == torch.bfloat16
        tensor = value.view(torch.uint16) if is_bfloat16 else value
        array = tensor.detach().cpu().numpy() if isinstance(tensor, Tensor) else np.asarray(tensor)
        # (Without a type for bfloat16, HDF5 has pairs of bytes.)
        written = self._group.create_dataset(str(key), data=array.view("V2") if is_bfloat16 else array)
        attributes = written.attrs
        attributes.create(CHECKSUM, np.bytes_(checksum(array)))
        if is_bfloat16:
            attributes["dtype"] = "bfloat16"

    def __getitem__(self, key: str) -> Any:
        if self._group is None:
            raise KeyError(key)
        return self._group[str(key)][()]

    def __delitem__(self, key: str) -> None:
        if self._group is None:
            raise KeyError(key)
        del self._group[str(key)]

    def __iter__(self) -> Iterator[str]:
        return iter(() if self._group is None else self._group)

    def __len__(self) -> int:
        return 0 if self._group is None else len(self._group)


class _Variables(Mapping[str, np.ndarray]):
    """What a layer reads its variables from."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = arrays

    def __getitem__(self, key: str) -> np.ndarray:
        array = self._arrays[key]
        values = array.read()
        return torch.from_numpy(values).view(torch.bfloat16).float().numpy() if array.is_bfloat16 else values

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def fill_model(
    model: WeightHolder, root: Group, label: str, skip_mismatch: bool = False, needs_state: bool = False
) -> None:
    """Fill a model, and its optimizer if that is built, from a file in Keras' layout.

    Args:
        model: the model, with its weights made.
        root: what is in the file.
        label: what messages call the file.
        skip_mismatch: whether to leave alone the layers that the file has other weights for, or none.
        needs_state: whether to warn if an optimizer's state is in the file, but does not fit.

    Raises:
        ValueError: the file does not fit the model, or is damaged; then nothing is changed.
    """
    fitting: list[tuple[Part, dict[str, Array]]] = []
    states: list[tuple[Part, dict[str, Array]]] = []
    problems: list[str] = []
    parts = list(parts_of(model))
    groups = {part.variables_path: _variables_of(root, part) for part in parts}
    for part in parts:
        arrays = groups[part.variables_path]
        if isinstance(part.holder, Optimizer):
            if arrays and _state_fits(part.holder, model, arrays, needs_state):
                states.append((part, arrays))
            continue
        problem = _misfit(part, arrays)
        if problem:
            problems.append(problem)
        else:
            fitting.append((part, arrays))
    known = {id(array) for arrays in groups.values() for array in arrays.values()}
    problems += _unknown(root, known)
    if problems:
        listed = "; ".join(problems[:5]) + (" ..." if len(problems) > 5 else "")
        text = f"{label} does not fit the model {getattr(model, 'name', '')!r} in {len(problems)} places: {listed}."
        if not skip_mismatch:
            raise ValueError(f"{text} skip_mismatch=True loads the rest.")
        warnings.warn(f"{text} These are left as they are.", stacklevel=2)
    for _, arrays in (*fitting, *states):
        for array in arrays.values():
            array.verify()
    holders = [part.holder for part, _ in fitting if isinstance(part.holder, nn.Module)]
    weights = [(holder, weight) for holder in holders for weight in made_weights(holder)]
    make_room(model, [tensor for holder, weight in weights for tensor in weight.tensors(holder)])
    with _undone_on_error(model, any(_has_own_hook(part) for part, _ in fitting)):
        for part, arrays in fitting:
            _load(part, _Variables(arrays), label)
    for part, arrays in states:
        assert isinstance(part.holder, Optimizer)
        values = _Variables(arrays)
        read_state(part.holder, model, [values[str(index)] for index in range(len(values))])


def _variables_of(root: Group, part: Part) -> dict[str, Array]:
    group = root.find(*part.variables_path)
    if group is None and "layers" in part.path:
        group = root.find(*(_OLD_NAME if name == "layers" else name for name in part.variables_path))
    return {} if group is None else group.arrays()


def _has_own_hook(part: Part) -> bool:
    """Whether the class of a layer has a way of its own to read its variables."""
    hook = getattr(type(part.holder), "load_own_variables", None)
    return hook is not None and hook is not FileHooks.load_own_variables


def _misfit(part: Part, arrays: Mapping[str, Array]) -> str | None:
    """Why a layer cannot be filled with these, if it is known before it is done."""
    assert isinstance(part.holder, nn.Module)
    if _has_own_hook(part):
        return None
    stored = {key: (array.shape, array.is_bfloat16 or array.dtype.kind == "f") for key, array in arrays.items()}
    found = misfits(part.holder, stored)
    return f"{'/'.join(part.path) or 'the model itself'}: {', '.join(found)}" if found else None


def _state_fits(optimizer: Optimizer, model: WeightHolder, arrays: Mapping[str, Array], needs_state: bool) -> bool:
    expected = dict(enumerate(state_shapes(optimizer, model))) if optimizer.built else {}
    found = {int(key): array.shape for key, array in arrays.items() if key.isdecimal()}
    if expected == found:
        return True
    # (An optimizer that has made no step yet has a counter and a learning rate.)
    if needs_state and len(found) > 2:
        warnings.warn(
            f"The state of the optimizer {type(optimizer).__name__} is not restored, since it has {len(expected)} "
            f"variables for this model and the file has {len(found)}, or their shapes differ. It starts anew.",
            stacklevel=2,
        )
    return False


def _unknown(root: Group, known: set[int]) -> list[str]:
    """The places in the file whose arrays belong to no part of the model."""
    places: dict[str, None] = {}
    for path, array in root.walk():
        names = path.split("/")
        is_state = len(names) > 2 and names[-2] == "vars" and "optimizer" in names[-3]
        if id(array) not in known and not is_state and not _IGNORED & set(names):
            places["/".join(names[:-2]) if names[-2:-1] == ["vars"] else path] = None
    return [f"{place}: only in the file" for place in places]


def _load(part: Part, variables: _Variables, label: str) -> None:
    if not isinstance(part.holder, FileHooks):
        assert isinstance(part.holder, nn.Module)
        load_own_variables(part.holder, variables)
    elif not _has_own_hook(part):
        part.holder.load_own_variables(variables)
    else:
        try:
            part.holder.load_own_variables(variables)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"{label} does not fit the model: load_own_variables() of {'/'.join(part.path)} "
                f"({type(part.holder).__name__}) failed with {type(error).__name__}: {error}"
            ) from error


@contextlib.contextmanager
def _undone_on_error(model: nn.Module, is_needed: bool) -> Iterator[None]:
    """Give the model back the weights that it has now, if the block raises."""
    before = {name: value.detach().clone() for name, value in model.state_dict().items()} if is_needed else {}
    try:
        yield
    except BaseException:
        if is_needed:
            model.load_state_dict(before, strict=False)
        raise
