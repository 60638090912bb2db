"""From what users write as `cache` to the cache, and the public functions over it."""

from __future__ import annotations

import os
from numbers import Integral
from typing import Any

from sktransfer._nearest import did_you_mean
from sktransfer._paths import is_path
from sktransfer.caching.directory import DirectoryCache, directory_cache
from sktransfer.caching.fits import kept_fits
from sktransfer.caching.interface import CacheInfo, RowCache
from sktransfer.caching.memory import memory_cache

# Words that mean a way of caching to their writer, and would make an odd name for a directory.
_WORDS = ("memory", "none", "disk", "directory", "auto", "true", "false")


def resolve_cache(cache: str | os.PathLike[str] | None) -> RowCache | None:
    """Return the cache that a parameter `cache` names; a directory is made ready.

    Parameters
    ----------
    cache : "memory", str, path or None
        "memory", a directory (created if need be), or None. A relative path is one in the working directory of the moment.

    Returns
    -------
    RowCache or None

    Raises
    ------
    ValueError
        If it is no name and no directory, or the directory holds a cache of another version.
    """
    if cache is None:
        return None
    if _is_memory(cache):
        return memory_cache
    found = _in_directory(cache)
    found.check()
    return found


def _is_memory(cache: Any) -> bool:
    return isinstance(cache, str) and cache == "memory"


def _in_directory(cache: str | os.PathLike[str]) -> DirectoryCache:
    path = os.fspath(cache) if isinstance(cache, str | os.PathLike) else None
    if not isinstance(path, str):
        raise ValueError(
            f"cache={cache!r} must be 'memory', a directory given as str or path, or, for an estimator, None."
        )
    if not is_path(path):
        shown = f"cache={cache!r}" if len(path) <= 200 else f"cache={path[:100]!r}... of {len(path):,} characters"
        raise ValueError(
            f"{shown} can't be a directory: it is blank, holds a NUL or half a character, or is too long for a path. Give "
            "'memory' or another path."
        )
    if not os.path.isabs(os.path.expanduser(path)):
        try:
            os.getcwd()
        except OSError as error:
            raise ValueError(
                f"cache={cache!r} is a relative path, but the working directory of this process is gone. Give an absolute "
                "path, or change to a directory that exists."
            ) from error
    bare = isinstance(cache, str) and not any(mark in path for mark in "/\\~.") and not os.path.isdir(path)
    if bare:
        suggestion = did_you_mean(path, ["memory"])
        if suggestion or path.lower() in _WORDS:
            raise ValueError(
                f"cache={cache!r} is not 'memory', and no directory that exists.{suggestion} None does without a cache; "
                f"for a new directory of that name write {'./' + path!r}."
            )
    return directory_cache(path)


def _existing(cache: str | os.PathLike[str]) -> DirectoryCache:
    """Return the cache that is in a directory already."""
    found = _in_directory(cache)
    if not found.exists():
        raise ValueError(
            f"There is no cache in {str(found.path)!r}: nothing has been written there yet, or nothing could be, for lack of "
            "permission or room."
        )
    return found


def cache_info(cache: str | os.PathLike[str] = "memory") -> CacheInfo:
    """Return the state of a cache: of the memory cache that all estimators of this process share, or of a directory.

    Parameters
    ----------
    cache : "memory", str or path, default="memory"
        "memory", or a directory that was given to an estimator as `cache`.

    Returns
    -------
    CacheInfo
        Hits, misses, evictions, rows, bytes and the byte limit. Hits, misses and evictions are those of this process.

    Raises
    ------
    ValueError
        If there is no cache in the directory, or one of another version.
    OSError
        If the directory can't be read; a TimeoutError if another process holds its file for more than a few seconds.

    See Also
    --------
    cache_clear : Forget all rows.
    set_cache_limit : Change the byte limit.

    Examples
    --------
    >>> from sktransfer import cache_clear, cache_info
    >>> cache_clear()
    >>> cache_info().rows
    0
    """
    return memory_cache.info() if _is_memory(cache) else _existing(cache).info(certain=True)


def cache_clear(cache: str | os.PathLike[str] = "memory") -> None:
    """Forget all rows of a cache and set its counts to zero.

    Parameters
    ----------
    cache : "memory", str or path, default="memory"
        "memory", with which the teachers go that candidates of a search have shared; or a directory that was given to an
        estimator as `cache`; its rows go for all processes.

    Raises
    ------
    ValueError
        If there is no cache in the directory, or one of another version.
    OSError
        If the directory can't be written; a TimeoutError if another process holds its file for more than a few seconds.

    See Also
    --------
    cache_info : State of the cache.

    Examples
    --------
    >>> from sktransfer import cache_clear
    >>> cache_clear()
    """
    chosen: RowCache = memory_cache if _is_memory(cache) else _existing(cache)
    chosen.clear()
    if _is_memory(cache):
        kept_fits.clear()


def set_cache_limit(max_bytes: int, cache: str | os.PathLike[str] = "memory") -> None:
    """Change the byte limit of a cache.

    Parameters
    ----------
    max_bytes : int
        Bytes that the cache may hold, at least 0. The memory cache has 1 GiB at the start of a process; a directory has
        10 GiB when it is new, and keeps its limit, for all processes. Rows beyond it are forgotten at once, least
        recently used first.
    cache : "memory", str or path, default="memory"
        "memory", or a directory, which is created if need be.

    Raises
    ------
    ValueError
        If `max_bytes` is not a whole number of at least 0, or the directory holds a cache of another version.
    OSError
        If the directory can't be written; a TimeoutError if another process holds its file for more than a few seconds.

    See Also
    --------
    cache_info : State of the cache.

    Examples
    --------
    >>> from sktransfer import cache_info, set_cache_limit
    >>> set_cache_limit(256 * 2**20)
    >>> cache_info().max_bytes
    268435456
    >>> set_cache_limit(2**30)
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, Integral) or not 0 <= max_bytes < 2**63:
        raise ValueError(f"max_bytes must be a whole number of bytes, at least 0. Got {max_bytes!r} instead.")
    chosen: RowCache = memory_cache if _is_memory(cache) else _in_directory(cache)
    chosen.set_limit(int(max_bytes))
