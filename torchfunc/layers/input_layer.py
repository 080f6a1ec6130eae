"""Input and InputLayer: the inputs of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from torchfunc.config import floatx
from torchfunc.dtypes import DTypeLike, dtype_name
from torchfunc.graph import SymbolicTensor, install_hook, record_input
from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.layer import Layer

__all__ = ["Input", "InputLayer"]


class InputLayer(Layer):
    """Declares an input; `Input` makes one and returns its tensor.

    Args:
        shape: the sizes of one sample, None where unknown.
        batch_size: the size of the batch axis, unknown by default.
        dtype: the dtype or its name; `config.floatx()` by default.
        sparse, ragged: must be None or False.
        batch_shape: the shape with the batch axis, instead of `shape` and `batch_size`.
        name: the input's name.
        optional: whether the model may be called with None here.
        input_tensor: what `Input` returned: the layer's output, in place of a new one.
        input_shape, batch_input_shape: the names of `shape` and `batch_shape` before Keras 3.

    Raises:
        ValueError: the shape is missing, given twice, or contains anything but sizes.

    >>> layers.InputLayer((4,), name="x").output.shape
    (None, 4)
    """

    def __init__(
        self,
        shape: Sequence[int | None] | int | None = None,
        batch_size: int | None = None,
        dtype: DTypeLike | None = None,
        sparse: bool | None = None,
        ragged: bool | None = None,
        batch_shape: Sequence[int | None] | None = None,
        name: str | None = None,
        optional: bool = False,
        input_tensor: SymbolicTensor | None = None,
        input_shape: Sequence[int | None] | None = None,
        batch_input_shape: Sequence[int | None] | None = None,
    ) -> None:
        if input_tensor is not None:
            if not isinstance(input_tensor, SymbolicTensor) or input_tensor.node.op != "input":
                raise ValueError(f"InputLayer() takes what Input(...) returned for input_tensor, got {input_tensor!r}.")
            batch_shape, dtype = input_tensor.shape, input_tensor.dtype
            shape = batch_size = None
        shape = input_shape if shape is None else shape
        batch_shape = batch_input_shape if batch_shape is None else batch_shape
        if sparse or ragged:
            raise ValueError("Sparse and ragged inputs are not supported: give dense tensors, padded where needed.")
        if shape is None and batch_shape is None:
            raise ValueError("Input(...) needs `shape`, the sizes of one sample, or `batch_shape`.")
        if shape is not None and batch_shape is not None:
            raise ValueError("Input(...) takes `shape` or `batch_shape`, not both.")
        if batch_size is not None and batch_shape is not None:
            raise ValueError("Input(...) takes `batch_size` or `batch_shape`, not both.")
        super().__init__(name=name, dtype=floatx() if dtype is None else dtype)
        if batch_shape is None:
            batch_shape = (batch_size, *((shape,) if isinstance(shape, (int, np.integer)) else shape or ()))
        self.batch_shape = tuple(int(size) if isinstance(size, np.integer) else size for size in batch_shape)
        for size in self.batch_shape:
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
                raise ValueError(f"A shape holds integers and None, got {size!r} in {self.batch_shape}.")
        self.optional = bool(optional)
        self.built = True
        node = record_input(self, self.batch_shape, self.dtype) if input_tensor is None else input_tensor.node
        self.inbound_calls.add(node, held=True)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs

    def get_config(self) -> Config:
        return {
            "batch_shape": self.batch_shape,
            "dtype": dtype_name(self.dtype),
            "sparse": False,
            "ragged": False,
            "name": self.name,
            "optional": self.optional,
        }


def Input(
    shape: Sequence[int | None] | int | None = None,
    batch_size: int | None = None,
    dtype: DTypeLike | None = None,
    sparse: bool | None = None,
    batch_shape: Sequence[int | None] | None = None,
    name: str | None = None,
    tensor: SymbolicTensor | None = None,
    optional: bool = False,
) -> SymbolicTensor:
    """A symbolic tensor to call layers on: an input of the model to come.

    Args:
        shape: the sizes of one sample, without the batch axis; None where unknown. `(28, 28, 1)`, `(None,)`, `()`.
        batch_size: the size of the batch axis, unknown by default.
        dtype: a `torch.dtype` or a name such as "int32"; `config.floatx()` by default.
        sparse: must be None or False.
        batch_shape: the shape with the batch axis, instead of `shape` and `batch_size`.
        name: the input's name; `input_layer`, `input_layer_1` ... by default.
        tensor: a symbolic tensor, returned unchanged, for compatibility with Keras.
        optional: whether the model may be called with None here.

    Raises:
        ValueError: the shape is missing, given twice, or contains anything but sizes.

    >>> x = Input((28, 28, 1), name="image")
    >>> x.shape, x.dtype
    ((None, 28, 28, 1), torch.float32)
    >>> Input((None, 8), batch_size=4).shape
    (4, None, 8)
    """
    install_hook()
    if tensor is not None:
        return tensor
    layer = InputLayer(shape, batch_size, dtype, sparse, None, batch_shape, name, optional)
    output: SymbolicTensor = layer.output
    return output
