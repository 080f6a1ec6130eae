"""From the graph to a `torch.nn.Module`. Knows graph and layers."""

from torchfunc.modules.cloning import clone_model
from torchfunc.modules.graph_network import GraphNetwork, become_graph, graph_class
from torchfunc.modules.network import Network
from torchfunc.modules.sequential import SequentialNetwork

__all__ = ["GraphNetwork", "Network", "SequentialNetwork", "become_graph", "clone_model", "graph_class"]
