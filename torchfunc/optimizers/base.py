"""The base of all optimizers: Keras' protocol around one update rule that works on lists of tensors.

An optimizer sees lists, never single weights: `update(gradients, params, learning_rate)` changes all of them with a few
`torch._foreach_*` calls. State that must survive from step to step (counter, learning rate, momenta) is kept in tensors
that are changed in place, so that a compiled step need not be compiled again.

Every step is written twice where it depends on the counter: with Python numbers, which never ask the device, and for a
graph (`_in_graph`) without branches, with the counter as a tensor.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchfunc.errors import SuggestsAttributes
from torchfunc.graph_keys import is_known_code, settings_key
from torchfunc.optimizers.averaging import copy_values, mean_of_sums, overwrite, update_averages
from torchfunc.optimizers.clipping import clip_gradients
from torchfunc.optimizers.gradient_sum import GradientSum
from torchfunc.optimizers.host_copies import apply_on_host
from torchfunc.optimizers.host_number import HostNumber, in_graph
from torchfunc.optimizers.learning_rate import LearningRate, RateSource, rate_from_config
from torchfunc.optimizers.options import check_options, take_old_spellings
from torchfunc.optimizers.row_updates import RowGradient, Rows, present_gradients, with_all_used
from torchfunc.optimizers.selection import copies_of, keep_if
from torchfunc.optimizers.state import OptimizerState, contains
from torchfunc.registry import to_snake_case
from torchfunc.schedules import Scalar

__all__ = ["Optimizer"]


class Optimizer(OptimizerState, SuggestsAttributes):
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

    >>> class SignDescent(optimizers.Optimizer):
    ...     def update_step(self, gradient, variable, learning_rate):
    ...         variable.sub_(learning_rate * gradient.sign())
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> SignDescent(0.25).apply([torch.tensor([9.0, -0.1])], [weight])
    >>> weight.detach()
    tensor([0.7500, 1.2500])
    """

    # The attributes that `get_config` adds to the shared options: the update rule's own arguments.
    arguments: ClassVar[tuple[str, ...]] = ()

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
        super().__init__()
        learning_rate = take_old_spellings(type(self).__name__, learning_rate, kwargs)
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
        check_options(self)
        self.built = False
        self.averages_in_use = False
        """Whether `swap_averages` has put the moving averages in the weights' place."""
        self.gradient_sum: GradientSum | None = None
        """What sums the gradients of several processes, while they train together."""
        self._decayed: list[Tensor] = []
        self._no_decay: list[Tensor] = []
        self._no_decay_names: list[str] = []
        self._constraints: list[tuple[Tensor, Callable[[Tensor], Tensor]]] = []
        self._averages: list[Tensor] = []
        self._accumulated: list[Tensor] = []
        self._always_in_graph = False
        self._scalar_dtype = torch.float32
        with torch.inference_mode(False):
            self._iterations = torch.zeros((), dtype=torch.int64)
        self._calls = HostNumber(self._iterations, 0)
        self._variables.append(self._iterations)
        self._rate = RateSource(learning_rate)
        if self._rate.tensor is not None:
            self._variables.append(self._rate.tensor)

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
        return self._rate.current(self._iterations)

    @learning_rate.setter
    def learning_rate(self, value: LearningRate) -> None:
        if callable(value) and not isinstance(value, Tensor):
            self._variables = [variable for variable in self._variables if variable is not self._rate.tensor]
            self._rate.follow(value)
        elif not self._rate.set(value):
            raise TypeError(
                f"{type(self).__name__} was made with a learning rate schedule, so its learning rate cannot be set to "
                f"{value!r}. Make the optimizer with a number if you want to set it."
            )

    def _in_graph(self) -> bool:
        """Whether this step is recorded into a graph, so that all that changes from step to step must be a tensor."""
        return self._always_in_graph or in_graph()

    def _step_rate(self, in_graph: bool) -> Scalar:
        """The learning rate for this step: a number, or in a graph a tensor of shape ()."""
        if in_graph:
            return self._rate.in_graph(self._iterations, self._scalar_dtype)
        return self._rate.outside_graph(self._calls, self._scalar_dtype)

    def _updates(self, in_graph: bool) -> Scalar:
        """How many updates were made before this step: a number, or in a graph a tensor of shape ()."""
        calls = self._iterations if in_graph else self._calls.get()
        return calls // self.gradient_accumulation_steps if self.gradient_accumulation_steps else calls

    def step_number(self) -> Scalar:
        """The number of this update, from 1, for update rules that depend on it.

        It is a number, or in a graph a float tensor of shape (), of float64 if any weight is.
        """
        step = self._updates(self._in_graph()) + 1
        return step.to(self._scalar_dtype) if isinstance(step, Tensor) else step

    def prepare_capture(self) -> bool:
        """Get ready for a step in a graph. False if a step outside of a graph has to be made first."""
        return self.built

    def graph_key(self) -> Hashable | None:
        """The settings that a compiled step takes for constants: numbers, booleans and strings among the attributes.

        None for a class or a learning rate schedule that is not torchfunc's or torch's: then torch.compile's guards
        have to notice what changes.
        """
        return settings_key(self) if is_known_code(self._rate.function) else None

    def build(self, variables: Iterable[Tensor]) -> None:
        """Make the state for these weights. Called again with the same weights it only follows them to their device.

        A weight with an attribute `constraint`, a function, is projected by it after each update.

        Raises:
            ValueError: there are no weights, or the optimizer already serves others.

        >>> optimizer = optimizers.SGD(0.1, momentum=0.9)
        >>> optimizer.build([torch.nn.Parameter(torch.zeros(2, 3))])
        >>> [tuple(variable.shape) for variable in optimizer.variables]  # steps, rate, momentum
        [(), (), (2, 3)]
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
        if any(param.dtype == torch.float64 for param in params):
            self._scalar_dtype = torch.float64
        # State outlives the call that makes it, so it must not be made of inference tensors.
        with torch.inference_mode(False):
            if self.use_ema:
                self._averages = self.add_optimizer_variables(params, "average")
            if self.gradient_accumulation_steps:
                self._accumulated = self.add_optimizer_variables(params, "gradient_accumulator")
            self.build_state(params)
            self._follow_devices()
        self.built = True

    def build_state(self, params: list[Tensor]) -> None:
        """Make the state of the update rule, if it has any."""

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
        """Give the weights' names, for `exclude_from_weight_decay(var_names=...)`."""
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

    @property
    def trained_weights(self) -> list[Tensor]:
        """The weights that the optimizer was built for, in order."""
        return list(self._params)

    @property
    def accumulated(self) -> list[Tensor]:
        """The sums of gradients since the last update, of which several processes have one each."""
        return list(self._accumulated)

    def changing_variables(self) -> list[Tensor]:
        """All state that a step changes; so not the learning rate."""
        return [variable for variable in self.variables if variable is not self._rate.tensor]

    def _rule_state(self) -> list[Tensor]:
        """The variables that only `update` changes: those behind counter, rate, averages and sums."""
        rates = 0 if self._rate.tensor is None else 1
        return self._variables[1 + rates + len(self._averages) + len(self._accumulated) :]

    # Updating ------------------------------------------------------------------------------------------------------

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Tensor | None, Tensor]]) -> Tensor:
        """`apply` for pairs of gradient and weight. Returns the step count.

        Args:
            grads_and_vars: pairs of a gradient, or None, and its weight.

        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> (3 * weight).sum().backward()
        >>> steps = optimizers.SGD(0.1).apply_gradients([(weight.grad, weight)])
        >>> weight.detach()  # 1 - 0.1 * 3
        tensor([0.7000])
        """
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

        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = optimizers.SGD(0.1)
        >>> optimizer.apply([torch.tensor([2.0])], [weight])
        >>> optimizer.iterations
        tensor(1)
        """
        params = self._weights_for(grads, trainable_variables)
        if not params:
            return
        if self.offloads and not params[0].is_cpu:
            apply_on_host(self, grads, params)
            return
        summed = self.gradient_sum
        given = grads if summed is None else summed.complete(grads, params)
        rows: Mapping[int, RowGradient] = {}
        present = [grad for grad in given if grad is not None and not grad.is_sparse]
        if len(present) < len(given):
            present, params, rows = present_gradients(given, params, self._takes_rows())
        in_graph = self._in_graph()
        # Takes fewer steps than `no_grad`.
        with torch.set_grad_enabled(False):
            if summed is not None:
                present = summed.own_share(present)
            if self.loss_scale_factor is not None:
                present = list(torch._foreach_div(present, self.loss_scale_factor))
            if self.gradient_accumulation_steps:
                self._accumulate(present, params, self.gradient_accumulation_steps, in_graph)
            else:
                self._update(present, params, in_graph, rows)
            if self.use_ema:
                self._update_averages(in_graph)
            if in_graph:
                self._iterations.add_(1)
            else:
                self._calls.add(1)

    def _weights_for(self, grads: Sequence[Tensor | None], variables: Iterable[Tensor] | None) -> list[Tensor]:
        if variables is None:
            if not self.built:
                raise ValueError("The optimizer is not built: pass the weights too, or call `build(weights)` first.")
            params = self._params
        else:
            params = list(variables)
            if not self.built:
                self.build(params)
            if len(params) == len(self._params) and all(map(operator.is_, params, self._params)):
                params = self._params
            else:
                self._check_known(params)
        if len(grads) != len(params):
            raise ValueError(f"There are {len(grads)} gradients for {len(params)} weights.")
        return params

    def updates_rows(self) -> bool:
        """Whether a sparse gradient changes the rows that it names and no others; else it is taken as a dense one.

        True only of rules that `update` by what `state_of` gives.
        """
        return False

    def _takes_rows(self) -> bool:
        alone = self.gradient_sum is None and not self.gradient_accumulation_steps
        return alone and self.updates_rows() and is_known_code(self)

    def _update(
        self,
        grads: list[Tensor],
        params: list[Tensor],
        in_graph: bool,
        rows: Mapping[int, RowGradient] = MappingProxyType({}),
    ) -> None:
        if self.gradient_sum is not None:
            grads = self.gradient_sum(grads)
        if self.clipnorm or self.clipvalue or self.global_clipnorm:
            grads = clip_gradients(grads, self.clipnorm, self.clipvalue, self.global_clipnorm)
        rate = self._step_rate(in_graph)
        for index, gradient in rows.items():
            self._update_rows(params[index], replace(gradient, values=grads[index]), rate)
        if rows:
            grads = [grad for index, grad in enumerate(grads) if index not in rows]
            params = [param for index, param in enumerate(params) if index not in rows]
        if params:
            self._decay_weights(params, rate)
            self.update(grads, params, rate)
        for param, constraint in self._constraints:
            param.copy_(constraint(param))

    def _update_rows(self, param: Tensor, gradient: RowGradient, rate: Scalar) -> None:
        if not len(gradient.numbers):
            return
        self._sparse_rows = rows = Rows.of(param, gradient)
        try:
            if self.weight_decay is not None and contains(self._decayed, param):
                rows.copied.mul_(1 - rate * self.weight_decay)
            self.update([with_all_used(gradient)], [rows.copied], rate)
        finally:
            self._sparse_rows = None
        rows.write_back()

    def _decay_weights(self, params: list[Tensor], rate: Scalar) -> None:
        if self.weight_decay is not None:
            decayed = self.those_of(self._decayed, params)
            if decayed:
                torch._foreach_mul_(decayed, 1 - rate * self.weight_decay)

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Scalar) -> None:
        """Change all weights by their gradients. Override this or `update_step`.

        Args:
            gradients: one for each weight; they are the caller's and must not be changed.
            params: the weights to change in place: all that the optimizer was built with, or some of them.
            learning_rate: a number; or a tensor of shape (), in a graph or if the schedule returns one.
        """
        for gradient, param in zip(gradients, params, strict=True):
            self.update_step(gradient, param, learning_rate)

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Scalar) -> None:
        """Change one weight by its gradient, in place."""
        raise NotImplementedError(f"{type(self).__name__} defines neither `update` nor `update_step`.")

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss whose gradients `apply` expects: multiplied by `loss_scale_factor`, if there is one."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    def _accumulate(self, grads: list[Tensor], params: list[Tensor], steps: int, in_graph: bool) -> None:
        """Update with the mean gradients when it is time to."""
        means = mean_of_sums(self.state_of(self._accumulated, params), grads, steps)
        if in_graph:
            due = (self._iterations + 1) % steps == 0
            changing = [*self._params, *self._rule_state()]
            before = copies_of(changing)
            self._update(means, params, in_graph)
            keep_if(due, changing, before)
            keep_if(~due, self._accumulated, [torch.zeros_like(total) for total in self._accumulated])
        elif (self._calls.get() + 1) % steps == 0:
            self._update(means, params, in_graph)
            torch._foreach_zero_(self._accumulated)

    def _update_averages(self, in_graph: bool) -> None:
        iterations = self._updates(in_graph)
        update_averages(self._averages, self._params, self.ema_momentum, iterations)
        if self.ema_overwrite_frequency:
            overwrite(self._params, self._averages, self.ema_overwrite_frequency, iterations)

    def finalize_variable_values(self, var_list: Iterable[Tensor] | None = None) -> None:
        """Called when training ends: with `use_ema`, the weights become their moving averages."""
        if self.use_ema and self.built:
            both = self._params, self._averages
            copy_values(*(both[::-1] if self.averages_in_use else both))
        self.averages_in_use = False

    def swap_averages(self) -> None:
        """With `use_ema`, exchange the weights and their moving averages; a second call swaps them back."""
        if self._averages:
            weights = copies_of(self._params)
            copy_values(self._params, self._averages)
            copy_values(self._averages, weights)
        self.averages_in_use = not self.averages_in_use

    # Config --------------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal optimizer, without its state.

        >>> optimizers.SGD(0.1, momentum=0.9).get_config()["momentum"]
        0.9
        """
        return {
            "name": self.name,
            "learning_rate": self._rate.get_config(),
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm,
            "clipvalue": self.clipvalue,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "loss_scale_factor": self.loss_scale_factor,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            **{name: getattr(self, name) for name in self.arguments},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Optimizer:
        """Make an optimizer from what `get_config` returned.

        >>> optimizers.Adam.from_config({"learning_rate": 0.5}).learning_rate
        tensor(0.5000)
        """
        config = dict(config)
        if "learning_rate" in config:
            config["learning_rate"] = rate_from_config(config["learning_rate"], custom_objects)
        return cls(**config)

    def __repr__(self) -> str:
        settings = {key: value for key, value in self.get_config().items() if value not in (None, False)}
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"
