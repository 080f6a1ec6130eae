"""Application: a network of the literature, drawn anew by each call, with Keras' arguments and Keras' weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torchfunc import activations, layers
from torchfunc.config import image_data_format
from torchfunc.graph import SymbolicTensor
from torchfunc.layers import Input
from torchfunc.models import Functional
from torchfunc.saving.files import PathLike
from torchfunc.utils import get_file, get_source_inputs

__all__ = ["CLASSES", "Application", "channel_axis", "channels_of", "downsampling_pad", "rounded", "size_of"]

CLASSES = 1000
"""What ImageNet tells apart."""


def channel_axis() -> int:
    return 1 if image_data_format() == "channels_first" else -1


def channels_of(x: SymbolicTensor) -> int:
    """How many channels images have."""
    channels = x.shape[channel_axis()]
    assert channels is not None, "a convolution made them"
    return channels


def size_of(x: SymbolicTensor) -> tuple[int | None, int | None]:
    """Height and width of images."""
    height, width = x.shape[2:] if channel_axis() == 1 else x.shape[1:3]
    return height, width


def downsampling_pad(x: SymbolicTensor, kernel_size: int) -> tuple[tuple[int, int], ...]:
    """The padding before a convolution with stride 2 that makes it "same", as TensorFlow counts for known sizes."""
    most = kernel_size // 2
    return tuple((most - (1 if size is None else 1 - size % 2), most) for size in size_of(x))


def rounded(filters: float, divisor: int = 8) -> int:
    """The next multiple of `divisor`, at least 90% of the number."""
    nearest = max(divisor, int(filters + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * filters else nearest


def _pooled(x: SymbolicTensor) -> SymbolicTensor:
    return layers.GlobalAveragePooling2D(name="avg_pool")(x)


@dataclass(frozen=True)
class Application:
    """A network of the literature; call it to get a model.

    Attributes:
        name: the model's name.
        size: height and width of the images it was trained on.
        least: the smallest height and width it takes.
        trunk: draws all but the head; takes the input, and whether ImageNet's weights will be loaded.
        url: where Keras keeps the weights, without the ending.
        hashes: md5 of the file with the head and of that without, "" where Keras has none.
        endings: those of both files.
        head: draws what stands before the last layer, if the top is included.
        pooling_is_named: whether the pooling in place of a head has a name.
        classifier: further arguments of the last layer.
    """

    name: str
    size: int
    least: int
    trunk: Callable[[SymbolicTensor, bool], SymbolicTensor]
    url: str
    hashes: tuple[str, str]
    endings: tuple[str, str] = (".h5", "_notop.h5")
    head: Callable[[SymbolicTensor], SymbolicTensor] = _pooled
    pooling_is_named: bool = False
    classifier: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        include_top: bool = True,
        weights: PathLike | None = "imagenet",
        input_tensor: SymbolicTensor | None = None,
        input_shape: Sequence[int | None] | None = None,
        pooling: str | None = None,
        classes: int = CLASSES,
        classifier_activation: Any = "softmax",
        name: str | None = None,
    ) -> Functional:
        """Draw the network.

        Args:
            include_top: whether it ends in the classifier.
            weights: "imagenet" for Keras' own, which are downloaded once; the path of an `.h5`, `.weights.h5` or
                `.safetensors` file; None for random ones.
            input_tensor: a symbolic tensor to draw it on, in place of a new input.
            input_shape: the sizes of one image; those it was trained on by default, and unknown without the top.
            pooling: without the top, "avg" or "max" for the mean or maximum over the image, None for features
                `(batch, height, width, channels)`.
            classes: how many it tells apart.
            classifier_activation: of the last layer; None for logits.
            name: the model's name.

        Raises:
            ValueError: the arguments fit neither each other nor the weights.
            OSError: the weights cannot be downloaded.

        >>> base = applications.ResNet50V2(include_top=False, weights=None, input_shape=(64, 64, 3), pooling="avg")
        >>> base.output_shape, base.count_params()
        ((None, 2048), 23564800)
        """
        pretrained = weights == "imagenet"
        if weights is not None and not pretrained and not os.path.exists(weights):
            raise ValueError(f"{self.name} takes 'imagenet', None or the path of a file for weights, got {weights!r}.")
        if pretrained and include_top and classes != CLASSES:
            raise ValueError(f"The weights for ImageNet with the top are for {CLASSES} classes, got classes={classes}.")
        if pooling not in (None, "avg", "max"):
            raise ValueError(f"{self.name} takes 'avg', 'max' or None for pooling, got {pooling!r}.")
        if weights is not None and activations.get(classifier_activation) not in (
            activations.get("softmax"),
            activations.get(None),
        ):
            raise ValueError(
                "With given weights the classifier_activation is 'softmax' or None, since they were trained so; got "
                f"{classifier_activation!r}."
            )
        shape = self._input_shape(input_shape, include_top, pretrained)
        inputs = Input(shape) if input_tensor is None else input_tensor
        x = self.trunk(inputs, pretrained)
        if include_top:
            x = layers.Dense(classes, classifier_activation, name="predictions", **self.classifier)(self.head(x))
        elif pooling is not None:
            kind = layers.GlobalAveragePooling2D if pooling == "avg" else layers.GlobalMaxPooling2D
            x = kind(name=f"{pooling}_pool" if self.pooling_is_named else None)(x)
        sources = get_source_inputs(inputs)
        model = Functional(sources[0] if len(sources) == 1 else sources, x, name=name or self.name)
        if pretrained:
            url = self.url + self.endings[not include_top]
            hashed = self.hashes[not include_top] or None
            weights = get_file(url.rpartition("/")[2], url, cache_subdir="models", file_hash=hashed)
        if weights is not None:
            model.load_weights(weights)
        return model

    def _input_shape(
        self, given: Sequence[int | None] | None, include_top: bool, pretrained: bool
    ) -> tuple[int | None, ...]:
        """The shape of one image. Raises ValueError if the one that is given cannot be right."""
        first = channel_axis() == 1

        def shape(height: int | None, width: int | None, channels: int | None) -> tuple[int | None, ...]:
            return (channels, height, width) if first else (height, width, channels)

        if given is None:
            return shape(self.size, self.size, 3) if include_top else shape(None, None, 3)
        given = tuple(given)
        if len(given) != 3:
            raise ValueError(f"input_shape has three sizes, such as {shape(self.size, self.size, 3)}, got {given}.")
        channels, *sizes = given if first else (given[2], *given[:2])
        if pretrained and channels != 3:
            raise ValueError(f"The weights for ImageNet are for 3 channels, got input_shape={given}.")
        if pretrained and include_top and sizes != [self.size, self.size]:
            expected = shape(self.size, self.size, 3)
            raise ValueError(f"With the top and ImageNet's weights input_shape is {expected}, got {given}.")
        if include_top and None in sizes:
            raise ValueError(f"With the top the sizes of images have to be known, got input_shape={given}.")
        if any(size is not None and size < self.least for size in sizes):
            raise ValueError(f"{self.name} takes images of at least {self.least} x {self.least}, got {given}.")
        return given
