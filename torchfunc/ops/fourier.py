"""Fourier transforms. Complex numbers are pairs of a real and an imaginary tensor, as in Keras."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from torchfunc.ops.tensors import TensorLike, as_floating, as_tensor

__all__ = [
    *("extract_sequences", "fft", "fft2", "ifft2", "irfft", "istft", "polar", "rfft", "stft"),
    *("view_as_complex", "view_as_real"),
]

Pair: TypeAlias = "tuple[TensorLike, TensorLike]"
TensorPair: TypeAlias = tuple[Tensor, Tensor]


def fft(x: Pair) -> TensorPair:
    """The Fourier transform along the last axis.

    `x` is a pair of tensors, the real and the imaginary parts; so is the result.

    >>> real, imaginary = ops.fft(([1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]))
    >>> real
    tensor([4., 0., 0., 0.])
    """
    return _parts(torch.fft.fft(_complex(x)))


def fft2(x: Pair) -> TensorPair:
    """The Fourier transform along the last two axes.

    >>> real, imaginary = ops.fft2(([[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]))
    >>> real
    tensor([[4., 0.],
            [0., 0.]])
    """
    return _parts(torch.fft.fft2(_complex(x)))


def ifft2(x: Pair) -> TensorPair:
    """The inverse of `fft2`.

    >>> real, imaginary = ops.ifft2(([[4.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]))
    >>> real
    tensor([[1., 1.],
            [1., 1.]])
    """
    return _parts(torch.fft.ifft2(_complex(x)))


def rfft(x: TensorLike, fft_length: int | None = None) -> TensorPair:
    """The Fourier transform of real numbers along the last axis, cut or padded to `fft_length`.

    >>> real, imaginary = ops.rfft([1.0, 1.0, 1.0, 1.0])
    >>> real
    tensor([4., 0., 0.])
    """
    return _parts(torch.fft.rfft(as_floating(x), fft_length))


def irfft(x: Pair, fft_length: int | None = None) -> Tensor:
    """The inverse of `rfft`.

    Args:
        x: the real and the imaginary parts.
        fft_length: the length of the result; `2 * (n - 1)` by default.

    >>> ops.irfft(([4.0, 0.0, 0.0], [0.0, 0.0, 0.0]))
    tensor([1., 1., 1., 1.])
    """
    return torch.fft.irfft(_complex(x), fft_length)


def stft(
    x: TensorLike,
    sequence_length: int,
    sequence_stride: int,
    fft_length: int,
    window: str | TensorLike | None = "hann",
    center: bool = True,
) -> TensorPair:
    """The Fourier transforms of windows of the last axis.

    Args:
        x: (..., samples).
        sequence_length: the length of a window.
        sequence_stride: how far apart windows begin.
        fft_length: the length that a window is padded to.
        window: "hann", "hamming", a tensor of weights, or None for none.
        center: whether `x` is padded so that the windows are centred.

    Returns:
        Two tensors (..., windows, fft_length // 2 + 1).

    >>> real, imaginary = ops.stft(torch.ones(16), sequence_length=4, sequence_stride=2, fft_length=4)
    >>> real.shape
    torch.Size([9, 3])
    """
    x = as_floating(x)
    found = torch.stft(
        torch.reshape(x, (-1, x.size(-1))),
        fft_length,
        sequence_stride,
        sequence_length,
        _window(window, sequence_length, x),
        center,
        return_complex=True,
    )
    found = torch.swapaxes(found, -1, -2)
    return _parts(torch.reshape(found, (*x.size()[:-1], *found.size()[1:])))


def istft(
    x: Pair,
    sequence_length: int,
    sequence_stride: int,
    fft_length: int,
    length: int | None = None,
    window: str | TensorLike | None = "hann",
    center: bool = True,
) -> Tensor:
    """The inverse of `stft`; (..., samples), cut to `length`. Not symbolically.

    Args:
        sequence_length, sequence_stride, fft_length, window, center: as for `stft`.

    >>> x = torch.arange(16.0)
    >>> spectrum = ops.stft(x, sequence_length=4, sequence_stride=2, fft_length=4)
    >>> torch.allclose(ops.istft(spectrum, sequence_length=4, sequence_stride=2, fft_length=4), x, atol=1e-5)
    True
    """
    values = torch.swapaxes(_complex(x), -1, -2)
    weights = _window(window, sequence_length, values.real)
    flat = torch.reshape(values, (-1, *values.shape[-2:]))
    found = torch.istft(flat, fft_length, sequence_stride, sequence_length, weights, center, length=length)
    return torch.reshape(found, (*values.shape[:-2], found.shape[-1]))


def extract_sequences(x: TensorLike, sequence_length: int, sequence_stride: int) -> Tensor:
    """Windows of the last axis: (..., samples) as (..., windows, sequence_length).

    >>> ops.extract_sequences([1, 2, 3, 4, 5], sequence_length=3, sequence_stride=2)
    tensor([[1, 2, 3],
            [3, 4, 5]])
    """
    return as_tensor(x).unfold(-1, sequence_length, sequence_stride)


def polar(abs_: TensorLike, angle: TensorLike) -> Tensor:
    """Complex numbers by absolute value and angle.

    >>> ops.nn.polar([2.0], [0.0])
    tensor([2.+0.j])
    """
    return torch.polar(as_floating(abs_), as_floating(angle))


def view_as_complex(x: TensorLike) -> Tensor:
    """(..., 2) as complex numbers.

    >>> ops.view_as_complex([[1.0, 2.0]])
    tensor([1.+2.j])
    """
    return torch.complex(as_floating(x)[..., 0], as_floating(x)[..., 1])


def view_as_real(x: TensorLike) -> Tensor:
    """Complex numbers as (..., 2).

    >>> ops.view_as_real(torch.tensor([1 + 2j]))
    tensor([[1., 2.]])
    """
    return torch.view_as_real(torch.resolve_conj(as_tensor(x)))


def _complex(x: Pair) -> Tensor:
    real, imaginary = x
    return torch.complex(as_floating(real), as_floating(imaginary))


def _parts(x: Tensor) -> TensorPair:
    return torch.real(x), torch.imag(x)


def _window(window: str | TensorLike | None, length: int, like: Tensor) -> Tensor:
    if window is None:
        return torch.ones(length, dtype=like.dtype)
    if isinstance(window, str):
        if window not in ("hann", "hamming"):
            raise ValueError(f'A window is "hann", "hamming", a tensor or None, got {window!r}.')
        make = torch.hann_window if window == "hann" else torch.hamming_window
        return make(length, dtype=like.dtype)
    return as_tensor(window).to(like.dtype)
