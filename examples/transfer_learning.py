"""Transfer learning: what a network has learnt of the digits 0 to 4 helps it to tell 5 to 9 from few examples.

The images are scikit-learn's 1,797 handwritten digits of 8 x 8 pixels. First the new part is trained on frozen
features; then everything is, gently.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from torchfunc import Input, Model, layers, losses, optimizers, utils


def build_base() -> Model:
    """Draw the part that will be reused: an image becomes 32 features."""
    images = Input(shape=(8, 8, 1), name="images")
    x = layers.Conv2D(16, 3, activation="relu", padding="same")(images)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(32, 3, activation="relu")(x)
    return Model(images, layers.Flatten()(x), name="features")


def with_head(base: Model, training: bool | None = None) -> Model:
    """Draw a model of the base and a new end. With training=False the base's batch norm keeps its statistics."""
    images = Input(shape=(8, 8, 1))
    x = layers.Dropout(0.2)(base(images, training=training))
    return Model(images, layers.Dense(5, name="digit")(x))


def train(model: Model, rate: float, x: np.ndarray, y: np.ndarray, epochs: int) -> None:
    """Compile, which notices what is frozen, and fit."""
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.Adam(rate), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=epochs, batch_size=32, verbose=0)


def main(epochs: int = 20) -> tuple[float, float, float]:
    """Return the accuracy on unseen digits from 5 to 9: trained from nothing, with frozen features, and fine-tuned."""
    utils.set_random_seed(0)
    pixels, digits = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 8, 8, 1) / 16
    low = digits < 5
    x_train, x_test, y_train, y_test = train_test_split(
        images[~low], digits[~low] - 5, train_size=40, stratify=digits[~low], random_state=0
    )

    scratch = with_head(build_base())
    train(scratch, 0.002, x_train, y_train, epochs)
    _, from_nothing = scratch.evaluate(x_test, y_test, verbose=0)

    base = build_base()
    train(with_head(base), 0.002, images[low], digits[low], epochs // 2)

    base.trainable = False
    model = with_head(base, training=False)
    model.summary()  # only the new end is trainable
    train(model, 0.01, x_train, y_train, epochs)
    _, frozen = model.evaluate(x_test, y_test, verbose=0)

    base.trainable = True
    train(model, 0.0005, x_train, y_train, epochs)
    _, tuned = model.evaluate(x_test, y_test, verbose=0)

    print(f"Accuracy on {len(y_test)} unseen digits after 40 examples")
    print(f"from nothing: {from_nothing:.1%}, on frozen features: {frozen:.1%}, fine-tuned: {tuned:.1%}")
    return from_nothing, frozen, tuned


if __name__ == "__main__":
    main()
