"""Pretrained networks: the handle, the catalogue, stages and split, and one module for each kind of input."""
