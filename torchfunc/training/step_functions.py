"""`train_function` and its siblings: what the loop calls with each batch, for those who put a function there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchfunc.training.trainable import Trainable

__all__ = ["StepFunctions"]

StepFunction = Callable[[Any], Any]


class StepFunctions(Trainable):
    """Gives a model functions that run in place of its steps, as the attributes or the methods of these names.

    A function of one's own takes one batch (`x`, `(x, y)` or `(x, y, sample_weight)`) and returns what the step of its
    kind returns; it is called as it is, so what is to be compiled in it has to be compiled there. There are two ways to
    put one in place: define or set `train_function`, or override `make_train_function` and wrap what `super()` returns.
    `compile` forgets functions that were set. Where there is none, `fit` runs `train_step`.

    Attributes:
        train_function, test_function, predict_function: functions of one's own, else None.
    """

    train_function: StepFunction | None = None
    test_function: StepFunction | None = None
    predict_function: StepFunction | None = None

    def make_train_function(self, force: bool = False) -> StepFunction:
        """The function for each batch of a training: `train_function` if there is one, else `train_step`.

        Args:
            force: return `train_step` even so.
        """
        return self.train_step if force or self.train_function is None else self.train_function

    def make_test_function(self, force: bool = False) -> StepFunction:
        """The function for each batch of an evaluation; see `make_train_function`."""
        return self.test_step if force or self.test_function is None else self.test_function

    def make_predict_function(self, force: bool = False) -> StepFunction:
        """The function for each batch of a prediction; see `make_train_function`."""
        return self.predict_step if force or self.predict_function is None else self.predict_function

    def own_function(self, method: str) -> StepFunction | None:
        """The function that is to run in place of a step ("train_step" ...); None if there is none.

        Raises:
            TypeError: it is not a function.
        """
        function_name = f"{method.removesuffix('_step')}_function"
        maker = f"make_{function_name}"
        made = getattr(self, maker)() if self.overrides(maker) else None
        function = getattr(self, function_name) if made is None else made
        if function is None or callable(function):
            return function
        raise TypeError(f"{function_name} is a function of one batch, got {function!r} ({type(function).__name__}).")

    def trains_itself(self) -> bool:
        """Whether a batch is trained on by code of the model's own, which may leave gradients on the weights."""
        own_maker = self.overrides("make_train_function")
        return own_maker or self.train_function is not None or self.overrides("train_step")

    def forget_functions(self) -> None:
        """Drop the functions that were set on this model."""
        for name in ("train_function", "test_function", "predict_function"):
            self.__dict__.pop(name, None)
