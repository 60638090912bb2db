"""What the frozen stages make of rows: computed once for each row, stored without padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.encoding import EncodingPass, Run, look_up
from sktransfer.backbones.keyed import keyed
from sktransfer.backbones.readout import Readout
from sktransfer.backbones.splitting.split_check import trim
from sktransfer.inputs.preparation import Preparation
from sktransfer.runtime.device import frozen_pass


class Activations:
    """The output of the last frozen stage, row by row.

    Parameters
    ----------
    backbone : Backbone
        The network.
    preparation : Preparation
        The backbone's own, possibly with other options.
    depth : int
        Number of frozen stages, at least 1.
    has_tokens : bool
        Whether dimension 1 of the output is the tokens of a text.
    run : Run
        Device, precision, batch size, cache.
    """

    def __init__(self, backbone: Backbone, preparation: Preparation, depth: int, has_tokens: bool, run: Run):
        self.run = run
        self._preparation = preparation
        self._pass = _ActivationPass(backbone, preparation, depth, has_tokens, run)
        self._cache, self._context = keyed(
            run.cache, {"activation": depth, "precision": str(run.dtype)}, backbone=backbone, preparation=preparation
        )

    def of_rows(self, values: Sequence[Any], digests: Sequence[bytes], places: Sequence[int]) -> list[np.ndarray]:
        """Return the activations of raw rows, from the cache where they are there.

        Parameters
        ----------
        values : sequence
            All rows, as the preparation takes them.
        digests : sequence of bytes
            Digest of each row.
        places : sequence of int
            The rows that are wanted.

        Returns
        -------
        list of ndarray, float32
            Read-only: each of the shape that one row has, texts without padding.
        """
        first_place: dict[bytes, int] = {}
        for place in places:
            first_place.setdefault(digests[place], place)
        found = _Found(digests)
        missing = first_place
        cache = self._cache
        with self._pass.backbone.lock:
            if cache is not None:
                missing = look_up(cache, self._context, first_place, found, self._pass.fits)
            for done, rows in self._pass.embed(values, list(missing.values())):
                found.write(done, rows)
                if cache is not None:
                    cache.put_many([self._context + digests[place] for place in done], rows)
        return [unpacked(found.rows[digests[place]]) for place in places]

    def of_items(self, items: Sequence[Any]) -> list[np.ndarray]:
        """Return the activations of prepared rows of one group, computed anew."""
        with self._pass.backbone.lock:
            return [unpacked(row) for row in self._pass.vectors(list(items))]


class _Found:
    """Takes what is done."""

    def __init__(self, digests: Sequence[bytes]):
        self.digests = digests
        self.rows: dict[bytes, np.ndarray] = {}

    def write(self, places: Sequence[int], vectors: np.ndarray | Sequence[np.ndarray]) -> None:
        self.rows.update((self.digests[place], vector) for place, vector in zip(places, vectors, strict=True))


class _ActivationPass(EncodingPass):
    """One run of rows through the frozen stages."""

    def __init__(self, backbone: Backbone, preparation: Preparation, depth: int, has_tokens: bool, run: Run):
        super().__init__(backbone, preparation, Readout(), run)
        self.depth = depth
        self.has_tokens = has_tokens

    def fits(self, row: np.ndarray) -> bool:
        """Whether a row is what the frozen stages give, as far as an example tells: tokens and sizes of images may vary."""
        if row.dtype != np.float32 or row.ndim != 1 or not np.isfinite(row).all():
            return False
        shape = _shape_in(row)
        remembered, name = self.backbone.remembered, ("shape", self.depth)
        example = remembered[name] = remembered.get(name) or self._shape_of_example()
        if shape is None or len(shape) != len(example):
            return False
        return shape[0] == example[0] or shape[-1] == example[-1]

    def _shape_of_example(self) -> tuple[int, ...]:
        with frozen_pass(self.run.device):
            made = self.backbone.activate(
                self.preparation.examples()[0], depth=self.depth, device=self.run.device, dtype=self.run.dtype
            )
        return tuple(made.shape[1:])

    def _run_network(self, items: list[Any]) -> list[np.ndarray]:
        inputs = self.preparation.collate(items)
        with frozen_pass(self.run.device):
            made = self.backbone.activate(inputs, depth=self.depth, device=self.run.device, dtype=self.run.dtype)
        lengths = None
        if self.has_tokens:
            assert inputs.mask is not None  # what has tokens has a mask
            lengths = [int(length) for length in inputs.mask.sum(1)]
        return [packed(row.numpy()) for row in trim(made.float().cpu(), lengths)]

    def _join(self, first: list[np.ndarray], second: list[np.ndarray]) -> list[np.ndarray]:
        return first + second

    def _finish(self, vectors: list[np.ndarray]) -> list[np.ndarray]:
        return vectors


def packed(row: np.ndarray) -> np.ndarray:
    """Put the shape in front of the values: a cache keeps rows of one dimension. Nobody writes to them."""
    made = np.concatenate([np.array([row.ndim, *row.shape], np.float32), row.ravel()])
    made.flags.writeable = False  # so that the memory cache keeps them without a copy
    return made


def _shape_in(row: np.ndarray) -> tuple[int, ...] | None:
    """Return the shape in front of the values, None where it is not theirs."""
    n_dims = int(row[0]) if len(row) and 1 <= row[0] <= 8 else 0
    shape = tuple(int(size) for size in row[1 : 1 + n_dims])
    return shape if shape and min(shape) > 0 and math.prod(shape) == len(row) - 1 - n_dims else None


def unpacked(row: np.ndarray) -> np.ndarray:
    """Undo `packed`, without copying."""
    n_dims = int(row[0])
    return row[1 + n_dims :].reshape(tuple(int(size) for size in row[1 : 1 + n_dims]))
