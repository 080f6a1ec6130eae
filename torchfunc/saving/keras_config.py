"""The config in a `.keras` file: what Keras has words for, and nothing else."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

from torchfunc.modules.functional_config import configs_for_keras
from torchfunc.saving.model_config import config_of_model

__all__ = ["keras_config"]

# What Keras knows nothing of: modules of classes, and classes.
_OURS = ("torch", "torchfunc")
_OUR_CLASSES = ("TorchFunction", "__weight__", "__dtype__", "__partial__")


def keras_config(model: Any, include_optimizer: bool) -> bytes:
    """The config of a model as Keras reads it, in JSON.

    Raises:
        ValueError: the model has a part that Keras does not; the message names it.
    """
    with configs_for_keras():
        config = config_of_model(model, include_optimizer)
    settings = dict(config.get("compile_config") or {})
    strange = list(dict.fromkeys(_strange(config)))
    if strange:
        listed = ", ".join(strange[:5]) + (" ..." if len(strange) > 5 else "")
        raise ValueError(
            f"The model {model.name!r} cannot be saved for Keras, which has no {listed}. "
            "End the name in '.torchfunc' to save it with all of its parts."
        )
    # (What is looked for while training is no part of a model.)
    settings.pop("check_nan", None)
    if settings.pop("precision", None) is not None:
        warnings.warn(
            "A .keras file has no place for `compile(precision=...)`, which is left out. A .torchfunc file keeps it.",
            stacklevel=2,
        )
    try:
        return json.dumps({**config, "compile_config": settings}).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"The config of the model {model.name!r} cannot be written as JSON: {error}.") from error


def _strange(config: Any) -> Iterator[str]:
    """What Keras would not understand, in words."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, (list, tuple)):
            pending.extend(reversed(value))
        elif isinstance(value, dict):
            kind, module = value.get("class_name"), str(value.get("module", "")).split(".")[0]
            if kind is not None and (module in _OURS or kind in _OUR_CLASSES) and not value.get("registered_name"):
                yield _in_words(value)
            elif kind == "function" and module in _OURS:
                yield f"function {value['config']}"
            else:
                pending.extend(reversed(list(value.values())))


def _in_words(value: dict[str, Any]) -> str:
    kind, config = value["class_name"], value.get("config")
    if kind == "TorchFunction":
        target = config["target"] if isinstance(config, dict) else config
        return f"function {target} ({value.get('name')!r})"
    if kind == "__weight__":
        return f"weight as an argument ({config['name']!r})" if isinstance(config, dict) else "weight as an argument"
    name = value.get("name") or (config.get("name") if isinstance(config, dict) else None)
    return f"{kind}" if name is None else f"{kind} {name!r}"
