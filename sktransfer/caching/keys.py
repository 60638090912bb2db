"""Keys of cached rows: what was computed, and from which content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b

KEY_BYTES = 16


def digest(content: bytes, *, domain: bytes) -> bytes:
    """Digest of one row's content.

    Parameters
    ----------
    content : bytes
        The row itself.
    domain : bytes
        Names the kind of row (at most 16 bytes), so that a text and an image of the same bytes differ.

    Returns
    -------
    bytes of length 16
    """
    return blake2b(content, digest_size=KEY_BYTES, person=domain).digest()


def context_digest(context: Mapping[str, object]) -> bytes:
    """Digest of everything but the row that decides a result: fingerprint, layer, preparation, precision, ...

    Parameters
    ----------
    context : mapping
        Values that JSON can write.

    Returns
    -------
    bytes of length 16
    """
    return digest(json.dumps(context, sort_keys=True).encode(), domain=b"context")
