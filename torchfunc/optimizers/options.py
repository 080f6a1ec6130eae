"""The keyword arguments that all optimizers share."""

from __future__ import annotations

import warnings
from typing import Any, TypedDict

from torchfunc.errors import did_you_mean
from torchfunc.optimizers.learning_rate import LearningRate

__all__ = ["OptimizerOptions", "SharedOptions", "check_options", "take_old_spellings"]


class SharedOptions(TypedDict, total=False):
    """The keyword arguments that all optimizers share, but for weight decay; `Optimizer` says what they mean."""

    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None
    name: str | None
    lr: LearningRate


class OptimizerOptions(SharedOptions, total=False):
    """The keyword arguments that all optimizers without a weight decay of their own share."""

    weight_decay: float | None


_SPELLINGS = ("learning_rate", *OptimizerOptions.__annotations__, *SharedOptions.__annotations__)


def take_old_spellings(owner: str, learning_rate: LearningRate, options: dict[str, Any]) -> LearningRate:
    """The learning rate, which may be spelt `lr`. Warns of a `decay`; anything else in `options` is an error."""
    learning_rate = options.pop("lr", learning_rate)
    if options.pop("decay", None) is not None:
        warnings.warn("`decay` is ignored, as in Keras 3: give a learning rate schedule instead.", stacklevel=4)
    if options:
        hint = did_you_mean(next(iter(options)), _SPELLINGS)
        raise ValueError(f"{owner} does not know the argument(s) {', '.join(map(repr, options))}.{hint}")
    return learning_rate


def check_options(optimizer: Any) -> None:
    """Check the options that an optimizer keeps as attributes.

    Raises:
        ValueError: one is out of range or excludes another.
    """
    clips = {key: getattr(optimizer, key) for key in ("clipnorm", "clipvalue", "global_clipnorm")}
    given = {key: value for key, value in clips.items() if value is not None}
    if len(given) > 1:
        raise ValueError(f"Give only one of clipnorm, clipvalue and global_clipnorm, got {given}.")
    if optimizer.use_ema and not 0 <= optimizer.ema_momentum <= 1:
        raise ValueError(f"`ema_momentum` lies between 0 and 1, got {optimizer.ema_momentum}.")
    frequency = optimizer.ema_overwrite_frequency
    if optimizer.use_ema and frequency is not None and (not isinstance(frequency, int) or frequency < 1):
        raise ValueError(f"`ema_overwrite_frequency` is an integer of at least 1 or None, got {frequency!r}.")
    steps = optimizer.gradient_accumulation_steps
    if steps is not None and (not isinstance(steps, int) or steps < 2):
        raise ValueError(f"`gradient_accumulation_steps` is an integer of at least 2 or None, got {steps!r}.")
