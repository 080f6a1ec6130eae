"""Test-wide settings: Keras, our reference, runs on the torch backend."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
