"""Normalizations: by batch, by sample, of weights."""
