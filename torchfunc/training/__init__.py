"""Training: data ► step ► loop ► logs."""

from torchfunc.training.data.arrays import pack_x_y_sample_weight, unpack_x_y_sample_weight
from torchfunc.training.trainer import Trainer

__all__ = ["Trainer", "pack_x_y_sample_weight", "unpack_x_y_sample_weight"]
