"""`Metric`, the base of every metric: a name, state tensors, and how they are updated and read."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from torchfunc import initializers
from torchfunc.assignable import set_place
from torchfunc.config import floatx
from torchfunc.dtypes import DTypeLike, as_dtype, dtype_name
from torchfunc.graph_keys import settings_key
from torchfunc.registry import to_snake_case
from torchfunc.structures import leaves

__all__ = ["Metric", "add_to", "detached"]

T = TypeVar("T", bound="Metric")

# The attributes of every metric, and the types of most others, in which no metric is.
_OWN_STATE = frozenset({"_variables", "_variable_names", "_constants"})
_SIMPLE = frozenset({type(None), bool, int, float, str, Tensor, torch.dtype})


def add_to(state: Tensor, value: Tensor | float, alpha: float = 1) -> None:
    """`state += alpha * value`, in place, in compiled steps too."""
    if state.dtype is torch.float64 and state.ndim == 0 and torch.compiler.is_compiling():
        # Of a float64 scalar on the CPU, torch.compile (2.11 to 2.13) loses a change that is not made through a view.
        state.view(1).add_(value, alpha=alpha)
    else:
        state.add_(value, alpha=alpha)


def detached(values: Tensor) -> Tensor:
    """The values without their graph. (To detach what has none takes as long as a small kernel.)"""
    return values.detach() if values.requires_grad else values


class Metric:
    """Base of all metrics: state that `update_state` adds to, batch by batch, and `result` reads.

    A subclass makes its state with `add_variable`, adds to it in place, and computes a tensor of it.

    Nothing here waits for the device: read `result()` when the number is needed. Where several processes train a model,
    the state tensors of all are summed before the result is read.

    A metric whose state depends on the shapes of the data makes it in `build(y_true_shape, y_pred_shape)`, which is
    called once these are known.

    Args:
        dtype: what results are computed in; `config.floatx()` by default.
        name: shown in logs; the class's name in snake case by default.

    >>> class Positives(metrics.Metric):
    ...     def __init__(self, name="positives", dtype=None):
    ...         super().__init__(name=name, dtype=dtype)
    ...         self.count = self.add_variable((), "zeros", name="count")
    ...
    ...     def update_state(self, y_true, y_pred, sample_weight=None):
    ...         self.count.add_((y_pred > 0.5).sum())
    ...
    ...     def result(self):
    ...         return self.count.clone()
    >>> metric = Positives()
    >>> metric.update_state(None, torch.tensor([0.2, 0.7, 0.9]))
    >>> metric.result()
    tensor(2.)
    """

    # Whether `update_state` has to stay out of a compiled step, and is called after it with what the step saw.
    outside_step: ClassVar[bool] = False
    # "up" or "down": which way is better, when the metric knows it.
    direction: ClassVar[str | None] = None

    def __init__(self, dtype: DTypeLike | None = None, name: str | None = None) -> None:
        self._variables: list[Tensor] = []
        self._variable_names: list[str] = []
        self._constants: list[Tensor] = []
        self.name = name or to_snake_case(type(self).__name__)
        self.dtype = as_dtype(dtype or floatx())

    def add_variable(
        self,
        shape: Sequence[int] | int = (),
        initializer: Any = "zeros",
        dtype: DTypeLike | None = None,
        name: str | None = None,
    ) -> Tensor:
        """A new state tensor, on torch's default device.

        Args:
            shape: its shape.
            initializer: a name ("zeros", "ones"), an initializer, or any `f(shape, dtype)`.
            dtype: by default the metric's.
            name: for the reader of the code; states are identified by their order.

        Raises:
            RuntimeError: `super().__init__()` has not been called yet.

        >>> metric = metrics.Mean()
        >>> metric.add_variable((2,), "ones", name="seen")
        tensor([1., 1.])
        >>> len(metric.variables)  # its total and count, and this one
        3
        """
        if "_variables" not in self.__dict__:
            raise RuntimeError(f"{type(self).__name__}.__init__ has to call super().__init__() before add_variable().")
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        state_dtype = as_dtype(dtype) if dtype is not None else self.dtype
        # A state made during evaluation has to stay writable afterwards.
        with torch.inference_mode(False):
            variable = initializers.get(initializer or "zeros")(sizes, dtype=state_dtype)
        self._variable_names.append(name or f"variable_{len(self._variables)}")
        self._variables.append(variable)
        set_place(variable, self, self._variable_names[-1])
        return variable

    add_weight = add_variable

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for variable, name in zip(self._variables, self._variable_names, strict=True):
            set_place(variable, self, name)

    def _add_constant(self, values: Any, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor that follows the state to its device, so that no update copies it there, but is never reset."""
        with torch.inference_mode(False):
            constant = torch.tensor(values, dtype=dtype)
        self._constants.append(constant)
        return constant

    def build(self, y_true_shape: Sequence[int | None], y_pred_shape: Sequence[int | None]) -> None:
        """Make the state that depends on the shapes of targets and predictions; nothing by default.

        May be called again. Metrics that need it also do it in the first `update_state`, though a compiled step
        wants its state before.
        """

    def graph_key(self) -> Hashable | None:
        """The settings that a compiled step takes for constants: its public numbers, booleans and strings.

        None if the metric is, or is made of, code that is not torchfunc's or torch's: then torch.compile's guards have
        to notice what changes.
        """
        # Private ones may be made by the first batch.
        return settings_key(self, public_only=True)

    def for_shapes(self, y_true_shape: Sequence[int | None], y_pred_shape: Sequence[int | None]) -> Metric:
        """The metric for targets and predictions of these shapes: this one, built, unless it stands for a choice."""
        self.build(y_true_shape, y_pred_shape)
        return self

    def masked_weight(self, sample_weight: Any, mask: Tensor | None) -> Any:
        """The `sample_weight` with which `update_state` leaves out what the output's mask does.

        As in Keras only metrics that are the mean of a function heed masks; this one does not, unless it redefines
        this.

        Args:
            sample_weight: weights so far, or None.
            mask: True where a sample or timestep counts, or None if the output has none.
        """
        return sample_weight

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take in one batch. Write to the state in place (`add_`, `copy_`); read nothing back.

        >>> metric = metrics.BinaryAccuracy()
        >>> metric.update_state([1, 0], [0.9, 0.2])
        >>> metric.update_state([1, 0], [0.1, 0.2])
        >>> metric.result()
        tensor(0.7500)
        """
        raise NotImplementedError(f"{type(self).__name__} has to define update_state(self, y_true, y_pred, ...).")

    def result(self) -> Any:
        """The metric of all batches since the last reset: a new 0-d tensor, or a dict of them.

        >>> metric = metrics.Sum()
        >>> metric.update_state([1.0, 2.0])
        >>> float(metric.result())
        3.0
        """
        raise NotImplementedError(f"{type(self).__name__} has to define result(self).")

    def reset_state(self) -> None:
        """Forget all batches: every state tensor becomes 0, as in Keras, in place.

        >>> metric = metrics.Sum()
        >>> metric.update_state([1.0, 2.0])
        >>> metric.reset_state()
        >>> metric.result()
        tensor(0.)
        """
        for variable in self.variables:
            variable.zero_()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`update_state`, then `result`."""
        self.update_state(*args, **kwargs)
        return self.result()

    @property
    def variables(self) -> list[Tensor]:
        """All state tensors: the metric's own, then those of metrics it holds."""
        variables = list(self._variables)
        for metric in self._inner_metrics():
            variables.extend(metric.variables)
        return variables

    def to(self: T, device: torch.device | str) -> T:
        """Move the state to `device`, in place: the state tensors stay the same objects."""
        device = torch.device(device)
        for variable in (*self._variables, *self._constants):
            if variable.device != device:
                variable.data = variable.data.to(device)
        for metric in self._inner_metrics():
            metric.to(device)
        return self

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments.

        >>> metrics.BinaryAccuracy(threshold=0.3).get_config()
        {'name': 'binary_accuracy', 'dtype': 'float32', 'threshold': 0.3}
        """
        return {"name": self.name, "dtype": dtype_name(self.dtype)}

    @classmethod
    def from_config(cls: type[T], config: Mapping[str, Any]) -> T:
        """A metric with these constructor's arguments.

        >>> metrics.BinaryAccuracy.from_config({"threshold": 0.3})([1, 0], [0.4, 0.4])
        tensor(0.5000)
        """
        return cls(**config)

    def __setattr__(self, name: str, value: Any) -> None:
        # `self.total = self.total + x` would leave the state that is reset, moved and compiled for another tensor.
        state = self.__dict__.get(name)
        if isinstance(state, Tensor) and isinstance(value, Tensor) and any(state is v for v in self._variables):
            if state is not value:
                state.copy_(value.detach())
            return
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"

    def _inner_metrics(self) -> list[Metric]:
        others = [value for name, value in vars(self).items() if name not in _OWN_STATE and type(value) not in _SIMPLE]
        return list(dict.fromkeys(leaf for leaf in leaves(others) if isinstance(leaf, Metric))) if others else []
