"""The card of a backbone: what one wants to know before using it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """Facts about a backbone.

    Attributes
    ----------
    name : str
        What to give as ``backbone=``.
    modality : {"text", "image", "table", "series"}
        Kind of input.
    dimension : int or None
        Number of values of its default embedding; None where it is only known after loading.
    parameters : int or None
        Number of parameters of the network without its classification head; None where it is only known after
        loading.
    licence : str
        Licence of the weights, as their publisher states it.
    source : str
        Who made the weights, and from what.
    summary : str
        What it is good for, in one sentence.
    """

    name: str
    modality: str
    dimension: int | None = None
    parameters: int | None = None
    licence: str = "not stated"
    source: str = "given by the user"
    summary: str = ""
