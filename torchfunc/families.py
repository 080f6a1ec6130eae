"""Families of objects that are given by name, config or instance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchfunc.errors import did_you_mean
from torchfunc.registry import (
    custom_object_scope,
    deserialize_keras_object,
    get_registered_object,
    register_builtins,
    serialize_keras_object,
    to_snake_case,
)

__all__ = ["Family"]


# So many names are listed where none is spelt like the one that was asked for.
_FEW = 12


class Family:
    """One family of objects that can be given by name, config or instance (losses, initializers ...).

    Args:
        kind: what one member is called in messages ("loss").
        module: the module Keras keeps them in ("keras.losses").
        members: the classes and functions, by their own names; classes are also known in snake case.
        aliases: further names.
    """

    def __init__(
        self, kind: str, module: str, members: Mapping[str, Any], aliases: Mapping[str, Any] | None = None
    ) -> None:
        self.kind = kind
        self.module = module
        self._names = {to_snake_case(name): member for name, member in members.items() if isinstance(member, type)}
        self._names.update(members)
        self._names.update(aliases or {})
        register_builtins(module, self._names)

    def get(self, identifier: Any) -> Any:
        """None as it is; a name or config as a new object; a class as an instance of it; any callable as it is."""
        if identifier is None:
            return None
        if isinstance(identifier, str):
            member = self._lookup(identifier)
            return member() if isinstance(member, type) else member
        if isinstance(identifier, dict):
            return self.deserialize(identifier)
        if isinstance(identifier, type):
            return identifier()
        if callable(identifier):
            return identifier
        raise ValueError(f"{identifier!r} is no {self.kind}. Give a name, a config, a callable or None.")

    def serialize(self, obj: Any) -> Any:
        """The config of a member; a built-in function is written as its name."""
        if obj is None or isinstance(obj, str):
            return obj
        name = getattr(obj, "__name__", None)
        if name is not None and self._names.get(name) is obj:
            return name
        return serialize_keras_object(obj)

    def deserialize(self, config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The member that a config or a name describes."""
        with custom_object_scope(custom_objects):
            if not isinstance(config, dict):
                return self.get(config)
            if "class_name" not in config:
                raise ValueError(f"{config!r} is no config of any {self.kind}, since it has no 'class_name'.")
            config = {"config": None, **config}
            name = config["config"] if config["class_name"] == "function" else config["class_name"]
            # Other families may have the same name: an "Identity" is a layer, too.
            if config.get("module", "builtins") == "builtins" and name in self._names:
                config["module"] = self.module
            return deserialize_keras_object(config)

    def _lookup(self, name: str) -> Any:
        custom = get_registered_object(name)
        if custom is not None:
            return custom
        if name in self._names:
            return self._names[name]
        hint = did_you_mean(name, self._names)
        if not hint and len(self._names) <= _FEW:
            hint = f" There are: {', '.join(self._names)}."
        raise ValueError(f"There is no {self.kind} called {name!r}.{hint}")
