"""Tensors that say they are on CUDA, for what is to be seen of the code for it without a card."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensor

CUDA = torch.device("cuda", 0)


def moved(module, dtype=None):
    """The module with fake weights on CUDA: `module.to` needs torch that is built with it."""
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    kind = dtype if tensor.is_floating_point() else None
                    there = torch.ops.aten._to_copy(tensor.detach(), device=CUDA, dtype=kind)
                    table[name] = torch.nn.Parameter(there) if table is part._parameters else there
    return module


def is_there(*tensors):
    """Whether all are fake and on CUDA."""
    return all(isinstance(each, FakeTensor) and each.device == CUDA for each in tensors)


def empty(*shape, **options):
    """A fake tensor on CUDA."""
    return torch.empty(shape, device=CUDA, **options)
