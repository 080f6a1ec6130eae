"""The base of all optimizers: Keras' protocol around one update rule that works on lists of tensors.

An optimizer sees lists, never single weights: `update(gradients, params, learning_rate)` changes all of them with a few
`torch._foreach_*` calls. State that must survive from step to step (counter, learning rate, momenta) is kept in tensors
that are changed in place, so that one compiled step can run for ever without being compiled again.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from torchfunc.dtypes import DTypeLike, as_dtype
from torchfunc.optimizers.clipping import clip_gradients
from torchfunc.registry import deserialize_keras_object, serialize_keras_object, to_snake_case

__all__ = ["LearningRate", "Optimizer", "OptimizerOptions", "SharedOptions", "contains"]

LearningRate = float | Callable[..., Any]
"""A number, a schedule `f(iterations)`, or a function without arguments."""


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
    """The keyword arguments that all optimizers but AdamW share."""

    weight_decay: float | None


class Optimizer:
    """Base class: what every optimizer can do besides its own update rule.

    To write one, override `__init__`, `get_config`, `build` (make state with `add_variable_from_reference`) and either
    `update_step` (one weight at a time, as in Keras) or `update` (all weights at once, faster).

    Args:
        learning_rate: a number; a schedule, called with the step count; or a function without arguments.
        weight_decay: before each update, weights shrink by `weight_decay * learning_rate` (decoupled, as in Keras).
        clipnorm: the norm that each gradient is clipped to.
        clipvalue: each element of a gradient is clipped to [-clipvalue, clipvalue].
        global_clipnorm: the norm that all gradients together are clipped to.
        use_ema: keep a moving average of the weights, and put it in their place when training ends.
        ema_momentum: how much of the old average stays at each step.
        ema_overwrite_frequency: also put the average in the weights' place every so many steps.
        loss_scale_factor: the loss is multiplied by it and the gradients divided by it.
        gradient_accumulation_steps: update only every so many steps, with the mean of their gradients.
        name: the class name in snake case by default.
        **kwargs: `lr`, the old spelling of `learning_rate`.

    Raises:
        ValueError: an argument is unknown, out of range, or excludes another.
    """

    def __init__(
        self,
        learning_rate: LearningRate,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        learning_rate = kwargs.pop("lr", learning_rate)
        if kwargs.pop("decay", None) is not None:
            warnings.warn("`decay` is ignored, as in Keras 3: give a learning rate schedule instead.", stacklevel=3)
        if kwargs:
            raise ValueError(f"{type(self).__name__} does not know the argument(s) {', '.join(map(repr, kwargs))}.")
        self.name = name or to_snake_case(type(self).__name__)
        self.weight_decay = weight_decay
        self.clipnorm = clipnorm
        self.clipvalue = clipvalue
        self.global_clipnorm = global_clipnorm
        self.use_ema = use_ema
        self.ema_momentum = ema_momentum
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.loss_scale_factor = loss_scale_factor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self._check_arguments()
        self.built = False
        self._params: list[Tensor] = []
        self._decayed: list[Tensor] = []
        self._no_decay: list[Tensor] = []
        self._no_decay_names: list[str] = []
        self._constraints: list[tuple[Tensor, Callable[[Tensor], Tensor]]] = []
        self._averages: list[Tensor] = []
        self._accumulated: list[Tensor] = []
        self._iterations = torch.zeros((), dtype=torch.int64)
        self._variables: list[Tensor] = [self._iterations]
        self._learning_rate: Tensor | Callable[..., Any]
        self._schedule_takes_step = False
        if callable(learning_rate):
            self._set_schedule(learning_rate)
        else:
            self._learning_rate = torch.tensor(self._checked_rate(learning_rate), dtype=torch.float32)
            self._variables.append(self._learning_rate)

    def _check_arguments(self) -> None:
        clips = {key: getattr(self, key) for key in ("clipnorm", "clipvalue", "global_clipnorm")}
        given = {key: value for key, value in clips.items() if value is not None}
        if len(given) > 1:
            raise ValueError(f"Give only one of clipnorm, clipvalue and global_clipnorm, got {given}.")
        if self.use_ema and not 0 <= self.ema_momentum <= 1:
            raise ValueError(f"`ema_momentum` lies between 0 and 1, got {self.ema_momentum}.")
        frequency = self.ema_overwrite_frequency
        if self.use_ema and frequency is not None and (not isinstance(frequency, int) or frequency < 1):
            raise ValueError(f"`ema_overwrite_frequency` is an integer of at least 1 or None, got {frequency!r}.")
        steps = self.gradient_accumulation_steps
        if steps is not None and (not isinstance(steps, int) or steps < 2):
            raise ValueError(f"`gradient_accumulation_steps` is an integer of at least 2 or None, got {steps!r}.")

    # Learning rate and counter -------------------------------------------------------------------------------------

    @property
    def iterations(self) -> Tensor:
        """How many updates were made: an integer tensor of shape ()."""
        if self.gradient_accumulation_steps:
            return self._iterations // self.gradient_accumulation_steps
        return self._iterations

    @property
    def learning_rate(self) -> Any:
        """The current learning rate: a float tensor of shape (), or what the schedule gives. Set it to a number."""
        if isinstance(self._learning_rate, Tensor):
            return self._learning_rate
        return self._learning_rate(self._iterations) if self._schedule_takes_step else self._learning_rate()

    @learning_rate.setter
    def learning_rate(self, value: LearningRate) -> None:
        if callable(value) and not isinstance(value, Tensor):
            if isinstance(self._learning_rate, Tensor):
                self._variables = [v for v in self._variables if v is not self._learning_rate]
            self._set_schedule(value)
        elif isinstance(self._learning_rate, Tensor):
            self._learning_rate.fill_(self._checked_rate(value))
        else:
            raise TypeError(
                f"{type(self).__name__} was made with a learning rate schedule, so its learning rate cannot be set to "
                f"{value!r}. Make the optimizer with a number if you want to set it."
            )

    def _checked_rate(self, value: Any) -> float:
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"`learning_rate` is a number, a schedule or a function, got {value!r} ({type(value).__name__})."
            ) from None

    def _set_schedule(self, schedule: Callable[..., Any]) -> None:
        self._learning_rate = schedule
        parameters = inspect.signature(schedule).parameters.values()
        self._schedule_takes_step = any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)

    def _rate(self) -> Any:
        """The learning rate for this step: a plain number, or a tensor while the step is being compiled."""
        rate = self.learning_rate
        if isinstance(rate, Tensor) and not torch.compiler.is_compiling():
            return rate.item()
        return rate

    # State ---------------------------------------------------------------------------------------------------------

    @property
    def variables(self) -> list[Tensor]:
        """All state: step count, learning rate (unless it is a schedule), then what the update rule keeps."""
        return list(self._variables)

    def build(self, variables: Iterable[Tensor]) -> None:
        """Make the state for these weights. Called again with the same weights it only follows them to their device.

        A weight with an attribute `constraint`, a function, is projected by it after each update.

        Raises:
            ValueError: there are no weights, or the optimizer already serves others.
        """
        params = list(variables)
        if self.built:
            self._check_known(params)
            return
        if not params:
            raise ValueError(f"{type(self).__name__} has no weights to train: all are frozen, or there are none.")
        self._params = params
        self._decayed = [param for param in params if not contains(self._no_decay, param)]
        constraints = [(param, getattr(param, "constraint", None)) for param in params]
        self._constraints = [(param, constraint) for param, constraint in constraints if constraint is not None]
        # State outlives the call that makes it, so it must not be made of inference tensors.
        with torch.inference_mode(False):
            if self.use_ema:
                self._averages = self.add_optimizer_variables(params, "average")
            if self.gradient_accumulation_steps:
                self._accumulated = self.add_optimizer_variables(params, "gradient_accumulator")
            self.build_state(params)
        self.built = True

    def build_state(self, params: list[Tensor]) -> None:
        """Make the state of the update rule, if it has any."""

    def add_variable(
        self, shape: Sequence[int], initializer: Any = "zeros", dtype: DTypeLike | None = None, name: str | None = None
    ) -> Tensor:
        """Add one piece of state of this shape. `initializer` is "zeros", "ones" or a function of shape and dtype."""
        torch_dtype = torch.float32 if dtype is None else as_dtype(dtype)
        return self._track(self._initialized(torch.empty(tuple(shape), dtype=torch_dtype), initializer))

    def add_variable_from_reference(
        self, reference_variable: Tensor, name: str | None = None, initializer: Any = "zeros"
    ) -> Tensor:
        """Add one piece of state with the shape, dtype and device of a weight."""
        return self._track(self._initialized(torch.empty_like(reference_variable).detach(), initializer))

    def add_optimizer_variables(self, params: Sequence[Tensor], name: str, initializer: Any = "zeros") -> list[Tensor]:
        """Add one piece of state for each weight."""
        return [self.add_variable_from_reference(param, name, initializer) for param in params]

    def _track(self, variable: Tensor) -> Tensor:
        self._variables.append(variable)
        return variable

    @staticmethod
    def _initialized(variable: Tensor, initializer: Any) -> Tensor:
        if initializer in ("zeros", "ones"):
            return variable.fill_(float(initializer == "ones"))
        return variable.copy_(initializer(tuple(variable.shape), dtype=variable.dtype))

    def exclude_from_weight_decay(
        self, var_list: Sequence[Tensor] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Leave weights out of weight decay: these, and those whose name contains one of `var_names`.

        Names are the model's ("dense.bias"); they are known when `compile` has met the model. Call it before that.

        Raises:
            ValueError: the optimizer is built.
        """
        if self.built:
            raise ValueError("Call `exclude_from_weight_decay()` before the optimizer is built, that is before `fit`.")
        self._no_decay = list(var_list or ())
        self._no_decay_names = list(var_names or ())

    def name_weights(self, named_params: Iterable[tuple[str, Tensor]]) -> None:
        """Tell the optimizer what the weights are called, for `exclude_from_weight_decay(var_names=...)`."""
        if self._no_decay_names and not self.built:
            pattern = re.compile("|".join(self._no_decay_names))
            self._no_decay += [param for name, param in named_params if pattern.search(name)]

    def _check_known(self, params: Sequence[Tensor]) -> None:
        known = {id(param) for param in self._params}
        unknown = [tuple(param.shape) for param in params if id(param) not in known]
        if unknown:
            raise ValueError(
                f"{type(self).__name__} was built for {len(self._params)} other weights and has no state for these, of "
                f"shapes {unknown}. Weights that start to be trained later, or those of another model, need a new "
                "optimizer: call `compile` again with one."
            )
        self._follow_devices()

    def _follow_devices(self) -> None:
        devices = {param.device for param in self._params}
        if len(devices) != 1:
            return
        device = devices.pop()
        for variable in self._variables[1:]:
            if variable is not self._learning_rate and variable.device != device:
                variable.data = variable.data.to(device)

    # Updating ------------------------------------------------------------------------------------------------------

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Tensor | None, Tensor]]) -> Tensor:
        """`apply` for pairs of gradient and weight. Returns the step count."""
        grads, params = zip(*grads_and_vars, strict=True)
        self.apply(grads, params)
        return self._iterations

    def apply(self, grads: Sequence[Tensor | None], trainable_variables: Iterable[Tensor] | None = None) -> None:
        """Update weights in place. A weight whose gradient is None stays as it is.

        Args:
            grads: one gradient for each weight.
            trainable_variables: the weights; those the optimizer was built with by default.

        Raises:
            ValueError: the numbers differ, all gradients are None, or the optimizer was built for other weights.
        """
        params = self._weights_for(grads, trainable_variables)
        if not params:
            return
        kept_grads, kept_params = _drop_missing(grads, params)
        with torch.no_grad():
            if self.loss_scale_factor is not None:
                kept_grads = list(torch._foreach_div(kept_grads, self.loss_scale_factor))
            if self.gradient_accumulation_steps:
                kept_grads = self._accumulate(kept_grads, kept_params)
            if kept_grads:
                self._update(kept_grads, kept_params)
            if self.use_ema:
                self._update_average()
            self._iterations.add_(1)

    def _weights_for(self, grads: Sequence[Tensor | None], variables: Iterable[Tensor] | None) -> list[Tensor]:
        if variables is None:
            if not self.built:
                raise ValueError("The optimizer is not built: pass the weights too, or call `build(weights)` first.")
            params = self._params
        else:
            params = list(variables)
            if not self.built:
                self.build(params)
            if _same(params, self._params):
                params = self._params
            else:
                self._check_known(params)
        if len(grads) != len(params):
            raise ValueError(f"There are {len(grads)} gradients for {len(params)} weights.")
        return params

    def _update(self, grads: list[Tensor], params: list[Tensor]) -> None:
        grads = clip_gradients(grads, self.clipnorm, self.clipvalue, self.global_clipnorm)
        rate = self._rate()
        if self.weight_decay is not None:
            decayed = self._decayed if params is self._params else [p for p in params if contains(self._decayed, p)]
            if decayed:
                torch._foreach_mul_(decayed, 1 - rate * self.weight_decay)
        self.update(grads, params, rate)
        for param, constraint in self._constraints:
            param.copy_(constraint(param))

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Any) -> None:
        """Change all weights by their gradients. Override this or `update_step`.

        Args:
            gradients: one for each weight; they are the caller's and must not be changed.
            params: the weights to change in place: all that the optimizer was built with, or some of them.
            learning_rate: a number, or a tensor of shape () while the step is being compiled.
        """
        for gradient, param in zip(gradients, params, strict=True):
            self.update_step(gradient, param, learning_rate)

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Any) -> None:
        """Change one weight by its gradient, in place."""
        raise NotImplementedError(f"{type(self).__name__} defines neither `update` nor `update_step`.")

    def state_of(self, state: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        """The entries of a list of state (one for each weight built with) that belong to `params`."""
        if params is self._params:
            return state
        return [state[self._get_variable_index(param)] for param in params]

    def _get_variable_index(self, variable: Tensor) -> int:
        return next(index for index, param in enumerate(self._params) if param is variable)

    def assign(self, variable: Tensor, value: Any) -> None:
        """Set a weight or a piece of state."""
        variable.copy_(value)

    def assign_add(self, variable: Tensor, value: Any) -> None:
        """Add to a weight or a piece of state."""
        variable.add_(value)

    def assign_sub(self, variable: Tensor, value: Any) -> None:
        """Subtract from a weight or a piece of state."""
        variable.sub_(value)

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss whose gradients `apply` expects: multiplied by `loss_scale_factor`, if there is one."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    def _accumulate(self, grads: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        """Add to the sums; returns the mean gradients when it is time to update, else an empty list."""
        assert self.gradient_accumulation_steps is not None
        sums = self.state_of(self._accumulated, params)
        torch._foreach_add_(sums, grads)
        if (int(self._iterations) + 1) % self.gradient_accumulation_steps:
            return []
        means = torch._foreach_div(sums, float(self.gradient_accumulation_steps))
        torch._foreach_zero_(self._accumulated)
        return list(means)

    def _update_average(self) -> None:
        first = int(self.iterations) == 0
        torch._foreach_lerp_(self._averages, self._params, 1.0 if first else 1 - self.ema_momentum)
        frequency = self.ema_overwrite_frequency
        if frequency and (int(self.iterations) + 1) % frequency == 0:
            torch._foreach_copy_(self._params, self._averages)

    def finalize_variable_values(self, var_list: Iterable[Tensor] | None = None) -> None:
        """Called when training ends: with `use_ema`, the weights become their moving averages."""
        if self.use_ema and self.built:
            with torch.no_grad():
                torch._foreach_copy_(self._params, self._averages)

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Write all state as NumPy arrays under "0", "1", ..., in the order and meaning of Keras."""
        for index, variable in enumerate(self.variables):
            store[str(index)] = self._to_keras(index, variable).detach().cpu().numpy().copy()

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Read what `save_own_variables`, ours or Keras', wrote.

        Raises:
            ValueError: number or shapes differ, for one because the optimizer is not built.
        """
        variables = self.variables
        shapes = {str(index): tuple(variable.shape) for index, variable in enumerate(variables)}
        stored = {key: np.shape(store[key]) for key in store}
        if shapes != stored:
            raise ValueError(
                f"{type(self).__name__} has state of the shapes {shapes}, but the store holds {stored}. "
                "Build the optimizer for its weights first."
            )
        for index, variable in enumerate(variables):
            with torch.no_grad():
                variable.copy_(self._from_keras(index, torch.as_tensor(np.asarray(store[str(index)]))))

    def _to_keras(self, index: int, variable: Tensor) -> Tensor:
        """The variable of this index as Keras keeps it."""
        return variable

    def _from_keras(self, index: int, variable: Tensor) -> Tensor:
        """What Keras keeps as the variable of this index, as it is kept here."""
        return variable

    # Config --------------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal optimizer, without its state."""
        rate = self._learning_rate
        return {
            "name": self.name,
            "learning_rate": rate.item() if isinstance(rate, Tensor) else serialize_keras_object(rate),
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm,
            "clipvalue": self.clipvalue,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "loss_scale_factor": self.loss_scale_factor,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Optimizer:
        """Make an optimizer from what `get_config` returned."""
        config = dict(config)
        if isinstance(config.get("learning_rate"), dict):
            config["learning_rate"] = deserialize_keras_object(config["learning_rate"], custom_objects)
        return cls(**config)

    def __repr__(self) -> str:
        settings = {key: value for key, value in self.get_config().items() if value not in (None, False)}
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"


def _same(left: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def contains(tensors: Sequence[Tensor], tensor: Tensor) -> bool:
    """Whether this very tensor is among `tensors`."""
    return any(item is tensor for item in tensors)


def _drop_missing(grads: Sequence[Tensor | None], params: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The gradients that are there, dense, and their weights; `params` itself when none is missing."""
    present = [grad.to_dense() if grad.is_sparse else grad for grad in grads if grad is not None]
    if len(present) == len(params):
        return present, params
    if not present:
        raise ValueError("All gradients are None: the loss does not depend on any of the weights.")
    return present, [param for param, grad in zip(params, grads, strict=True) if grad is not None]
