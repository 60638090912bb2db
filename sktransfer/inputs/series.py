"""Time series: scaling, padding, digests."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sktransfer.caching.keys import digest
from sktransfer.inputs.preparation import Inputs


class _SeriesRows:
    """What both ways of preparing series share."""

    kind = "series"
    padded = True
    # Time points in a batch.
    budget = 1 << 14
    most_rows = 512
    chunk_rows = 4096
    threads = 1
    exact = False

    def with_options(self, *, max_length: int | None, prompt: str | None) -> Any:
        """Return this preparation: series have no options."""
        if max_length is not None or prompt is not None:
            name = "prompt" if max_length is None else "max_length"
            raise ValueError(f"{name} is for texts, but this backbone reads series. Leave {name} at None.")
        return self

    def fitted_to(self, rows: Sequence[Any]) -> Any:
        """Return this preparation: it leaves nothing open."""
        return self

    def changes(self) -> dict[str, Any]:
        """Return nothing: it is always the backbone's own."""
        return {}

    def digests(self, rows: Sequence[Any]) -> list[bytes]:
        """Return a digest of each row's content."""
        return [digest(repr((row.shape, row.dtype.str)).encode() + row.tobytes(), domain=b"series") for row in rows]

    def size(self, item: Any) -> int:
        """Return the number of time points."""
        return item.shape[-1]


class SeriesPreparation(_SeriesRows):
    """Series to padded batches with a mask, each channel standardised; for the networks of this package.

    The network gets ``series`` (n, time points, channels), padded with zeros at the end, and ``attention_mask``
    (n, time points), 1 where a time point belongs to the series.

    Parameters
    ----------
    mean, scale : sequence of float
        Mean and standard deviation of each channel over all rows and time points of the fit.
    """

    def __init__(self, mean: Sequence[float], scale: Sequence[float]):
        self.mean = tuple(mean)
        self.scale = tuple(scale)

    @classmethod
    def learnt_from(cls, rows: Sequence[np.ndarray]) -> SeriesPreparation:
        """Measure mean and standard deviation of each channel.

        Raises
        ------
        ValueError
            If rows differ in their number of channels.
        """
        channels = len(rows[0])
        _check_channels(rows, channels, f"row 0 has {channels}")
        mean, scale = zip(
            *(_mean_and_scale([row[channel] for row in rows]) for channel in range(channels)), strict=True
        )
        return cls(mean, scale)

    def read(self, values: Any) -> Any:
        """Return series as they are, after checking their number of channels."""
        _check_channels(values, len(self.mean), f"the backbone was made for {len(self.mean)}")
        return values

    def describe(self) -> Mapping[str, object]:
        """Return everything that decides what a row becomes."""
        return {"mean": self.mean, "scale": self.scale}

    def prepare(self, rows: Sequence[Any], first_row: int) -> list[Any]:
        """Standardise each channel."""
        mean, scale = np.array(self.mean)[:, None], np.array(self.scale)[:, None]
        with np.errstate(over="ignore"):  # beyond what a float holds: the network's result names the row
            # Halves, since the difference of two huge numbers would overflow.
            return [((row * 0.5 - mean * 0.5) / (scale * 0.5)).astype(np.float32) for row in rows]

    def group(self, item: Any) -> Hashable:
        """Return the same for all, since padding makes any series fit."""
        return None

    def collate(self, items: Sequence[Any]) -> Inputs:
        """Pad series to the longest at the end."""
        lengths = np.array([item.shape[1] for item in items])
        mask = np.arange(lengths.max()) < lengths[:, None]
        series = np.zeros((*mask.shape, len(self.mean)), np.float32)
        for place, item in zip(series, items, strict=True):
            place[: item.shape[1]] = item.T
        attention_mask = torch.from_numpy(mask.astype(np.int64))
        return Inputs(
            kwargs={"series": torch.from_numpy(series), "attention_mask": attention_mask}, mask=attention_mask
        )

    def examples(self) -> list[Inputs]:
        """Return two small batches of made-up rows, of different length."""
        random = np.random.default_rng(0)
        return [
            self.collate([random.normal(size=(len(self.mean), length)).astype(np.float32) for length in lengths])
            for lengths in ((9, 6), (5, 7))
        ]


class PlainSeriesPreparation(_SeriesRows):
    """Series as they are, or as a function of the user's makes them, in batches of equal length.

    Parameters
    ----------
    transform : callable or None
        From an array of shape (channels, time points) to an array or tensor of two dimensions; None leaves the values.
    description : dict
        What decides the result of `transform`, as values that JSON can write.
    channels : int
        Channels of made-up rows, until rows show it.
    """

    def __init__(self, transform: Callable[[np.ndarray], Any] | None, *, description: dict[str, object], channels: int):
        self.transform = transform
        self.description = description
        self.shape: tuple[int, ...] = (channels, 64)

    def read(self, values: Any) -> Any:
        """Return series as they are, after checking that all have as many channels."""
        _check_channels(values, len(values[0]), f"row 0 has {len(values[0])}")
        return values

    def fitted_to(self, rows: Sequence[Any]) -> PlainSeriesPreparation:
        """Return this preparation, with the shape that the rows have for the module."""
        other = copy.copy(self)
        other.shape = tuple(self.prepare(rows[:1], 0)[0].shape)
        return other

    def changes(self) -> dict[str, Any]:
        """Return what `fitted_to` changes."""
        return {"shape": self.shape}

    def describe(self) -> Mapping[str, object]:
        """Return everything that decides what a row becomes."""
        return self.description

    def prepare(self, rows: Sequence[Any], first_row: int) -> list[Any]:
        """Apply the user's function to each row."""
        return [self._prepare_one(row, place) for place, row in enumerate(rows, start=first_row)]

    def _prepare_one(self, row: np.ndarray, place: int) -> torch.Tensor:
        if self.transform is None:
            return torch.from_numpy(row.astype(np.float32))
        try:
            made = torch.as_tensor(self.transform(row.copy()))
        except Exception as error:  # whatever the user's function raises
            raise ValueError(f"The preparation failed on row {place} of X: {type(error).__name__}: {error}") from error
        if made.ndim != 2:
            raise ValueError(
                f"The preparation made a result of shape {tuple(made.shape)} of row {place} of X; it has to give two "
                "dimensions: (channels, time points)."
            )
        return made

    def group(self, item: Any) -> Hashable:
        """Return the shape: series of one batch have the same."""
        return tuple(item.shape)

    def collate(self, items: Sequence[Any]) -> Inputs:
        """Stack series of one shape."""
        return Inputs(args=(torch.stack(list(items)),))

    def examples(self) -> list[Inputs]:
        """Return two small batches of made-up rows."""
        random = np.random.default_rng(0)
        return [Inputs(args=(torch.from_numpy(random.normal(size=(3, *self.shape)).astype(np.float32)),)) for _ in "ab"]


def _check_channels(rows: Sequence[np.ndarray], channels: int, because: str) -> None:
    odd = next((row for row, series in enumerate(rows) if len(series) != channels), None)
    if odd is not None:
        seen, points = rows[odd].shape
        raise ValueError(
            f"Row {odd} of X is a series of {seen} channel(s) and {points} time points, but {because} channel(s). A row is "
            "(channels, time points): transpose it if it is the other way round."
        )


def _mean_and_scale(parts: Sequence[np.ndarray]) -> tuple[float, float]:
    """Mean and standard deviation of all values, without overflow whatever they are."""
    largest = max(float(np.abs(part).max()) for part in parts) or 1.0
    count = sum(len(part) for part in parts)
    mean = sum(float((part.astype(np.float64) / largest).sum()) for part in parts) / count
    spread = sum(float(((part.astype(np.float64) / largest - mean) ** 2).sum()) for part in parts)
    deviation = float(np.sqrt(spread / count))
    # What is left of equal values after rounding is no spread.
    constant = deviation <= 10 * np.finfo(np.float64).eps
    return mean * largest, 1.0 if constant else (deviation * largest or 1.0)
