"""From the graph to a `torch.nn.Module`. Knows graph and layers."""

from torchfunc.modules.cloning import clone_model
from torchfunc.modules.drawn_graph import DrawnGraph
from torchfunc.modules.fx_module import drawn_class
from torchfunc.modules.graph_network import GraphNetwork
from torchfunc.modules.network import Network, OutputDescription, TrainingOutputs
from torchfunc.modules.sequential import SequentialNetwork

__all__ = [
    "DrawnGraph",
    "GraphNetwork",
    "Network",
    "OutputDescription",
    "SequentialNetwork",
    "TrainingOutputs",
    "clone_model",
    "drawn_class",
]
