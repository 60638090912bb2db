"""JSON files from elsewhere: read strictly, with the file and the field in every error."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

# Settings are small. What is longer is no settings file, and is not read into memory.
_MOST_BYTES = 1 << 28
_DEEPEST = 100
_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 80


class Fields:
    """The fields of one JSON object, each checked when it is read.

    Parameters
    ----------
    content : dict of str to object
        The object.
    path : Path
        Its file, for messages.
    prefix : str, default=""
        What stands in front of a field's name in messages, where the object is a part of another.
    """

    def __init__(self, content: dict[str, Any], path: Path, prefix: str = ""):
        self.content = content
        self.path = path
        self.prefix = prefix

    def __contains__(self, name: str) -> bool:
        return name in self.content

    def refuse(self, name: str, expected: str) -> NoReturn:
        """Raise the error for a field that is not what it has to be.

        Parameters
        ----------
        name : str
            The field.
        expected : str
            What it has to be.

        Raises
        ------
        ValueError
            Always.
        """
        got = f"Got {_shown.repr(self.content[name])}." if name in self.content else "It is missing."
        raise ValueError(f"{str(self.path)!r}: the field {self.prefix + name!r} must be {expected}. {got}")

    def text(self, name: str, default: str | None = None, *, required: bool = False) -> str | None:
        """Return a string, `default` where the field is null or missing."""
        value = self.content.get(name)
        if value is None and not required:
            return default
        if not isinstance(value, str):
            self.refuse(name, "a string")
        return value

    def whole_number(self, name: str, *, most: int | None = None, required: bool = False) -> int | None:
        """Return a whole number of at least 1 and at most `most`, None where the field is null or missing."""
        value = self.content.get(name)
        if value is None and not required:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most is not None and value > most):
            self.refuse(name, "a whole number of at least 1" + ("" if most is None else f" and at most {most:,}"))
        return value

    def length(self, name: str) -> int | None:
        """Return a whole number of at least 1; None where it is missing, null, or so large that it stands for none."""
        value = self.content.get(name)
        # Tokenizers write 1e30 where they have no limit.
        if value is None or (isinstance(value, float) and value >= 1e9):
            return None
        found = self.whole_number(name)
        return None if found is None or found >= 10**9 else found

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false, `default` where the field is null or missing."""
        value = self.content.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(name, "true or false")
        return value

    def texts(self, name: str) -> list[str] | None:
        """Return a list of strings, None where the field is null or missing; one string is a list of one."""
        value = self.content.get(name)
        if value is None:
            return None
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            self.refuse(name, "a string or a list of strings")
        return values

    def path_inside(self, name: str) -> str:
        """Return a path that stays in its folder."""
        value = self.text(name, required=True)
        if value is None or not is_inside(value):
            self.refuse(name, "a path inside its folder; nothing outside is read")
        return value

    def part(self, name: str) -> Fields:
        """Return the object in a field, an empty one where it is null or missing."""
        value = self.content.get(name)
        if value is not None and not isinstance(value, dict):
            self.refuse(name, "an object")
        return Fields(value or {}, self.path, f"{self.prefix}{name}.")


def check_file(path: Path) -> None:
    """Refuse what is no regular file: opening a pipe would wait for ever.

    Raises
    ------
    OSError
        If it is a directory, a pipe, a device or a link to nowhere.
    """
    if not path.is_file():
        raise OSError(f"{str(path)!r} is {'no regular file' if path.exists() else 'missing'}.")


def is_inside(name: str) -> bool:
    """Whether a relative path, as it is written, stays in its folder; links are not followed."""
    # Hugging Face's cache links each file to a place outside the folder, so that what a link leads to says nothing.
    backwards = "\\" in name or PureWindowsPath(name).drive
    return not (backwards or "\0" in name or name.startswith(("/", "~")) or ".." in PurePosixPath(name).parts)


def read_object(path: Path) -> Fields:
    """Read a JSON file that holds an object.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Fields

    Raises
    ------
    OSError
        If it can't be read.
    ValueError
        If it is not an object of JSON in UTF-8, repeats a name, holds NaN, or is nested without end.
    """
    content = _read(path)
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} must hold a JSON object, {{...}}. It holds {_shown.repr(content)}.")
    return Fields(content, path)


def read_objects(path: Path) -> list[Fields]:
    """Read a JSON file that holds a list of objects. Raises as :func:`read_object` does."""
    content = _read(path)
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise ValueError(f"{str(path)!r} must hold a list of JSON objects. It holds {_shown.repr(content)}.")
    return [Fields(entry, path, f"[{i}].") for i, entry in enumerate(content)]


def parse(data: bytes, source: str) -> Any:
    """Parse JSON strictly.

    Parameters
    ----------
    data : bytes
        JSON in UTF-8.
    source : str
        Where it comes from, the beginning of messages.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If it is not JSON in UTF-8, repeats a name, holds NaN, or is nested more than 100 levels deep.
    """
    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError(f"{source} is nested more than {_DEEPEST} levels deep.") from None
    except _Repeated as error:
        raise ValueError(f"{source} gives the field {error.args[0]!r} twice in one object.") from None
    except ValueError as error:  # not UTF-8, not JSON, a number of thousands of digits
        empty = "" if data.strip() else " It is empty."
        raise ValueError(f"{source} is not JSON in UTF-8: {error}.{empty}") from error
    for place, value in _leaves(content, source):
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"{source}: the field {place!r} is NaN, which is no value of a setting.")
    return content


def _read(path: Path) -> Any:
    check_file(path)
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"{str(path)!r} has {size:,} bytes, which is no file of settings.")
    return parse(path.read_bytes(), repr(str(path)))


class _Repeated(Exception):
    """A name that occurs twice in one object; who reads it decides which value counts."""


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Repeated(next(name for name in names if names.count(name) > 1))
    return content


def _leaves(content: Any, source: str) -> Iterator[tuple[str, Any]]:
    waiting: list[tuple[str, int, Any]] = [("", 0, content)]
    while waiting:
        place, depth, value = waiting.pop()
        if not isinstance(value, dict | list):
            yield place, value
            continue
        if depth == _DEEPEST:
            raise ValueError(f"{source} is nested more than {_DEEPEST} levels deep.")
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        waiting += [(f"{place}.{key}" if place else str(key), depth + 1, inner) for key, inner in entries]
