"""VGG (Simonyan and Zisserman, 2015, https://arxiv.org/abs/1409.1556): five blocks of convolutions of 3 x 3."""

from __future__ import annotations

from collections.abc import Callable

from torchfunc import layers
from torchfunc.applications.application import Application
from torchfunc.graph import SymbolicTensor

__all__ = ["VGG16", "VGG19"]

_URL = "https://storage.googleapis.com/tensorflow/keras-applications/{0}/{0}_weights_tf_dim_ordering_tf_kernels"


def _trunk(deep: int) -> Callable[[SymbolicTensor, bool], SymbolicTensor]:
    """Two convolutions in each of the first two blocks, `deep` in each of the others."""

    def draw(x: SymbolicTensor, pretrained: bool) -> SymbolicTensor:
        for block, filters in enumerate((64, 128, 256, 512, 512), 1):
            for number in range(1, 1 + (2 if block <= 2 else deep)):
                x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"block{block}_conv{number}")(x)
            x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
        return x

    return draw


def _head(x: SymbolicTensor) -> SymbolicTensor:
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(4096, "relu", name="fc1")(x)
    return layers.Dense(4096, "relu", name="fc2")(x)


def _vgg(name: str, deep: int, hashes: tuple[str, str]) -> Application:
    return Application(name, 224, 32, _trunk(deep), _URL.format(name), hashes, head=_head)


VGG16 = _vgg("vgg16", 3, ("64373286793e3c8b2b4e3219cbf3544b", "6d6bbae143d832006294945121d1f1fc"))
VGG19 = _vgg("vgg19", 4, ("cbe5617147190e668d6c5d5026f83318", "253f8cb515780f3b799900260a226db6"))
