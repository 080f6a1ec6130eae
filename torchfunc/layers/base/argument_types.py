"""The types of arguments that many layers take: anything that the `get` of a family makes an object of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

__all__ = ["ActivationLike", "Config", "ConstraintLike", "InitializerLike", "RegularizerLike", "RoleArguments"]

# A name, a config, a function or object; None for none.
ActivationLike: TypeAlias = "str | Mapping[str, Any] | Callable[..., Any] | None"
RegularizerLike: TypeAlias = "str | Mapping[str, Any] | Callable[[Tensor], Tensor] | None"
ConstraintLike: TypeAlias = "str | Mapping[str, Any] | Callable[[Tensor], Tensor] | None"
# Also the values themselves.
InitializerLike: TypeAlias = "str | Mapping[str, Any] | Callable[..., Tensor] | np.ndarray | Tensor | None"
# What is given for a weight.
RoleArguments: TypeAlias = tuple[InitializerLike, RegularizerLike, ConstraintLike]
# What `get_config` returns.
Config: TypeAlias = dict[str, Any]
