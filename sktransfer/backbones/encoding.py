"""A row's way to its embedding: digest, cache, preparation, batch, network, pooling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.preparation import Preparation
from sktransfer.backbones.rows import Rows
from sktransfer.caching.keys import context_digest
from sktransfer.caching.memory import MemoryCache
from sktransfer.runtime.batching import batches_by_size, made_ahead
from sktransfer.runtime.device import frozen_pass

# A GPU is kept busy by larger batches than a processor.
_ACCELERATOR_FACTOR = 16


@dataclass(frozen=True)
class Readout:
    """What is read out of a backbone.

    Attributes
    ----------
    layers : tuple of int or None
        Stages whose pooled outputs are concatenated; None for the backbone's default embedding.
    pooling : str, tuple of str or None
        How to pool; None for the backbone's own way.
    normalize : bool
        Whether vectors are scaled to unit length.
    truncate_dim : int or None
        Number of leading values kept.
    """

    layers: tuple[int, ...] | None = None
    pooling: str | tuple[str, ...] | None = None
    normalize: bool = False
    truncate_dim: int | None = None


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
    cache : MemoryCache or None
        Where rows are looked up and stored.
    progress : bool
        Whether to show a progress bar.
    """

    device: torch.device
    dtype: torch.dtype
    batch_size: int | None = None
    cache: MemoryCache | None = None
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
    unique = list(first_place)

    out: np.ndarray | None = None
    # Another thread that encodes the same rows is waited for; what it stored is then found.
    with backbone.lock:
        keys = _keys(backbone, preparation, readout, run, unique) if run.cache is not None else unique
        found = run.cache.get_many(keys) if run.cache is not None else [None] * len(unique)
        missing = [i for i, row in enumerate(found) if row is None]
        if len(missing) < len(unique):
            known = [i for i, row in enumerate(found) if row is not None]
            stored = np.stack([row for row in found if row is not None])
            out = np.empty((len(unique), stored.shape[1]), np.float32)
            out[known] = stored
        places = [first_place[unique[i]] for i in missing]
        for batch, vectors in _encode_missing(backbone, preparation, readout, rows.values, places, run):
            if out is None:
                out = np.empty((len(unique), vectors.shape[1]), np.float32)
            chosen = [missing[i] for i in batch]
            out[chosen] = vectors
            if run.cache is not None:
                run.cache.put_many([keys[i] for i in chosen], vectors)
    assert out is not None  # rows are never empty
    if len(unique) == len(digests):
        return out
    position = {row_digest: i for i, row_digest in enumerate(unique)}
    return out[[position[row_digest] for row_digest in digests]]


def _keys(
    backbone: Backbone, preparation: Preparation, readout: Readout, run: Run, digests: list[bytes]
) -> list[bytes]:
    """Keys of the cache: everything that decides a row's embedding, and the row."""
    context = context_digest(
        {
            "fingerprint": backbone.fingerprint,
            "preparation": preparation.describe(),
            "readout": asdict(readout),
            "precision": str(run.dtype),
        }
    )
    return [context + row_digest for row_digest in digests]


def _encode_missing(
    backbone: Backbone, preparation: Preparation, readout: Readout, values: Sequence[Any], places: list[int], run: Run
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield positions in `places` and their vectors, batch by batch."""
    if not places:
        return
    with tqdm(total=len(places), desc=backbone.name, unit="row", disable=not run.progress) as bar:
        starts = range(0, len(places), preparation.chunk_rows)
        chunks = [places[start : start + preparation.chunk_rows] for start in starts]
        prepared = made_ahead(partial(_prepare, preparation, values), chunks)
        for start, chunk, items in zip(starts, chunks, prepared, strict=True):
            for batch in _batches(preparation, items, run):
                vectors = _embed(backbone, preparation, readout, [items[i] for i in batch], run)
                _check_finite(vectors, [chunk[i] for i in batch], backbone)
                bar.update(len(batch))
                yield [start + i for i in batch], vectors


def _prepare(preparation: Preparation, values: Sequence[Any], places: list[int]) -> list[Any]:
    if preparation.kind == "image":
        # One by one, so that an error names the row's place in X.
        return [preparation.prepare([values[place]], place)[0] for place in places]
    return preparation.prepare([values[place] for place in places], places[0])


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


def _embed(backbone: Backbone, preparation: Preparation, readout: Readout, items: list[Any], run: Run) -> np.ndarray:
    with frozen_pass(run.device):
        vectors = backbone.embed(
            preparation.collate(items),
            layers=readout.layers,
            pooling=readout.pooling,
            device=run.device,
            dtype=run.dtype,
        )
        if len(vectors) != len(items):
            raise ValueError(
                f"The network {backbone.name!r} gave {len(vectors)} rows for a batch of {len(items)}. A backbone gives one "
                "row for each row it gets, in the same order."
            )
        if readout.truncate_dim is not None:
            vectors = vectors[:, : readout.truncate_dim]
        if readout.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return vectors.float().cpu().numpy()


def _check_finite(vectors: np.ndarray, places: list[int], backbone: Backbone) -> None:
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        bad = sorted(place for place, good in zip(places, finite, strict=True) if not good)
        raise ValueError(
            f"The backbone {backbone.name!r} gave NaN or infinity for {len(bad)} row(s) of X, the first is row {bad[0]}. "
            "Check that row and the network's weights; in half precision large values overflow, "
            "precision='float32' does not."
        )
