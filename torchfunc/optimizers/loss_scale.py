"""Loss scaling for training in float16, without asking the device whether a step is good."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.learning_rate import LearningRate
from torchfunc.optimizers.selection import copies_of, keep_if
from torchfunc.optimizers.state import constant
from torchfunc.registry import deserialize_keras_object, serialize_keras_object

__all__ = ["LossScaleOptimizer"]

# Keras once wrote these to configs, though they never had any effect.
_UNUSED = {
    "weight_decay": None,
    "clipnorm": None,
    "global_clipnorm": None,
    "clipvalue": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}


class LossScaleOptimizer(Optimizer):
    """Multiply the loss by a large number and divide the gradients by it, so that small ones are not lost in float16.

    After a step with an infinite or undefined gradient the number is halved, and all else is as before that step; after
    `dynamic_growth_steps` good steps in a row it is doubled.

    A bad step is made and then undone on the device: Python never waits for it.

    Args:
        inner_optimizer: the optimizer that makes the steps. Its `loss_scale_factor` is not used.
        initial_scale: the number to begin with.
        dynamic_growth_steps: how many good steps double it.
        name: the class name in snake case by default.
        **kwargs: nothing that is of use; options belong to the inner optimizer.

    Raises:
        ValueError: there is an option that belongs to the inner optimizer, or `dynamic=False`.

    >>> optimizer = optimizers.LossScaleOptimizer(optimizers.SGD(0.1), initial_scale=1024.0)
    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer.scale_loss(torch.tensor(0.5))
    tensor(512.)
    >>> optimizer.apply([torch.tensor([2.0 * 1024])], [weight])
    >>> weight.detach()  # as for a gradient of 2
    tensor([0.8000])
    """

    def __init__(
        self,
        inner_optimizer: Optimizer,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not kwargs.pop("dynamic", True):
            raise ValueError("For a scale that stays, set `loss_scale_factor` of the optimizer itself.")
        for key, value in kwargs.items():
            if key not in _UNUSED or value != _UNUSED[key]:
                raise ValueError(f"LossScaleOptimizer has no {key!r}. Give it to the inner optimizer.")
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer
        self.initial_scale = initial_scale
        self.dynamic_growth_steps = dynamic_growth_steps
        inner_optimizer.loss_scale_factor = None
        # How many steps were good is known to the device alone.
        inner_optimizer._always_in_graph = True

    def build_state(self, params: list[Tensor]) -> None:
        """The count of good steps, the scale, and the inner optimizer's state."""
        self.step_counter = self.add_variable((), dtype=torch.int32, name="step_counter")
        self.dynamic_scale = self.add_variable((), constant(self.initial_scale), name="dynamic_scale")
        self.inner_optimizer.build(params)

    @property
    def variables(self) -> list[Tensor]:
        """The optimizer's own state, then the inner one's."""
        return self._variables + self.inner_optimizer.variables

    def served_weights(self) -> list[Tensor | None]:
        """For each of `variables` the weight that it was made for, or None."""
        return [None] * len(self._variables) + self.inner_optimizer.served_weights()

    @property
    def accumulated(self) -> list[Tensor]:
        """The inner optimizer's, which are those of all processes already."""
        return []

    @property
    def iterations(self) -> Tensor:
        """How many good updates were made: an integer tensor of shape ()."""
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        """The inner optimizer's learning rate."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: LearningRate) -> None:
        self.inner_optimizer.learning_rate = value

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss whose gradients `apply` expects."""
        return loss * (self.dynamic_scale if self.built else self.initial_scale)

    def apply(self, grads: Sequence[Tensor | None], trainable_variables: Iterable[Tensor] | None = None) -> None:
        """Update weights in place by scaled gradients; do nothing if any of them is not finite.

        Args:
            grads: one gradient for each weight, or None.
            trainable_variables: the weights; those the optimizer was built with by default.

        Raises:
            ValueError: the numbers differ, all gradients are None, or the optimizer was built for other weights.
        """
        params = self._weights_for(grads, trainable_variables)
        grads = [grad.to_dense() if grad is not None and grad.is_sparse else grad for grad in grads]
        inner = self.inner_optimizer
        with torch.no_grad():
            if self.gradient_sum is not None:
                # Of one process they may be finite, and of another not.
                grads = self.gradient_sum.of_all(grads, params)
            largest = torch._foreach_norm([grad for grad in grads if grad is not None and grad.numel()], torch.inf)
            finite = torch.stack([norm.isfinite() for norm in largest]).all()
            changing = [*self._params, *inner.changing_variables()]
            before = copies_of(changing)
            scale = self.dynamic_scale
            # State that is made in a bad first step must not hold what is not finite.
            inner.apply([None if g is None else torch.where(finite, g / scale, 0).to(g.dtype) for g in grads], params)
            keep_if(finite, changing, before)
            grown = finite & (self.step_counter == self.dynamic_growth_steps - 1)
            self.step_counter.copy_(torch.where(finite & ~grown, self.step_counter + 1, 0))
            scale.mul_(torch.where(finite, torch.where(grown, 2.0, 1.0), 0.5))

    def _follow_devices(self) -> None:
        super()._follow_devices()
        if self.built:
            self.inner_optimizer.build(self._params)

    def exclude_from_weight_decay(
        self, var_list: Sequence[Tensor] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Leave weights out of the inner optimizer's weight decay."""
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def name_weights(self, named_params: Iterable[tuple[str, Tensor]]) -> None:
        """Give the inner optimizer the weights' names."""
        self.inner_optimizer.name_weights(named_params)

    def finalize_variable_values(self, var_list: Iterable[Tensor] | None = None) -> None:
        """Called when training ends."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def prepare_capture(self) -> bool:
        """Get ready for a step in a graph. False if a step outside of a graph has to be made first."""
        return self.built and self.inner_optimizer.prepare_capture()

    def graph_key(self) -> Hashable | None:
        """The settings of both optimizers that a compiled step takes for constants."""
        own, inner = super().graph_key(), self.inner_optimizer.graph_key()
        return None if own is None or inner is None else (own, inner)

    def _to_keras(self, index: int, variable: Tensor) -> Tensor:
        own = len(self._variables)
        return variable if index < own else self.inner_optimizer._to_keras(index - own, variable)

    def _from_keras(self, index: int, variable: Tensor) -> Tensor:
        own = len(self._variables)
        return variable if index < own else self.inner_optimizer._from_keras(index - own, variable)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal optimizer, without its state."""
        return {
            "name": self.name,
            "inner_optimizer": serialize_keras_object(self.inner_optimizer),
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> LossScaleOptimizer:
        """Make an optimizer from what `get_config` returned."""
        config = dict(config)
        inner = deserialize_keras_object(config.pop("inner_optimizer"), custom_objects)
        return cls(inner, **config)
