"""VGG19."""

from torchfunc.applications.imagenet_utils import decode_predictions
from torchfunc.applications.imagenet_utils import preprocess_caffe as preprocess_input
from torchfunc.applications.vgg import VGG19

__all__ = ["VGG19", "decode_predictions", "preprocess_input"]
