"""Initializers that draw nothing: the same values at every call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.signal import windows

from torchfunc.dtypes import DTypeLike
from torchfunc.initializers.base import Initializer, weight_dtype
from torchfunc.registry import deserialize_keras_object, serialize_keras_object

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["STFT", "Constant", "Identity", "Ones", "Zeros"]

# Those of torch's windows that need no further number.
_WINDOWS: dict[str, Callable[..., Tensor]] = {
    "bartlett": windows.bartlett,
    "blackman": windows.blackman,
    "cosine": windows.cosine,
    "hamming": windows.hamming,
    "hann": windows.hann,
    "nuttall": windows.nuttall,
}


class Zeros(Initializer):
    """All zeros.

    >>> initializers.Zeros()((2, 3))
    tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """

    def __call__(self, shape: Sequence[int], dtype: DTypeLike | None = None) -> Tensor:
        return torch.zeros(tuple(shape), dtype=weight_dtype(dtype))


class Ones(Initializer):
    """All ones.

    >>> initializers.Ones()((2, 3))
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """

    def __call__(self, shape: Sequence[int], dtype: DTypeLike | None = None) -> Tensor:
        return torch.ones(tuple(shape), dtype=weight_dtype(dtype))


class Constant(Initializer):
    """One given value everywhere, or a copy of a given array.

    Args:
        value: a number, or an array or tensor that has the shape of the weight.

    >>> initializers.Constant(0.5)((2, 3))
    tensor([[0.5000, 0.5000, 0.5000],
            [0.5000, 0.5000, 0.5000]])
    >>> initializers.Constant([1, 2, 3])((3,))
    tensor([1., 2., 3.])
    """

    def __init__(self, value: Any = 0.0) -> None:
        if isinstance(value, Tensor):
            value = value.detach().to("cpu", torch.float32 if value.dtype is torch.bfloat16 else value.dtype).numpy()
        if isinstance(value, (list, tuple, np.ndarray, np.generic)):
            array = np.asarray(value)
            value = array if array.ndim else array.item()
        self.value = value

    def __call__(self, shape: Sequence[int], dtype: DTypeLike | None = None) -> Tensor:
        """Return the value in `shape`. Raises ValueError when it is an array of another shape."""
        if not isinstance(self.value, np.ndarray):
            return torch.full(tuple(shape), self.value, dtype=weight_dtype(dtype))
        if self.value.shape != tuple(shape):
            raise ValueError(
                f"An initial value of shape {self.value.shape} was given for a weight of shape {tuple(shape)}. "
                "An array must have exactly the weight's shape (Keras' layout); only a number fits every shape."
            )
        return torch.tensor(self.value, dtype=weight_dtype(dtype))

    def get_config(self) -> dict[str, Any]:
        return {"value": serialize_keras_object(self.value)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**deserialize_keras_object(dict(config)))


class Identity(Initializer):
    """`gain` on the diagonal of a matrix, zeros elsewhere.

    Args:
        gain: the value on the diagonal. Default 1.

    >>> initializers.Identity()((2, 3))
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, shape: Sequence[int], dtype: DTypeLike | None = None) -> Tensor:
        """Return a matrix of `shape` (rows, columns). Raises ValueError when it has another rank."""
        if len(shape) != 2:
            raise ValueError(f"Identity makes matrices (rows, columns), got shape={tuple(shape)}.")
        return (self.gain * torch.eye(*shape, dtype=torch.float64)).to(weight_dtype(dtype))

    def get_config(self) -> dict[str, Any]:
        # Keras forgets the gain; the default's config is the same as Keras'.
        return {} if self.gain == 1 else {"gain": self.gain}


class STFT(Initializer):
    """The kernel of a convolution that takes a short-time Fourier transform: its real or its imaginary part.

    Args:
        side: "real" (default) or "imag".
        window: "bartlett", "blackman", "cosine", "hamming", "hann" (default) or "nuttall"; or the values of another
            window (frame length); or None for no window.
        scaling: the window is divided by the root of its summed squares, "density" (default), by its sum,
            "spectrum", or not at all, None.
        periodic: make a named window periodic, not symmetric. Default False.

    Raises:
        ValueError: an argument is another, or a window has another length than the frames.

    >>> real = initializers.STFT("real", window=None, scaling=None)((4, 1, 3))
    >>> real[:, 0, 1].round().int()  # one turn of a cosine in four steps
    tensor([ 1,  0, -1,  0], dtype=torch.int32)
    """

    def __init__(
        self, side: str = "real", window: Any = "hann", scaling: str | None = "density", periodic: bool = False
    ) -> None:
        if side not in ("real", "imag"):
            raise ValueError(f"STFT: side is 'real' or 'imag', got {side!r}.")
        if isinstance(window, str) and window not in _WINDOWS:
            raise ValueError(
                f"STFT: window is one of {', '.join(map(repr, _WINDOWS))}, an array or None, got {window!r}. "
                "Give the values of any other window."
            )
        if scaling not in ("density", "spectrum", None):
            raise ValueError(f"STFT: scaling is 'density', 'spectrum' or None, got {scaling!r}.")
        self.side = side
        self.window = window
        self.scaling = scaling
        self.periodic = periodic

    def __call__(self, shape: Sequence[int], dtype: DTypeLike | None = None) -> Tensor:
        """Return the kernel (frame length, 1, fft length // 2 + 1)."""
        frame_length, _, bins = shape
        time = torch.arange(frame_length, dtype=torch.float64).view(-1, 1, 1)
        frequency = torch.arange(bins, dtype=torch.float64) / (2 * (bins - 1))
        angle = -2 * torch.pi * time * frequency
        kernel = torch.cos(angle) if self.side == "real" else torch.sin(angle)
        return (kernel * self._scaled_window(frame_length)).to(weight_dtype(dtype))

    def _scaled_window(self, frame_length: int) -> Tensor:
        if self.window is None:
            return torch.ones((), dtype=torch.float64)
        if isinstance(self.window, str):
            window = _WINDOWS[self.window](frame_length, sym=not self.periodic, dtype=torch.float64)
        else:
            window = torch.tensor(np.asarray(self.window), dtype=torch.float64)
        if window.shape != (frame_length,):
            raise ValueError(
                f"STFT: a window of shape {tuple(window.shape)} was given for a kernel whose frames have the length "
                f"{frame_length}. Give one value for each step of a frame."
            )
        if self.scaling == "density":
            window = window / torch.sqrt(torch.sum(torch.square(window)))
        elif self.scaling == "spectrum":
            window = window / torch.sum(torch.abs(window))
        return window.view(-1, 1, 1)

    def get_config(self) -> dict[str, Any]:
        window = serialize_keras_object(self.window)
        return {"side": self.side, "window": window, "periodic": self.periodic, "scaling": self.scaling}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**deserialize_keras_object(dict(config)))
