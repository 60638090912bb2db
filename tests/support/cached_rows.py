"""Rows that follow from their keys, so that a wrong one is seen; no torch, since killed writers import this too."""

import os
import sys
from pathlib import Path

import numpy as np

from sktransfer.caching import directory_cache
from sktransfer.caching.keys import context_digest, digest

CONTEXT = context_digest({"test": 1})


def keys(n, start=0):
    return [CONTEXT + digest(str(i).encode(), domain=b"test") for i in range(start, start + n)]


def row_of(key, width=64):
    """Values that no other key has."""
    return np.resize(np.frombuffer(key, np.uint8), width).astype(np.float32)


def rows_of(names, width=64):
    return [row_of(key, width) for key in names]


def assert_none_is_wrong(names, found):
    """Each row that was found is the key's own; returns how many were."""
    for key, row in zip(names, found, strict=True):
        if row is not None:
            # No numpy.testing, which is imported on first use: a fork in that moment hangs.
            assert np.array_equal(row, row_of(key, len(row))), "a row of another key"
            assert len(row) >= 64
    return sum(row is not None for row in found)


def write_for_ever(directory, start):
    cache = directory_cache(directory)
    cache.check()
    print("ready", flush=True)
    while True:
        names = keys(20, start)
        cache.put_many(names, rows_of(names, 64 + start % 700))
        start += 20
        # What was said to be stored must be there after a kill.
        os.write(1, b"%d\n" % start)


if __name__ == "__main__":
    write_for_ever(Path(sys.argv[1]), int(sys.argv[2]))
