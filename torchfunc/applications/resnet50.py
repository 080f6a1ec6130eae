"""ResNet50."""

from torchfunc.applications.imagenet_utils import decode_predictions
from torchfunc.applications.imagenet_utils import preprocess_caffe as preprocess_input
from torchfunc.applications.residual import ResNet50

__all__ = ["ResNet50", "decode_predictions", "preprocess_input"]
