"""Hooks that one pass sets on a network that other threads run as well."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from sktransfer._locks import after_fork_in_child

Hook = Callable[..., Any]


class _Hooks(threading.local):
    """Those of one pass; only the thread that set them sees them as its own, whatever numbers threads have."""

    own = False

    def __init__(self, handles: list[RemovableHandle]) -> None:
        self.handles = handles

    def only_here(self, hook: Hook) -> Hook:
        @wraps(hook)
        def call(*args: Any) -> Any:
            return hook(*args) if self.own else None

        return call


# Each with the list of its handles, which any thread may look at.
_set: dict[_Hooks, list[RemovableHandle]] = {}


@contextmanager
def own_hooks(
    after: Iterable[tuple[nn.Module, Hook]],
    before: Iterable[tuple[nn.Module, Hook]] = (),
    *,
    with_kwargs: bool = False,
) -> Iterator[None]:
    """Have functions called when modules run in this thread; what other threads run meanwhile is not seen.

    Parameters
    ----------
    after, before : iterable of (nn.Module, callable)
        Called after and before the module's forward, as torch calls hooks.
    with_kwargs : bool, default=False
        Whether they get keyword arguments too.
    """
    handles: list[RemovableHandle] = []
    hooks = _Hooks(handles)
    hooks.own = True
    _set[hooks] = handles
    try:
        for module, hook in before:
            handles.append(module.register_forward_pre_hook(hooks.only_here(hook), with_kwargs=with_kwargs))
        for module, hook in after:
            handles.append(module.register_forward_hook(hooks.only_here(hook), with_kwargs=with_kwargs))
        yield
    finally:
        for handle in handles:
            handle.remove()
        del _set[hooks]


def _remove_those_of_lost_threads() -> None:
    for hooks, handles in list(_set.items()):
        if not hooks.own:
            for handle in handles:
                handle.remove()
            del _set[hooks]


after_fork_in_child(_remove_those_of_lost_threads)
