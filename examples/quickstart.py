"""Draw a network, look at it, train it on real handwritten digits, and ask it about digits it has not seen."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from torchfunc import Input, Model, layers, losses, utils


def main(epochs: int = 30) -> float:
    """Return the share of unseen digits that are recognised."""
    utils.set_random_seed(0)
    # 1,797 images of 8 x 8 pixels with values from 0 to 16, scanned from real handwriting
    images, digits = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(images / 16, digits, test_size=0.2, random_state=0)

    inputs = Input(shape=(64,), name="pixels")
    x = layers.Dense(64, activation="relu")(inputs)
    x = torch.nn.LayerNorm(64)(x)  # any torch module is a layer
    x = x + torch.tanh(x)  # and so is any torch function
    outputs = layers.Dense(10)(x)
    model = Model(inputs, outputs, name="digits")
    model.summary()

    model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=32, epochs=epochs, validation_split=0.1)

    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    guesses = model.predict(x_test[:10], verbose=0).argmax(axis=-1)
    print(f"\nAccuracy on {len(x_test)} unseen digits: {accuracy:.1%}")
    print("It reads: ", *guesses)
    print("They are: ", *y_test[:10])
    return accuracy


if __name__ == "__main__":
    main()
