"""ResNet."""

from torchfunc.applications.imagenet_utils import decode_predictions
from torchfunc.applications.imagenet_utils import preprocess_caffe as preprocess_input
from torchfunc.applications.residual import ResNet50, ResNet101, ResNet152

__all__ = ["ResNet50", "ResNet101", "ResNet152", "decode_predictions", "preprocess_input"]
