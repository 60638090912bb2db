"""Content-addressed results of frozen computation, one entry per row."""

from sktransfer.caching.access import cache_clear, cache_info, resolve_cache, set_cache_limit
from sktransfer.caching.directory import DirectoryCache, directory_cache
from sktransfer.caching.interface import CacheInfo, RowCache
from sktransfer.caching.memory import MemoryCache, memory_cache

__all__ = [
    "CacheInfo",
    "DirectoryCache",
    "MemoryCache",
    "RowCache",
    "cache_clear",
    "cache_info",
    "directory_cache",
    "memory_cache",
    "resolve_cache",
    "set_cache_limit",
]
