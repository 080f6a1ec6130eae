"""Private names of torch that this package relies on, all in one place.

Read in torch 2.11 and 2.13; look here first when another version of torch breaks something.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

__all__ = ["autograd_in_operator", "cudnn_rnn", "cudnn_rnn_backward", "has_forward_hooks", "is_fake"]

# cuDNN's recurrent layers, called positionally: their schemas are those of torch's native_functions.yaml.
cudnn_rnn = torch.ops.aten._cudnn_rnn.default
cudnn_rnn_backward = torch.ops.aten._cudnn_rnn_backward.default


def autograd_in_operator() -> contextlib.AbstractContextManager[None]:
    """Let autograd record inside a custom operator, where torch switches it off."""
    return torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.AutogradFunctionality, False)


def is_fake(tensor: Tensor) -> bool:
    """Whether a tensor has no data: shapes are being inferred."""
    return isinstance(tensor, FakeTensor)


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether hooks are registered on the module that its call runs before or after `forward`."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
