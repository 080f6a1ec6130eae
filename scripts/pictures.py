"""Draw the pictures of README.md into a folder, examples/pictures by default.

python scripts/pictures.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from torchfunc import Input, Model, layers
from torchfunc.utils import model_to_dot

FOLDER = Path(__file__).parents[1] / "examples" / "pictures"


def digits() -> Model:
    """README's first example."""
    inputs = Input(shape=(64,), name="pixels")
    x = layers.Dense(64, activation="relu")(inputs)
    x = torch.nn.LayerNorm(64)(x)
    x = x + torch.tanh(x)
    return Model(inputs, layers.Dense(10)(x), name="digits")


def same_digit() -> Model:
    """Two images through one model, and whether they show the same."""
    image = Input((28, 28), name="image")
    x = layers.Dense(64, activation="relu")(layers.Flatten()(image))
    encoder = Model(image, layers.Dense(32)(x), name="encoder")
    first, second = Input((28, 28), name="first"), Input((28, 28), name="second")
    apart = torch.abs(encoder(first) - encoder(second))
    return Model([first, second], layers.Dense(1, activation="sigmoid", name="same")(apart), name="same_digit")


def draw(folder: Path) -> None:
    """Write `digits.png` and `same_digit.png`, the model within the latter drawn as well."""
    folder.mkdir(parents=True, exist_ok=True)
    for model in (digits(), same_digit()):
        model_to_dot(model, show_shapes=True, expand_nested=True, dpi=96).write(folder / f"{model.name}.png")


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
