"""The settings of `compile` as a config and back, as Keras writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchfunc import losses, metrics, optimizers
from torchfunc.metrics import TorchMetric
from torchfunc.registry import serialize_keras_object
from torchfunc.structures import map_structure
from torchfunc.training.matching import MetricGiven
from torchfunc.training.settings import TrainingSettings

__all__ = ["compile_arguments", "compile_config"]


def compile_config(settings: TrainingSettings) -> dict[str, Any]:
    """What `compile` was given, with the optimizer as it is now.

    Raises:
        ValueError: an optimizer, loss or metric has no config; the message names it.
    """
    parsed, given, execution = settings.parsed, settings.parsed.given, settings.execution
    config = {
        "optimizer": optimizers.serialize(settings.optimizer),
        "loss": serialize_keras_object(given.loss),
        "loss_weights": serialize_keras_object(given.loss_weights),
        "metrics": map_structure(_metric_config, parsed.metrics),
        "weighted_metrics": map_structure(_metric_config, parsed.weighted_metrics),
        "run_eagerly": False,
        "steps_per_execution": execution.steps,
        "jit_compile": execution.jit,
    }
    if execution.precision.name is not None:
        config["precision"] = execution.precision.name
    if execution.check_nan:
        config["check_nan"] = True
    if execution.remat is not None and all(isinstance(each, str) for each in execution.remat):
        # (Layers and classes are not in the file under a name.)
        config["remat"] = execution.remat
    if settings.optimizer is not None and settings.optimizer.offloads:
        config["offload_optimizer"] = True
    return config


def _metric_config(metric: MetricGiven | None) -> Any:
    if metric is not None and isinstance(metric.metric, TorchMetric):
        # Says that such an object has no config.
        return metric.metric.get_config()
    return None if metric is None else serialize_keras_object(metric.given)


def compile_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `compile` that a config (ours or Keras') describes.

    Raises:
        ValueError: it names something unknown.
    """
    found = dict(config)
    found["optimizer"] = optimizers.deserialize(config["optimizer"])
    for name, read in (
        ("loss", losses.deserialize),
        ("metrics", metrics.deserialize),
        ("weighted_metrics", metrics.deserialize),
    ):
        found[name] = map_structure(
            lambda leaf, read=read: read(leaf) if isinstance(leaf, dict) else leaf,
            config.get(name),
            is_leaf=lambda value: isinstance(value, dict) and "class_name" in value,
        )
    return found
