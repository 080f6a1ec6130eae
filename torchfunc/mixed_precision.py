"""What models compute in: the default of `compile(precision=...)`, under Keras' names."""

from torchfunc.config import DTypePolicy, dtype_policy, set_dtype_policy
from torchfunc.config import DTypePolicy as Policy
from torchfunc.config import dtype_policy as global_policy
from torchfunc.config import set_dtype_policy as set_global_policy
from torchfunc.optimizers import LossScaleOptimizer

__all__ = [
    "DTypePolicy",
    "LossScaleOptimizer",
    "Policy",
    "dtype_policy",
    "global_policy",
    "set_dtype_policy",
    "set_global_policy",
]
