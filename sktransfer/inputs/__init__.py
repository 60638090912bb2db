"""Rows of every modality as callers hand them in, and how they become a network's input."""
