"""Pooling: over windows, and over all positions."""
