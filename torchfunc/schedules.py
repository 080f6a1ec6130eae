"""Learning rates that depend on the step count, with Keras' names, arguments and formulas.

A schedule is called with the number of steps made so far. For a number it gives a number, without any tensor; for a
tensor, as in a compiled step, a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from torchfunc.families import Family

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "Scalar",
    "deserialize",
    "serialize",
]

Scalar: TypeAlias = "float | Tensor"
"""A number; or in a graph, where numbers would be frozen, a tensor of shape ()."""


class LearningRateSchedule:
    """Base class. To write one, override `__call__(step)`, and `get_config` if it is to be saved.

    Attributes:
        takes_numbers: whether `__call__` also takes a number and then gives one. Otherwise it is called with a tensor,
            an integer one of shape (), as in Keras; the update is then faster if it is set.

    >>> class Halving(schedules.LearningRateSchedule):
    ...     def __call__(self, step):
    ...         return 0.5**step
    >>> optimizer = optimizers.SGD(Halving())
    >>> optimizer.learning_rate
    tensor(1.)
    """

    takes_numbers = False

    def __call__(self, step: Scalar) -> Scalar:
        """The learning rate after so many steps."""
        raise NotImplementedError(f"{type(self).__name__} does not define `__call__(step)`.")

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal schedule."""
        raise NotImplementedError(f"{type(self).__name__} does not define `get_config()`, so it cannot be saved.")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LearningRateSchedule:
        """Make a schedule from what `get_config` returned."""
        return cls(**config)


class _Formula(LearningRateSchedule):
    """A schedule whose formula is the same for numbers and for tensors.

    Attributes:
        arguments: the names of its arguments, in the order in which a config lists them.
    """

    takes_numbers = True
    arguments: tuple[str, ...] = ()

    def __call__(self, step: Scalar) -> Scalar:
        """The learning rate after so many steps.

        Args:
            step: a number; or a tensor of any shape, of which integers are taken as float32.
        """
        if isinstance(step, Tensor):
            return self._rate(step if step.is_floating_point() else step.to(torch.float32))
        return self._rate(float(step))

    def _rate(self, step: Scalar) -> Scalar:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal schedule."""
        return {name: getattr(self, name) for name in self.arguments}


class ExponentialDecay(_Formula):
    """`initial_learning_rate * decay_rate ** (step / decay_steps)`.

    Args:
        initial_learning_rate: the rate at step 0.
        decay_steps: the steps after which it has been multiplied by `decay_rate`; above 0.
        decay_rate: the factor.
        staircase: whether to change it only every `decay_steps` steps.
        name: a name for it.

    Raises:
        ValueError: `decay_steps` is not above 0.

    >>> schedule = schedules.ExponentialDecay(1.0, decay_steps=10, decay_rate=0.5)
    >>> [schedule(step) for step in (0, 10, 20)]
    [1.0, 0.5, 0.25]
    """

    arguments = ("initial_learning_rate", "decay_steps", "decay_rate", "staircase", "name")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = _positive("decay_steps", decay_steps)
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def _rate(self, step: Scalar) -> Scalar:
        progress = step / self.decay_steps
        return self.initial_learning_rate * self.decay_rate ** (_floor(progress) if self.staircase else progress)


class InverseTimeDecay(_Formula):
    """`initial_learning_rate / (1 + decay_rate * step / decay_steps)`.

    Args:
        initial_learning_rate: the rate at step 0.
        decay_steps: the unit in which steps are counted; above 0.
        decay_rate: how fast the rate falls.
        staircase: whether to change it only every `decay_steps` steps.
        name: a name for it.

    Raises:
        ValueError: `decay_steps` is not above 0.

    >>> schedule = schedules.InverseTimeDecay(1.0, decay_steps=10, decay_rate=1.0)
    >>> [schedule(step) for step in (0, 10, 30)]
    [1.0, 0.5, 0.25]
    """

    arguments = ("initial_learning_rate", "decay_steps", "decay_rate", "staircase", "name")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = _positive("decay_steps", decay_steps)
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def _rate(self, step: Scalar) -> Scalar:
        progress = step / self.decay_steps
        return self.initial_learning_rate / (1 + self.decay_rate * (_floor(progress) if self.staircase else progress))


class PiecewiseConstantDecay(_Formula):
    """`values[0]` up to and including step `boundaries[0]`, then `values[1]` up to `boundaries[1]`, and so on.

    Args:
        boundaries: steps in ascending order.
        values: rates, one more than boundaries.
        name: a name for it.

    Raises:
        ValueError: the numbers of boundaries and values do not fit.

    >>> schedule = schedules.PiecewiseConstantDecay([10, 20], [1.0, 0.5, 0.25])
    >>> [schedule(step) for step in (10, 11, 21)]
    [1.0, 0.5, 0.25]
    """

    arguments = ("boundaries", "values", "name")

    def __init__(self, boundaries: Sequence[float], values: Sequence[float], name: str = "PiecewiseConstant") -> None:
        if len(boundaries) != len(values) - 1:
            raise ValueError(
                f"There is one value more than boundaries, got {len(boundaries)} boundaries {boundaries} and "
                f"{len(values)} values {values}."
            )
        self.boundaries = boundaries
        self.values = values
        self.name = name

    def _rate(self, step: Scalar) -> Scalar:
        rate = step * 0.0 + self.values[0]
        for boundary, value in zip(self.boundaries, self.values[1:], strict=True):
            rate = _where(step > boundary, value, rate)
        return rate


class PolynomialDecay(_Formula):
    """`(initial_learning_rate - end_learning_rate) * (1 - step / decay_steps) ** power + end_learning_rate`.

    Args:
        initial_learning_rate: the rate at step 0.
        decay_steps: the step from which on the rate is `end_learning_rate`; above 0.
        end_learning_rate: the last rate.
        power: the power; 1 for a straight line.
        cycle: whether, past `decay_steps`, to fall again over twice, three times ... as many steps, counted from 0.
        name: a name for it.

    Raises:
        ValueError: `decay_steps` is not above 0.

    >>> schedule = schedules.PolynomialDecay(1.0, decay_steps=10, end_learning_rate=0.0)
    >>> [schedule(step) for step in (0, 5, 10, 20)]
    [1.0, 0.5, 0.0, 0.0]
    """

    arguments = ("initial_learning_rate", "decay_steps", "end_learning_rate", "power", "cycle", "name")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = _positive("decay_steps", decay_steps)
        self.end_learning_rate = end_learning_rate
        self.power = power
        self.cycle = cycle
        self.name = name

    def _rate(self, step: Scalar) -> Scalar:
        if self.cycle:
            cycles = -_floor(-step / self.decay_steps)
            progress = step / (self.decay_steps * _where(cycles > 0, cycles, 1.0))
        else:
            progress = _minimum(step, self.decay_steps) / self.decay_steps
        fall = self.initial_learning_rate - self.end_learning_rate
        return fall * (1 - progress) ** self.power + self.end_learning_rate


class CosineDecay(_Formula):
    """Half a wave of the cosine, from the first rate to `alpha` times that (Loshchilov & Hutter, 2016).

    With `warmup_target`, the rate first rises in a straight line from `initial_learning_rate` to it, over
    `warmup_steps`, and falls from there.

    Args:
        initial_learning_rate: the rate at step 0.
        decay_steps: how many steps the fall takes; above 0.
        alpha: the last rate as a share of the highest.
        name: a name for it.
        warmup_target: the rate after the warm-up; None for no warm-up.
        warmup_steps: how many steps the warm-up takes.

    Raises:
        ValueError: `decay_steps` is not above 0.

    >>> schedule = schedules.CosineDecay(0.0, decay_steps=10, warmup_target=1.0, warmup_steps=4)
    >>> [round(schedule(step), 4) for step in (0, 2, 4, 9, 14)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    arguments = ("initial_learning_rate", "decay_steps", "alpha", "name", "warmup_target", "warmup_steps")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: float = 0,
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = _positive("decay_steps", decay_steps)
        self.alpha = alpha
        self.name = name
        self.warmup_target = warmup_target
        self.warmup_steps = warmup_steps

    def _rate(self, step: Scalar) -> Scalar:
        if self.warmup_target is None:
            return self.initial_learning_rate * self._fall(step)
        fallen = self.warmup_target * self._fall(step - self.warmup_steps)
        if not self.warmup_steps:
            return fallen
        rise = (self.warmup_target - self.initial_learning_rate) * (step / self.warmup_steps)
        return _where(step < self.warmup_steps, rise + self.initial_learning_rate, fallen)

    def _fall(self, step: Scalar) -> Scalar:
        wave = 0.5 * (1 + _cos(math.pi * (_minimum(step, self.decay_steps) / self.decay_steps)))
        return (1 - self.alpha) * wave + self.alpha


class CosineDecayRestarts(_Formula):
    """Falls as `CosineDecay` does, again and again: SGDR (Loshchilov & Hutter, 2016).

    Args:
        initial_learning_rate: the rate at step 0.
        first_decay_steps: how many steps the first fall takes; above 0.
        t_mul: how many times longer each fall is than the last.
        m_mul: how many times higher each fall begins than the last.
        alpha: the last rate of a fall as a share of the first.
        name: a name for it.

    Raises:
        ValueError: `first_decay_steps` is not above 0.

    >>> schedule = schedules.CosineDecayRestarts(1.0, first_decay_steps=10)
    >>> [round(schedule(step), 4) for step in (0, 5, 10, 20)]
    [1.0, 0.5, 1.0, 0.5]
    """

    arguments = ("initial_learning_rate", "first_decay_steps", "t_mul", "m_mul", "alpha", "name")

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.first_decay_steps = _positive("first_decay_steps", first_decay_steps)
        self.t_mul = t_mul
        self.m_mul = m_mul
        self.alpha = alpha
        self.name = name

    def _rate(self, step: Scalar) -> Scalar:
        progress = step / self.first_decay_steps
        if self.t_mul == 1:
            restarts = _floor(progress)
            progress = progress - restarts
        else:
            restarts = _floor(_log(1 - progress * (1 - self.t_mul)) / math.log(self.t_mul))
            length = self.t_mul**restarts
            progress = (progress - (1 - length) / (1 - self.t_mul)) / length
        wave = 0.5 * self.m_mul**restarts * (1 + _cos(math.pi * progress))
        return self.initial_learning_rate * ((1 - self.alpha) * wave + self.alpha)


def _positive(name: str, value: float) -> float:
    if value <= 0:
        raise ValueError(f"`{name}` is above 0, got {value!r}.")
    return value


def _floor(value: Scalar) -> Scalar:
    return value.floor() if isinstance(value, Tensor) else math.floor(value)


def _cos(value: Scalar) -> Scalar:
    return value.cos() if isinstance(value, Tensor) else math.cos(value)


def _log(value: Scalar) -> Scalar:
    return value.log() if isinstance(value, Tensor) else math.log(value)


def _minimum(value: Scalar, limit: float) -> Scalar:
    return value.clamp(max=limit) if isinstance(value, Tensor) else min(value, limit)


def _where(condition: bool | Tensor, yes: Scalar, no: Scalar) -> Scalar:
    if isinstance(condition, Tensor):
        return torch.where(condition, yes, no)
    return yes if condition else no


_family = Family(
    "learning rate schedule",
    "keras.optimizers.schedules",
    {
        cls.__name__: cls
        for cls in (
            CosineDecay,
            CosineDecayRestarts,
            ExponentialDecay,
            InverseTimeDecay,
            PiecewiseConstantDecay,
            PolynomialDecay,
        )
    },
)


def serialize(learning_rate_schedule: LearningRateSchedule) -> Any:
    """The config of a schedule.

    >>> schedules.serialize(schedules.InverseTimeDecay(1.0, 10, 0.5))["class_name"]
    'InverseTimeDecay'
    """
    return _family.serialize(learning_rate_schedule)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The schedule that a config describes.

    >>> schedule = schedules.ExponentialDecay(1.0, decay_steps=10, decay_rate=0.5)
    >>> schedules.deserialize(schedules.serialize(schedule))(10)
    0.5
    """
    return _family.deserialize(config, custom_objects)
