"""A row's way to its embedding: digest, cache, preparation, batch, network, pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch

from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.keyed import keyed
from sktransfer.backbones.pooling import pool_windows
from sktransfer.backbones.readout import Readout
from sktransfer.caching.interface import RowCache
from sktransfer.inputs.preparation import Preparation
from sktransfer.inputs.rows import Rows
from sktransfer.inputs.text import TextPreparation
from sktransfer.runtime.batching import batches_by_size, made_ahead
from sktransfer.runtime.device import free_memory, frozen_pass, is_out_of_memory
from sktransfer.runtime.progress import progress_bar

# A GPU is kept busy by larger batches than a processor.
_ACCELERATOR_FACTOR = 64
_LOOKED_UP_AT_ONCE = 8192
# Of long texts, whose windows are kept until the last of them is done.
_LONG_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Run:
    """How an encoding is carried out; nothing here but the precision changes the result.

    Attributes
    ----------
    device : torch.device
    dtype : torch.dtype
        Type the network computes in.
    batch_size : int or None
        Rows in a batch; None lets the size of the rows decide.
    cache : RowCache or None
        Where rows are looked up and stored.
    progress : bool
        Whether to show a progress bar.
    """

    device: torch.device
    dtype: torch.dtype
    batch_size: int | None = None
    cache: RowCache | None = None
    progress: bool = False


def encode(backbone: Backbone, preparation: Preparation, readout: Readout, rows: Rows, run: Run) -> np.ndarray:
    """Embed rows, each distinct row once.

    Parameters
    ----------
    backbone : Backbone
        The network.
    preparation : Preparation
        The backbone's own, possibly with other options.
    readout : Readout
        What to read out of the network.
    rows : Rows
        The rows.
    run : Run
        Device, precision, batch size, cache.

    Returns
    -------
    ndarray of shape (n_rows, d), float32
        In the order of `rows`.

    Raises
    ------
    ValueError
        If a row can't be read, or the network gives NaN or infinity for it.
    """
    digests = preparation.digests(rows.values)
    first_place: dict[bytes, int] = {}
    for place, row_digest in enumerate(digests):
        first_place.setdefault(row_digest, place)

    result = _Result(len(digests))
    # Another thread that encodes the same rows is waited for; what it stored is then found.
    with backbone.lock:
        missing = first_place
        passing = EncodingPass(backbone, preparation, readout, run)
        cache, context = keyed(
            run.cache,
            {"readout": asdict(readout), "precision": str(run.dtype)},
            backbone=backbone,
            preparation=preparation,
        )
        if cache is not None:
            missing = look_up(cache, context, first_place, result, passing.fits)
        for places, vectors in passing.embed(rows.values, list(missing.values())):
            backbone.remembered["width", readout] = vectors.shape[1]
            if passing.width not in (None, vectors.shape[1]):
                # The rows that were found are of another length than the network gives: not its own.
                return encode(backbone, preparation, readout, rows, run)
            result.write(places, vectors)
            if cache is not None:
                cache.put_many([context + digests[place] for place in places], vectors)
    repeats = [place for place, row_digest in enumerate(digests) if first_place[row_digest] != place]
    return result.repeated([first_place[digests[place]] for place in repeats], repeats)


class Found(Protocol):
    """Takes rows that are done."""

    def write(self, places: Sequence[int], vectors: np.ndarray | Sequence[np.ndarray]) -> None:
        """Take the rows of these places."""


class _Result:
    """The rows' vectors, in memory of their own as soon as the first shows their length."""

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows
        self.vectors: np.ndarray | None = None

    def write(self, places: Sequence[int], vectors: np.ndarray | Sequence[np.ndarray]) -> None:
        if self.vectors is None:
            self.vectors = np.empty((self.n_rows, len(vectors[0])), np.float32)
        self.vectors[places] = vectors

    def repeated(self, sources: Sequence[int], places: Sequence[int]) -> np.ndarray:
        """Fill the places of rows that came before, and return all."""
        assert self.vectors is not None  # rows are never empty
        if places:
            self.vectors[places] = self.vectors[sources]
        return self.vectors


def look_up(
    cache: RowCache, context: bytes, wanted: Mapping[bytes, int], result: Found, fits: Callable[[np.ndarray], bool]
) -> dict[bytes, int]:
    """Write the rows that the cache holds into the result, and return those that it does not, or that don't fit."""
    missing: dict[bytes, int] = {}
    remaining = iter(wanted.items())
    # In pieces, so that a large result is not held twice.
    while piece := list(islice(remaining, _LOOKED_UP_AT_ONCE)):
        found = cache.get_many([context + row_digest for row_digest, _ in piece], fits)
        known = [(place, row) for (_, place), row in zip(piece, found, strict=True) if row is not None]
        if known:
            result.write([place for place, _ in known], [row for _, row in known])
        missing.update(entry for entry, row in zip(piece, found, strict=True) if row is None)
    return missing


def prepare_rows(preparation: Preparation, values: Sequence[Any], places: Sequence[int]) -> list[Any]:
    """Prepare some of the rows of an `X`."""
    if preparation.kind in ("image", "series"):
        # One by one, so that an error names the row's place in X.
        return [preparation.prepare([values[place]], place)[0] for place in places]
    return preparation.prepare([values[place] for place in places], places[0])


class EncodingPass:
    """One run of rows through the network."""

    def __init__(self, backbone: Backbone, preparation: Preparation, readout: Readout, run: Run) -> None:
        self.backbone = backbone
        self.preparation = preparation
        self.readout = readout
        self.run = run
        # Of a batch, its rows times the longest; halved whenever memory runs out.
        self.most_values = math.inf
        # What nothing is known of has the length of the first row that is found.
        self.width = backbone.remembered.get(("width", readout), self._width_on_card())

    def fits(self, row: np.ndarray) -> bool:
        """Whether a row is what the network gives: float32, finite, and of the right length."""
        if row.dtype != np.float32 or row.ndim != 1 or not len(row) or not np.isfinite(row).all():
            return False
        if self.width is None:
            self.width = len(row)
        return len(row) == self.width

    def _width_on_card(self) -> int | None:
        whole, backbone = self.backbone.card.dimension, self.backbone
        if (
            whole is None
            or backbone.origin is None
            or self.readout.layers is not None
            or self.readout.pooling is not None
        ):
            return None
        return min(whole, self.readout.truncate_dim or whole)

    def embed(self, values: Sequence[Any], places: list[int]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield places of rows and their vectors, batch by batch."""
        if not places:
            return
        size = self.preparation.chunk_rows if self.readout.window_pooling is None else _LONG_ROWS_AT_ONCE
        chunks = [places[start : start + size] for start in range(0, len(places), size)]
        with progress_bar(len(places), self.backbone.name, "row", show=self.run.progress) as bar:
            prepared = made_ahead(
                partial(prepare_rows, self.preparation, values), chunks, threads=self.preparation.threads
            )
            for chunk, items in zip(chunks, prepared, strict=True):
                for batch, vectors in self._embed_chunk(items):
                    done = [chunk[i] for i in batch]
                    self._check_finite(vectors, done)
                    bar.update(len(done))
                    yield done, vectors

    def _embed_chunk(self, items: list[Any]) -> Iterator[tuple[list[int], np.ndarray]]:
        if self.readout.window_pooling is None:
            for batch in _batches(self.preparation, items, self.run):
                yield batch, self._finish(self.vectors([items[i] for i in batch]))
            return
        # Windows of one text may be in several batches, so all have to be there before any text is done.
        assert isinstance(self.preparation, TextPreparation)  # nothing else has windows
        windows, owners = self.preparation.windows(items)
        parts: list[torch.Tensor | None] = [None] * len(windows)
        for batch in _batches(self.preparation, windows, self.run):
            for i, vector in zip(batch, self.vectors([windows[i] for i in batch]), strict=True):
                parts[i] = vector
        weights = torch.tensor([float(self.preparation.size(window)) for window in windows])
        vectors = torch.stack([part for part in parts if part is not None])
        yield (
            list(range(len(items))),
            self._finish(pool_windows(vectors, weights, torch.tensor(owners), len(items), self.readout.window_pooling)),
        )

    def vectors(self, items: list[Any]) -> Any:
        """Run one batch, in halves where the memory is too small for the whole."""
        values = len(items) * max(map(self.preparation.size, items))
        if values <= self.most_values or len(items) == 1:
            try:
                return self._run_network(items)
            except Exception as error:
                if not is_out_of_memory(error) or len(items) == 1:
                    raise
                self.most_values = values / 2
        # Out of the handler, which would hold on to the failed batch.
        free_memory(self.run.device)
        half = (len(items) + 1) // 2
        return self._join(self.vectors(items[:half]), self.vectors(items[half:]))

    def _join(self, first: Any, second: Any) -> Any:
        return torch.cat([first, second])

    def _run_network(self, items: list[Any]) -> Any:
        with frozen_pass(self.run.device):
            vectors = self.backbone.embed(
                self.preparation.collate(items),
                layers=self.readout.layers,
                pooling=self.readout.pooling,
                device=self.run.device,
                dtype=self.run.dtype,
            )
        if len(vectors) != len(items):
            raise ValueError(
                f"The network {self.backbone.name!r} gave {len(vectors)} rows for a batch of {len(items)}. A backbone gives "
                "one row for each row it gets, in the same order."
            )
        if vectors.ndim != 2 or vectors.shape[1] == 0:
            raise ValueError(
                f"The network {self.backbone.name!r} gave no values: an output of shape {tuple(vectors.shape)}."
            )
        return vectors.float().cpu()

    def _finish(self, vectors: Any) -> Any:
        if self.readout.truncate_dim is not None:
            vectors = vectors[:, : self.readout.truncate_dim]
        if self.readout.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return vectors.numpy()

    def _check_finite(self, vectors: np.ndarray | Sequence[np.ndarray], places: list[int]) -> None:
        # At once where they are of one length.
        finite = np.isfinite(vectors).all(axis=1) if isinstance(vectors, np.ndarray) else _each_finite(vectors)
        if not np.all(finite):
            bad = sorted(place for place, good in zip(places, finite, strict=True) if not good)
            raise ValueError(
                f"The backbone {self.backbone.name!r} gave NaN or infinity for row {bad[0]} of X, and maybe for others. Check "
                "that row and the network's weights; in half precision large values overflow, precision='float32' does not."
            )


def _each_finite(rows: Sequence[np.ndarray]) -> list[bool]:
    return [bool(np.isfinite(row).all()) for row in rows]


def _batches(preparation: Preparation, items: list[Any], run: Run) -> Iterator[list[int]]:
    groups: dict[Any, list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(preparation.group(item), []).append(i)
    budget = preparation.budget * (1 if run.device.type == "cpu" else _ACCELERATOR_FACTOR)
    for members in groups.values():
        sizes = [preparation.size(items[i]) for i in members]
        if run.batch_size is not None:
            batches = batches_by_size(sizes, budget=2**62, most=run.batch_size, padded=preparation.padded)
        else:
            batches = batches_by_size(sizes, budget=budget, most=preparation.most_rows, padded=preparation.padded)
        for batch in batches:
            yield [members[i] for i in batch]
