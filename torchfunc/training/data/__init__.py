"""Data for training: arrays parsed once, and batches of them or of iterables, epoch by epoch."""
