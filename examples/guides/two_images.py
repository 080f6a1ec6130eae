"""A network of inception modules, and a network of that network: did something change between two pictures?"""

import numpy as np
from sklearn.datasets import load_sample_images

from torchfunc import Input, Model, layers, optimizers, utils


def inception(x, widths, name):
    """Four ways to half the size, side by side."""

    def conv(filters, size, stride, letter):
        return layers.Conv2D(
            filters, size, strides=stride, padding="same", activation="elu", name=f"conv{letter}_{name}"
        )

    a = conv(widths[0], 1, 2, "A")(x)
    b = conv(widths[1], 3, 2, "B1")(conv(widths[1], 1, 1, "B0")(x))
    c = conv(widths[2], 5, 2, "C1")(conv(widths[2], 1, 1, "C0")(x))
    d = conv(widths[3], 1, 2, "D")(layers.MaxPooling2D(3, strides=1, padding="same", name=f"max_{name}")(x))
    return layers.Concatenate(name=f"maps_{name}")([a, b, c, d])


utils.set_random_seed(0)
image = Input(shape=(32, 32, 3), name="image")
x = inception(image, (10, 10, 10, 10), "i1")
x = inception(x, (40, 40, 40, 40), "i2")
features = layers.Dense(100, activation="elu", name="features")(layers.Flatten()(x))
one_image = Model(image, features, name="one_image")

before = Input(shape=(32, 32, 3), name="before")
after = Input(shape=(32, 32, 3), name="after")
both = layers.Concatenate()([one_image(before), one_image(after)])
x = layers.Dense(20, activation="elu")(both)
changed = layers.Dense(1, activation="sigmoid", name="changed")(x)
model = Model([before, after], changed)
model.compile(optimizers.Adam(1e-3), "binary_crossentropy", metrics=["accuracy"])
print(f"{one_image.count_params():,} of {model.count_params():,} parameters are the model within")

# Cut-outs of two photographs; a change is a cut-out from elsewhere.
random = np.random.default_rng(0)
photographs = np.stack(load_sample_images().images) / np.float32(255)
places = np.stack([random.integers(0, high, 128) for high in (2, 395, 608)])
elsewhere = np.stack([random.integers(0, high, 128) for high in (2, 395, 608)])
is_changed = random.integers(2, size=128)


def cut(where):
    return np.stack([photographs[i, row : row + 32, column : column + 32] for i, row, column in where.T])


pairs = {"before": cut(places), "after": cut(np.where(is_changed, elsewhere, places))}
history = model.fit(pairs, is_changed[:, None], epochs=6, batch_size=16, verbose=0)
print("It learns:", history.history["loss"][-1] < history.history["loss"][0])
