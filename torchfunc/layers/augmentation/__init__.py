"""Random image augmentation: each image of a batch draws its own numbers, on the device, and in training only."""
