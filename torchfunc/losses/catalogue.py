"""The losses that have a name: `get`, `serialize` and `deserialize`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torchfunc.families import Family
from torchfunc.losses import focal, hinge, overlap, sequence, similarity
from torchfunc.losses import probabilistic as prob
from torchfunc.losses import regression as reg
from torchfunc.losses.base import FunctionLoss, Loss, LossFunctionWrapper
from torchfunc.registry import serialize_keras_object

__all__ = ["CLASS_OF_FUNCTION", "deserialize", "get", "serialize"]

CLASS_OF_FUNCTION: dict[Callable[..., Any], Callable[..., FunctionLoss]] = {
    focal.binary_focal_crossentropy: focal.BinaryFocalCrossentropy,
    focal.categorical_focal_crossentropy: focal.CategoricalFocalCrossentropy,
    hinge.categorical_hinge: hinge.CategoricalHinge,
    hinge.hinge: hinge.Hinge,
    hinge.squared_hinge: hinge.SquaredHinge,
    overlap.dice: overlap.Dice,
    overlap.tversky: overlap.Tversky,
    prob.binary_crossentropy: prob.BinaryCrossentropy,
    prob.categorical_crossentropy: prob.CategoricalCrossentropy,
    prob.categorical_generalized_cross_entropy: prob.CategoricalGeneralizedCrossEntropy,
    prob.kl_divergence: prob.KLDivergence,
    prob.poisson: prob.Poisson,
    prob.sparse_categorical_crossentropy: prob.SparseCategoricalCrossentropy,
    reg.cosine_similarity: reg.CosineSimilarity,
    reg.huber: reg.Huber,
    reg.log_cosh: reg.LogCosh,
    reg.mean_absolute_error: reg.MeanAbsoluteError,
    reg.mean_absolute_percentage_error: reg.MeanAbsolutePercentageError,
    reg.mean_squared_error: reg.MeanSquaredError,
    reg.mean_squared_logarithmic_error: reg.MeanSquaredLogarithmicError,
    sequence.ctc: sequence.CTC,
    similarity.circle: similarity.Circle,
}

_ALIASES = {
    "bce": prob.binary_crossentropy,
    "kld": prob.kl_divergence,
    "mae": reg.mean_absolute_error,
    "mape": reg.mean_absolute_percentage_error,
    "mse": reg.mean_squared_error,
    "msle": reg.mean_squared_logarithmic_error,
}

_FAMILY = Family(
    "loss",
    "keras.losses",
    {
        "Loss": Loss,
        "LossFunctionWrapper": LossFunctionWrapper,
        **{member.__name__: member for pair in CLASS_OF_FUNCTION.items() for member in pair},
    },
    {**_ALIASES, **{name.upper(): function for name, function in _ALIASES.items()}},
)


def get(identifier: Any) -> Any:
    """The loss that `identifier` stands for.

    Args:
        identifier: a function's name or alias ("mse", "kl_divergence") gives the function, a class's name
            ("MeanSquaredError") or a config a new object; a class, an instance of it; a callable or None, itself.

    Raises:
        ValueError: there is no such loss.

    >>> losses.get("mse") is losses.mean_squared_error
    True
    >>> losses.get("MeanSquaredError")
    <MeanSquaredError name=mean_squared_error>
    """
    return _FAMILY.get(identifier)


def serialize(loss: Any) -> Any:
    """The config of a loss, as Keras writes it.

    >>> losses.serialize(losses.Huber(delta=2.0))["config"]
    {'name': 'huber_loss', 'reduction': 'sum_over_batch_size', 'delta': 2.0}
    """
    return serialize_keras_object(loss)


def deserialize(name: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The loss that a config (ours or Keras') or a name describes.

    >>> losses.deserialize(losses.serialize(losses.Huber(delta=2.0))).get_config()["delta"]
    2.0
    """
    return _FAMILY.deserialize(name, custom_objects)
