"""Objects and their configs: the one place that knows which class a name in a config stands for.

A config is Keras 3's: `{"module": "keras.layers", "class_name": "Dense", "config": {...}, "registered_name": None}`.
Classes that Keras has are written under Keras' module name, so that either library reads the other's config.
No code is ever read from a config: a class comes from here, from `custom_objects`, or not at all.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FunctionType, MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from torchfunc.dtypes import as_dtype, dtype_name
from torchfunc.torch_functions import find_function, function_name, is_listed
from torchfunc.torch_module_config import find_torch_class, is_of_torch, make_module, module_arguments

__all__ = [
    "custom_object_scope",
    "deserialize_arguments",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "in_process_configs",
    "innermost_deserialized",
    "innermost_serialized",
    "register_builtins",
    "register_serializable",
    "serialize_keras_object",
    "to_snake_case",
]

T = TypeVar("T")

# The module under which those of torch.nn are written.
_TORCH_MODULES = "torch.nn"

_builtins: dict[tuple[str, str], Any] = {}
_builtin_places: dict[Any, tuple[str, str]] = {}
_registered: dict[str, Any] = {}
_registered_names: dict[Any, str] = {}
# In a block of `innermost_serialized` or `innermost_deserialized`: what is known, by the `id` of what it was made from.
_known_configs: contextvars.ContextVar[dict[int, Any] | None] = contextvars.ContextVar("known_configs", default=None)
_made_objects: contextvars.ContextVar[dict[int, Any] | None] = contextvars.ContextVar("made_objects", default=None)
# In a block of `in_process_configs`: what configs name that nobody registered.
_noted: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("noted", default=None)
_scope: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar(
    "custom_objects", default=MappingProxyType({})
)


@functools.lru_cache(maxsize=1024)
def to_snake_case(name: str) -> str:
    """Keras' spelling of a class name: `MaxPooling2D` -> `max_pooling2d`."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def register_builtins(module: str, members: Mapping[str, Any]) -> None:
    """Make the classes and functions of one of our modules known under `module` ("keras.layers" ...)."""
    for name, member in members.items():
        _builtins[module, name] = member
        # Written under its own name, not an alias; a class that Keras calls otherwise, under Keras' name.
        _builtin_places[member] = module, member.__name__ if member.__name__ in members else name


def register_serializable(package: str = "Custom", name: str | None = None) -> Callable[[T], T]:
    """Decorator: let a class or function of yours be found again when a config names it.

    Args:
        package: the namespace, so that two libraries may register one class name.
        name: the name within it; the class's own by default.

    >>> @saving.register_serializable(package="mine")
    ... def doubled(x):
    ...     return 2 * x
    >>> saving.get_registered_name(doubled)
    'mine>doubled'
    >>> layers.Dense(3, activation=doubled).get_config()["activation"]["registered_name"]
    'mine>doubled'
    """

    def decorate(member: T) -> T:
        registered_name = f"{package}>{name or member.__name__}"  # type: ignore[attr-defined]
        _registered[registered_name] = member
        _registered_names[member] = registered_name
        return member

    return decorate


def get_registered_name(obj: Any) -> str:
    """The name `obj` was registered under ("package>Name"), or its own name.

    >>> saving.get_registered_name(layers.Dense)
    'Dense'
    """
    return _registered_names.get(obj, obj.__name__)


def _name_to_write(obj: Any) -> str:
    name, noted = get_registered_name(obj), _noted.get()
    if noted is None or obj in _registered_names:
        return name
    name = f"{name}@{id(obj)}"
    noted[name] = obj
    return name


@contextlib.contextmanager
def in_process_configs() -> Iterator[None]:
    """Within this block, configs may name functions and classes that nobody registered, lambdas too."""
    noted: dict[str, Any] = {}
    tokens = _noted.set(noted), _scope.set(ChainMap(noted, dict(_scope.get())))
    try:
        yield
    finally:
        _noted.reset(tokens[0])
        _scope.reset(tokens[1])


def get_registered_object(name: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """What is registered as `name`, in `custom_objects` or an open scope first; None when there is nothing.

    >>> saving.get_registered_object("doubled", custom_objects={"doubled": torch.square}) is torch.square
    True
    """
    for source in (custom_objects or {}, _scope.get(), _registered):
        if name in source:
            return source[name]
    return None


def get_custom_objects() -> dict[str, Any]:
    """What `register_serializable` has registered, as a live dict that may also be written to.

    >>> doubled = saving.register_serializable(package="mine", name="doubled")(lambda x: 2 * x)
    >>> saving.get_custom_objects()["mine>doubled"] is doubled
    True
    """
    return _registered


@contextlib.contextmanager
def custom_object_scope(custom_objects: Mapping[str, Any] | None) -> Iterator[None]:
    """Within this block, configs may name the classes and functions in `custom_objects`.

    >>> with saving.custom_object_scope({"doubled": lambda x: 2 * x}):
    ...     activations.get("doubled")(torch.tensor(3.0))
    tensor(6.)
    """
    token = _scope.set({**_scope.get(), **(custom_objects or {})})
    try:
        yield
    finally:
        _scope.reset(token)


@contextlib.contextmanager
def innermost_serialized(objects: Iterable[Any]) -> Iterator[None]:
    """Within this block the configs of these objects are known, each made where those it contains were known before.

    Within another such block nothing happens.

    Args:
        objects: each behind those that are within it. They are looked for only where they are needed.
    """
    if _known_configs.get() is not None:
        yield
        return
    known: dict[int, Any] = {}
    token = _known_configs.set(known)
    try:
        for each in objects:
            known[id(each)] = config = serialize_keras_object(each)
            # Nor is there anything left to serialize in it.
            known[id(config["config"])] = config["config"]
        yield
    finally:
        _known_configs.reset(token)


@contextlib.contextmanager
def innermost_deserialized(configs: Iterable[Any]) -> Iterator[None]:
    """Within this block the objects that these configs describe are made already; see `innermost_serialized`."""
    if _made_objects.get() is not None:
        yield
        return
    made: dict[int, Any] = {}
    token = _made_objects.set(made)
    try:
        for config in configs:
            made[id(config)] = _deserialize(config)
        yield
    finally:
        _made_objects.reset(token)


def serialize_keras_object(obj: Any) -> Any:
    """Turn a value into what JSON can hold: plain values as they are, objects as their config.

    Raises:
        ValueError: the object has no config; the message names it.

    >>> saving.serialize_keras_object(layers.Dense(3))["class_name"]
    'Dense'
    """
    if obj is None or isinstance(obj, (str, bool, int, float)):
        return obj
    known = _known_configs.get()
    if known and id(obj) in known:
        return known[id(obj)]
    if isinstance(obj, (list, tuple)):
        return map_items(serialize_keras_object, obj)
    if isinstance(obj, dict):
        return {key: serialize_keras_object(value) for key, value in obj.items()}
    if isinstance(obj, torch.dtype):
        return dtype_name(obj)
    if isinstance(obj, np.generic):
        return obj.item()
    if isinstance(obj, torch.Tensor):
        return {"class_name": "__tensor__", "config": {"value": obj.tolist(), "dtype": dtype_name(obj.dtype)}}
    if isinstance(obj, np.ndarray):
        return {"class_name": "__numpy__", "config": {"value": obj.tolist(), "dtype": obj.dtype.name}}
    if hasattr(obj, "get_config") and not isinstance(obj, type):
        return _serialize_instance(obj)
    if isinstance(obj, nn.Module):
        return _serialize_module(obj)
    if isinstance(obj, functools.partial):
        parts = {"function": obj.func, "args": list(obj.args), "keywords": dict(obj.keywords)}
        return {"class_name": "__partial__", "config": serialize_keras_object(parts)}
    if callable(obj) and hasattr(obj, "__name__"):
        return _serialize_function(obj)
    raise ValueError(
        f"{obj!r} ({type(obj).__name__}) cannot be written to a config. Give its class a `get_config()` method."
    )


def _serialize_instance(obj: Any) -> dict[str, Any]:
    cls = getattr(obj, "class_in_config", type(obj))
    module, name = _builtin_places.get(cls, (cls.__module__, cls.__name__))
    config = {
        "module": module,
        "class_name": name,
        "config": serialize_keras_object(obj.get_config()),
        # As Keras has it for classes that are not public.
        "registered_name": _name_to_write(cls) if cls not in _builtin_places or "src" in module else None,
    }
    if hasattr(obj, "get_build_config"):
        build_config = obj.get_build_config()
        if build_config is not None:
            config["build_config"] = serialize_keras_object(build_config)
    return config


def _serialize_module(module: nn.Module) -> dict[str, Any]:
    """A torch module that has no `get_config`, by the arguments that it was made with."""
    cls, arguments = type(module), module_arguments(module)
    of_torch = is_of_torch(cls)
    return {
        "module": _TORCH_MODULES if of_torch else cls.__module__,
        "class_name": cls.__name__,
        "config": {name: _serialize_argument(value) for name, value in arguments.items()},
        "registered_name": None if of_torch else _name_to_write(cls),
    }


def _serialize_argument(value: Any) -> Any:
    """An argument of a torch module, which may tell a tuple from a list and a dtype from a name."""
    if isinstance(value, torch.dtype):
        return {"class_name": "__dtype__", "config": dtype_name(value)}
    if isinstance(value, tuple):
        return {"class_name": "__tuple__", "items": [_serialize_argument(item) for item in value]}
    return serialize_keras_object(value)


def _serialize_function(function: Any) -> dict[str, Any]:
    if function.__name__ == "<lambda>" and _noted.get() is None:
        raise ValueError(
            f"A lambda cannot be written to a config, since no code is kept in one: {function!r}. "
            "Define it with `def` and pass it in `custom_objects`, or register it with `register_serializable`."
        )
    if function not in _registered_names and is_listed(function):
        name = function_name(function)
        return {"module": "torch", "class_name": "function", "config": name, "registered_name": name}
    builtin = function in _builtin_places
    return {
        "module": "builtins" if builtin else function.__module__,
        "class_name": "function",
        "config": get_registered_name(function),
        "registered_name": "function" if builtin else _name_to_write(function),
    }


def serialize_named_tuple(value: Any) -> dict[str, Any]:
    """A named tuple for JSON, which would make a list of it: its class by name, and its items as they are."""
    name = get_registered_name(type(value))
    return {"class_name": "__named_tuple__", "config": list(value), "registered_name": name}


def make_named_tuple(config: Mapping[str, Any], items: Sequence[Any]) -> Any:
    """The named tuple of these items, of the class that a config names.

    Raises:
        ValueError: the class is not known, or has another number of fields.
    """
    name = config.get("registered_name")
    cls = get_registered_object(name) if isinstance(name, str) else None
    if not (isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")):
        raise ValueError(
            f"The config names the named tuple {name!r}, which is not known. Pass custom_objects={{{name!r}: ...}}, or "
            "register the class with `register_serializable`."
        )
    if len(cls._fields) != len(items):
        raise ValueError(f"The named tuple {name!r} has {len(cls._fields)} fields, but the config holds {len(items)}.")
    return cls(*items)


def map_items(function: Callable[[Any], Any], items: Any) -> Any:
    """The results for the items of a list, tuple or named tuple, in another one of its class."""
    found = [function(item) for item in items]
    if isinstance(items, list):
        return found
    return type(items)(*found) if hasattr(items, "_fields") else tuple(found)


def deserialize_keras_object(
    config: Any, custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True
) -> Any:
    """Rebuild what `serialize_keras_object` (ours or Keras') wrote.

    Args:
        config: the config, or a plain value, or a list or dict of them.
        custom_objects: classes and functions that the config may name, by name.
        safe_mode: accepted for Keras' sake; nothing unsafe is ever loaded, whatever it says.

    Raises:
        ValueError: the config names a class or function that is not known.

    >>> config = saving.serialize_keras_object(layers.Dense(3))
    >>> saving.deserialize_keras_object(config).units
    3
    """
    with custom_object_scope(custom_objects):
        return _deserialize(config)


def deserialize_arguments(config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The arguments of a class without its own `from_config`: from a file, they may hold the configs of objects."""
    with custom_object_scope(custom_objects):
        # A dtype's config is for the class to read.
        return {key: value if key == "dtype" else _deserialize(value) for key, value in config.items()}


def _deserialize(config: Any) -> Any:
    if isinstance(config, (list, tuple)):
        return map_items(_deserialize, config)
    if not isinstance(config, dict):
        return config
    made = _made_objects.get()
    if made and id(config) in made:
        return made.pop(id(config))
    class_name = config.get("class_name")
    if class_name == "__tuple__":
        return tuple(_deserialize(item) for item in config["items"])
    if class_name is None or "config" not in config:
        return {key: _deserialize(value) for key, value in config.items()}
    inner: Any = {} if config["config"] is None else config["config"]
    if class_name == "__numpy__":
        return np.array(inner["value"], dtype=_plain_dtype(inner["dtype"]))
    if class_name == "__tensor__":
        return torch.tensor(inner["value"], dtype=as_dtype(inner["dtype"]))
    if class_name == "__lambda__":
        raise ValueError(
            "This config holds the bytecode of a lambda, which is never loaded. "
            "Rebuild the layer with a named function."
        )
    if class_name == "__named_tuple__":
        return make_named_tuple(config, [_deserialize(item) for item in inner])
    if class_name == "__dtype__":
        return as_dtype(inner)
    if class_name == "__partial__":
        parts = {key: _deserialize(value) for key, value in inner.items()}
        return functools.partial(parts["function"], *parts["args"], **parts["keywords"])
    if class_name == "function":
        return find_function(inner) if config.get("module") == "torch" else _resolve(inner, config)
    if config.get("module") == _TORCH_MODULES:
        return make_module(find_torch_class(class_name), {key: _deserialize(value) for key, value in inner.items()})
    cls = _resolve(class_name, config)
    if isinstance(cls, FunctionType):
        return cls
    if hasattr(cls, "from_config"):
        instance = cls.from_config(inner)
    elif issubclass(cls, nn.Module):
        instance = make_module(cls, {key: _deserialize(value) for key, value in inner.items()})
    else:
        instance = cls(**inner)
    build_config = config.get("build_config")
    if build_config is not None and hasattr(instance, "build_from_config"):
        instance.build_from_config(build_config)
    return instance


def _plain_dtype(name: Any) -> np.dtype[Any]:
    """A dtype of NumPy by name, unless its items are objects, or of a size that the name says."""
    try:
        # (Keras writes "str96" for texts of 3 letters.)
        dtype = np.dtype("str" if str(name).startswith("str") else name)
    except TypeError:
        dtype = None
    if not isinstance(name, str) or dtype is None or dtype.hasobject or dtype.itemsize > 16:
        raise ValueError(f"The config holds an array of the dtype {name!r}, which is not one of numbers or texts.")
    return dtype


def _resolve(name: str, config: Mapping[str, Any]) -> Any:
    """The class or function a config means: what the user registered first, then ours."""
    for candidate in (config.get("registered_name"), name):
        found = get_registered_object(candidate) if candidate else None
        if found is not None:
            return found
    # Keras writes None for the main script, whose class is the user's, whatever its name.
    module = config.get("module", "builtins") or "__main__"
    if (module, name) in _builtins:
        return _builtins[module, name]
    wants_class = config.get("class_name") != "function"
    for (known_module, known_name), member in _builtins.items():
        family = known_module.removeprefix("keras.")
        private_modules = (f"keras.src.{family}", f"keras.src.backend.torch.{family}")
        by_name_alone = module == "builtins" and isinstance(member, type) == wants_class
        if known_name == name and (by_name_alone or module.startswith(private_modules)):
            return member
    raise ValueError(
        f"The config names {name!r} (module {module!r}), which is not known. "
        f"Pass custom_objects={{{name!r}: ...}}, or register the class with `register_serializable`."
    )
