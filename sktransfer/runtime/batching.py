"""How rows are grouped into batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sktransfer.runtime.global_settings import known_settings

Given = TypeVar("Given")
Made = TypeVar("Made")


def batches_by_size(sizes: Sequence[int], *, budget: int, most: int, padded: bool) -> Iterator[list[int]]:
    """Group rows of unequal size into batches under a budget, rows of like size together.

    Parameters
    ----------
    sizes : sequence of int
        Size of each row, in tokens for texts, in pixels for images.
    budget : int
        Size that a batch may have. A row larger than the budget makes a batch of its own.
    most : int
        Number of rows that a batch may have.
    padded : bool
        Whether rows are padded to the longest of the batch (the batch then costs rows x longest) or laid end
        to end (the sum of the sizes).

    Yields
    ------
    list of int
        Positions of the rows of one batch. Every position comes exactly once; the largest rows come first,
        so that a lack of memory shows at once.
    """
    if not padded and len(sizes) <= most and 0 < sum(sizes) <= budget:
        yield list(range(len(sizes)))
        return
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    batch: list[int] = []
    total = 0
    for i in order:
        # Rows come largest first, so the first of the batch is the one the others are padded to.
        grown = (len(batch) + 1) * sizes[batch[0]] if padded and batch else total + sizes[i]
        if batch and (grown > budget or len(batch) >= most):
            yield batch
            batch, total = [], 0
        batch.append(i)
        total += sizes[i]
    if batch:
        yield batch


def made_ahead(make: Callable[[Given], Made], given: Sequence[Given], *, threads: int = 1) -> Iterator[Made]:
    """Apply a function in threads, ahead of whoever takes the results.

    Tokenisers and image decoders let go of Python's lock, so the next rows are prepared while the network runs.

    Parameters
    ----------
    make : callable
        Applied to each element.
    given : sequence
        The elements.
    threads : int, default=1
        Number of threads, and of results that are made ahead.

    Yields
    ------
    object
        The results, in order. An error of `make` is raised where its result would have come.
    """
    if len(given) == 1:
        yield make(given[0])
        return

    @known_settings()  # of this thread's caller, which the others don't have
    def make_in_thread(element: Given) -> Made:
        return make(element)

    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="sktransfer-prepare") as pool:
        try:
            pending = deque(pool.submit(make_in_thread, element) for element in given[:threads])
            for element in given[threads:]:
                made = pending.popleft().result()
                pending.append(pool.submit(make_in_thread, element))
                yield made
            while pending:
                yield pending.popleft().result()
        finally:
            # Whoever stops early does not wait for what nobody will take.
            pool.shutdown(wait=True, cancel_futures=True)


def even_batches(n_rows: int, batch_size: int) -> list[slice]:
    """Cut a range into batches; a single row that is left over joins the batch before it.

    Batch normalisation can't learn from one row.

    Parameters
    ----------
    n_rows : int
        Length of the range.
    batch_size : int
        Rows in a batch.

    Returns
    -------
    list of slice
    """
    starts = list(range(0, n_rows, batch_size))
    if len(starts) > 1 and batch_size > 1 and n_rows - starts[-1] == 1:
        starts.pop()
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], n_rows], strict=True)]
