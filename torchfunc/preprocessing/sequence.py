"""Sequences; see `utils.pad_sequences`."""

from torchfunc.utils import pad_sequences

__all__ = ["pad_sequences"]
