"""Keep the caller's random generators as they were."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from sktransfer._locks import ProcessLock, after_fork_in_child


@contextmanager
def preserved_generators(seed: int | None = None) -> Iterator[None]:
    """Give the body generators of its own and restore Python's, NumPy's and torch's global ones afterwards.

    Building a network draws random weights from torch's global generator even when a checkpoint overwrites
    them; a `fit` that does so would change what the user's next random draw gives.

    Parameters
    ----------
    seed : int or None, default=None
        Seed of all of them inside the body; None leaves them where they are.
    """
    with _sections_lock:
        section = _Section(threading.get_ident(), _states())
        _sections.append(section)
        if seed is not None:
            _seed(seed)
    try:
        yield
    finally:
        with _sections_lock:
            _end(section)


@dataclass(eq=False)
class _Section:
    """A body that has generators of its own, and what they were before."""

    thread: int
    before: tuple[Any, ...]


# Those that are open, the oldest first. It alone knows the caller's generators, whichever of them ends first.
_sections: list[_Section] = []
_sections_lock = ProcessLock("states of the global generators")


def _end(section: _Section) -> None:
    later = _sections[_sections.index(section) + 1 :]
    if later:
        # One of another thread began in this one and goes on: it is left to restore what was before both.
        later[0].before = section.before
    else:
        _restore(section.before)
    _sections.remove(section)  # last, so that a fork in between does not lose it


def _end_those_of_lost_threads() -> None:
    for section in [one for one in _sections if one.thread != threading.get_ident()]:
        _end(section)


after_fork_in_child(_end_those_of_lost_threads)


def _states() -> tuple[Any, ...]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    on_devices = {device: torch.cuda.get_rng_state(device) for device in devices}
    return random.getstate(), np.random.get_state(), torch.random.get_rng_state(), on_devices


def _restore(states: tuple[Any, ...]) -> None:
    of_python, of_numpy, of_torch, on_devices = states
    random.setstate(of_python)
    np.random.set_state(of_numpy)
    torch.random.set_rng_state(of_torch)
    if torch.cuda.is_initialized():  # not in a forked process, which has no GPU
        for device, state in on_devices.items():
            torch.cuda.set_rng_state(state, device)


def _seed(seed: int) -> None:
    torch.random.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        for generator in torch.cuda.default_generators:
            generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


_one_fit = ProcessLock("generators of a fit")


@contextmanager
def one_fit_at_a_time() -> Iterator[None]:
    """Let one thread of this process train: dropout and random heads draw from generators that all threads share."""
    with _one_fit:
        yield


def own_random_state(random_state: int | np.random.RandomState | None) -> np.random.RandomState:
    """Turn a parameter `random_state` into a generator that is not the global one.

    Parameters
    ----------
    random_state : int, RandomState or None
        None gives fresh randomness. A generator of the caller's is drawn from, as scikit-learn does.
    """
    if random_state is None:
        return np.random.RandomState(np.random.SeedSequence().generate_state(4))
    return check_random_state(random_state)
