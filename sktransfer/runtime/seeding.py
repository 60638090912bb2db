"""Keep the caller's random generators as they were."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils import check_random_state


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
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        if seed is not None:
            torch.random.default_generator.manual_seed(seed)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


_one_fit = threading.RLock()


def _renew_lock() -> None:
    """Give a forked process a lock of its own: one that a thread of the parent held would never be released."""
    global _one_fit
    _one_fit = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


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
