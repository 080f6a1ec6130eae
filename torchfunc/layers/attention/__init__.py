"""Attention: single-headed and multi-headed."""
