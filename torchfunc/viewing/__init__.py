"""What people look at: the summary and the drawing of a model. Knows graph and modules."""

from torchfunc.viewing.plot import Drawing, model_to_dot, plot_model
from torchfunc.viewing.summary import summarize

__all__ = ["Drawing", "model_to_dot", "plot_model", "summarize"]
