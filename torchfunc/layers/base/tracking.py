"""Tracking: modules and weights in plain lists, tuples and dicts that are attributes of a layer are its own.

    self.blocks = []
    self.blocks.append(Dense(3))  # its weights are `blocks.0.weight` and `blocks.0.bias`
    self.scales = {"up": nn.Parameter(torch.ones(3))}  # `scales.up`

The attribute is still a list, tuple or dict, and is a module as well: torch's tools reach what is in it by `getattr`.
While it contains modules or weights it is registered in the owner's `_modules`, else it is in the owner's `__dict__`.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn
from torch.utils._pytree import MappingKey, SequenceKey, register_pytree_node

from torchfunc.layers.base.weights import set_trainable

__all__ = ["TrackedDict", "TrackedList", "TrackedTuple", "restore_tracking", "track"]

# The builtins as bases, for isinstance and for C code that reads them. They come last in the order of bases, after
# collections.abc, which the type checker would reject.
_list: Any = list
_dict: Any = dict

# The leaves that are tracked: what torch registers when it is an attribute itself.
_WEIGHTS = (nn.Parameter, nn.Buffer)
_LEAVES = (nn.Module, *_WEIGHTS)
_PLAIN = frozenset({str, int, float, bool, type(None)})

# Collections that layers and torch.fx's graph modules use internally; they never contain submodules.
_LAYERS = {"_weights", "call_losses"}
_TORCH_FX = {"meta", "_tracer_extras", "_replace_hooks", "_create_node_hooks", "_erase_node_hooks", "_deepcopy_hooks"}
_INTERNAL = _LAYERS | _TORCH_FX


class _Tracked(nn.Module):
    """The base of tracked lists, tuples and dicts.

    The content is stored three times: in `_items`, for Python methods that torch.compile can trace; in `_modules`,
    `_parameters` and `_buffers`, which take precedence, since tools that replace what is there (quantization, adapters,
    functional calls) write there; and in the builtin base, for C code (which does not see additions by compiled code).
    Weights are registered once there is an owner, unless it has them already under another name.
    """

    _items: Any
    # The layer, or the collection around this one; None in a copy that belongs to no layer.
    _parent: weakref.ref[Any] | None = None
    _attribute: str | None = None

    def _entries(self) -> Iterable[tuple[Any, Any]]:
        raise NotImplementedError

    def _adopt(self, item: Any) -> Any:
        """The item, or the collection it is wrapped in, which reports its changes to this one."""
        item = _wrap(item)
        if isinstance(item, _Tracked):
            item._parent = weakref.ref(self)
        return item

    def _register(self, key: Any, item: Any) -> None:
        """Update the tables of registered modules and weights after a change of the item at `key`."""
        name = _parameter_key(key)
        if isinstance(item, _Tracked):
            item.register_weights()
        if isinstance(item, nn.Module) and not (isinstance(item, _Tracked) and item.is_empty()):
            self._modules[name] = item
        elif self._modules:
            self._modules.pop(name, None)
        self._parameters.pop(name, None)
        self._buffers.pop(name, None)
        if isinstance(item, _WEIGHTS):
            owner, path = self._owner()
            if owner is not None:
                self._register_weight(owner, [*path, name], item)

    def _register_weight(self, owner: Any, path: Sequence[str], weight: Tensor) -> None:
        # A weight that `add_weight` made is moved here; any other that the owner has stays where it is.
        moved = owner.rename_weight(".".join(path), weight)
        held = owner.parameters() if isinstance(weight, nn.Parameter) else owner.buffers()
        if moved or not any(weight is each for each in held):
            table: dict[str, Any] = self._parameters if isinstance(weight, nn.Parameter) else self._buffers
            table[path[-1]] = weight

    def register_weights(self) -> None:
        """Register the weights in this collection and those within it, now that there is an owner."""
        for key, item in list(self._entries()):
            if isinstance(item, (_Tracked, *_WEIGHTS)):
                self._register(key, item)

    def is_empty(self) -> bool:
        """Whether there are no modules and weights in it."""
        return not (self._modules or self._parameters or self._buffers)

    def _owner(self) -> tuple[Any, list[str]]:
        """The layer that holds this collection, None if there is none, and the path to the collection from there."""
        parent = self._parent() if self._parent is not None else None
        if not isinstance(parent, _Tracked):
            return (None, []) if parent is None or self._attribute is None else (parent, [self._attribute])
        owner, path = parent._owner()
        key = next((key for key, item in parent._entries() if item is self), None)
        return owner, [*path, _parameter_key(key)]

    def _read(self, key: Any, item: Any) -> Any:
        if self._modules:
            item = self._modules.get(_parameter_key(key), item)
        if self._parameters:
            item = self._parameters.get(_parameter_key(key), item)
        if self._buffers:
            item = self._buffers.get(_parameter_key(key), item)
        return item

    def _notify_parent(self) -> None:
        parent = self._parent() if self._parent is not None else None
        if isinstance(parent, _Tracked):
            for key, item in parent._entries():
                if item is self:
                    parent._register(key, item)
            parent._notify_parent()
        elif parent is not None and self._attribute is not None:
            _attach(parent, self._attribute, self)

    def __repr__(self) -> str:
        return super().__repr__() if self._modules else repr(self._items)


class _TrackedSequence(_Tracked, Sequence[Any]):
    """The read-only methods of lists and tuples."""

    def _entries(self) -> Iterable[tuple[Any, Any]]:
        return enumerate(self)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return iter([self._read(index, item) for index, item in enumerate(self._items)])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self._items)(self)[index]
        place = range(len(self._items))[index]
        return self._read(place, self._items[place])


class TrackedList(_TrackedSequence, MutableSequence[Any], _list):
    """A list that is an attribute of a layer, or inside of one. Copies and slices of it are plain lists."""

    __hash__ = nn.Module.__hash__

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__()
        self._set_items(items)

    def _set_items(self, items: Iterable[Any]) -> None:
        self._items = [self._adopt(item) for item in items]
        _list.clear(self)
        _list.extend(self, self._items)
        for table in (self._modules, self._parameters, self._buffers):
            table.clear()
        for index, item in enumerate(self._items):
            self._register(index, item)
        self._notify_parent()

    def append(self, item: Any) -> None:
        item = self._adopt(item)
        self._items.append(item)
        if not torch.compiler.is_compiling():
            _list.append(self, item)
        if isinstance(item, _LEAVES):
            self._register(len(self._items) - 1, item)
            self._notify_parent()

    def insert(self, index: SupportsIndex, item: Any) -> None:
        items = list(self)
        items.insert(index, item)
        self._set_items(items)

    def __setitem__(self, index: Any, item: Any) -> None:
        items = list(self)
        items[index] = item
        self._set_items(items)

    def __delitem__(self, index: Any) -> None:
        items = list(self)
        del items[index]
        self._set_items(items)

    def __imul__(self, times: SupportsIndex) -> TrackedList:
        self._set_items(list(self) * times)
        return self

    def clear(self) -> None:
        self._set_items([])

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        self._set_items(sorted(self, key=key, reverse=reverse))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return TrackedList, (list(self),)


class TrackedTuple(_TrackedSequence):
    """A tuple of modules as an attribute of a layer. It is read like a tuple, which no module can be."""

    def __init__(self, items: Iterable[Any]) -> None:
        super().__init__()
        self._items = tuple([self._adopt(item) for item in items])
        for index, item in enumerate(self._items):
            self._register(index, item)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return TrackedTuple, (list(self),)


class TrackedDict(_Tracked, MutableMapping[Any, Any], _dict):
    """A dict that is an attribute of a layer, or inside of one. Copies of it are plain dicts."""

    __hash__ = nn.Module.__hash__

    def __init__(self, items: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__()
        self._items = {}
        self.update(items)

    def _entries(self) -> Iterable[tuple[Any, Any]]:
        return self.items()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __getitem__(self, key: Any) -> Any:
        return self._read(key, self._items[key])

    def __setitem__(self, key: Any, item: Any) -> None:
        item = self._adopt(item)
        if isinstance(item, nn.Module) and key not in self._items and _parameter_key(key) in self._modules:
            raise ValueError(f"Two keys of a dict of layers are both written {_parameter_key(key)!r}; rename one.")
        self._items[key] = item
        if not torch.compiler.is_compiling():
            _dict.__setitem__(self, key, item)
        self._register(key, item)
        self._notify_parent()

    def __delitem__(self, key: Any) -> None:
        del self._items[key]
        _dict.__delitem__(self, key)
        self._register(key, None)
        self._notify_parent()

    def popitem(self) -> tuple[Any, Any]:
        key = next(reversed(self._items), None)
        return key, self.pop(key)

    def __ior__(self, other: Any) -> TrackedDict:
        self.update(other)
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return TrackedDict, (dict(self.items()),)


def track(owner: nn.Module, name: str, value: Any) -> bool:
    """Set an attribute that is, or may become, a collection of modules and weights.

    Lists and dicts are tracked if they are empty or contain modules or weights, directly or nested, and tuples if they
    contain some. Other values are left to the caller.

    Args:
        owner: the layer.
        name: the attribute.
        value: the assigned value.

    Returns:
        Whether the attribute was set; if not, the caller sets it like any other.

    Raises:
        AttributeError: the owner's `__init__` has not run yet.
        TypeError: a named tuple contains modules or weights.
    """
    if name == "__dict__":
        # So torch makes the copy of a layer with parametrizations.
        object.__setattr__(owner, name, value)
        restore_tracking(owner)
        return True
    modules = owner.__dict__.get("_modules")
    if isinstance(value, _Tracked) and value._attribute == name and value._parent and value._parent() is owner:
        return True
    if modules and isinstance(modules.get(name), _Tracked):
        del modules[name]
    # Under torch.compile lists are temporary.
    if not isinstance(value, (list, tuple, dict, _Tracked)) or name in _INTERNAL or torch.compiler.is_compiling():
        return False
    if not _may_contain_modules(value):
        return False
    if modules is None:
        raise AttributeError(
            f"{type(owner).__name__}.{name} can hold layers only after super().__init__(). Call that first."
        )
    content = _wrap(value)
    content._parent, content._attribute = weakref.ref(owner), name
    modules.pop(name, None)
    owner.__dict__[name] = content
    content.register_weights()
    _attach(owner, name, content)
    return True


def restore_tracking(owner: nn.Module) -> None:
    """Track the collections of a layer that was copied or unpickled: the copies have no owner yet."""
    order = list(owner._modules)
    for name, value in [*owner.__dict__.items(), *owner._modules.items()]:
        if isinstance(value, _Tracked):
            track(owner, name, value)
    # The order of submodules determines that of parameters, by which an optimizer's state is matched.
    for name in order:
        owner._modules[name] = owner._modules.pop(name)


def _may_contain_modules(value: Any) -> bool:
    """Whether `value` is a module or weight, or a collection that contains some, or an empty one that may be filled."""
    if type(value) in _PLAIN:
        # (To ask whether it is a `Parameter` or `Buffer` takes long.)
        return False
    if isinstance(value, _LEAVES):
        return True
    if type(value) in (list, dict, OrderedDict):
        items = value if isinstance(value, list) else value.values()
        return not items or any(map(_may_contain_modules, items))
    # A tuple cannot be filled: an empty collection in it does not count.
    return isinstance(value, tuple) and any(
        _may_contain_modules(item) and (isinstance(item, _LEAVES) or len(item) > 0) for item in value
    )


def _wrap(value: Any) -> Any:
    """A new tracked collection for one that may contain modules; anything else unchanged."""
    if isinstance(value, _Tracked):
        return value if value._parent is None else type(value)(value)
    if not isinstance(value, (list, tuple, dict)) or not _may_contain_modules(value):
        return value
    if hasattr(value, "_fields"):
        raise TypeError(f"A named tuple of layers or weights cannot be an attribute of a layer, a dict can: {value!r}.")
    if isinstance(value, tuple):
        return TrackedTuple(value)
    return TrackedList(value) if isinstance(value, list) else TrackedDict(value)


def _attach(owner: nn.Module, name: str, content: _Tracked) -> None:
    """Register an attribute among the owner's modules while it contains any."""
    if owner.__dict__.get(name) is not content and owner._modules.get(name) is not content:
        return
    if not content.is_empty():
        owner.__dict__.pop(name, None)
        owner._modules[name] = content
        if not owner.trainable:
            set_trainable(content, False)
    else:
        owner._modules.pop(name, None)
        owner.__dict__[name] = content


def _parameter_key(key: Any) -> str:
    """An index or key as it appears in the name of a parameter."""
    name = str(key).replace(".", "_")
    return f"{name}_" if hasattr(TrackedDict, name) else name


# Layers may return tracked collections; for torch's pytree they are like plain ones.
def _register_sequence(kind: type, plain: type) -> None:
    register_pytree_node(
        kind,
        lambda items: (list(items), None),
        lambda items, _: plain(items),
        flatten_with_keys_fn=lambda items: ([(SequenceKey(index), item) for index, item in enumerate(items)], None),
        serialized_type_name=f"torchfunc.{kind.__name__}",
    )


_register_sequence(TrackedList, list)
_register_sequence(TrackedTuple, tuple)
register_pytree_node(
    TrackedDict,
    lambda items: (list(items.values()), tuple(items)),
    lambda values, keys: dict(zip(keys, values, strict=True)),
    flatten_with_keys_fn=lambda items: ([(MappingKey(key), item) for key, item in items.items()], tuple(items)),
    serialized_type_name="torchfunc.TrackedDict",
)
