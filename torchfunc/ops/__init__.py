"""The operations under Keras' names, on torch functions.

Each takes tensors, symbolic tensors (and records itself on them), NumPy arrays, lists and plain numbers, with Keras'
argument names and defaults, and returns a tensor, symbolic where an argument is. Dtypes follow torch's rules, so whole
numbers are int64. New tensors are made on torch's default device. What is not here is in `torchfunc/absent.py`.

Unless a docstring says otherwise: `x` has any shape, and the result has the same; `x1` and `x2` broadcast; `axis` is
the axis or axes that are reduced, by default all, and `keepdims` leaves them in with size 1; `indices_or_sections` are
indices to cut before or the number of equal parts; `dtype` is that of the result.
"""

from torchfunc.ops import (
    arithmetic,
    arrays,
    control,
    elementwise,
    fourier,
    image,
    linalg,
    losses,
    making,
    networks,
    nn,
    numpy,
    reductions,
    segments,
    shaping,
    statistics,
)
from torchfunc.ops.arithmetic import *  # noqa: F403
from torchfunc.ops.arrays import *  # noqa: F403
from torchfunc.ops.control import *  # noqa: F403
from torchfunc.ops.elementwise import *  # noqa: F403
from torchfunc.ops.fourier import *  # noqa: F403
from torchfunc.ops.linalg import *  # noqa: F403
from torchfunc.ops.losses import *  # noqa: F403
from torchfunc.ops.making import *  # noqa: F403
from torchfunc.ops.networks import *  # noqa: F403
from torchfunc.ops.reductions import *  # noqa: F403
from torchfunc.ops.segments import *  # noqa: F403
from torchfunc.ops.shaping import *  # noqa: F403
from torchfunc.ops.statistics import *  # noqa: F403
from torchfunc.ops.tensors import (
    arange,
    cast,
    convert_to_numpy,
    convert_to_tensor,
    full,
    full_like,
    is_tensor,
    one_hot,
    ones,
    ones_like,
    shape,
    stop_gradient,
    zeros,
    zeros_like,
)

__all__ = [
    "arange",
    "cast",
    "convert_to_numpy",
    "convert_to_tensor",
    "full",
    "full_like",
    "image",
    "is_tensor",
    "linalg",
    "nn",
    "numpy",
    "one_hot",
    "ones",
    "ones_like",
    "shape",
    "stop_gradient",
    "zeros",
    "zeros_like",
    *arithmetic.__all__,
    *arrays.__all__,
    *control.__all__,
    *elementwise.__all__,
    *fourier.__all__,
    *linalg.__all__,
    *losses.__all__,
    *making.__all__,
    *networks.__all__,
    *reductions.__all__,
    *segments.__all__,
    *shaping.__all__,
    *statistics.__all__,
]
