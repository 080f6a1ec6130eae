"""Convolutions: plain, separable and transposed."""
