"""Time several sides in turn, so that whatever else the machine does strikes all of them alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Where the values of several rounds lie."""

    median: float
    lower_quartile: float
    upper_quartile: float
    lowest: float
    highest: float


def time_in_turn(
    sides: Mapping[str, Callable[[], Any]], *, n_rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds that each side takes in each round; the caller has warmed them up.

    Each round runs every side once, every second one in the opposite order, so that of any two sides each goes first in
    half of the rounds.
    """
    if n_rounds < 1:
        raise ValueError(f"n_rounds={n_rounds} must be at least 1.")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(n_rounds):
        for name in list(sides) if number % 2 == 0 else reversed(sides):
            gc.collect()  # nobody pays for what another side left behind
            started = clock()
            sides[name]()
            seconds[name].append(clock() - started)
    return seconds


def ratios(ours: Sequence[float], peer: Sequence[float]) -> list[float]:
    """Return round by round how many times as fast we are."""
    return [theirs / own for own, theirs in zip(ours, peer, strict=True)]


def spread(values: Sequence[float]) -> Spread:
    """Return median, quartiles and extremes."""
    low, lower, median, upper, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return Spread(median, lower, upper, low, high)
