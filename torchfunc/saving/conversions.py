"""What a model can be turned into: the methods of `Model` that lead to plain PyTorch."""

from __future__ import annotations

from torch import fx

from torchfunc.modules import Network
from torchfunc.modules.torch_graph.convert import to_torch

__all__ = ["Convertible"]


class Convertible(Network):
    """A network that can be written in other forms."""

    def to_torch(self) -> fx.GraphModule:
        """The same computation on torch's own modules and functions, for tools that go by their types.

        `nn.Linear` takes the place of `Dense`, and its activation is a call of a function; `nn.Conv2d` that of
        `Conv2D`, between permutations of the axes; and so on. Parameters and buffers are shared with this model and
        have the same names. Penalties on weights and outputs are not part of it.

        Returns:
            A module that takes the inputs in order, as tensors. A layer that cannot be expressed so (one of your own
            whose code depends on values, or one with hooks) stays as it is.

        Raises:
            ValueError: the model is not built yet, or is none that can be drawn.
        """
        return to_torch(self)
