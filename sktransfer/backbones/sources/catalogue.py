"""What is known of backbones before any is loaded."""

from __future__ import annotations

import fnmatch
import functools
import json
from dataclasses import fields
from importlib import resources

from sktransfer.backbones.card import Card

_MODALITIES = ("text", "image", "table", "series")
# The networks that come with the package, and what "auto" is for each kind of row that has a network for all.
SHIPPED = {"text": "text-static", "image": "image-resnet"}


def list_backbones(modality: str | None = None, *, pattern: str | None = None) -> list[Card]:
    """List backbones that can be used by name.

    The list holds the networks that come with the package, torchvision's classification networks, a choice
    of well-known encoders on the Hugging Face hub, and untrained networks for tables and series. Other names on the hub,
    timm's names, directories and modules work as well, see :class:`PretrainedFeatureExtractor`.

    Parameters
    ----------
    modality : {"text", "image", "table", "series"} or None, default=None
        Only backbones for this kind of row; None for all.
    pattern : str or None, default=None
        Only backbones whose name matches this shell-style pattern, such as ``"*resnet*"``; upper and lower case are the
        same.

    Returns
    -------
    list of Card
        The networks that come with the package first, then by name. Cards are dataclasses:
        ``pandas.DataFrame(list_backbones())`` makes a table of them.

    Raises
    ------
    ValueError
        If there is no such modality.
    TypeError
        If the pattern is no str.

    See Also
    --------
    PretrainedFeatureExtractor : Takes one of the names as ``backbone``.

    Examples
    --------
    >>> from sktransfer import list_backbones
    >>> [card.name for card in list_backbones("image", pattern="resnet1*")]
    ['resnet101', 'resnet152', 'resnet18']
    >>> list_backbones(pattern="resnet18")[0].dimension
    512
    """
    if modality is not None and not (isinstance(modality, str) and modality in _MODALITIES):
        raise ValueError(f"modality must be one of {', '.join(map(repr, _MODALITIES))} or None. Got {modality!r}.")
    if pattern is not None and not isinstance(pattern, str):
        raise TypeError(f"pattern must be a str such as '*resnet*', or None. Got {pattern!r}.")
    return [
        card
        for card in [*_shipped_cards(), *_listed_cards().values()]
        if (modality is None or card.modality == modality)
        and (pattern is None or fnmatch.fnmatchcase(card.name.lower(), pattern.lower()))
    ]


def card_of(name: str) -> Card | None:
    """Return the card of a name, None where the catalogue doesn't have it."""
    return _listed_cards().get(name) or next((card for card in _shipped_cards() if card.name == name), None)


def known_names() -> list[str]:
    """Return the names of all cards."""
    return [card.name for card in list_backbones()]


@functools.cache
def _listed_cards() -> dict[str, Card]:
    text = resources.files("sktransfer.backbones").joinpath("catalogue.json").read_text(encoding="utf-8")
    cards = [Card(**entry) for entries in json.loads(text).values() for entry in entries]
    return {card.name: card for card in sorted(cards, key=lambda card: card.name.lower())}


@functools.cache
def _shipped_cards() -> tuple[Card, ...]:
    names = {field.name for field in fields(Card)}
    cards = []
    for name in SHIPPED.values():
        file = resources.files("sktransfer").joinpath("weights", name, "card.json")
        if file.is_file():
            entry = json.loads(file.read_text(encoding="utf-8"))
            cards.append(Card(**{key: value for key, value in entry.items() if key in names}))
    return tuple(cards)
