"""The state of an optimizer: tensors that are changed in place, a list of them for each purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from torchfunc.dtypes import DTypeLike, as_dtype
from torchfunc.optimizers.host_copies import HostCopies, empty_on_host
from torchfunc.optimizers.row_updates import Rows
from torchfunc.shards import fill, whole

__all__ = ["OptimizerState", "constant", "contains"]

T = TypeVar("T")


class OptimizerState:
    """The weights of an optimizer and its variables for them, in Keras' order.

    Attributes:
        offloads: whether the state is on the host, wherever the weights are, and steps are made there.
        host_copies: what the steps are made with then, from the first on.
    """

    offloads = False
    host_copies: HostCopies | None = None

    def __init__(self) -> None:
        self._params: list[Tensor] = []
        self._variables: list[Tensor] = []
        self._served: list[tuple[Tensor, Tensor]] = []
        # The rows that are being updated, where a gradient is sparse.
        self._sparse_rows: Rows | None = None

    @property
    def variables(self) -> list[Tensor]:
        """All state: step count, learning rate (unless it is a schedule), then that of the update rule."""
        return list(self._variables)

    def add_variable(
        self, shape: Sequence[int], initializer: Any = "zeros", dtype: DTypeLike | None = None, name: str | None = None
    ) -> Tensor:
        """Add one piece of state of this shape. `initializer` is "zeros", "ones" or a function of shape and dtype."""
        torch_dtype = torch.float32 if dtype is None else as_dtype(dtype)
        variable = torch.empty(tuple(shape), dtype=torch_dtype, device=self._device())
        return self._track(_initialized(variable, initializer))

    def add_variable_from_reference(
        self, reference_variable: Tensor, name: str | None = None, initializer: Any = "zeros"
    ) -> Tensor:
        """Add one piece of state with the shape, dtype and device of a weight."""
        empty = empty_on_host if self.offloads else torch.empty_like
        variable = _initialized(empty(reference_variable).detach(), initializer)
        self._served.append((variable, reference_variable))
        return self._track(variable)

    def served_weights(self) -> list[Tensor | None]:
        """For each of `variables` the weight that it was made for; None for state of the whole, as the step count."""
        weights = {id(variable): weight for variable, weight in self._served}
        return [weights.get(id(variable)) for variable in self.variables]

    def add_optimizer_variables(self, params: Sequence[Tensor], name: Any, initializer: Any = "zeros") -> Any:
        """Add one piece of state for each weight.

        Args:
            params: the weights.
            name: what it is called; or several names, for several pieces each.
            initializer: one for all, or one for each name.

        Returns:
            A list as long as `params`; for several names, a tuple of such lists.
        """
        names = [name] if isinstance(name, str) else list(name)
        initializers = list(initializer) if isinstance(initializer, (list, tuple)) else [initializer] * len(names)
        if len(names) != len(initializers):
            raise ValueError(f"There are {len(initializers)} initializers for the {len(names)} names {names}.")
        lists: tuple[list[Tensor], ...] = tuple([] for _ in names)
        for param in params:
            for variables, each_name, each_initializer in zip(lists, names, initializers, strict=True):
                variables.append(self.add_variable_from_reference(param, each_name, each_initializer))
        return lists[0] if isinstance(name, str) else lists

    def _track(self, variable: Tensor) -> Tensor:
        self._variables.append(variable)
        return variable

    def state_of(self, state: list[T], params: list[Tensor]) -> list[T]:
        """The entries of a list of state (one for each weight built with) that belong to `params`."""
        # (In torch 2.11, torch.compile cannot tell two lists apart by `is`, but by their lengths.)
        if len(params) == len(self._params) and params is self._params:
            return state
        rows = self._sparse_rows
        if rows is not None and params[0] is rows.copied:
            own = state[self._get_variable_index(rows.weight)]
            return [rows.of_state(own, self._variables)]  # type: ignore[arg-type, list-item]
        return [state[self._get_variable_index(param)] for param in params]

    def those_of(self, chosen: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        """The weights, of some that were chosen of all, that belong to `params`."""
        if len(params) == len(self._params) and params is self._params:
            return chosen
        return [param for param in params if contains(chosen, param)]

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

    def _device(self) -> torch.device:
        """Where the state is: with the weights; on the CPU if there are none yet or they are in several places."""
        if self.offloads:
            return torch.device("cpu")
        devices = {param.device for param in self._params}
        return devices.pop() if len(devices) == 1 else torch.device("cpu")

    def _follow_devices(self) -> None:
        """Move all state to where it is to be. Each tensor stays the same object."""
        device = self._device()
        if device.type != "meta" and (self.offloads or all(param.device == device for param in self._params)):
            for variable in self._variables:
                if variable.device != device:
                    variable.data = variable.data.to(device)

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Write all state as NumPy arrays under "0", "1", ..., in the order and meaning of Keras."""
        for index, variable in enumerate(self.variables):
            store[str(index)] = self._to_keras(index, whole(variable.detach())).cpu().numpy().copy()

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
                fill(variable, self._from_keras(index, torch.as_tensor(np.asarray(store[str(index)]))))

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the state, an array for each of the `variables` in order.

        Raises:
            ValueError: number or shapes differ, for one because the optimizer is not built.
        """
        self.load_own_variables({str(index): value for index, value in enumerate(weights)})

    def _to_keras(self, index: int, variable: Tensor) -> Tensor:
        """The variable of this index as Keras stores it."""
        return variable

    def _from_keras(self, index: int, variable: Tensor) -> Tensor:
        """The variable of this index, from what Keras stores."""
        return variable


def contains(tensors: Sequence[Tensor], tensor: Tensor) -> bool:
    """Whether this very tensor is among `tensors`."""
    return any(item is tensor for item in tensors)


def constant(value: float) -> Callable[..., Tensor]:
    """An initializer that fills state with a number."""
    return lambda shape, dtype: torch.full((), value, dtype=dtype)


def _initialized(variable: Tensor, initializer: Any) -> Tensor:
    if initializer in ("zeros", "ones"):
        return variable.fill_(float(initializer == "ones"))
    return variable.copy_(initializer(tuple(variable.shape), dtype=variable.dtype))
