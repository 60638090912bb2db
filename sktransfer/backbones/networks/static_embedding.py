"""A text network without context: one vector per token, averaged over the text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["StaticEmbedding", "load_static_embedding"]


class StaticEmbedding(nn.Module):
    """Mean of the vectors of a text's tokens.

    Parameters
    ----------
    vocabulary_size : int
        Number of tokens, the rows of the table.
    dimension : int
        Length of a token's vector, and so of a text's.

    Attributes
    ----------
    embedding : torch.nn.EmbeddingBag
        The table, ``(vocabulary_size, dimension)``, with the mean over each text.

    See Also
    --------
    load_static_embedding : Read the compact form in which such a network is stored.

    Examples
    --------
    >>> import torch
    >>> from sktransfer.backbones.networks.static_embedding import StaticEmbedding
    >>> network = StaticEmbedding(vocabulary_size=5, dimension=3)
    >>> tokens = torch.tensor([0, 4, 4])  # the first text has one token, the second none, the third two
    >>> network(tokens, torch.tensor([0, 1, 1])).shape
    torch.Size([3, 3])
    """

    def __init__(self, vocabulary_size: int, dimension: int) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(vocabulary_size, dimension, mode="mean")

    def forward(self, input_ids: Tensor, offsets: Tensor) -> Tensor:
        """Average the vectors of each text's tokens.

        Parameters
        ----------
        input_ids : Tensor of int64, shape (total_tokens,)
            The tokens of all texts, one text after another.
        offsets : Tensor of int64, shape (n_texts,)
            Where each text begins in `input_ids`.

        Returns
        -------
        Tensor of float32, shape (n_texts, dimension)
            One vector per text; zeros for a text without tokens.
        """
        return self.embedding(input_ids, offsets)


def load_static_embedding(tensors: dict[str, Tensor]) -> StaticEmbedding:
    """Build a network from its stored form: bytes, and one scale per token.

    Parameters
    ----------
    tensors : dict of str to Tensor
        ``"table"``: int8, ``(vocabulary_size, dimension)``; ``"scale"``: floating point, ``(vocabulary_size,)``.
        A token's vector is its row of the table times its scale.

    Returns
    -------
    StaticEmbedding
        The network, float32, in evaluation mode.

    Raises
    ------
    ValueError
        If a tensor is missing, or its type or shape is another.

    Examples
    --------
    >>> import torch
    >>> from sktransfer.backbones.networks.static_embedding import load_static_embedding
    >>> stored = {"table": torch.tensor([[100, -50]], dtype=torch.int8), "scale": torch.tensor([0.01])}
    >>> load_static_embedding(stored).embedding.weight.tolist()
    [[1.0, -0.5]]
    """
    missing = sorted({"table", "scale"} - tensors.keys())
    if missing:
        raise ValueError(
            f"A static embedding is stored as the tensors 'table' and 'scale'; {missing} not found "
            f"among {sorted(tensors)}. Check that this is the file of a static text network."
        )
    table, scale = tensors["table"], tensors["scale"]
    if table.dtype != torch.int8 or table.ndim != 2:
        raise ValueError(f"'table' must be int8 with 2 dimensions. Got {table.dtype} with shape {tuple(table.shape)}.")
    if not scale.is_floating_point() or scale.shape != table.shape[:1]:
        raise ValueError(
            f"'scale' must be floating point with shape ({table.shape[0]},), one per row of 'table'. "
            f"Got {scale.dtype} with shape {tuple(scale.shape)}."
        )
    # Random initial values would cost time and move the global random generator, so none are drawn.
    with torch.device("meta"):
        network = StaticEmbedding(*table.shape)
    network.embedding.weight = nn.Parameter(table.float() * scale.float().unsqueeze(1))
    return network.eval()
