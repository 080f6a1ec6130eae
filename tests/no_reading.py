"""A mode in which it is an error to read a value back from the device, checked operation by operation on the CPU."""

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
        if name.startswith("aten::index"):
            indices = [index for index in args[1] if index is not None] if name == "aten::index" else []
            assert not any(index.dtype in (torch.bool, torch.uint8) for index in indices), "a mask as index waits"
        if not func.is_view:
            self.kernels.append(name)
        return func(*args, **(kwargs or {}))
