"""torchfunc: the Keras functional API for people who live in PyTorch."""
