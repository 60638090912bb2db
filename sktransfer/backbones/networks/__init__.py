"""Architectures of the package's own."""
