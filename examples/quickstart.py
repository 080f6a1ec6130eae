"""Draw a network, look at it, train it on real handwritten digits, and ask it about digits it has not seen."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from torchfunc import Input, Model, layers, losses, utils


def main(epochs: int = 15) -> float:
    """Return the share of unseen digits that are recognised."""
    utils.set_random_seed(0)
    data = load_digits()  # 1,797 images of 8 x 8 pixels with values from 0 to 16, scanned from real handwriting
    pixels = (data.data / 16).astype("float32")
    order = np.random.default_rng(0).permutation(len(pixels))
    train, test = order[:1400], order[1400:]

    inputs = Input(shape=(64,), name="pixels")
    x = layers.Dense(64, activation="relu")(inputs)
    x = torch.nn.LayerNorm(64)(x)  # any torch module is a layer
    x = x + torch.tanh(x)  # and so is any torch function
    outputs = layers.Dense(10)(x)
    model = Model(inputs, outputs, name="digits")
    model.summary()

    model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(pixels[train], data.target[train], batch_size=32, epochs=epochs, validation_split=0.2)

    _, accuracy = model.evaluate(pixels[test], data.target[test], verbose=0)
    guesses = model.predict(pixels[test[:10]], verbose=0).argmax(axis=-1)
    print(f"\nAccuracy on {len(test)} unseen digits: {accuracy:.1%}")
    print("It reads: ", *guesses)
    print("They are: ", *data.target[test[:10]])
    return accuracy


if __name__ == "__main__":
    main()
