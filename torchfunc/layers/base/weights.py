"""Weights of a layer: torch's parameters and buffers, with what Keras records of them.

A parameter has torch's name and layout. Keras' layout is used by initializers, regularizers, constraints and
`get_weights`/`set_weights` only; a `Layout` converts one to the other.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchfunc import constraints, initializers, regularizers
from torchfunc.assignable import assignable_view, set_place
from torchfunc.config import floatx, mixed_dtype
from torchfunc.dtypes import DTypeLike, as_dtype
from torchfunc.graph import modules_within
from torchfunc.graph.torch_internals import persistent_buffers
from torchfunc.layers.base.argument_types import ConstraintLike, InitializerLike, RegularizerLike
from torchfunc.readable_arrays import readable
from torchfunc.shards import fill, whole
from torchfunc.unfilled_weights import weight_budget

__all__ = [
    "CONVOLUTION",
    "LINEAR",
    "SAME_LAYOUT",
    "Layout",
    "Weight",
    "WeightHolder",
    "own_weights",
    "set_trainable",
]


@dataclass(frozen=True)
class Layout:
    """How one Keras weight is stored in torch's parameters.

    Attributes:
        to_torch: Keras' tensor -> the torch tensors that store it, one for each name.
        to_keras: the torch tensors -> Keras' tensor.
    """

    to_torch: Callable[[Tensor], tuple[Tensor, ...]]
    to_keras: Callable[..., Tensor]


def _identity(tensor: Tensor) -> Tensor:
    return tensor


def _one(tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor,)


def _transpose(tensor: Tensor) -> Tensor:
    return tensor.t()


def _transpose_one(tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor.t().contiguous(),)


def _kernel_to_torch(tensor: Tensor) -> tuple[Tensor, ...]:
    spatial = range(tensor.ndim - 2)
    return (tensor.permute(tensor.ndim - 1, tensor.ndim - 2, *spatial).contiguous(),)


def _kernel_to_keras(tensor: Tensor) -> Tensor:
    return tensor.permute(*range(2, tensor.ndim), 1, 0)


# Functions with names, not lambdas: layers are pickled with their layouts.
SAME_LAYOUT = Layout(_one, _identity)
# Keras (inputs, units) <-> torch (units, inputs).
LINEAR = Layout(_transpose_one, _transpose)
# Keras (*kernel, a, b) <-> torch (b, a, *kernel): convolutions and transposed convolutions alike.
CONVOLUTION = Layout(_kernel_to_torch, _kernel_to_keras)


@dataclass
class Weight:
    """One weight as Keras counts them.

    Attributes:
        names: the parameters or buffers of the layer that store it.
        layout: how it is stored in them.
        trainable: whether it is meant to be trained (a buffer is not), apart from the layer's `trainable`.
        regularizer, constraint: as given to `add_weight`, on Keras' layout.
        keras_name: the attribute by which Keras' layer has it, and ours shows it in Keras' layout; "" for none.
    """

    names: tuple[str, ...]
    layout: Layout = SAME_LAYOUT
    trainable: bool = True
    regularizer: Callable[[Tensor], Tensor] | None = None
    constraint: Callable[[Tensor], Tensor] | None = None
    keras_name: str = ""

    def tensors(self, owner: nn.Module) -> list[Tensor]:
        return [operator.attrgetter(name)(owner) for name in self.names]

    def get(self, owner: nn.Module) -> Tensor:
        """The weight in Keras' layout; gradients pass through."""
        return self.layout.to_keras(*self.tensors(owner))

    def get_whole(self, owner: nn.Module) -> Tensor:
        """The weight in Keras' layout without gradients; of a sharded one all, for which all processes call this."""
        # (torch 2.11 mistakes the axes of what is sharded in two ways when it is transposed.)
        return self.layout.to_keras(*(whole(tensor.detach()) for tensor in self.tensors(owner)))

    def set(self, owner: nn.Module, value: Tensor) -> None:
        """Copy Keras' value into the torch tensors that store it."""
        with torch.no_grad():
            for tensor, part in zip(self.tensors(owner), self.layout.to_torch(value), strict=True):
                fill(tensor, part)

    def is_stored(self, owner: nn.Module) -> bool:
        """Whether the owner has it as it is; pruning and parametrizations compute it from other parameters."""
        # (One with a dot is in a list or dict of weights.)
        return all(name in owner._parameters or name in owner._buffers or "." in name for name in self.names)

    def apply_constraint(self, owner: nn.Module) -> None:
        """Project the weight back to where its constraint allows it."""
        assert self.constraint is not None
        with torch.no_grad():
            self.set(owner, self.constraint(self.get(owner)))


class WeightHolder(nn.Module):
    """A module with the weights as Keras counts them: order, layout, trainability, penalties and constraints."""

    name: str
    _weights: list[Weight]
    _trainable: bool
    _dtype: torch.dtype
    _mixed: str | None

    def add_weight(
        self,
        shape: Sequence[int] | None = None,
        initializer: InitializerLike = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: RegularizerLike = None,
        constraint: ConstraintLike = None,
        aggregation: str = "none",
        name: str | None = None,
        *,
        layout: Layout = SAME_LAYOUT,
        names: Sequence[str] = (),
        keras_name: str = "",
    ) -> Any:
        """Make a weight and register it: a parameter if it is trainable, else a persistent buffer.

        The weight is called after the attribute it is assigned to (`self.scale = self.add_weight(...)`), or `name`.

        Args:
            shape: the sizes in Keras' layout; () by default.
            initializer: name, config or callable `(shape, dtype) -> tensor`; Glorot uniform for floats by default.
            dtype: the layer's by default.
            trainable: whether an optimizer may change it.
            autocast, aggregation: accepted for compatibility with Keras, without effect.
            regularizer, constraint: name, config or callable.
            name: what to call it if it is not assigned to an attribute.
            layout, names, keras_name: for built-in layers: how torch stores it, under which names; Keras' attribute.

        Returns:
            The `nn.Parameter` or buffer (a tuple of them where the layout splits it).

        >>> layer = layers.Layer()
        >>> layer.scale = layer.add_weight(shape=(3,), initializer="ones", name="scale")
        >>> layer.count_params()
        3
        """
        shape = tuple(int(size) for size in (shape if shape is not None else ()))
        weight_dtype = self._dtype if dtype is None else as_dtype(dtype)
        make = initializers.get(initializer or ("glorot_uniform" if weight_dtype.is_floating_point else "zeros"))
        budget = weight_budget()
        with torch.no_grad():
            if budget is not None and budget.has_large(shape):
                parts = layout.to_torch(torch.empty(shape, dtype=weight_dtype, device="meta"))
                tensors = tuple(torch.empty(part.shape, dtype=part.dtype) for part in parts)
            else:
                tensors = layout.to_torch(make(shape, dtype=weight_dtype))
        provisional = not names
        names = tuple(names) or (self._free_name(name or "weight"),)
        registered: list[Tensor] = []
        for each, tensor in zip(names, tensors, strict=True):
            if trainable and tensor.is_floating_point():
                parameter = nn.Parameter(tensor, requires_grad=self._trainable)
                if not self._is_taken(each):
                    # Torch asks whether there is such an attribute: with an entry it need not look in vain.
                    self._parameters[each] = None
                self.register_parameter(each, parameter)
                registered.append(parameter)
            else:
                # (A buffer that is assigned to a list is found by its mark.)
                registered.append(nn.Buffer(tensor))
                self.register_buffer(each, registered[-1])
        penalty = None if regularizer is None else regularizers.get(regularizer)
        projection = None if constraint is None else constraints.get(constraint)
        weight = Weight(names, layout, trainable, penalty, projection, keras_name)
        self._weights.append(weight)
        for each, tensor in zip(names, registered, strict=True):
            set_place(tensor, self, keras_name or each)
        if provisional:
            self.__dict__.setdefault("_provisional", {})[id(registered[0])] = weight
        return registered[0] if len(registered) == 1 else tuple(registered)

    def add_variable(
        self,
        shape: Sequence[int] | None = None,
        initializer: InitializerLike = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: RegularizerLike = None,
        constraint: ConstraintLike = None,
        name: str | None = None,
    ) -> Any:
        """`add_weight`, by its other name."""
        return self.add_weight(shape, initializer, dtype, trainable, autocast, regularizer, constraint, name=name)

    def _free_name(self, name: str) -> str:
        taken = {**self._parameters, **self._buffers, **self._modules}
        name, count = name.replace(".", "_"), 1
        base = name
        while name in taken or hasattr(type(self), name):
            name, count = f"{base}_{count}", count + 1
        return name

    def _is_taken(self, name: str) -> bool:
        """Whether a weight cannot be called so, as there is something else of that name."""
        there = name in self.__dict__ or name in self._parameters or name in self._buffers or name in self._modules
        return there or hasattr(type(self), name)

    def rename_weight(self, path: str, value: Tensor) -> bool:
        """Give a weight that `add_weight` has just made the name of the attribute it is assigned to.

        Args:
            path: the attribute; `scales.0` in a list, in which the weight then is registered in place of here.
            value: what `add_weight` returned.

        Returns:
            Whether it was such a weight.
        """
        weight = self.__dict__.get("_provisional", {}).pop(id(value), None)
        if weight is None:
            return False
        for holder in (self._parameters, self._buffers):
            tensor = holder.pop(weight.names[0], None)
            if tensor is not None and "." not in path:
                holder[path] = tensor  # type: ignore[assignment]
        weight.names = (path,)
        set_place(value, self, path)
        return True

    def place_weights(self) -> None:
        """Tell the weights of a copy of the layer, or of one that has moved, their place again."""
        for weight in self._weights:
            for name, tensor in zip(weight.names, weight.tensors(self), strict=True):
                if tensor is not None:
                    set_place(tensor, self, weight.keras_name or name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        moved = super()._apply(fn, recurse)
        # Torch moves buffers to new tensors.
        self.place_weights()
        return moved

    def _write_weight(self, weight: Weight, value: Tensor) -> None:
        if not weight.is_stored(self):
            raise ValueError(
                f"{weight.keras_name!r} of layer {self.name!r} is computed from other parameters, by a parametrization "
                "or pruning, so it cannot be assigned. Remove that first, or write to the parameters it is made of."
            )
        weight.set(self, value)

    def keras_weight(self, name: str) -> Tensor | None:
        """The weight that Keras' layer has under this name, in Keras' layout, as far as it can be a view of torch's."""
        for weight in self.__dict__.get("_weights", ()):
            if weight.keras_name == name:
                return assignable_view(weight.get(self), functools.partial(self._write_weight, weight), self, name)
        return None

    def weight_entries(self, computed: bool = False) -> Iterator[tuple[nn.Module, Weight]]:
        """Every weight of this module and its submodules, each once, in Keras' order; with the module that it is of.

        Args:
            computed: whether weights that torch computes from others are among them.
        """
        seen: set[int] = set()
        for module in modules_within(self):
            for weight in own_weights(module, computed):
                tensors = weight.tensors(module)
                if tensors[0] is not None and id(tensors[0]) not in seen:
                    seen.add(id(tensors[0]))
                    yield module, weight

    @property
    def weights(self) -> list[Tensor]:
        """All parameters and buffers, in Keras' order and torch's layout."""
        return [tensor for owner, weight in self.weight_entries() for tensor in weight.tensors(owner)]

    @property
    def trainable_weights(self) -> list[Tensor]:
        """The parameters that training changes."""
        return [tensor for tensor in self.weights if tensor.requires_grad]

    @property
    def non_trainable_weights(self) -> list[Tensor]:
        """The buffers, and the parameters that are frozen."""
        return [tensor for tensor in self.weights if not tensor.requires_grad]

    variables = weights
    trainable_variables = trainable_weights
    non_trainable_variables = non_trainable_weights

    def count_params(self) -> int:
        """How many numbers the weights hold.

        >>> layer = layers.Dense(3)
        >>> layer.build((None, 5))
        >>> layer.count_params()  # 5 * 3 + 3
        18
        """
        return sum(tensor.numel() for tensor in self.weights)

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the weights in Keras' order and layout.

        >>> layer = layers.Dense(3)
        >>> layer.build((None, 5))
        >>> [array.shape for array in layer.get_weights()]  # the kernel as Keras has it, (in, out)
        [(5, 3), (3,)]
        """
        values = (weight.get_whole(owner) for owner, weight in self.weight_entries())
        return [value.cpu().numpy().copy() for value in values]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set all weights from arrays in Keras' order and layout. Nothing is changed if anything does not fit.

        Raises:
            ValueError: the number of arrays, or a shape, is wrong.

        >>> layer = layers.Dense(1)
        >>> layer.build((None, 2))
        >>> layer.set_weights([np.array([[3.0], [4.0]]), np.array([0.5])])
        >>> layer(torch.tensor([[1.0, 10.0]])).tolist()
        [[43.5]]
        """
        entries = list(self.weight_entries())
        name = getattr(self, "name", type(self).__name__)
        if len(entries) != len(weights):
            raise ValueError(f"{name!r} has {len(entries)} weights, but set_weights() got {len(weights)} arrays.")
        values = [torch.as_tensor(readable(np.asarray(value))) for value in weights]
        for index, ((owner, weight), value) in enumerate(zip(entries, values, strict=True)):
            expected = tuple(weight.get(owner).shape)
            if expected != tuple(value.shape):
                raise ValueError(
                    f"Weight {index} of {name!r} ({', '.join(weight.names)}) has shape {expected} in Keras' layout, "
                    f"but set_weights() got {tuple(value.shape)}."
                )
        for (owner, weight), value in zip(entries, values, strict=True):
            weight.set(owner, value)

    @property
    def trainable(self) -> bool:
        """Whether training may change the weights; set it on a layer or model to freeze all that is in it."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        set_trainable(self, bool(value))

    def _known_weights(self) -> list[Weight]:
        """What `add_weight` has made, of this module and those in it: no other weight is regularized or constrained."""
        return [w for module in modules_within(self) if isinstance(module, WeightHolder) for w in module._weights]

    def weight_penalties(self) -> list[Callable[[], Tensor]]:
        """One function for each regularized weight that trains, that returns its current penalty."""
        if not [weight for weight in self._known_weights() if weight.regularizer is not None]:
            return []
        return [
            lambda owner=owner, weight=weight: weight.regularizer(weight.get(owner))  # type: ignore[misc]
            for owner, weight in self.weight_entries(computed=True)
            if weight.regularizer is not None and weight.tensors(owner)[0].requires_grad
        ]

    def weight_constraints(self) -> list[Callable[[], None]]:
        """One function for each constrained weight, to be called after every update."""
        if not [weight for weight in self._known_weights() if weight.constraint is not None]:
            return []
        return [
            lambda owner=owner, weight=weight: weight.apply_constraint(owner)  # type: ignore[misc]
            for owner, weight in self.weight_entries()
            if weight.constraint is not None
        ]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype new weights get: the one given, else `config.floatx()` at construction."""
        return self._dtype

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype of the layer's computations: that of its weights, or the policy's in which it was made.

        A layer with a `dtype` of its own is made in no policy.
        """
        return self._dtype if self._mixed is None else as_dtype(self._mixed)

    @property
    def variable_dtype(self) -> torch.dtype:
        """The dtype of the layer's weights, as `dtype`."""
        return self._dtype

    def _init_weights(self, trainable: bool, dtype: DTypeLike | None) -> None:
        weight_dtype = as_dtype(dtype if dtype is not None else floatx())
        mixed = mixed_dtype() if dtype is None else None
        self.__dict__.update(_weights=[], _trainable=bool(trainable), _dtype=weight_dtype, _mixed=mixed)


def set_trainable(module: nn.Module, value: bool) -> None:
    """Let training change the weights of a module and of all that is in it, or freeze them."""
    for each in modules_within(module):
        if isinstance(each, WeightHolder):
            each._trainable = value
        for parameter in each._parameters.values():
            if parameter is not None:
                parameter.requires_grad_(value)


def own_weights(module: nn.Module, computed: bool = False) -> list[Weight]:
    """The weights of this very module, those that are None too, in the order in which Keras keeps them in files.

    Args:
        module: the module.
        computed: whether weights that torch computes from others are among them.
    """
    known = module._weights if isinstance(module, WeightHolder) else []
    known = known if computed else [weight for weight in known if weight.is_stored(module)]
    covered = {name for weight in known for name in weight.names}
    # (By `items()`: of a ScriptModule this is not quite a dict.)
    plain = [Weight((name,)) for name, _ in module._parameters.items() if name not in covered]
    plain += [Weight((name,), trainable=False) for name in persistent_buffers(module) if name not in covered]
    return sorted([*known, *plain], key=lambda weight: not weight.trainable)
