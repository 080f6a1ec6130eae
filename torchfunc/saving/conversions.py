"""What a model can be turned into: the methods of `Model` that lead to plain PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx

from torchfunc.modules import Network
from torchfunc.modules.rewiring import rewire
from torchfunc.modules.torch_graph.convert import to_torch
from torchfunc.saving.export import export_model
from torchfunc.saving.files import PathLike, replacing
from torchfunc.saving.source import to_source

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

        >>> inputs = Input((4,))
        >>> model = Model(inputs, layers.Dense(3, name="hidden")(inputs))
        >>> model.to_torch().hidden
        Linear(in_features=4, out_features=3, bias=True)
        """
        return to_torch(self)

    def rewire(self, changes: Mapping[Any, Any]) -> Any:
        """A model of the same graph with layers replaced, removed or wrapped; all others and their weights are shared.

            model.rewire({"head": layers.Dense(7)})                       # another head
            model.rewire({model.get_layer("dropout"): None})              # without it: its input is its output
            model.rewire({"dense": lambda x: dense(x) + adapter(x)})      # wrapped
            model.rewire({"encoder.dense_1": LoRA(dense_1)})              # in a model within the model

        Args:
            changes: by a layer, its name, or the name of a function's call: a layer or module to call instead, a
                function of symbolic tensors that draws something else, or None to leave it out. What has no name gets
                that of the layer whose place it takes.

        Returns:
            A new model, not compiled. This one is as it was.

        Raises:
            TypeError: the model cannot be rewired, or a replacement cannot be called.
            ValueError: there is no such layer, one without a single input is to be left out, or something does not fit;
                the message names the first such place.

        >>> inputs = Input((4,))
        >>> model = Model(inputs, layers.Dense(10, name="head")(layers.Dense(3, name="hidden")(inputs)))
        >>> tuned = model.rewire({"head": layers.Dense(2)})
        >>> tuned.output_shape, tuned.get_layer("hidden") is model.get_layer("hidden")
        ((None, 2), True)
        """
        return rewire(self, changes)

    def export(self, path: PathLike, format: str = "torch_export") -> None:
        """Write the model, as it is in evaluation mode, as a program that runs without this package.

        The batch is of any size, and so are other sizes that are unknown, as far as the model's code allows. What the
        program is called on are the inputs in order. While it is traced, the modules in it are in evaluation mode.

        Args:
            path: the file; it ends in ".onnx" for "onnx", else in ".pt2".
            format: "torch_export" (for `torch.export.load`), "onnx" (with the packages onnx and onnxscript), or
                "aot_inductor" (compiled for this machine, for `torch._inductor.aoti_load_package`; it takes a C++
                compiler and a minute).

        Raises:
            ValueError: there is no such format, the name ends otherwise, or the model is not built yet.
            ImportError: the packages that write ONNX are not installed.

        >>> inputs = Input((4,))
        >>> model = Model(inputs, layers.Dense(3)(inputs))
        >>> model.export("model.pt2")
        >>> program = torch.export.load("model.pt2").module()
        >>> program(torch.zeros(7, 4)).shape
        torch.Size([7, 3])
        """
        export_model(self, path, format)

    def to_source(self, path: PathLike | None = None, class_name: str | None = None) -> str:
        """Write the model as plain PyTorch: a class with `__init__` and `forward` that needs nothing of this package.

        It takes the inputs in order, as tensors, loads `state_dict()` of this model strictly, and then gives the same
        outputs, in training as well. Penalties on weights and outputs are not part of it. Functions and classes that
        torch lacks are in the file, those that are used; modules of other packages are imported.

        Args:
            path: the file to write, if any.
            class_name: what the class is called; by default after the model.

        Returns:
            The text of the file.

        Raises:
            ValueError: the model is not built yet, or holds something that cannot be written so; the message names it.

        >>> inputs = Input((4,))
        >>> model = Model(inputs, torch.relu(layers.Dense(3, name="hidden")(inputs)), name="small")
        >>> text = model.to_source("small.py")
        >>> print(text[text.index("class") :])
        class Small(nn.Module):
            ...
            def __init__(self) -> None:
                super().__init__()
                self.hidden = nn.Linear(4, 3)
        <BLANKLINE>
            def forward(self, input_layer: torch.Tensor):
                hidden = self.hidden(input_layer)
                return torch.relu(hidden)
        <BLANKLINE>
        """
        source = to_source(self, class_name)
        if path is not None:
            with replacing(path) as file:
                file.write(source.encode())
        return source
