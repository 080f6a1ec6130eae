"""From the graph to a `torch.nn.Module`. Knows graph and layers."""

from torchfunc.modules.cloning import clone_model
from torchfunc.modules.graph_network import GraphNetwork, become_graph, graph_class
from torchfunc.modules.network import Network
from torchfunc.modules.sequential import SequentialNetwork
from torchfunc.modules.training_forward import OutputDescription, TrainingOutputs

__all__ = [
    "GraphNetwork",
    "Network",
    "OutputDescription",
    "SequentialNetwork",
    "TrainingOutputs",
    "become_graph",
    "clone_model",
    "graph_class",
]
