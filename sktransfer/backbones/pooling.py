"""From the output of a network or stage to one vector a row."""

from __future__ import annotations

from collections.abc import Sequence

import torch

POOLINGS = ("mean", "cls", "max", "last", "mean_sqrt_len", "weighted_mean")
WINDOW_POOLINGS = ("mean", "max")


def pool(
    features: torch.Tensor,
    mask: torch.Tensor | None,
    modes: str | Sequence[str],
    channels_last: bool,
    time_last: bool = False,
) -> torch.Tensor:
    """Pool the output of a stage to one vector a row.

    Parameters
    ----------
    features : torch.Tensor
        Of shape (n, d): returned as it is. (n, tokens, d): pooled over tokens. (n, channels, height, width):
        pooled over positions.
    mask : torch.Tensor of shape (n, tokens) or None
        1 for the tokens to pool, 0 for padding.
    modes : str or sequence of str
        "mean"; "max"; "cls", the first token; "last", the last token that is not padding; "mean_sqrt_len",
        the sum over the square root of the number of tokens; "weighted_mean", tokens weighted by their place,
        the later the more (Muennighoff 2022, arXiv:2202.08904). Several are concatenated.
    channels_last : bool
        Whether outputs of four dimensions are (n, height, width, channels).
    time_last : bool, default=False
        Whether outputs of three dimensions are (n, d, time points).

    Returns
    -------
    torch.Tensor of shape (n, d), float32 or, of a network in float64, float64

    Raises
    ------
    ValueError
        If the mode does not fit the shape, or the output is of complex numbers.
    """
    names = (modes,) if isinstance(modes, str) else tuple(modes)
    if features.is_complex():
        raise ValueError(
            "The network gave an output of complex numbers, which features are not: return torch.view_as_real(output), "
            "flattened, or its size, output.abs()."
        )
    features = features if features.dtype == torch.float64 else features.float()
    if features.ndim == 2:
        return features
    if features.ndim == 3 and time_last:
        features = features.transpose(1, 2)
    if features.ndim == 4:
        features = features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
        wrong = [name for name in names if name not in ("mean", "max")]
        if wrong:
            raise ValueError(
                f"pooling={wrong[0]!r} needs tokens, but this output is a feature map: use 'mean' or 'max'."
            )
        mask = None
    if features.ndim != 3:
        raise ValueError(
            f"The network gave an output of shape {tuple(features.shape)}; outputs of 2 (rows, values), 3 (rows, tokens, "
            "values) or 4 dimensions (rows, channels, height, width) can be read."
        )
    if mask is None or mask.shape[1] != features.shape[1]:
        mask = features.new_ones(features.shape[:2])
    mask = mask.to(features.dtype)
    return torch.cat([_POOL[name](features, mask) for name in names], dim=1)


def pool_windows(
    vectors: torch.Tensor, weights: torch.Tensor, owners: torch.Tensor, n_rows: int, mode: str
) -> torch.Tensor:
    """Pool the vectors of a row's windows to one.

    Parameters
    ----------
    vectors : torch.Tensor of shape (n_windows, d)
        One vector a window.
    weights : torch.Tensor of shape (n_windows,)
        Number of tokens in each window, which "mean" weighs them by; windows of a row without any count alike.
    owners : torch.Tensor of shape (n_windows,)
        The row of each window.
    n_rows : int
        Number of rows; each has a window.
    mode : str
        One of `WINDOW_POOLINGS`.

    Returns
    -------
    torch.Tensor of shape (n_rows, d)
    """
    index = owners.unsqueeze(1).expand_as(vectors)
    if mode == "max":
        return vectors.new_empty(n_rows, vectors.shape[1]).scatter_reduce_(
            0, index, vectors, "amax", include_self=False
        )
    totals = weights.new_zeros(n_rows).index_add_(0, owners, weights)
    weights = torch.where(totals[owners] > 0, weights, 1.0)
    totals = weights.new_zeros(n_rows).index_add_(0, owners, weights)
    shares = (weights / totals[owners]).unsqueeze(1)
    return vectors.new_zeros(n_rows, vectors.shape[1]).index_add_(0, owners, vectors * shares)


def _mean(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    # The product with the mask as a matrix product: no second tensor of the size of the features.
    return (mask.unsqueeze(1) @ features).squeeze(1) / mask.sum(1, keepdim=True).clamp(min=1e-9)


def _mean_sqrt_len(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (mask.unsqueeze(1) @ features).squeeze(1) / mask.sum(1, keepdim=True).clamp(min=1e-9).sqrt()


def _weighted_mean(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return _mean(features, mask * torch.arange(1, mask.shape[1] + 1, device=mask.device, dtype=mask.dtype))


def _max(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return features.masked_fill(mask.unsqueeze(2) == 0, -torch.inf).amax(1)


def _last(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    places = torch.arange(mask.shape[1], device=mask.device, dtype=mask.dtype)
    return features[torch.arange(len(features), device=mask.device), (mask * places).argmax(1)]


def _cls(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return features[:, 0]


_POOL = {
    "mean": _mean,
    "cls": _cls,
    "max": _max,
    "last": _last,
    "mean_sqrt_len": _mean_sqrt_len,
    "weighted_mean": _weighted_mean,
}
