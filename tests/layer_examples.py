"""An example of every layer: its arguments and the shape, or shapes, or values, it is called on."""

import numpy as np

from torchfunc import layers

TOKENS = np.array([[1, 0, 4, 3], [2, 2, 0, 0]])
IMAGE, STEPS, VOLUME, ROW = (2, 6, 7, 3), (2, 7, 3), (2, 4, 5, 6, 3), (2, 3)
PAIR = [(2, 3, 4), (2, 3, 4)]


def _by_rank(name: str, kwargs: dict, ranks: tuple[int, ...] = (1, 2, 3)) -> dict:
    """`name` with the rank written into it, over steps, images and volumes."""
    shapes = (STEPS, IMAGE, VOLUME)
    if name.startswith("ConvLSTM"):
        shapes = ((2, 3, 4, 3), (2, 3, 4, 5, 3), (2, 3, 4, 3, 4, 2))
    return {name.format(rank): (kwargs, shapes[rank - 1]) for rank in ranks}


EXAMPLES: dict[str, tuple[dict, object]] = {
    "Activation": ({"activation": "gelu"}, ROW),
    "ActivityRegularization": ({"l2": 0.1}, ROW),
    **_by_rank("AdaptiveAveragePooling{}D", {"output_size": 3}),
    **_by_rank("AdaptiveMaxPooling{}D", {"output_size": 2}),
    "Add": ({}, PAIR),
    "AdditiveAttention": ({}, PAIR),
    "AlphaDropout": ({"rate": 0.5}, ROW),
    "Attention": ({"use_scale": True}, PAIR),
    "AutoContrast": ({}, IMAGE),
    "Average": ({}, PAIR),
    **_by_rank("AveragePooling{}D", {"pool_size": 2, "padding": "same"}),
    "BatchNormalization": ({}, IMAGE),
    "CategoryEncoding": ({"num_tokens": 5, "output_mode": "count"}, TOKENS),
    "CenterCrop": ({"height": 3, "width": 4}, IMAGE),
    "Concatenate": ({"axis": 1}, PAIR),
    **_by_rank("Conv{}D", {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"}),
    **_by_rank("Conv{}DTranspose", {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"}),
    **_by_rank("ConvLSTM{}D", {"filters": 2, "kernel_size": 2}),
    **_by_rank("Cropping{}D", {"cropping": 1}),
    "Dense": ({"units": 4, "activation": "relu"}, STEPS),
    **_by_rank("DepthwiseConv{}D", {"kernel_size": 2, "depth_multiplier": 2, "padding": "same"}, (1, 2)),
    "Discretization": ({"bin_boundaries": [-0.5, 0.5]}, ROW),
    "Dot": ({"axes": 2, "normalize": True}, PAIR),
    "Dropout": ({"rate": 0.5}, ROW),
    "ELU": ({}, ROW),
    "EinsumDense": ({"equation": "...a,ab->...b", "output_shape": 4, "bias_axes": "b"}, STEPS),
    "Embedding": ({"input_dim": 5, "output_dim": 3, "mask_zero": True}, TOKENS),
    "Flatten": ({}, IMAGE),
    "GRU": ({"units": 4}, STEPS),
    "GaussianDropout": ({"rate": 0.5}, ROW),
    "GaussianNoise": ({"stddev": 0.5}, ROW),
    **_by_rank("GlobalAveragePooling{}D", {}),
    **_by_rank("GlobalMaxPooling{}D", {}),
    "GroupNormalization": ({"groups": 3}, IMAGE),
    "Identity": ({}, ROW),
    "LSTM": ({"units": 4}, STEPS),
    "LayerNormalization": ({}, STEPS),
    "LeakyReLU": ({}, ROW),
    "Masking": ({}, STEPS),
    **_by_rank("MaxPooling{}D", {"pool_size": 3, "strides": 2, "padding": "same"}),
    "Maximum": ({}, PAIR),
    "Minimum": ({}, PAIR),
    "Multiply": ({}, PAIR),
    "Normalization": ({}, STEPS),
    "PReLU": ({"shared_axes": 1}, STEPS),
    "Permute": ({"dims": (2, 1)}, STEPS),
    "RMSNormalization": ({}, STEPS),
    "RandomBrightness": ({"factor": 0.2}, IMAGE),
    "RandomContrast": ({"factor": (0.2, 0.3)}, IMAGE),
    "RandomCrop": ({"height": 6, "width": 7, "seed": 1}, IMAGE),
    "RandomErasing": ({"fill_value": 3.0}, IMAGE),
    "RandomFlip": ({"mode": "horizontal"}, IMAGE),
    "RandomGrayscale": ({}, IMAGE),
    "RandomHue": ({"factor": 0.3}, IMAGE),
    "RandomInvert": ({}, IMAGE),
    "RandomPosterization": ({"factor": (3, 3)}, IMAGE),
    "RandomRotation": ({"factor": 0.1}, IMAGE),
    "RandomSaturation": ({"factor": (0.3, 0.7)}, IMAGE),
    "RandomSharpness": ({"factor": 0.5}, IMAGE),
    "RandomShear": ({"x_factor": (0.1, 0.2)}, IMAGE),
    "RandomTranslation": ({"height_factor": 0.1, "width_factor": (-0.1, 0.2)}, IMAGE),
    "RandomZoom": ({"height_factor": 0.2}, IMAGE),
    "ReLU": ({"max_value": 1.0, "negative_slope": 0.1}, ROW),
    "RepeatVector": ({"n": 3}, ROW),
    "Rescaling": ({"scale": 2.0, "offset": [1.0, 2.0, 3.0]}, ROW),
    "Reshape": ({"target_shape": (3, -1)}, STEPS),
    "Resizing": ({"height": 3, "width": 9, "crop_to_aspect_ratio": True}, IMAGE),
    "ReversibleEmbedding": ({"input_dim": 5, "output_dim": 3, "tie_weights": False}, TOKENS),
    **_by_rank("SeparableConv{}D", {"filters": 4, "kernel_size": 3, "padding": "same"}, (1, 2)),
    "SimpleRNN": ({"units": 4}, STEPS),
    "Softmax": ({"axis": [1, 2]}, STEPS),
    "Solarization": ({"threshold_factor": 0.5}, IMAGE),
    **_by_rank("SpatialDropout{}D", {"rate": 0.5}),
    "Subtract": ({}, PAIR),
    "UnitNormalization": ({}, STEPS),
    **_by_rank("UpSampling{}D", {"size": 2}),
    **_by_rank("ZeroPadding{}D", {"padding": 2}),
}


def all_layers() -> dict[str, type[layers.Layer]]:
    """Every layer class of the package by its own name."""
    found = (getattr(layers, name) for name in layers.__all__)
    return {each.__name__: each for each in found if isinstance(each, type) and issubclass(each, layers.Layer)}
