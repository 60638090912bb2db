"""Whose a module is: of an installed library, which changes with its version, or of the user, who may edit it."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import sys
import sysconfig
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

# Libraries wherever they lie: from a checkout too.
_LIBRARIES = {"builtins", "torch", "torchvision", "transformers", "timm", "tokenizers", "sktransfer", "numpy", "PIL"}
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "cv2": "opencv-python", "skimage": "scikit-image"}
_INSTALLED = {"site-packages", "dist-packages"}
_STDLIB = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")})
_COMPILED = (".so", ".pyd", ".dll", ".dylib")


def library_of(module: str | None) -> str | None:
    """Return the name and version of the library that a module belongs to, None where it is the user's own.

    Parameters
    ----------
    module : str or None
        Dotted name.
    """
    if not module:
        return None
    top = module.partition(".")[0]
    if top == "__main__":
        return None
    if top in _LIBRARIES:
        return _versioned(top)
    where = _location(module) or _location(top)
    return None if where is None else _library_at(top, where)


def is_compiled(module: ModuleType) -> bool:
    """Whether a module is machine code."""
    return str(getattr(module, "__file__", None) or "").endswith(_COMPILED)


def found_as(value: Any) -> tuple[str, str] | None:
    """Return the module and the name under which an object is really found, None where it is not."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        # Of the type's own table: a class hands on what its base has under that name.
        found = getattr(found, part, None)
    return (module, name) if found is value else None


def _location(module: str) -> str | None:
    """Return where a module's code lies, without importing it."""
    known = sys.modules.get(module)
    spec = getattr(known, "__spec__", None)
    if known is None and "." not in module:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError, AttributeError):
            return None
    where = getattr(spec, "origin", None) or getattr(known, "__file__", None)
    paths = list(getattr(spec, "submodule_search_locations", None) or getattr(known, "__path__", None) or [])
    return where or next(iter(paths), None)


@functools.cache
def _library_at(top: str, where: str) -> str | None:
    if where in ("built-in", "frozen"):
        return _versioned("python")
    path = Path(where)
    if _INSTALLED & set(path.parts):
        return _versioned(top)
    if any(path.resolve().is_relative_to(folder) for folder in _STDLIB):
        return _versioned("python")
    return None


@functools.cache
def _versioned(top: str) -> str:
    if top in ("python", "builtins"):
        return f"python {sys.version_info.major}.{sys.version_info.minor}"
    name = _DISTRIBUTIONS.get(top, top)
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top)
        if not names:
            return name
        found = importlib.metadata.distribution(names[0])
    # Builds of torch for other processors have the same version in front of a plus sign.
    version = f"{name} {found.version.partition('+')[0]}"
    if top in _LIBRARIES or top == "sklearn":
        return version
    # Packages of one's own are installed again and again under one version.
    return f"{version} {sha256((found.read_text('RECORD') or '').encode()).hexdigest()[:16]}"
