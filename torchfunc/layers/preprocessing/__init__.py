"""Preprocessing that belongs in a graph: numbers, categories and images brought into form."""
