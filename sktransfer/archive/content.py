"""What tells that a file has changed, without reading all of it."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

# Smaller files are read whole, of larger ones so many samples of so many bytes.
_WHOLE = 1 << 18
_SAMPLES, _SAMPLE = 32, 1 << 12


def state_of(path: Path) -> tuple[int, int, int, int, bytes]:
    """Return what is different when a file has changed.

    Parameters
    ----------
    path : Path
        A regular file.

    Returns
    -------
    tuple
        Inode, size, time of the last change of the content, and of the last change of either content or status, which
        ``cp -p`` and ``touch`` can't set back; and a digest of the content: of all of it up to 256 KB, of the beginning,
        the end and samples between them beyond that. The digest is empty where the content may not be read.

    Raises
    ------
    OSError
        If there is no such file, or reading fails.
    """
    try:
        file = path.open("rb")
    except PermissionError:
        status, digest = path.stat(), b""
    else:
        with file:
            status, digest = os.fstat(file.fileno()), _digest(file)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, digest


def _digest(file: BinaryIO) -> bytes:
    size, state = os.fstat(file.fileno()).st_size, blake2b(digest_size=16)
    if size <= _WHOLE:
        state.update(file.read(_WHOLE))
    else:
        for i in range(_SAMPLES + 1):
            file.seek((size - _SAMPLE) * i // _SAMPLES)
            state.update(file.read(_SAMPLE))
    return state.digest()
