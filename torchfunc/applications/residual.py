"""ResNet (He et al., 2015, https://arxiv.org/abs/1512.03385) and V2 (2016, https://arxiv.org/abs/1603.05027)."""

from __future__ import annotations

from collections.abc import Sequence

from torchfunc import layers
from torchfunc.applications.application import Application, channel_axis
from torchfunc.graph import SymbolicTensor

__all__ = ["ResNet50", "ResNet50V2", "ResNet101", "ResNet101V2", "ResNet152", "ResNet152V2"]

_URL = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/{}_weights_tf_dim_ordering_tf_kernels"
# Of conv2, conv3 ...
_FILTERS = (64, 128, 256, 512)


def _norm(x: SymbolicTensor, name: str) -> SymbolicTensor:
    return layers.BatchNormalization(axis=channel_axis(), epsilon=1.001e-5, name=name)(x)


def _norm_relu(x: SymbolicTensor, name: str) -> SymbolicTensor:
    return layers.Activation("relu", name=f"{name}_relu")(_norm(x, f"{name}_bn"))


def _block(x: SymbolicTensor, filters: int, stride: int, widens: bool, name: str) -> SymbolicTensor:
    shortcut = x
    if widens:
        shortcut = _norm(layers.Conv2D(4 * filters, 1, stride, name=f"{name}_0_conv")(x), f"{name}_0_bn")
    x = _norm_relu(layers.Conv2D(filters, 1, stride, name=f"{name}_1_conv")(x), f"{name}_1")
    x = _norm_relu(layers.Conv2D(filters, 3, padding="same", name=f"{name}_2_conv")(x), f"{name}_2")
    x = _norm(layers.Conv2D(4 * filters, 1, name=f"{name}_3_conv")(x), f"{name}_3_bn")
    return layers.Activation("relu", name=f"{name}_out")(layers.Add(name=f"{name}_add")([shortcut, x]))


def _block_v2(x: SymbolicTensor, filters: int, stride: int, widens: bool, name: str) -> SymbolicTensor:
    active = _norm_relu(x, f"{name}_preact")
    shortcut = x if stride == 1 else layers.MaxPooling2D(1, stride)(x)
    if widens:
        shortcut = layers.Conv2D(4 * filters, 1, stride, name=f"{name}_0_conv")(active)
    x = _norm_relu(layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_1_conv")(active), f"{name}_1")
    x = layers.ZeroPadding2D(1, name=f"{name}_2_pad")(x)
    x = _norm_relu(layers.Conv2D(filters, 3, stride, use_bias=False, name=f"{name}_2_conv")(x), f"{name}_2")
    return layers.Add(name=f"{name}_out")([shortcut, layers.Conv2D(4 * filters, 1, name=f"{name}_3_conv")(x)])


def _resnet(name: str, blocks: Sequence[int], hashes: tuple[str, str]) -> Application:
    """A network with so many blocks in conv2, conv3 ..."""
    is_v2 = name.endswith("v2")

    def draw(x: SymbolicTensor, pretrained: bool) -> SymbolicTensor:
        x = layers.Conv2D(64, 7, 2, name="conv1_conv")(layers.ZeroPadding2D(3, name="conv1_pad")(x))
        x = x if is_v2 else _norm_relu(x, "conv1")
        x = layers.MaxPooling2D(3, 2, name="pool1_pool")(layers.ZeroPadding2D(1, name="pool1_pad")(x))
        for stage, (filters, count) in enumerate(zip(_FILTERS, blocks, strict=True)):
            for number in range(1, count + 1):
                label = f"conv{stage + 2}_block{number}"
                if is_v2:
                    # Each stage but the last one halves the image at its end; in V1, each but the first at its start.
                    stride = 2 if number == count and stage != len(blocks) - 1 else 1
                    x = _block_v2(x, filters, stride, number == 1, label)
                else:
                    x = _block(x, filters, 2 if number == 1 and stage else 1, number == 1, label)
        return _norm_relu(x, "post") if is_v2 else x

    return Application(name, 224, 32, draw, _URL.format(name), hashes, pooling_is_named=True)


_50, _101, _152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
ResNet50 = _resnet("resnet50", _50, ("2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626"))
ResNet101 = _resnet("resnet101", _101, ("f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21"))
ResNet152 = _resnet("resnet152", _152, ("100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c"))
ResNet50V2 = _resnet("resnet50v2", _50, ("3ef43a0b657b3be2300d5770ece849e0", "fac2f116257151a9d068a22e544a4917"))
ResNet101V2 = _resnet("resnet101v2", _101, ("6343647c601c52e1368623803854d971", "c0ed64b8031c3730f411d2eb4eea35b5"))
ResNet152V2 = _resnet("resnet152v2", _152, ("a49b44d1979771252814e80f8ec446f9", "ed17cf2e0169df9d443503ef94b23b33"))
