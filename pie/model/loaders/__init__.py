"""Readers of model files, each yielding a `Checkpoint`."""
