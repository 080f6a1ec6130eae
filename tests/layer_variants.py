"""More examples of layers, where their arguments make them something else to PyTorch: what makes one, and its input."""

from torch import nn

from torchfunc import layers

IMAGE, STEPS, ROW = (2, 6, 5, 3), (2, 5, 3), (2, 3)
PAIR = [(2, 3, 4), (2, 5, 4)]

VARIANTS = {
    "additive attention without scale": (lambda: layers.AdditiveAttention(use_scale=False), PAIR),
    "alpha dropout, seeded": (lambda: layers.AlphaDropout(0.3, seed=3), ROW),
    "attention, seeded dropout": (lambda: layers.Attention(dropout=0.5, seed=1, score_mode="concat"), PAIR),
    "average of ranks": (layers.Average, [(2, 3, 4), (2, 4), (2, 3, 4)]),
    "average pooling, stride 1": (lambda: layers.AveragePooling2D(3, strides=1, padding="same"), IMAGE),
    "batch norm of rows": (layers.BatchNormalization, (4, 3)),
    "batch norm of axis 1": (lambda: layers.BatchNormalization(axis=1, scale=False), STEPS),
    "batch norm, frozen": (lambda: layers.BatchNormalization(axis=2, center=False, trainable=False), IMAGE),
    "batch renorm": (
        lambda: layers.BatchNormalization(renorm=True, renorm_clipping={"rmin": 0.5, "rmax": 2, "dmax": 1}),
        STEPS,
    ),
    "bidirectional GRU": (lambda: layers.Bidirectional(layers.GRU(4), merge_mode="ave"), STEPS),
    "bidirectional LSTM": (lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True)), STEPS),
    "bidirectional, both and states": (
        lambda: layers.Bidirectional(
            layers.GRU(4, return_state=True, return_sequences=True, name="both"), merge_mode=None
        ),
        STEPS,
    ),
    "cells": (lambda: layers.RNN(layers.LSTMCell(4), return_state=True), STEPS),
    "cells, stacked": (
        lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_state=True, go_backwards=True),
        STEPS,
    ),
    "conv, causal": (
        lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="gelu"),
        STEPS,
    ),
    "conv, channels first": (
        lambda: layers.Conv2D(4, 3, strides=2, padding="same", data_format="channels_first"),
        (2, 3, 6, 7),
    ),
    "conv, groups and softmax": (
        lambda: layers.Conv2D(6, 2, padding="same", activation="softmax", groups=3),
        IMAGE,
    ),
    "conv, one position in two": (lambda: layers.Conv2D(4, 1, strides=2), IMAGE),
    "conv transpose, valid": (lambda: layers.Conv2DTranspose(4, 2, strides=3), IMAGE),
    "conv transpose, padded": (
        lambda: layers.Conv1DTranspose(4, 5, strides=2, padding="same", output_padding=1),
        STEPS,
    ),
    "dense, module": (lambda: layers.Dense(4, activation=nn.PReLU()), ROW),
    "dense, layer": (lambda: layers.Dense(4, activation=layers.LeakyReLU()), ROW),
    "dense, no bias, sparsemax": (lambda: layers.Dense(4, activation="sparsemax", use_bias=False), ROW),
    "discretization, one hot": (lambda: layers.Discretization([0.0, 1.0], output_mode="one_hot"), ROW),
    "dropout, broadcast": (lambda: layers.Dropout(0.3, noise_shape=(None, 1, None)), STEPS),
    "dropout, seeded": (lambda: layers.Dropout(0.3, seed=3), STEPS),
    "einsum with bias": (
        lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de", activation="relu"),
        STEPS,
    ),
    "GRU, before": (lambda: layers.GRU(4, reset_after=False, activation="relu", return_sequences=True), STEPS),
    "GRU, state, no bias": (lambda: layers.GRU(4, return_state=True, use_bias=False), STEPS),
    "group norm of axis 1": (lambda: layers.GroupNormalization(groups=5, axis=1, scale=False), STEPS),
    "heads": (lambda: layers.MultiHeadAttention(2, 3), "query and value"),
    "heads in groups": (lambda: layers.GroupQueryAttention(3, 4, 2), "query and value"),
    "heads, every option": (
        lambda: layers.MultiHeadAttention(
            2, 3, dropout=0.3, seed=2, use_gate=True, output_shape=(2, 3), sliding_window=2
        ),
        "query and value",
    ),
    "lambda": (lambda: layers.Lambda(_times, arguments={"k": 3}), ROW),
    "layer norm of two axes": (lambda: layers.LayerNormalization(axis=[1, 2]), STEPS),
    "layer norm of axis 1": (lambda: layers.LayerNormalization(axis=1, scale=False), STEPS),
    "LSTM, backwards": (
        lambda: layers.LSTM(4, use_bias=False, go_backwards=True, return_sequences=True),
        STEPS,
    ),
    "LSTM, dropouts": (lambda: layers.LSTM(4, dropout=0.4, recurrent_dropout=0.3, return_state=True), STEPS),
    "module": (lambda: layers.TorchModule(nn.Linear(3, 4)), ROW),
    "noise, seeded": (lambda: layers.GaussianNoise(0.3, seed=3), IMAGE),
    "normalization, given": (lambda: layers.Normalization(mean=[1.0, 2, 3], variance=[1.0, 2, 3]), STEPS),
    "PReLU of all": (layers.PReLU, STEPS),
    "rescaling by a number": (lambda: layers.Rescaling(2.0), STEPS),
    "simple RNN, relu": (lambda: layers.SimpleRNN(4, activation="relu"), STEPS),
    "spatial dropout, seeded": (lambda: layers.SpatialDropout2D(0.3, seed=3), IMAGE),
    "spectral norm of conv": (
        lambda: layers.SpectralNormalization(layers.Conv2D(4, 3, padding="same", activation="relu")),
        IMAGE,
    ),
    "spectral norm of conv transpose": (lambda: layers.SpectralNormalization(layers.Conv2DTranspose(4, 3)), IMAGE),
    "spectral norm of dense": (lambda: layers.SpectralNormalization(layers.Dense(4)), ROW),
    "time distributed conv": (
        lambda: layers.TimeDistributed(layers.Conv2D(4, 3, padding="same")),
        (2, 3, 4, 5, 3),
    ),
    "time distributed dense": (lambda: layers.TimeDistributed(layers.Dense(4, activation="softmax")), STEPS),
    "unit norm of two axes": (lambda: layers.UnitNormalization([1, 2]), STEPS),
    "up-sampling, bilinear": (lambda: layers.UpSampling2D((2, 3), interpolation="bilinear"), IMAGE),
}


def _times(x, k):
    return x * k
