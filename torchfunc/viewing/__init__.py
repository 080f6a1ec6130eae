"""What people look at: the summary of a model. Knows graph and modules."""

from torchfunc.viewing.summary import summarize

__all__ = ["summarize"]
