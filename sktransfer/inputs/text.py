"""Texts: tokens, padding, digests."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer

from sktransfer.caching.keys import KEY_BYTES, digest
from sktransfer.inputs.preparation import Inputs


class TextPreparation:
    """Texts to token ids, padded on the right or laid end to end.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Owned by this object from here on, and not changed any more: threads share it.
    max_length : int
        Tokens kept of a text, special tokens included; the rest is cut off at the end.
    limit : int or None
        Tokens that the network itself can read, None for any number.
    prompt : str, default=""
        Put in front of every text.
    prompts : mapping of str to str, optional
        Prompts that come with the network, by name.
    pad_id : int, default=0
        Token that padding is made of.
    ragged : bool, default=False
        Whether the network takes all tokens end to end with offsets (``input_ids``, ``offsets``) instead of a
        padded matrix (``input_ids``, ``attention_mask``).
    special_tokens : bool, default=True
        Whether the tokenizer adds its special tokens.
    lower_case : bool, default=False
        Whether texts are lower-cased before the tokenizer sees them.
    length_multiple : int, default=1
        Batches are padded to a multiple of it.
    accepts : sequence of str or None, default=("input_ids", "attention_mask")
        Keyword arguments that the network takes; None hands the ids over as the one positional argument.
    """

    kind = "text"
    # Larger batches leave the processor's caches, and are slower.
    budget = 1024
    most_rows = 1024
    chunk_rows = 2048
    threads = 1  # the tokenizer has threads of its own
    exact = False

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        limit: int | None,
        prompt: str = "",
        prompts: Mapping[str, str] | None = None,
        pad_id: int = 0,
        ragged: bool = False,
        special_tokens: bool = True,
        lower_case: bool = False,
        length_multiple: int = 1,
        accepts: Sequence[str] | None = ("input_ids", "attention_mask"),
    ):
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer = tokenizer
        self._cutting = _CuttingTokenizers(tokenizer)
        self.max_length = max_length
        self.limit = limit
        self.prompt = prompt
        self.prompts = dict(prompts or {})
        self.pad_id = pad_id
        self.padded = not ragged
        self.special_tokens = special_tokens
        self.lower_case = lower_case
        self.length_multiple = length_multiple
        self.accepts = accepts
        self._tokenizer_digest = blake2b(tokenizer.to_str().encode(), digest_size=KEY_BYTES).hexdigest()

    def with_options(self, *, max_length: int | None, prompt: str | None) -> TextPreparation:
        """Return this preparation with another length or prompt; the tokenizer is shared.

        Parameters
        ----------
        max_length : int or None
            Tokens kept of a text; None for the network's own setting.
        prompt : str or None
            A text, or the name of one of the network's own prompts; None for the network's own setting.

        Raises
        ------
        ValueError
            If `max_length` is beyond what the network can read.
        """
        other = copy.copy(self)
        if max_length is not None:
            if self.limit is not None and max_length > self.limit:
                raise ValueError(
                    f"max_length={max_length} is more than this network can read: its limit is {self.limit} tokens, "
                    "special tokens included. Shorten max_length; window_pooling='mean' reads longer texts in windows of that "
                    "length."
                )
            special = self.tokenizer.num_special_tokens_to_add(False) if self.special_tokens else 0
            if max_length <= special:
                raise ValueError(
                    f"max_length={max_length} leaves no room for a text beside the {special} special tokens of this network."
                )
            other.max_length = max_length
        if prompt is not None:
            other.prompt = self.prompts.get(prompt, prompt)
        return other

    def read(self, values: Sequence[str]) -> Sequence[str]:
        """Return texts as they are."""
        return values

    def fitted_to(self, rows: Sequence[str]) -> TextPreparation:
        """Return this preparation: it leaves nothing open."""
        return self

    def changes(self) -> dict[str, Any]:
        """Return what `with_options` changes."""
        return {"max_length": self.max_length, "prompt": self.prompt}

    def describe(self) -> dict[str, object]:
        """Return everything that decides what a row becomes."""
        return {
            "tokenizer": self._tokenizer_digest,
            "max_length": self.max_length,
            "limit": self.limit,
            "prompt": self.prompt,
            "prompts": self.prompts,
            "pad_id": self.pad_id,
            "length_multiple": self.length_multiple,
            "accepts": self.accepts,
            "special_tokens": self.special_tokens,
            "lower_case": self.lower_case,
        }

    def digests(self, rows: Sequence[str]) -> list[bytes]:
        """Return a digest of each row's content."""
        # "surrogatepass": a lone surrogate, as broken files bring, is content too.
        return [digest(row.encode("utf-8", "surrogatepass"), domain=b"text") for row in rows]

    def prepare(self, rows: Sequence[str], first_row: int) -> list[Encoding]:
        """Tokenise texts."""
        if self.prompt or self.lower_case:
            rows = [self.prompt + (row.lower() if self.lower_case else row) for row in rows]
        tokenizer = self._cutting.at(self.max_length)
        return tokenizer.encode_batch_fast(_encodable(rows), add_special_tokens=self.special_tokens)

    def windows(self, items: Sequence[Encoding]) -> tuple[list[Encoding], list[int]]:
        """Return all windows of `max_length` tokens of some prepared texts, and the place of the text of each."""
        windows = [[item, *item.overflowing] for item in items]
        return list(chain.from_iterable(windows)), [i for i, parts in enumerate(windows) for _ in parts]

    def size(self, item: Encoding) -> int:
        """Return the number of tokens."""
        return len(item)

    def group(self, item: Encoding) -> Hashable:
        """Return the same for all, since padding makes any texts fit; the length where padding would be read."""
        return len(item) if self.padded and "attention_mask" not in (self.accepts or ()) else None

    def collate(self, items: Sequence[Encoding]) -> Inputs:
        """Pad texts to the longest on the right, or lay them end to end."""
        if not self.padded:
            return _end_to_end(items)
        # A tokenizer without special tokens gives nothing for an empty text: one padding token stands for it.
        ids = [encoding.ids or [self.pad_id] for encoding in items]
        lengths = np.array([len(row) for row in ids])
        padded = -(-lengths.max() // self.length_multiple) * self.length_multiple
        mask = np.arange(padded) < lengths[:, None]
        matrix = np.full(mask.shape, self.pad_id, dtype=np.int64)
        matrix[mask] = np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=int(lengths.sum()))
        input_ids, attention_mask = torch.from_numpy(matrix), torch.from_numpy(mask.astype(np.int64))
        if self.accepts is None:
            return Inputs(args=(input_ids,), mask=attention_mask)
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        return Inputs(kwargs={name: given[name] for name in self.accepts if name in given}, mask=attention_mask)

    def examples(self) -> list[Inputs]:
        """Return two small batches of made-up rows."""
        short, long = ["an example", "one more"], ["an example that is longer than the others", "two"]
        return [self.collate(self.prepare(texts, 0)) for texts in (long, short)]


class _CuttingTokenizers:
    """One tokenizer for each length that texts are cut to, made when it is first asked for and never changed.

    The length is a state of a tokenizer, which threads at several lengths would set for each other.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Without truncation; not changed.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._made: dict[int, Tokenizer] = {}

    def __reduce__(self) -> tuple[type, tuple[Tokenizer]]:
        return type(self), (self._tokenizer,)

    def at(self, max_length: int) -> Tokenizer:
        """Return the tokenizer that keeps so many tokens."""
        found = self._made.get(max_length)
        if found is None:
            made = _with_the_same_parts(self._tokenizer)
            made.enable_truncation(max_length)
            found = self._made.setdefault(max_length, made)
        return found


def _with_the_same_parts(tokenizer: Tokenizer) -> Tokenizer:
    """Copy a tokenizer but for its vocabulary, which may be large."""
    made = Tokenizer(tokenizer.model)
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        part = getattr(tokenizer, name)
        if part is not None:
            setattr(made, name, part)
    made.encode_special_tokens = tokenizer.encode_special_tokens
    for _, token in sorted(tokenizer.get_added_tokens_decoder().items()):
        (made.add_special_tokens if token.special else made.add_tokens)([token])
    whole = tokenizer.to_str()
    return made if made.to_str() == whole else Tokenizer.from_str(whole)


def _encodable(rows: Sequence[str]) -> Sequence[str]:
    """Replace lone surrogates, which the tokenizer can't read."""
    return [row if row.isascii() else row.encode("utf-8", "replace").decode() for row in rows]


def _end_to_end(items: Sequence[Encoding]) -> Inputs:
    lengths = np.fromiter(map(len, items), dtype=np.int64, count=len(items))
    offsets = np.zeros(len(items), dtype=np.int64)
    np.cumsum(lengths[:-1], out=offsets[1:])
    # The lists of ids are made one at a time: ten thousand at once would keep the garbage collector busy.
    tokens = chain.from_iterable(map(attrgetter("ids"), items))
    ids = np.fromiter(tokens, dtype=np.int64, count=int(lengths.sum()))
    return Inputs(kwargs={"input_ids": torch.from_numpy(ids), "offsets": torch.from_numpy(offsets)})


def tokenizer_of(given: Any) -> Tokenizer:
    """Take a private copy of a tokenizer's fast core.

    Parameters
    ----------
    given : tokenizers.Tokenizer or transformers.PreTrainedTokenizerFast
        The user's tokenizer; it is not changed.

    Returns
    -------
    tokenizers.Tokenizer

    Raises
    ------
    TypeError
        If there is no fast core to take.
    """
    core = getattr(given, "backend_tokenizer", given)
    if not isinstance(core, Tokenizer):
        raise TypeError(
            f"A tokenizer of type {type(given).__name__} has no fast core. Give a tokenizers.Tokenizer or a fast "
            "tokenizer of transformers."
        )
    return Tokenizer.from_str(core.to_str())
