"""Stages of a network, and a network split at one of them."""
