"""Content-addressed results of frozen computation, one entry per row."""

from sktransfer.caching.memory import CacheInfo, MemoryCache, cache_clear, cache_info, memory_cache, set_cache_limit

__all__ = ["CacheInfo", "MemoryCache", "cache_clear", "cache_info", "memory_cache", "set_cache_limit"]
