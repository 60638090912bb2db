"""Rows on their way into training: prepared, past the frozen stages, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from sktransfer.backbones.activations import Activations
from sktransfer.backbones.encoding import Run, prepare_rows
from sktransfer.backbones.splitting.split_check import light_inputs, pad_rows
from sktransfer.caching.memory import ENTRY_OVERHEAD_BYTES, memory_cache
from sktransfer.inputs.preparation import Inputs, Preparation
from sktransfer.runtime.batching import batches_by_size, made_ahead
from sktransfer.training.cut import Cut

_LOOKED_AT_FIRST, _LOOKED_AT_FIRST_BESIDE = 256, 16
_FETCHED_AT_ONCE = 2048
# Fewer rows don't keep the processor busy.
_FEWEST_TOGETHER = 6


@dataclass(frozen=True)
class Chunk:
    """Rows that go through the trained part at once.

    Attributes
    ----------
    vectors : torch.Tensor of shape (n, d) or None
        Embeddings, where all stages are frozen; nothing else is there then.
    activation : torch.Tensor or None
        Output of the last frozen stage.
    inputs : Inputs or None
        What the network is called with. With an activation only what the stages behind the cut read of it: pixels and
        measurements are zeros.
    extra : torch.Tensor of shape (n, d) or None
        Pooled outputs of frozen stages, for embeddings that are made of several stages.
    """

    vectors: torch.Tensor | None = None
    activation: torch.Tensor | None = None
    inputs: Inputs | None = None
    extra: torch.Tensor | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> Chunk:
        """Move to `device`; floating point tensors become `dtype`."""

        def move(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor.to(device, dtype)

        inputs = None if self.inputs is None else self.inputs.to(device, dtype)
        return Chunk(move(self.vectors), move(self.activation), inputs, move(self.extra))


class NetworkRows:
    """The rows of one `X`, ready for the trained part of a network that is cut.

    What the frozen stages give is computed once for each distinct row where it may be kept: in memory for the time of
    a fit, as long as all of it stays under the memory cache's limit, and in the cache for later fits; in the memory
    cache it is the same arrays. Otherwise it is computed anew for each batch, with the same result.

    Parameters
    ----------
    cut : Cut
        Where the network is cut.
    preparation : Preparation
        Fitted to the training rows.
    values : sequence
        Rows as `preparation` takes them.
    run : Run
        Device and precision of the frozen stages, cache.
    augment : callable, optional
        Changes one prepared image, at random; nothing is kept then.
    keep : bool, default=True
        Whether rows are asked for more than once, so that what is made of them is worth keeping in memory.
    beside : NetworkRows, optional
        Other rows of the same fit: both together stay under the limit.
    """

    def __init__(
        self,
        cut: Cut,
        preparation: Preparation,
        values: Sequence[Any],
        run: Run,
        *,
        augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
        keep: bool = True,
        beside: NetworkRows | None = None,
    ):
        self.cut = cut
        self.preparation = preparation
        self.values = values
        self.run = run
        self.augment = augment
        self.n_bytes = 0  # of what is kept for later epochs
        self._held_beside = 0 if beside is None else beside.n_bytes
        self._vectors: torch.Tensor | None = None
        self._extra: torch.Tensor | None = None
        self._items: list[Any] | None = None
        self._kept: list[np.ndarray] | None = None
        self._first: Any = None
        self._digests: list[bytes] = []
        self._activations: Activations | None = None
        if augment is not None:
            if cut.prefix_depth:
                self._activations = cut.activations(preparation, replace(run, cache=None))
            if keep:
                self._keep_items()
            return
        if cut.all_frozen:
            self._vectors = torch.from_numpy(cut.embed(preparation, values, run))
            return
        if cut.frozen_layers:
            self._extra = torch.from_numpy(cut.embed(preparation, values, run, layers=cut.frozen_layers))
        if cut.prefix_depth:
            self._digests = preparation.digests(values)
            self._activations = cut.activations(preparation, run)
            if keep:
                self._keep_activations()
        if keep:
            self._keep_items()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def digests(self) -> list[bytes]:
        """Digests of the rows' content."""
        if not self._digests:
            self._digests = self.preparation.digests(self.values)
        return self._digests

    @property
    def vectors(self) -> np.ndarray | None:
        """Embeddings of all rows, where all stages are frozen and nothing is augmented."""
        return None if self._vectors is None else self._vectors.numpy()

    def plain(self) -> NetworkRows:
        """Return the rows as they are without augmentation."""
        return (
            self if self.augment is None else NetworkRows(self.cut, self.preparation, self.values, self.run, keep=False)
        )

    def chunks(self, places: Sequence[int]) -> list[tuple[list[int], Chunk]]:
        """Return rows as they go through the trained part: together, but for those that no batch can hold together.

        Parameters
        ----------
        places : sequence of int
            The rows.

        Returns
        -------
        list of (list of int, Chunk)
            Positions within `places`, and the rows there.
        """
        return self._chunks(list(places), self._prepared(places))

    def batches(self, batches: Sequence[Sequence[int]]) -> Iterator[list[tuple[list[int], Chunk]]]:
        """Yield what `chunks` gives for each batch; rows are prepared in threads, ahead of whoever trains on them."""
        prepared = made_ahead(self._prepared, batches, threads=self.preparation.threads)
        for places, items in zip(batches, prepared, strict=True):
            yield self._chunks(list(places), items)

    def in_order(self) -> Iterator[tuple[list[int], Chunk]]:
        """Yield all rows once, like sizes together."""
        everything = range(len(self))
        if self._vectors is not None:
            yield list(everything), Chunk(vectors=self._vectors)
            return
        for start in range(0, len(everything), self._piece):
            piece = list(everything[start : start + self._piece])
            items = self._prepared(piece)
            rows = None if self._activations is None or self.augment is not None else self._activated(piece)
            for positions in self._by_size(piece, items):
                chosen = [piece[i] for i in positions]
                given = None if items is None else [items[i] for i in positions]
                stored = None if rows is None else [rows[i] for i in positions]
                for inner, chunk in self._chunks(chosen, given, stored):
                    yield [chosen[i] for i in inner], chunk

    @property
    def _piece(self) -> int:
        """Rows that are fetched at once, few where each is a picture."""
        return min(_FETCHED_AT_ONCE, 4 * self.preparation.chunk_rows)

    def _activated(self, places: Sequence[int]) -> list[np.ndarray]:
        if self._kept is not None:
            return [self._kept[place] for place in places]
        assert self._activations is not None
        return self._activations.of_rows(self.values, self._digests, places)

    def _by_size(self, piece: list[int], items: list[Any] | None) -> Iterator[list[int]]:
        known = items if items is not None else [self._template] * len(piece)
        sizes = [self.preparation.size(item) for item in known]
        preparation = self.preparation
        budget = 8 * preparation.budget
        return batches_by_size(sizes, budget=budget, most=preparation.most_rows, padded=preparation.padded)

    def _prepared(self, places: Sequence[int]) -> list[Any] | None:
        """Return prepared rows; None where no stage behind the cut reads them."""
        if self._vectors is not None or self._blank:
            return None
        if self._items is not None:
            return [self._items[place] for place in places]
        return prepare_rows(self.preparation, self.values, places)

    def _augmented(self, item: torch.Tensor) -> torch.Tensor:
        assert self.augment is not None
        made = self.augment(item.clone())  # what is done in place must not add up over epochs
        if not isinstance(made, torch.Tensor) or made.shape != item.shape or made.dtype != item.dtype:
            what = f"{tuple(made.shape)}, {made.dtype}" if isinstance(made, torch.Tensor) else type(made).__name__
            raise ValueError(
                f"augment made {what} of an image of shape {tuple(item.shape)}, {item.dtype}; it has to return a tensor of the "
                "same shape and type. What scales pixels belongs to the network's preparation, which comes after it."
            )
        return made

    def _chunks(
        self, places: list[int], items: list[Any] | None, rows: list[np.ndarray] | None = None
    ) -> list[tuple[list[int], Chunk]]:
        everything = list(range(len(places)))
        if self._vectors is not None:
            return [(everything, Chunk(vectors=self._vectors[places]))]
        if items is None:
            return [(everything, self._chunk(places, None, rows))]
        if self.augment is not None:
            # Here and not in the threads that prepare, which would draw random numbers in any order.
            items = [self._augmented(item) for item in items]
        groups: dict[Any, list[int]] = {}
        for position, item in enumerate(items):
            groups.setdefault(self.preparation.group(item), []).append(position)
        made = []
        for members in self._cut_by_size(list(groups.values()), items):
            stored = None if rows is None else [rows[i] for i in members]
            made.append((members, self._chunk([places[i] for i in members], [items[i] for i in members], stored)))
        return made

    def _cut_by_size(self, groups: list[list[int]], items: list[Any]) -> list[list[int]]:
        """Cut groups of texts into parts of like length, so that less of the work goes into padding."""
        if self.preparation.kind != "text" or not self.preparation.padded:
            return groups
        parts = []
        for members in groups:
            size = {i: self.preparation.size(items[i]) for i in members}
            part: list[int] = []
            for i in sorted(members, key=size.__getitem__, reverse=True):
                if len(part) >= _FEWEST_TOGETHER and size[i] < 0.6 * size[part[0]]:
                    parts.append(part)
                    part = []
                part.append(i)
            parts.append(part)
        return parts

    def _chunk(self, places: list[int], items: list[Any] | None, rows: list[np.ndarray] | None) -> Chunk:
        extra = None if self._extra is None else self._extra[places]
        if self.augment is not None and self.cut.all_frozen:
            assert items is not None
            return Chunk(vectors=self.cut.embed_inputs(self.preparation.collate(items), self.run))
        if self.augment is not None and self.cut.frozen_layers:
            assert items is not None
            extra = self.cut.embed_inputs(self.preparation.collate(items), self.run, layers=self.cut.frozen_layers)
        if self._activations is None:
            assert items is not None
            return Chunk(inputs=self.preparation.collate(items), extra=extra)
        if self.augment is not None:
            assert items is not None
            rows = self._activations.of_items(items)
        elif rows is None:
            rows = self._activated(places)
        inputs = self._blank_inputs(len(places)) if items is None else self.preparation.collate(items)
        length = inputs.mask.shape[1] if inputs.mask is not None and self.cut.has_tokens else None
        # Copies: an operation in place behind the cut must not reach what is kept.
        activation = pad_rows([torch.tensor(row) for row in rows], length)
        args, kwargs = light_inputs(inputs.args, inputs.kwargs)
        return Chunk(activation=activation, inputs=Inputs(args, kwargs, inputs.mask), extra=extra)

    # What is kept

    def _keep_activations(self) -> None:
        """Keep what the frozen stages give, if all of it fits."""
        assert self._activations is not None
        if self.run.cache is None:
            return
        in_cache, in_memory = self.run.cache.info().max_bytes, memory_cache.info().max_bytes
        beside = self._held_beside
        kept: list[np.ndarray] = []
        # What is looked at pushes rows out that stand beside and are held all the same.
        first = min(_LOOKED_AT_FIRST_BESIDE if beside else _LOOKED_AT_FIRST, len(self))
        ends = [first, *range(_FETCHED_AT_ONCE, len(self), _FETCHED_AT_ONCE), len(self)]
        start = 0
        for end in sorted(set(ends)):
            kept += self._activations.of_rows(self.values, self._digests, range(start, end))
            start = end
            expected = _n_bytes(kept) / end * len(self)
            if expected + (beside if self.run.cache is memory_cache else 0) > in_cache:
                # Rows that push each other out are of no use to later fits either.
                self._activations = self.cut.activations(self.preparation, replace(self.run, cache=None))
                return
            if expected + beside > in_memory:
                return  # a directory holds them, from which each batch is fetched
        self._kept = kept
        self.n_bytes += _n_bytes(kept)

    def _keep_items(self) -> None:
        """Keep prepared rows, but for those that nothing reads or that take too much."""
        if self._blank:
            return
        expected, limit = getattr(self._template, "nbytes", 0) * len(self), memory_cache.info().max_bytes
        if expected <= min(limit // 4, limit - self.n_bytes - self._held_beside):
            self.n_bytes += expected
            pieces = [range(start, min(start + 64, len(self))) for start in range(0, len(self), 64)]
            prepare = partial(prepare_rows, self.preparation, self.values)
            self._items = [
                item for made in made_ahead(prepare, pieces, threads=self.preparation.threads) for item in made
            ]

    @property
    def _template(self) -> Any:
        """One prepared row."""
        if self._first is None:
            self._first = self.preparation.prepare([self.values[0]], 0)[0]
        return self._first

    @property
    def _blank(self) -> bool:
        """Whether stages behind the cut read nothing of a row but its activation, so that it need not be prepared."""
        return self.augment is None and getattr(self.preparation, "one_size", False) and self._activations is not None

    def _blank_inputs(self, n_rows: int) -> Inputs:
        """Zeros in the shape of the network's input, of which only the number of rows and the size matter."""
        inputs = self.preparation.collate([self._template])

        def blank(tensor: torch.Tensor) -> torch.Tensor:
            return torch.zeros(1, *tensor.shape[1:], dtype=tensor.dtype).expand(n_rows, *tensor.shape[1:])

        return Inputs(tuple(map(blank, inputs.args)), {name: blank(value) for name, value in inputs.kwargs.items()})


def _n_bytes(rows: Sequence[np.ndarray]) -> int:
    """Return what the memory cache counts for rows."""
    return sum(row.nbytes + ENTRY_OVERHEAD_BYTES for row in rows)
