"""Test-wide settings: Keras, our reference, runs on the torch backend; every test starts from the same seeds."""

import os
import random

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
import torch

pytest_plugins = ["parity_table"]


@pytest.fixture(autouse=True)
def seeds():
    """A test that draws must not depend on which others ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
