"""Several models from one graph: an encoder, a decoder, and the two in a row, which is what gets trained.

The encoder writes an image of a digit as 16 numbers, the decoder draws it again from them.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from torchfunc import Input, Model, layers, optimizers, utils


def build_models() -> tuple[Model, Model, Model]:
    """Draw the encoder (18,672 parameters), the decoder (9,569) and the autoencoder made of them (28,241)."""
    encoder_input = Input(shape=(28, 28, 1), name="original_img")
    x = layers.Conv2D(16, 3, activation="relu")(encoder_input)
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.MaxPooling2D(3)(x)
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.Conv2D(16, 3, activation="relu")(x)
    encoder_output = layers.GlobalMaxPooling2D()(x)
    encoder = Model(encoder_input, encoder_output, name="encoder")

    decoder_input = Input(shape=(16,), name="encoded_img")
    x = layers.Reshape((4, 4, 1))(decoder_input)
    x = layers.Conv2DTranspose(16, 3, activation="relu")(x)
    x = layers.Conv2DTranspose(32, 3, activation="relu")(x)
    x = layers.UpSampling2D(3)(x)
    x = layers.Conv2DTranspose(16, 3, activation="relu")(x)
    decoder_output = layers.Conv2DTranspose(1, 3, activation="relu")(x)
    decoder = Model(decoder_input, decoder_output, name="decoder")

    autoencoder_input = Input(shape=(28, 28, 1), name="img")
    decoded_img = decoder(encoder(autoencoder_input))  # a model is a layer
    return encoder, decoder, Model(autoencoder_input, decoded_img, name="autoencoder")


def show(*images: np.ndarray) -> None:
    """Print images (28, 28, 1) with values from 0 to 1 side by side, every second row."""
    for rows in zip(*(image[::2, :, 0].clip(0, 0.99) for image in images), strict=True):
        print("   ".join("".join(" .:-=+*#%@"[int(10 * value)] for value in row) for row in rows))


def main(count: int = 1000, epochs: int = 12) -> list[float]:
    """Return the mean squared error of the pixels, epoch by epoch."""
    utils.set_random_seed(0)
    pixels = torch.tensor(load_digits().images[:count, None] / 16, dtype=torch.float32)
    larger = F.interpolate(pixels, scale_factor=3, mode="bilinear")  # 8 x 8 as 24 x 24
    images = F.pad(larger, (2, 2, 2, 2)).movedim(1, -1).numpy()  # with a border: (count, 28, 28, 1)

    encoder, decoder, autoencoder = build_models()
    autoencoder.summary(expand_nested=True)
    autoencoder.compile(optimizers.Adam(3e-3), loss="mse")
    history = autoencoder.fit(images, images, batch_size=32, epochs=epochs)

    # Training the whole has trained its parts.
    codes = encoder.predict(images[:10], verbose=0)
    drawn = decoder.predict(codes, verbose=0)
    print("\nA digit as 16 numbers:", *codes[5].round(1))
    print("The digit, and what the decoder makes of these numbers:")
    show(images[5], drawn[5])
    # The tensors inside the encoder are there to make another model of.
    features = Model(encoder.input, [layer.output for layer in encoder.layers[1:]])
    print("What its layers see:", *(tuple(feature.shape[1:]) for feature in features(images[:1])))
    return history.history["loss"]


if __name__ == "__main__":
    main()
