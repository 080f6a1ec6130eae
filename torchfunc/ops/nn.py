"""The operations of neural networks, as `ops.nn.*`."""

# ruff: noqa: F401 (which does not read a table of names)

from torchfunc.ops.arithmetic import elu, gelu, leaky_relu, log_softmax, relu, selu, sigmoid, silu, softmax, softplus
from torchfunc.ops.elementwise import (
    celu,
    glu,
    hard_shrink,
    hard_sigmoid,
    hard_silu,
    hard_swish,
    hard_tanh,
    log_sigmoid,
    relu6,
    soft_shrink,
    softsign,
    sparse_plus,
    sparse_sigmoid,
    sparsemax,
    squareplus,
    swish,
    tanh_shrink,
    threshold,
)
from torchfunc.ops.fourier import polar
from torchfunc.ops.losses import (
    binary_crossentropy,
    categorical_crossentropy,
    ctc_loss,
    psnr,
    sparse_categorical_crossentropy,
)
from torchfunc.ops.making import multi_hot
from torchfunc.ops.networks import (
    adaptive_average_pool,
    adaptive_max_pool,
    average_pool,
    batch_normalization,
    conv,
    depth_to_space,
    depthwise_conv,
    dot_product_attention,
    fold,
    layer_normalization,
    max_pool,
    normalize,
    rms_normalization,
    separable_conv,
    space_to_depth,
    unfold,
)
from torchfunc.ops.statistics import moments
from torchfunc.ops.tensors import one_hot

__all__ = [
    *("adaptive_average_pool", "adaptive_max_pool", "average_pool", "batch_normalization"),
    *("binary_crossentropy", "categorical_crossentropy", "celu", "conv", "ctc_loss", "depth_to_space"),
    *("depthwise_conv", "dot_product_attention", "elu", "fold", "gelu", "glu", "hard_shrink"),
    *("hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "layer_normalization", "leaky_relu"),
    *("log_sigmoid", "log_softmax", "max_pool", "moments", "multi_hot", "normalize", "one_hot", "polar"),
    *("psnr", "relu", "relu6", "rms_normalization", "selu", "separable_conv", "sigmoid", "silu"),
    *("soft_shrink", "softmax", "softplus", "softsign", "space_to_depth"),
    *("sparse_categorical_crossentropy", "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus"),
    *("swish", "tanh_shrink", "threshold", "unfold"),
]
