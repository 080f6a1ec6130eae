"""Recurrent layers and cells, and the kernels they run on."""
