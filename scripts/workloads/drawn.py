"""The models, drawn in the functional API: `api` is torchfunc or keras, the lines are the same.

`mlp`, `resnet`, `ticket` and `siamese` are those of Keras' guides, with the guides' losses, optimizers and metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from workloads.data import CLASSES, CONTEXT, OBJECTS, PIXELS, SEQUENCE, VOCABULARY, WORDS

__all__ = ["DRAWN", "Drawn", "chain", "resnet50"]


@dataclass(frozen=True)
class Drawn:
    """A model and how it is trained.

    Attributes:
        draw: makes the model.
        settings: makes the arguments of `compile`.
    """

    draw: Callable[[Any], Any]
    settings: Callable[[Any], dict[str, Any]]


def mlp(api: ModuleType) -> Any:
    inputs = api.Input(shape=(784,))
    x = api.layers.Dense(64, activation="relu")(inputs)
    x = api.layers.Dense(64, activation="relu")(x)
    return api.Model(inputs, api.layers.Dense(CLASSES)(x))


def mlp_settings(api: ModuleType) -> dict[str, Any]:
    loss = api.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"optimizer": api.optimizers.RMSprop(), "loss": loss, "metrics": ["accuracy"]}


def resnet(api: ModuleType) -> Any:
    layers = api.layers
    inputs = api.Input(shape=(32, 32, 3))
    x = layers.Conv2D(32, 3, activation="relu")(inputs)
    x = layers.Conv2D(64, 3, activation="relu")(x)
    block = layers.MaxPooling2D(3)(x)
    for _ in range(2):
        x = layers.Conv2D(64, 3, activation="relu", padding="same")(block)
        x = layers.Conv2D(64, 3, activation="relu", padding="same")(x)
        block = layers.add([x, block])
    x = layers.Conv2D(64, 3, activation="relu")(block)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(256, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    return api.Model(inputs, layers.Dense(CLASSES)(x))


def resnet_settings(api: ModuleType) -> dict[str, Any]:
    loss = api.losses.CategoricalCrossentropy(from_logits=True)
    return {"optimizer": api.optimizers.RMSprop(1e-3), "loss": loss, "metrics": ["acc"]}


def vgg(api: ModuleType) -> Any:
    layers = api.layers
    inputs = x = api.Input(shape=(32, 32, 3))
    for filters in (32, 64, 128):
        x = layers.Conv2D(filters, 3, activation="relu", padding="same")(x)
        x = layers.Conv2D(filters, 3, activation="relu", padding="same")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(256, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    return api.Model(inputs, layers.Dense(CLASSES)(x))


def vgg_settings(api: ModuleType) -> dict[str, Any]:
    loss = api.losses.CategoricalCrossentropy(from_logits=True)
    return {"optimizer": api.optimizers.SGD(0.01, momentum=0.9), "loss": loss, "metrics": ["acc"]}


def ticket(api: ModuleType) -> Any:
    layers = api.layers
    title, body = api.Input(shape=(None,), name="title"), api.Input(shape=(None,), name="body")
    tags = api.Input(shape=(12,), name="tags")
    title_features = layers.LSTM(128)(layers.Embedding(WORDS, 64)(title))
    body_features = layers.LSTM(32)(layers.Embedding(WORDS, 64)(body))
    x = layers.concatenate([title_features, body_features, tags])
    priority = layers.Dense(1, name="priority")(x)
    department = layers.Dense(4, name="department")(x)
    return api.Model([title, body, tags], [priority, department])


def ticket_settings(api: ModuleType) -> dict[str, Any]:
    binary = api.losses.BinaryCrossentropy(from_logits=True)
    categorical = api.losses.CategoricalCrossentropy(from_logits=True)
    return {
        "optimizer": api.optimizers.RMSprop(1e-3),
        "loss": [binary, categorical],
        "loss_weights": [1.0, 0.2],
    }


def encoder(api: ModuleType) -> Any:
    """20 blocks of attention and a feed-forward part, normalized after each, 64 wide."""
    layers = api.layers
    inputs = api.Input(shape=(SEQUENCE,), dtype="int64")
    x = layers.Embedding(WORDS, 64)(inputs)
    for _ in range(20):
        attended = layers.MultiHeadAttention(num_heads=4, key_dim=16)(x, x)
        x = layers.LayerNormalization(epsilon=1e-5)(layers.add([x, attended]))
        fed = layers.Dense(64)(layers.Dense(128, activation="relu")(x))
        x = layers.LayerNormalization(epsilon=1e-5)(layers.add([x, fed]))
    x = layers.GlobalAveragePooling1D()(x)
    return api.Model(inputs, layers.Dense(CLASSES)(x))


def encoder_settings(api: ModuleType) -> dict[str, Any]:
    loss = api.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"optimizer": api.optimizers.Adam(1e-3), "loss": loss, "metrics": ["accuracy"]}


def siamese(api: ModuleType) -> Any:
    layers = api.layers
    tweet_a, tweet_b = api.Input(shape=(280, 256)), api.Input(shape=(280, 256))
    shared = layers.LSTM(64)
    merged = layers.concatenate([shared(tweet_a), shared(tweet_b)])
    return api.Model([tweet_a, tweet_b], layers.Dense(1, activation="sigmoid")(merged))


def siamese_settings(api: ModuleType) -> dict[str, Any]:
    return {"optimizer": "rmsprop", "loss": "binary_crossentropy", "metrics": ["accuracy"]}


def empty(api: ModuleType) -> Any:
    """Next to nothing: what remains is what a step costs by itself."""
    inputs = api.Input(shape=(1,))
    return api.Model(inputs, api.layers.Dense(1)(inputs))


def empty_settings(api: ModuleType) -> dict[str, Any]:
    return {"optimizer": api.optimizers.SGD(0.01), "loss": "mse"}


def resnet50_settings(api: ModuleType) -> dict[str, Any]:
    optimizer = api.optimizers.SGD(0.01, momentum=0.9)
    return {"optimizer": optimizer, "loss": "sparse_categorical_crossentropy", "precision": "bf16-mixed"}


def gpt(api: ModuleType) -> Any:
    """12 blocks, 768 wide, as GPT-2's smallest. Attention is torch's own function: this is no model for Keras."""
    layers = api.layers
    tokens = api.Input(shape=(CONTEXT,), dtype="int64")
    x = layers.Embedding(VOCABULARY, 768)(tokens) + torch.nn.Parameter(torch.zeros(CONTEXT, 768))
    for _ in range(12):
        projected = layers.Dense(3 * 768)(layers.LayerNormalization(epsilon=1e-5)(x))
        query, key, value = (projected.unflatten(-1, (3, 12, 64)).permute(2, 0, 3, 1, 4)[i] for i in range(3))
        attended = scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)
        x = x + layers.Dense(768)(attended)
        fed = layers.Dense(4 * 768, activation="gelu")(layers.LayerNormalization(epsilon=1e-5)(x))
        x = x + layers.Dense(768)(fed)
    return api.Model(tokens, layers.Dense(VOCABULARY)(layers.LayerNormalization(epsilon=1e-5)(x)))


def gpt_settings(api: ModuleType) -> dict[str, Any]:
    loss = api.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"optimizer": api.optimizers.AdamW(3e-4), "loss": loss, "precision": "bf16-mixed"}


def chain(api: ModuleType, depth: int) -> Any:
    """So many Dense(4) in a row."""
    inputs = x = api.Input(shape=(4,))
    for _ in range(depth):
        x = api.layers.Dense(4)(x)
    return api.Model(inputs, x)


def resnet50(api: ModuleType, _: int = 0) -> Any:
    """The 50 layers of "Deep residual learning" (He et al. 2015), as in Keras' applications."""
    layers = api.layers

    def convolved(x: Any, filters: int, size: int, strides: int = 1, relu: bool = True) -> Any:
        x = layers.Conv2D(filters, size, strides=strides, padding="same")(x)
        x = layers.BatchNormalization()(x)
        return layers.Activation("relu")(x) if relu else x

    inputs = api.Input(shape=(PIXELS, PIXELS, 3))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(convolved(inputs, 64, 7, strides=2))
    for stage, blocks in enumerate((3, 4, 6, 3)):
        filters = 64 * 2**stage
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            shortcut = x if block else convolved(x, 4 * filters, 1, strides, relu=False)
            x = convolved(convolved(x, filters, 1, strides), filters, 3)
            x = layers.Activation("relu")(layers.add([shortcut, convolved(x, 4 * filters, 1, relu=False)]))
    x = layers.GlobalAveragePooling2D()(x)
    return api.Model(inputs, layers.Dense(OBJECTS, activation="softmax")(x))


DRAWN = {
    "mlp": Drawn(mlp, mlp_settings),
    "resnet": Drawn(resnet, resnet_settings),
    "vgg": Drawn(vgg, vgg_settings),
    "ticket": Drawn(ticket, ticket_settings),
    "encoder": Drawn(encoder, encoder_settings),
    "siamese": Drawn(siamese, siamese_settings),
    "empty": Drawn(empty, empty_settings),
    "resnet50": Drawn(resnet50, resnet50_settings),
    "gpt": Drawn(gpt, gpt_settings),
}
