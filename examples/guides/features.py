"""What the layers of a network see of a photograph: a model of every tensor in the graph of VGG19.

The weights here are random, to run without a download; `weights="imagenet"` fetches those that Keras offers.
"""

import numpy as np
from sklearn.datasets import load_sample_image

from torchfunc import Model, applications, utils

utils.set_random_seed(0)
vgg19 = applications.VGG19(weights=None, include_top=False, input_shape=(64, 64, 3))
print(f"{len(vgg19.layers)} layers, {vgg19.count_params():,} parameters")

features = [layer.output for layer in vgg19.layers]
extraction = Model(inputs=vgg19.input, outputs=features)
print("No weights of its own:", extraction.count_params() == vgg19.count_params())

photograph = load_sample_image("china.jpg")[100:164, 200:264]
images = applications.vgg19.preprocess_input(photograph[None].astype("float32"))
found = extraction.predict(images, verbose=0)
for layer, values in list(zip(vgg19.layers, found, strict=True))[:4]:
    print(f"{layer.name}: {values.shape}")
print("The last is what the network gives:", np.array_equal(found[-1], vgg19.predict(images, verbose=0)))

# How much its maps go together says of which style a picture is, wherever things are in it.
maps = found[-2].reshape(-1, found[-2].shape[-1])
print("Which maps go together:", (maps.T @ maps).shape)
