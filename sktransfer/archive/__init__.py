"""Tensors and JSON to and from files; no file is ever allowed to run code."""

from sktransfer.archive.tensors import read_tensors

__all__ = ["read_tensors"]
