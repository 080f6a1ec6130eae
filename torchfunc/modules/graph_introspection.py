"""What users ask of a drawn model: its calls, layers, inputs and outputs, and what they are called."""

from __future__ import annotations

from typing import Any

from torch import nn

from torchfunc.graph import Node, SymbolicTensor
from torchfunc.modules.drawn_graph import DrawnGraph
from torchfunc.structures import map_structure

__all__ = ["GraphIntrospection"]


class GraphIntrospection:
    """The properties of a drawn model that are read from its graph.

    Attributes:
        drawn: what was drawn; None while it is not known.
    """

    drawn: Any

    @property
    def _label(self) -> str:
        """The model, as messages call it."""
        raise NotImplementedError

    def _known_graph(self) -> DrawnGraph:
        """What was drawn.

        Raises:
            AttributeError: it is not known yet.
        """
        drawn = self.drawn
        if drawn is None:
            raise AttributeError(
                f"{self._label} has no graph yet: it is drawn when the model is called on data, or by `build`."
            )
        return drawn

    @property
    def nodes(self) -> list[Node]:
        """The recorded calls of the model, in topological order."""
        return [] if self.drawn is None else list(self.drawn.nodes)

    @property
    def layers(self) -> list[nn.Module]:
        """The layers and modules in the order of their first calls, input layers included."""
        return self._known_graph().layers

    def layer_names(self) -> list[str]:
        names = self._known_graph().names
        return [names[layer] for layer in self.layers]

    @property
    def inputs(self) -> list[SymbolicTensor]:
        """The symbolic inputs, in order."""
        return self._known_graph().input_tensors

    @property
    def outputs(self) -> list[SymbolicTensor]:
        """The symbolic outputs, in order."""
        return list(self._known_graph().output_tensors)

    @property
    def input(self) -> Any:
        """The symbolic inputs, as the model was made with."""
        return self._known_graph().inputs

    @property
    def output(self) -> Any:
        """The symbolic outputs, as the model was made with."""
        return self._known_graph().outputs

    @property
    def input_shape(self) -> Any:
        return map_structure(lambda leaf: leaf.shape, self.input)

    @property
    def output_shape(self) -> Any:
        return map_structure(lambda leaf: leaf.shape, self.output)

    @property
    def input_names(self) -> list[str] | None:
        """The names of the inputs, in order; None while they are not known."""
        return None if self.drawn is None else list(self.drawn.binding.names)

    @property
    def output_names(self) -> list[str] | None:
        """The names of the outputs, in order: the keys of a dict, else the layers that make them."""
        return None if self.drawn is None else list(self.drawn.output_names)

    def node_name(self, node: Node) -> str:
        """The name of the layer or function a node calls, in this model."""
        return self._known_graph().name_of(node)
