"""One layer, called twice: do two images show the same digit?

Both images are read, row by row, by the same LSTM. It is one layer with one set of weights, which learns from both.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from torchfunc import Input, Model, layers, optimizers, utils


def make_pairs(images: np.ndarray, digits: np.ndarray, count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Pairs of images, half of them of one digit, and whether they are (1.0) or not (0.0)."""
    random = np.random.default_rng(seed)
    first = random.integers(len(images), size=count)
    second = random.integers(len(images), size=count)
    for place in range(0, count, 2):
        second[place] = random.choice(np.flatnonzero(digits == digits[first[place]]))
    same = digits[first] == digits[second]
    return [images[first], images[second]], same.astype("float32")


def main(count: int = 12000, epochs: int = 5) -> float:
    """Return the share of pairs of unseen images that are told right."""
    utils.set_random_seed(0)
    data = load_digits()
    images = (data.images / 16).astype("float32")  # (1797, 8, 8): eight rows of eight pixels
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1400], order[1400:]
    train_pairs, train_same = make_pairs(images[train], data.target[train], count, seed=1)
    test_pairs, test_same = make_pairs(images[test], data.target[test], 1000, seed=2)

    shared_lstm = layers.LSTM(64)
    image_a = Input(shape=(8, 8), name="image_a")
    image_b = Input(shape=(8, 8), name="image_b")
    encoded_a = shared_lstm(image_a)
    encoded_b = shared_lstm(image_b)
    distance = torch.abs(encoded_a - encoded_b)
    outputs = layers.Dense(1, activation="sigmoid", name="same")(distance)
    model = Model([image_a, image_b], outputs, name="same_digit")
    model.summary()
    print("Weights:", *model.state_dict())
    print("The LSTM was called on both:", shared_lstm.get_input_at(0).name, "and", shared_lstm.get_input_at(1).name)

    model.compile(optimizers.Adam(3e-3), loss="binary_crossentropy", metrics=["accuracy"])
    model.fit(train_pairs, train_same, batch_size=64, epochs=epochs, verbose=2)
    _, accuracy = model.evaluate(test_pairs, test_same, verbose=0)
    print(f"\nPairs of unseen images told right: {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
