"""Finished volumes in, numbers and pictures out; never sees a model."""
