"""Networks of the literature as drawn models, with Keras' arguments and Keras' weights: `applications.ResNet50()`."""

from torchfunc.applications import (
    efficientnet,
    imagenet_utils,
    inception_v3,
    mobilenet_v2,
    resnet,
    resnet50,
    resnet_v2,
    vgg16,
    vgg19,
    xception,
)
from torchfunc.applications.efficientnet import (
    EfficientNetB0,
    EfficientNetB1,
    EfficientNetB2,
    EfficientNetB3,
    EfficientNetB4,
    EfficientNetB5,
    EfficientNetB6,
    EfficientNetB7,
)
from torchfunc.applications.inception_v3 import InceptionV3
from torchfunc.applications.mobilenet_v2 import MobileNetV2
from torchfunc.applications.residual import ResNet50, ResNet50V2, ResNet101, ResNet101V2, ResNet152, ResNet152V2
from torchfunc.applications.vgg import VGG16, VGG19
from torchfunc.applications.xception import Xception

__all__ = [
    "VGG16",
    "VGG19",
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetB5",
    "EfficientNetB6",
    "EfficientNetB7",
    "InceptionV3",
    "MobileNetV2",
    "ResNet50",
    "ResNet50V2",
    "ResNet101",
    "ResNet101V2",
    "ResNet152",
    "ResNet152V2",
    "Xception",
    "efficientnet",
    "imagenet_utils",
    "inception_v3",
    "mobilenet_v2",
    "resnet",
    "resnet50",
    "resnet_v2",
    "vgg16",
    "vgg19",
    "xception",
]
