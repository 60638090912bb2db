"""Names by which code reads what lies outside of the process, or runs code that is not there yet."""

from __future__ import annotations

from collections.abc import Sequence

BUILTINS = frozenset({"open", "exec", "eval", "compile", "__import__", "globals", "input"})
# Of paths, whatever they are called.
METHODS = frozenset({"open", "read_text", "read_bytes"})
_MODULES = {"subprocess", "socket", "urllib", "http", "requests", "httpx", "ctypes", "shelve", "sqlite3", "runpy"}
_FILES = {"open", "load", "fromfile", "loadtxt", "genfromtxt", "memmap", "imread", "listdir", "scandir", "safe_open"} | {
    "File", "ZipFile", "TarFile", "read_bytes", "iterdir", "popen", "system", "urlopen",
}  # fmt: skip
_PROCESS = {"environ", "environb", "getenv", "argv", "import_module", "reload", "exec", "eval", "__import__"}


def reads_outside(module: str, names: Sequence[str]) -> bool:
    """Whether something of a library reads files, the environment and the like, as far as its name tells.

    Parameters
    ----------
    module : str
        The library's module.
    names : sequence of str
        Names of what is used of it.
    """
    if module.partition(".")[0] in _MODULES or (module == "sys" and "modules" in names):
        return True
    return any(
        name in _FILES or name in _PROCESS or name.startswith(("read_", "load_")) or name.endswith("_load")
        for name in names
    )
