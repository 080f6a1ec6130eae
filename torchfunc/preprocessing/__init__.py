"""What Keras has under this name for older code; the functions are those of `utils`."""

from torchfunc.preprocessing import image, sequence
from torchfunc.utils import timeseries_dataset_from_array

__all__ = ["image", "sequence", "timeseries_dataset_from_array"]
