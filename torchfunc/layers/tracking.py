"""Tracking: modules in plain lists, tuples and dicts that are attributes of a layer are its submodules.

    self.blocks = []
    self.blocks.append(Dense(3))  # its weights are `blocks.0.weight` and `blocks.0.bias`

The attribute stays a list or dict. Beside it, in the owner's `_modules`, stands a `Children` module that holds the
modules under their index or key; it is there while there are any.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex

from torch import nn
from torch.utils._pytree import MappingKey, SequenceKey, register_pytree_node

__all__ = ["Children", "TrackedDict", "TrackedList", "retrack", "track"]

# Lists that every layer has, and that never hold a submodule.
_INTERNAL = frozenset({"_weights", "_inbound_nodes", "_call_losses"})


class Children(nn.Module):
    """The modules in one list, tuple or dict, by index or key."""

    _content: weakref.ref[TrackedList | TrackedDict] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            self._replace(name, value)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        super().add_module(name, module)
        if module is not None:
            self._replace(name, module)

    def _replace(self, name: str, module: nn.Module) -> None:
        # Quantization, adapters and the like swap a module in the tree: the list must call the new one, too.
        content = self._content() if self._content is not None else None
        if content is not None:
            content._replace(name, module)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_content"}


class _Tracked:
    """What tracked lists and dicts share: each change is made, then seen here."""

    _children: Children
    # The layer, or the list or dict around this one; None in a copy that no layer holds.
    _parent: weakref.ref[Any] | None = None
    _attribute: str | None = None

    def _start(self) -> None:
        self._children = Children()
        self._children.__dict__["_content"] = weakref.ref(self)

    def _belongs_to(self, parent: Any, attribute: str | None) -> bool:
        return self._parent is not None and self._parent() is parent and self._attribute == attribute

    def _mirror(self, entries: Iterable[tuple[Any, Any]]) -> None:
        """Let the children be, or grow by, the modules of `entries`, and tell what is around."""
        modules = self._children._modules
        for key, value in entries:
            module = _module_of(value)
            if module is not None:
                name = _written(key)
                if name in modules:
                    raise ValueError(f"Two keys of a dict of layers are both written {name!r}; rename one.")
                modules[name] = module
        parent = self._parent() if self._parent is not None else None
        if isinstance(parent, _Tracked):
            parent._changed()
        elif parent is not None and self._attribute is not None:
            _attach(parent, self._attribute)

    def _changed(self) -> None:
        raise NotImplementedError


class TrackedList(_Tracked, list[Any]):
    """A list that is an attribute of a layer, or in one that is. Copies and slices of it are plain lists."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__(items)
        self._start()
        self._changed()

    def _changed(self, first: int = 0) -> None:
        """Mirror the items from place `first` on; the ones before are as they were."""
        if first == 0:
            self._children._modules.clear()
        for index in range(first, len(self)):
            super().__setitem__(index, _wrap(self[index], self))
        self._mirror((index, self[index]) for index in range(first, len(self)))

    def _replace(self, name: str, module: nn.Module) -> None:
        super().__setitem__(int(name), module)

    def append(self, item: Any) -> None:
        super().append(item)
        if _may_hold(item):
            self._changed(len(self) - 1)

    def extend(self, items: Iterable[Any]) -> None:
        first = len(self)
        super().extend(items)
        self._changed(first)

    def __iadd__(self, items: Iterable[Any]) -> TrackedList:  # type: ignore[misc]
        self.extend(items)
        return self

    def __imul__(self, times: SupportsIndex) -> TrackedList:
        super().__imul__(times)
        self._changed()
        return self

    def insert(self, index: SupportsIndex, item: Any) -> None:
        super().insert(index, item)
        self._changed()

    def pop(self, index: SupportsIndex = -1) -> Any:
        item = super().pop(index)
        self._changed()
        return item

    def remove(self, item: Any) -> None:
        super().remove(item)
        self._changed()

    def clear(self) -> None:
        super().clear()
        self._changed()

    def reverse(self) -> None:
        super().reverse()
        self._changed()

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        super().sort(key=key, reverse=reverse)
        self._changed()

    def __setitem__(self, index: Any, item: Any) -> None:
        super().__setitem__(index, item)
        self._changed()

    def __delitem__(self, index: Any) -> None:
        super().__delitem__(index)
        self._changed()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return TrackedList, (list(self),)


class TrackedDict(_Tracked, dict[Any, Any]):
    """A dict that is an attribute of a layer, or in one that is. Copies of it are plain dicts."""

    def __init__(self, items: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__(items)
        self._start()
        self._changed()

    def _changed(self) -> None:
        self._children._modules.clear()
        for key, value in list(self.items()):
            super().__setitem__(key, _wrap(value, self))
        self._mirror(self.items())

    def _replace(self, name: str, module: nn.Module) -> None:
        for key in self:
            if _written(key) == name:
                super().__setitem__(key, module)

    def __setitem__(self, key: Any, value: Any) -> None:
        matters = _may_hold(value) or _may_hold(self.get(key))
        super().__setitem__(key, value)
        if matters:
            self._changed()

    def update(self, *args: Any, **kwargs: Any) -> None:
        super().update(*args, **kwargs)
        self._changed()

    def __ior__(self, other: Any) -> TrackedDict:  # type: ignore[misc]
        self.update(other)
        return self

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(key)
        self._changed()

    def pop(self, key: Any, *default: Any) -> Any:
        value = super().pop(key, *default)
        self._changed()
        return value

    def popitem(self) -> tuple[Any, Any]:
        item = super().popitem()
        self._changed()
        return item

    def clear(self) -> None:
        super().clear()
        self._changed()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return TrackedDict, (dict(self),)


def track(owner: nn.Module, name: str, value: Any) -> bool:
    """Set an attribute that is, or may become, a collection of modules.

    Lists, tuples and dicts are taken that are empty or hold modules, directly or nested; others stay what they are.

    Args:
        owner: the layer.
        name: the attribute.
        value: what is assigned to it.

    Returns:
        Whether the attribute is set now; if not, it is to be set as any other.

    Raises:
        AttributeError: the owner's `__init__` has not run yet.
    """
    modules = owner.__dict__.get("_modules", {})
    if isinstance(modules.get(name), Children):
        del modules[name], owner.__dict__[name]
    if isinstance(value, nn.Module) or name in _INTERNAL or not _may_hold(value):
        return False
    if "_modules" not in owner.__dict__:
        raise AttributeError(
            f"{type(owner).__name__}.{name} can hold layers only after super().__init__(). Call that first."
        )
    content = _wrap(value, owner, name)
    owner.__dict__[name] = content
    _attach(owner, name)
    return True


def retrack(owner: nn.Module) -> None:
    """Track the collections of a layer that was copied or unpickled; it holds copies that know of no owner."""
    for name, value in list(owner.__dict__.items()):
        if isinstance(value, _Tracked) or isinstance(owner._modules.get(name), Children):
            track(owner, name, value)


def _may_hold(value: Any) -> bool:
    """Whether `value` is a module, or a collection that holds some or, being empty, may come to hold some."""
    if isinstance(value, (nn.Module, _Tracked)):
        return True
    if type(value) in (list, dict, OrderedDict):
        items = value if isinstance(value, list) else value.values()
        return not items or any(map(_may_hold, items))
    return isinstance(value, tuple) and any(map(_may_hold, value))


def _wrap(value: Any, parent: Any, attribute: str | None = None) -> Any:
    """`value` with its lists and dicts tracked, and `parent` (a layer's `attribute`, or a list) told of changes."""
    if isinstance(value, nn.Module) or not _may_hold(value):
        return value
    if isinstance(value, tuple):
        items = [_wrap(item, parent, attribute) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, _Tracked) and value._belongs_to(parent, attribute):
        return value
    tracked = TrackedList(value) if isinstance(value, list) else TrackedDict(value)
    tracked._parent, tracked._attribute = weakref.ref(parent), attribute
    return tracked


def _module_of(value: Any) -> nn.Module | None:
    """The module that stands for `value` in its parent's children, if it is one or holds any."""
    if isinstance(value, nn.Module):
        return value
    if isinstance(value, _Tracked):
        return value._children if value._children._modules else None
    if not isinstance(value, tuple):
        return None
    children = Children()
    for index, item in enumerate(value):
        module = _module_of(item)
        if module is not None:
            children._modules[str(index)] = module
    return children if children._modules else None


def _attach(owner: nn.Module, name: str) -> None:
    """Let the owner have the modules in its attribute as a submodule, while there are any."""
    if name not in owner.__dict__:
        return
    module = _module_of(owner.__dict__[name])
    if module is not None:
        owner._modules[name] = module
    else:
        owner._modules.pop(name, None)


def _written(key: Any) -> str:
    """A key as a part of a parameter's name."""
    return str(key).replace(".", "_")


# A layer may return such a list or dict; torch's trees then see through it as through a plain one.
register_pytree_node(
    TrackedList,
    lambda items: (list(items), None),
    lambda items, _: list(items),
    flatten_with_keys_fn=lambda items: ([(SequenceKey(index), item) for index, item in enumerate(items)], None),
    serialized_type_name="torchfunc.TrackedList",
)
register_pytree_node(
    TrackedDict,
    lambda items: (list(items.values()), tuple(items)),
    lambda values, keys: dict(zip(keys, values, strict=True)),
    flatten_with_keys_fn=lambda items: ([(MappingKey(key), item) for key, item in items.items()], tuple(items)),
    serialized_type_name="torchfunc.TrackedDict",
)
