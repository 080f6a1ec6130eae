"""An inception module: towers of convolutions look at one picture, each its own way, and their maps are stacked."""

import numpy as np
import torch
from sklearn.datasets import load_sample_image

from torchfunc import Input, Model, layers, utils

utils.set_random_seed(0)
image = Input(shape=(256, 256, 3), name="image")

tower_1 = layers.Conv2D(64, (1, 1), padding="same", activation="relu")(image)
tower_1 = layers.Conv2D(64, (3, 3), padding="same", activation="relu")(tower_1)

tower_2 = layers.Conv2D(64, (1, 1), padding="same", activation="relu")(image)
tower_2 = layers.Conv2D(64, (5, 5), padding="same", activation="relu")(tower_2)

tower_3 = layers.MaxPooling2D((3, 3), strides=(1, 1), padding="same")(image)
tower_3 = layers.Conv2D(64, (1, 1), padding="same", activation="relu")(tower_3)

maps = layers.concatenate([tower_1, tower_2, tower_3], axis=-1)
module = Model(image, maps, name="inception")
print(f"{len(module.layers)} layers, {module.count_params():,} parameters, maps of {module.output_shape}")

temple = load_sample_image("china.jpg")[100:356, 200:456] / np.float32(255)  # a part of a photograph
found = module(temple[None])
print("The last tower's share is the last 64 maps:", torch.equal(found[..., 128:], Model(image, tower_3)(temple[None])))
