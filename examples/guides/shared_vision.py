"""Do two pictures show the same digit? A model that sees one is called on both; its weights are there once."""

import numpy as np
from sklearn.datasets import load_digits

from torchfunc import Input, Model, layers, optimizers, utils

utils.set_random_seed(0)
digit = Input(shape=(8, 8, 1))
x = layers.Conv2D(32, (3, 3), activation="relu")(digit)
x = layers.Conv2D(32, (3, 3), activation="relu")(x)
x = layers.MaxPooling2D((2, 2))(x)
vision = Model(digit, layers.Flatten()(x), name="vision")

digit_a = Input(shape=(8, 8, 1), name="digit_a")
digit_b = Input(shape=(8, 8, 1), name="digit_b")
seen = layers.concatenate([vision(digit_a), vision(digit_b)])
x = layers.Dense(64, activation="relu")(seen)
same = layers.Dense(1, activation="sigmoid")(x)
model = Model([digit_a, digit_b], same)
print("Layers:", *(layer.name for layer in model.layers))
print(f"Parameters of the vision, in it and in all: {vision.count_params():,}, {model.count_params():,}")

data = load_digits()
images = (data.images / 16)[..., None]
random = np.random.default_rng(0)
a = random.integers(1797, size=4000)
b = np.where(random.random(4000) < 0.5, random.permutation(1797)[a], random.integers(1797, size=4000))
by_digit = [np.flatnonzero(data.target == which) for which in range(10)]
b[::2] = [random.choice(by_digit[which]) for which in data.target[a[::2]]]  # every second pair is of one digit
is_same = (data.target[a] == data.target[b]).astype("float32")

before = vision.get_weights()[0].copy()
model.compile(optimizers.Adam(2e-3), "binary_crossentropy", metrics=["accuracy"])
history = model.fit([images[a], images[b]], is_same, epochs=4, validation_split=0.1, verbose=0)
print("More than 7 of 10 pairs are told right:", history.history["val_accuracy"][-1] > 0.7)
print("What was trained is the vision:", not np.allclose(before, vision.get_weights()[0]))
