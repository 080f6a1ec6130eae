"""VGG16."""

from torchfunc.applications.imagenet_utils import decode_predictions
from torchfunc.applications.imagenet_utils import preprocess_caffe as preprocess_input
from torchfunc.applications.vgg import VGG16

__all__ = ["VGG16", "decode_predictions", "preprocess_input"]
