"""The weights of a model that has none yet, made for the first batch it meets."""

from __future__ import annotations

import threading

import torch

from torchfunc.training.data.arrays import Data, unpack_x_y_sample_weight
from torchfunc.training.data.stream import EpochStream
from torchfunc.training.trainable import Trainable

__all__ = ["build_for_data", "built_for"]

_building = threading.RLock()


def build_for_data(model: Trainable, stream: EpochStream, device: torch.device) -> None:
    """Make the weights that are missing for the first batch of the data."""
    if not model.is_fully_built():
        with _building:
            built_for(model, stream.peek(), device)


def built_for(model: Trainable, batch: Data, device: torch.device) -> Data:
    """The batch, for which the model has all weights now."""
    if not model.is_fully_built():
        with _building:
            if not model.is_fully_built():
                # Weights made during an evaluation have to be trainable afterwards.
                with torch.inference_mode(False):
                    model.build_from_inputs(*model.prepare_inputs(unpack_x_y_sample_weight(batch).x))
                model.to(device)
    return batch
