"""What people look at: the summary and the drawing of a model. Knows graph and modules."""

from torchfunc.viewing.activations import layer_outputs
from torchfunc.viewing.plot import Drawing, model_to_dot, plot_model
from torchfunc.viewing.printing import in_notebook, print_text, show_in_notebook
from torchfunc.viewing.profile import Profile, profile_layers
from torchfunc.viewing.summary import Summary, summarize

__all__ = [
    "Drawing",
    "Profile",
    "Summary",
    "in_notebook",
    "layer_outputs",
    "model_to_dot",
    "plot_model",
    "print_text",
    "profile_layers",
    "show_in_notebook",
    "summarize",
]
