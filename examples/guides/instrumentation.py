"""Look into a model while it is trained: it is drawn with everything worth seeing, and trained through a wrapper."""

import numpy as np
from sklearn.datasets import load_digits

from torchfunc import Input, Model, layers, utils

utils.set_random_seed(0)
data = load_digits()
images = (data.images / 16)[..., None]

# The model that shows everything: what both convolutions see, and the answer.
image = Input(shape=(8, 8, 1), name="image")
edges = layers.Conv2D(8, 3, activation="elu", name="edges")(image)
shapes = layers.Conv2D(16, 3, activation="elu", name="shapes")(edges)
digit = layers.Dense(10, activation="softmax", name="digit")(layers.Flatten()(shapes))
all_of_it = Model(image, {"edges": edges, "shapes": shapes, "digit": digit}, name="all_of_it")

# The one that is trained: the same weights, and of the outputs only the answer.
outer_image = Input(shape=(8, 8, 1), name="outer_image")
trained = Model(outer_image, all_of_it(outer_image)["digit"])
trained.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
history = trained.fit(images, data.target, epochs=5, verbose=0)
print("Trained:", history.history["accuracy"][-1] > 0.8)

seen = all_of_it.predict(images[:4], verbose=0)
print("Seen:", {name: value.shape for name, value in seen.items()})
print("One answer from both:", np.array_equal(seen["digit"], trained.predict(images[:4], verbose=0)))

# Afterwards works as well: any tensor of a trained model's graph can be the output of another.
later = Model(image, all_of_it.get_layer("shapes").output)
print("The same by looking afterwards:", np.allclose(later.predict(images[:4], verbose=0), seen["shapes"], atol=1e-6))
print("Or by name:", *all_of_it.activations(images[:4], ["edges", "shapes"]))
