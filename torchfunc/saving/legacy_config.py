"""Configs as Keras wrote them before its own file format, in the form of today."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torchfunc import layers
from torchfunc.modules.function_names import OPERATIONS_MODULE, is_keras_operation

__all__ = ["modern_config", "modern_settings"]

# Arguments of old that change nothing, with the value that they have then.
_OBSOLETE: dict[str, Any] = {"time_major": False, "ragged": False, "sparse": False}
_RENAMED = {
    "Model": "Functional",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "GroupedQueryAttention": "GroupQueryAttention",
}
_OF_MODELS = {"Functional": "keras.src.models.functional", "Sequential": "keras"}
_CONSTANT = "_CONSTANT_VALUE"


def modern_config(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a layer or model: `{"class_name", "config"}` and, in a drawn model, `name` and `inbound_nodes`."""
    class_name = _RENAMED.get(entry["class_name"], entry["class_name"])
    inner = entry["config"]
    config: dict[str, Any] = {"layers": inner} if isinstance(inner, list) else dict(inner)
    if class_name == "InputLayer" and "batch_input_shape" in config:
        config["batch_shape"] = config.pop("batch_input_shape")
    axis = config.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]
    config = {key: value for key, value in config.items() if not (key in _OBSOLETE and value == _OBSOLETE[key])}
    if class_name == "Lambda" and isinstance(config.get("function"), list):
        config["function"] = {"class_name": "__lambda__", "config": {}}
    if class_name == "Functional":
        config = _modern_graph(config)
    else:
        config = {key: _modern_part(value) for key, value in config.items()}
    modern = {**entry, "class_name": class_name, "config": config}
    if "module" not in entry:
        # (Add and others are layers too, which say whether they train.)
        is_operation = is_keras_operation(class_name) and "trainable" not in config
        modern["module"] = _OF_MODELS.get(class_name, OPERATIONS_MODULE if is_operation else "keras.layers")
    return modern


def _modern_part(value: Any) -> Any:
    """An argument of a layer, which may be other layers."""
    if isinstance(value, list):
        return [_modern_part(item) for item in value]
    is_layer = isinstance(value, dict) and "class_name" in value and "config" in value and "module" not in value
    if is_layer and isinstance(getattr(layers, str(value["class_name"]), None), type):
        return modern_config(value)
    return modern_config(value) if is_layer and value["class_name"] in (*_OF_MODELS, *_RENAMED) else value


def _modern_graph(config: Mapping[str, Any]) -> dict[str, Any]:
    entries = [modern_config(entry) for entry in config["layers"]]
    names = {entry["name"] for entry in entries}
    # The first call of a model within a model was its second: there was one when it was drawn.
    nested = {entry["name"] for entry in entries if entry["class_name"] in _OF_MODELS}
    drawn = {entry["name"] for entry in entries if entry["class_name"] == "Functional"}
    listed = [node for entry in entries for node in entry["inbound_nodes"] if isinstance(node, list)]
    found = list(_places(listed, names))
    counted = {name for name in nested if [place for place in found if place[0] == name and place[1] > 0]}
    counted -= {name for name, index, _ in found if index == 0}

    def place(name: str, index: int, position: int) -> list[Any]:
        return [name, index - (name in counted), position]

    def end(tree: Any) -> Any:
        if isinstance(tree, Mapping):
            return {key: end(value) for key, value in tree.items()}
        if not _is_place(tree, names):
            ends = [end(value) for value in tree]
            return ends[0] if len(ends) == 1 and listed else ends
        name, index, position = place(*tree[:3]) if listed else tree
        # (Of a drawn model, today's configs count the one call here, and here only.)
        return [name, index + (name in drawn and bool(listed)), position]

    for entry in entries:
        entry["inbound_nodes"] = [
            _modern_call(node, names, place) if isinstance(node, list) else node for node in entry["inbound_nodes"]
        ]
    ends = {key: end(config[key]) for key in ("input_layers", "output_layers")}
    return {**config, "layers": entries, **ends}


def _modern_call(node: Sequence[Any], names: set[str], place: Any) -> dict[str, Any]:
    """One call: from a list of tensors, each with the other arguments, to `args` and `kwargs`."""

    def value(tree: Any) -> Any:
        if _is_place(tree, names):
            config = {"shape": None, "dtype": None, "keras_history": place(*tree[:3])}
            return {"class_name": "__keras_tensor__", "config": config}
        if isinstance(tree, list):
            return [value(item) for item in tree]
        return {key: value(item) for key, item in tree.items()} if isinstance(tree, dict) else tree

    tensors = [each[2] if each[0] == _CONSTANT else value(each[:3]) for each in node]
    kwargs: Mapping[str, Any] = next((each[3] for each in node if len(each) > 3 and each[3]), {})
    return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": value(dict(kwargs))}


def _is_place(tree: Any, names: set[str]) -> bool:
    """Whether this says which output of which call of which layer a tensor is."""
    if not isinstance(tree, (list, tuple)) or len(tree) not in (3, 4):
        return False
    return isinstance(tree[0], str) and tree[0] in names and all(type(number) is int for number in tree[1:3])


def _places(tree: Any, names: set[str]) -> Iterator[tuple[str, int, int]]:
    pending = [tree]
    while pending:
        value = pending.pop()
        if _is_place(value, names):
            yield value[0], value[1], value[2]
            pending.extend(value[3:])
        elif isinstance(value, (list, tuple)):
            pending.extend(value)
        elif isinstance(value, dict):
            pending.extend(value.values())


def modern_settings(training: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `compile` in the form of today."""
    settings = {key: training.get(key) for key in ("loss", "loss_weights", "metrics", "weighted_metrics")}
    optimizer = training["optimizer_config"]
    config = {**optimizer["config"]}
    for key in ("decay", "jit_compile", "is_legacy_optimizer"):
        config.pop(key, None)
    modern = {"module": "keras.optimizers", "class_name": optimizer["class_name"], "config": config}
    return {"optimizer": modern, **{key: _modern_objective(value) for key, value in settings.items()}}


def _modern_objective(value: Any) -> Any:
    """A loss or metric, or a list or dict of them."""
    if isinstance(value, list):
        return [_modern_objective(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "class_name" not in value:
        return {key: _modern_objective(item) for key, item in value.items()}
    config = {**(value.get("config") or {})}
    if value["class_name"] == "MeanMetricWrapper":
        return config.get("fn", config.get("name"))
    if config.get("reduction") in ("auto", "none_or_auto"):
        config["reduction"] = "sum_over_batch_size"
    return {**value, "config": config}
