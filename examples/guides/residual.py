"""A residual connection: what a convolution finds is added to what it saw."""

import torch
from sklearn.datasets import load_sample_image

from torchfunc import Input, Model, layers

x = Input(shape=(256, 256, 3))
y = layers.Conv2D(3, (3, 3), padding="same", kernel_initializer="zeros")(x)  # as many maps as the image has
z = layers.add([x, y])  # x + y does as well
model = Model(x, z)
print(f"{model.count_params()} parameters, {model.output_shape}")

flower = torch.tensor(load_sample_image("flower.jpg")[:256, :256] / 255, dtype=torch.float32)[None]
print("While the kernel is zero, the picture goes through as it is:", torch.equal(model(flower), flower))

model.compile("sgd", "mse")
model.fit(flower, 1 - flower, epochs=20, verbose=0)  # it is asked for the negative
print("A gradient reaches the convolution:", model.layers[1].kernel.abs().sum().item() > 0)
