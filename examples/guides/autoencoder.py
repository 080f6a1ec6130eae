"""An autoencoder, three ways: two models of one graph, a model of two models, and a part cut out of the whole."""

import numpy as np

from torchfunc import Input, Model, layers, utils


def encode(x):
    x = layers.Conv2D(16, 3, activation="relu")(x)
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.MaxPooling2D(3)(x)
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.Conv2D(16, 3, activation="relu")(x)
    return layers.GlobalMaxPooling2D()(x)


def decode(x):
    x = layers.Reshape((4, 4, 1))(x)
    x = layers.Conv2DTranspose(16, 3, activation="relu")(x)
    x = layers.Conv2DTranspose(32, 3, activation="relu")(x)
    x = layers.UpSampling2D(3)(x)
    x = layers.Conv2DTranspose(16, 3, activation="relu")(x)
    return layers.Conv2DTranspose(1, 3, activation="relu")(x)


utils.set_random_seed(0)
images = np.random.random((16, 28, 28, 1)).astype("float32")

# 1. The encoder ends where the autoencoder goes on.
image = Input(shape=(28, 28, 1), name="image")
code = encode(image)
encoder = Model(image, code, name="encoder")
autoencoder = Model(image, decode(code), name="autoencoder")
print(f"Parameters: {encoder.count_params():,} of {autoencoder.count_params():,}")
before = encoder.predict(images, verbose=0)
autoencoder.compile("adam", "mse")
autoencoder.fit(images, images, verbose=0)
print("Training the whole has trained the encoder:", not np.allclose(before, encoder.predict(images, verbose=0)))

# 2. A model is called as a layer is.
numbers = Input(shape=(16,), name="code")
decoder = Model(numbers, decode(numbers), name="decoder")
chained = Model(image, decoder(encoder(image)), name="chained")
print(f"Parameters: {decoder.count_params():,} of {chained.count_params():,}, layers: {len(chained.layers)}")

# 3. The end of a model is a model too: from any tensor of its graph to its output.
cut = Model(code, autoencoder.output, name="cut")
codes = encoder.predict(images, verbose=0)
whole = autoencoder.predict(images, verbose=0)
print("Both halves make the whole:", np.allclose(cut.predict(codes, verbose=0), whole, atol=1e-6))
