"""Tensors in safetensors files, and within other files: written and read piece by piece, never twice in memory."""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

import torch
from torch import Tensor

from torchfunc.saving.files import PathLike, replacing
from torchfunc.saving.safetensors_layout import LENGTH_BYTES, Layout
from torchfunc.shards import fill

__all__ = ["TensorSection", "read_tensors", "write_section", "write_tensors"]

_PIECE = 1 << 24
# Smaller pieces are not worth another thread.
_SMALL = 1 << 16


def write_tensors(path: PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors by name as a safetensors file, atomically. Tensors that share memory are written one by one.

    Raises:
        ValueError: a tensor is of a kind that the format does not know.
        OSError: the file cannot be written.
    """
    # The header is as long whatever the checksum, which is known at the end.
    layout, checksum = dataclasses.replace(Layout.of(tensors, metadata), data_checksum=0), _Checksum()
    with replacing(path) as file:

        def write(piece: memoryview) -> None:
            checksum.add(piece)
            file.write(piece)

        file.write(layout.encode())
        with checksum:
            _write_data(write, layout, tensors)
        file.seek(0)
        file.write(dataclasses.replace(layout, data_checksum=checksum.value).encode())


def write_section(write: Callable[[Any], object], layout: Layout, tensors: Mapping[str, Tensor]) -> None:
    """Write header and data by calling `write` with pieces of them."""
    write(layout.encode())
    _write_data(write, layout, tensors)


def _write_data(write: Callable[[memoryview], object], layout: Layout, tensors: Mapping[str, Tensor]) -> None:
    for name in layout.places:
        for piece in _pieces(_bytes_of(tensors[name].detach().cpu().resolve_conj().resolve_neg().contiguous())):
            write(piece)


def read_tensors(path: PathLike, require_checksum: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and its metadata.

    Args:
        path: the file.
        require_checksum: whether it must hold the checksums that `write_tensors` writes; else they are checked if they
            are there.

    Raises:
        ValueError: it is no safetensors file, or is damaged.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        section = TensorSection(file, os.fspath(path), require_checksum=require_checksum)
        tensors = section.empty_tensors()
        section.read_into(tensors)
    return tensors, dict(section.layout.metadata)


class TensorSection:
    """A safetensors file that is open, or the part of an open file that is one.

    Args:
        file: the file, open to be read.
        label: what messages call it.
        start: where the section begins.
        size: how many bytes it has; all that follow by default.
        checksum: the CRC-32 of the whole section, if it is known from elsewhere.
        require_checksum: whether its header must hold checksums.

    Raises:
        ValueError: its header is damaged, or does not fit its size.
    """

    def __init__(
        self,
        file: IO[bytes],
        label: str,
        start: int = 0,
        size: int | None = None,
        checksum: int | None = None,
        require_checksum: bool = False,
    ) -> None:
        self.file = file
        self.label = label
        size = os.fstat(file.fileno()).st_size - start if size is None else size
        try:
            file.seek(start)
            first = file.read(LENGTH_BYTES)
            text = file.read(Layout.header_length(first, size))
            self.layout = Layout.decode(text, size - LENGTH_BYTES - len(text), require_checksum)
        except ValueError as error:
            raise self._damaged(str(error)) from error
        self.data_start = start + LENGTH_BYTES + len(text)
        # What the checksum is before the data, and behind them.
        self._before = 0 if checksum is None else zlib.crc32(first + text)
        self._expected = self.layout.data_checksum if checksum is None else checksum

    def empty_tensors(self) -> dict[str, Tensor]:
        """A tensor on the CPU for each of the file, to be read into."""
        return {name: torch.empty(place.shape, dtype=place.dtype) for name, place in self.layout.places.items()}

    def check(self) -> None:
        """Read all data, keep nothing, and raise ValueError if the checksum differs."""
        if self._expected is None:
            return
        piece, checksum, left = memoryview(bytearray(_PIECE)), self._before, self.layout.data_size
        self.file.seek(self.data_start)
        while left:
            self._fill(piece[: min(left, _PIECE)])
            checksum = zlib.crc32(piece[: min(left, _PIECE)], checksum)
            left -= min(left, _PIECE)
        self._compare(checksum)

    def read_into(self, targets: Mapping[str, Tensor]) -> None:
        """Fill tensors of the same shapes with what the file holds under their names, whatever else it holds.

        Args:
            targets: the tensors; others than those of the file's dtype are converted to.

        Raises:
            ValueError: the file is cut off, or the checksum differs. The tensors may be filled by then.
        """
        checksum = _Checksum(self._before)
        self.file.seek(self.data_start)
        with checksum:
            for name, place in self.layout.places.items():
                target = targets.get(name)
                direct = target is not None and _is_plain(target) and target.dtype is place.dtype
                staged = (
                    target.detach() if direct and target is not None else torch.empty(place.shape, dtype=place.dtype)
                )
                for piece in _pieces(_bytes_of(staged)):
                    self._fill(piece)
                    checksum.add(piece)
                if direct:
                    # What was written to its memory is a change that torch has not seen.
                    torch.autograd.graph.increment_version(staged)
                elif target is not None:
                    with torch.no_grad():
                        fill(target, staged)
        self._compare(checksum.value)

    def _fill(self, piece: memoryview) -> None:
        filled = 0
        while filled < len(piece):
            count = self.file.readinto(piece[filled:])  # type: ignore[attr-defined]
            if not count:
                raise self._damaged("it is cut off")
            filled += count

    def _compare(self, checksum: int) -> None:
        if self._expected is not None and checksum != self._expected:
            raise self._damaged("the checksum of its data differs")

    def _damaged(self, why: str) -> ValueError:
        return ValueError(f"{self.label} is no safetensors file, or it is damaged: {why}.")


class _Checksum:
    """A CRC-32 that is computed in another thread, while the next piece is read."""

    def __init__(self, value: int = 0) -> None:
        self.value = value
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True)

    def add(self, piece: memoryview) -> None:
        # One piece behind at most, so that memory that is converted from stays alive.
        self.wait()
        if len(piece) < _SMALL:
            self._update(piece)
        else:
            self._pending = self._pool.submit(self._update, piece)

    def wait(self) -> None:
        if self._pending is not None:
            self._pending.result()

    def _update(self, piece: memoryview) -> None:
        self.value = zlib.crc32(piece, self.value)


def _is_plain(tensor: Tensor) -> bool:
    """Whether a file can be read right into the memory of a tensor."""
    return tensor.device.type == "cpu" and tensor.is_contiguous() and type(tensor.detach()) is Tensor


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    flat = tensor.detach().reshape(-1)
    return memoryview(b"") if not flat.numel() else flat.view(torch.uint8).numpy().data


def _pieces(data: memoryview) -> Iterator[memoryview]:
    return (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
