"""What can be the path of a file or directory."""

from __future__ import annotations

import os
from typing import Any

# What Linux and macOS allow; a longer one is an error of the system that does not say what it is about.
_LONGEST_PATH, _LONGEST_NAME = 4096, 255


def is_path(value: Any) -> bool:
    """Whether a value can be a path: a str or path object, not blank, without NUL or half a character, not too long."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        return False
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return len(encoded) <= _LONGEST_PATH and all(len(part) <= _LONGEST_NAME for part in encoded.split(b"/"))
