"""What every kind of preparation offers: raw rows in, what the network is called with out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from sktransfer.runtime.device import to_device


@dataclass(frozen=True)
class Inputs:
    """One batch as the network is called with it: ``network(*args, **kwargs)``.

    Attributes
    ----------
    args : tuple of torch.Tensor
        Positional arguments.
    kwargs : dict of str to torch.Tensor
        Keyword arguments.
    mask : torch.Tensor of shape (n, tokens) or None
        1 where a token belongs to the row and is pooled, 0 on padding; None where there is no padding.
    """

    args: tuple[torch.Tensor, ...] = ()
    kwargs: Mapping[str, torch.Tensor] = field(default_factory=dict)
    mask: torch.Tensor | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> Inputs:
        """Move to `device`; floating point tensors become `dtype`."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return to_device(tensor, device, dtype if tensor.is_floating_point() else None)

        return Inputs(
            tuple(move(tensor) for tensor in self.args),
            {name: move(tensor) for name, tensor in self.kwargs.items()},
            None if self.mask is None else to_device(self.mask, device),
        )


class Preparation(Protocol):
    """Turns raw rows of one kind into the network's input.

    Attributes
    ----------
    kind : str
        Kind of row it reads: "text", "image", ...
    padded : bool
        Whether the rows of a batch are padded to the largest of them.
    budget : int
        Size (tokens, pixels) of a batch, chosen for processors.
    most_rows : int
        Rows that a batch may have, whatever their size.
    chunk_rows : int
        Rows that are prepared before they are grouped into batches; bounds the memory of a long run.
    threads : int
        Threads that prepare rows, a chunk each.
    exact : bool
        Whether "float32" is computed in float64, so that a row's result is the same to the last bit in any batch.
    """

    kind: str
    padded: bool
    budget: int
    most_rows: int
    chunk_rows: int
    threads: int
    exact: bool

    def describe(self) -> Mapping[str, object]:
        """Return everything that decides what a row becomes, as values that JSON can write."""

    def with_options(self, *, max_length: int | None, prompt: str | None) -> Preparation:
        """Return this preparation with other options for texts.

        Raises
        ------
        ValueError
            If an option is given that this kind of row does not have.
        """

    def changes(self) -> dict[str, Any]:
        """Return the attributes in which this preparation may differ from the backbone's own."""

    def read(self, values: Any) -> Sequence[Any]:
        """Return rows in the form that the other methods take, after checking what only this network knows.

        Raises
        ------
        ValueError
            If the rows are not like those that the network was made for.
        """

    def fitted_to(self, rows: Sequence[Any]) -> Preparation:
        """Return this preparation with what it leaves open taken from the rows of a fit."""

    def digests(self, rows: Sequence[Any]) -> list[bytes]:
        """Return a digest of each row's content."""

    def prepare(self, rows: Sequence[Any], first_row: int) -> list[Any]:
        """Prepare rows one by one; `first_row` is the place of the first in X, for error messages."""

    def size(self, item: Any) -> int:
        """Return the size of a prepared row, in tokens or pixels."""

    def group(self, item: Any) -> Hashable:
        """Return what two prepared rows must have in common to share a batch."""

    def collate(self, items: Sequence[Any]) -> Inputs:
        """Make one batch of prepared rows, on the processor."""

    def examples(self) -> list[Inputs]:
        """Return two small batches of made-up rows, of different length where rows have one, to see a network run."""
