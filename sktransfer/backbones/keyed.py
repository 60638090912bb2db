"""Which cache may hold the rows of a network, and under what."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from sktransfer.backbones.backbone import Backbone
from sktransfer.caching import memory_cache
from sktransfer.caching.interface import RowCache
from sktransfer.caching.keys import context_digest
from sktransfer.inputs.preparation import Preparation

# What was said already, once in a process.
_said: set[tuple[str, tuple[str, ...]]] = set()


def keyed(
    cache: RowCache | None, context: Mapping[str, object], *, backbone: Backbone, preparation: Preparation
) -> tuple[RowCache | None, bytes]:
    """Return the cache that may hold rows, and the digest of everything beside a row that decides its result.

    Parameters
    ----------
    cache : RowCache or None
        The cache that was asked for.
    context : mapping
        What is read out, and in which precision.
    backbone : Backbone
        The network.
    preparation : Preparation
        The backbone's own, possibly with other options.

    Returns
    -------
    cache : RowCache or None
        The memory cache instead of a directory, where code can't be looked at that another process may have otherwise.
    context : bytes
        What keys begin with.

    Warns
    -----
    UserWarning
        If it is not the cache that was asked for.
    """
    if cache is None:
        return None, b""
    code = backbone.code_now(preparation)
    told = {"fingerprint": backbone.fingerprint, "preparation": preparation.describe(), **context}
    if code is not None:
        told["code"] = code.digest
        cache = within_process(cache, backbone.name, code.unknown)
    return cache, context_digest(told)


def within_process(cache: RowCache, name: str, unknown: Sequence[str]) -> RowCache:
    """Return the cache, or the memory cache instead of a directory where something is unknown.

    Parameters
    ----------
    cache : RowCache
        The cache that was asked for.
    name : str
        Whose rows they are.
    unknown : sequence of str
        What could not be looked at, in words.
    """
    if cache is memory_cache or not unknown:
        return cache
    told = (name, tuple(unknown))
    if told not in _said:
        _said.add(told)
        warnings.warn(
            f"Rows of {name!r} are kept in memory only, not in the cache directory: another process could not tell whether "
            f"they still hold. What can't be looked at: {'; '.join(unknown)}. To share them among processes hand over what "
            "is read there, as an argument, an attribute or a setting of a module (see 'What makes a row new' in the guide); "
            "or set cache='memory'.",
            UserWarning,
            stacklevel=2,
        )
    return memory_cache
