"""How much memory tensors take at once, counted and not measured."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that are there at once, of those that are made in the block."""

    def __init__(self):
        super().__init__()
        self.now = self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(made):
            if not isinstance(tensor, torch.Tensor) or tensor.is_meta:
                continue
            storage = tensor.untyped_storage()
            if "known" not in vars(storage):
                storage.known, size = True, storage.nbytes()
                self.now += size
                self.bytes = max(self.bytes, self.now)
                weakref.finalize(storage, self.free, size)
        return made

    def free(self, size):
        self.now -= size
