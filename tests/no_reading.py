"""Modes that watch for values read back from the device: one in which that is an error, and one that counts."""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# These read a value back, or have an output whose size is one.
READING = (
    *("aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::masked_select", "aten::is_nonzero"),
    *("aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::bincount", "aten::equal"),
    *("aten::repeat_interleave.Tensor", "aten::_assert_async", "aten::histc"),
)


class NoReading(TorchDispatchMode):
    """Fails at an operation that would make an accelerator's host wait; counts all others but views."""

    def __init__(self):
        super().__init__()
        self.kernels = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        assert name not in READING, f"{name} waits for the device"
        assert not _indexes_by_mask(name, args), "a mask as index waits"
        if not func.is_view:
            self.kernels.append(name)
        return func(*args, **(kwargs or {}))


class Readings(TorchDispatchMode):
    """Counts the values that are read back, and the tensors that go to the host, while it is entered."""

    def __init__(self):
        super().__init__()
        self.count = Counter()
        self._kept = {}

    def __enter__(self):
        # On the CPU these run no operation that a mode would see.
        for name in ("numpy", "cpu", "tolist", "__array__"):
            self._kept[name] = getattr(torch.Tensor, name)
            setattr(torch.Tensor, name, self._counted(name, self._kept[name]))
        return super().__enter__()

    def __exit__(self, *error):
        for name, method in self._kept.items():
            setattr(torch.Tensor, name, method)
        return super().__exit__(*error)

    def _counted(self, name, method):
        def counted(*args, **kwargs):
            self.count[name] += 1
            return method(*args, **kwargs)

        return counted

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name in READING or _indexes_by_mask(name, args):
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


def _indexes_by_mask(name, args):
    indices = args[1] if name == "aten::index" else []
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
