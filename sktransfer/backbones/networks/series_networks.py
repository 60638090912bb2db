"""Networks for time series: convolutions, an LSTM, a transformer.

All read ``series`` (n, time points, channels) and ``attention_mask`` (n, time points), and give (n, time points,
width); so do their stages. Time points outside of a series never reach those inside, so that a row's result does not
depend on how far its batch is padded. Their outputs outside of the series have no meaning.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class PointNorm(nn.Module):
    """Batch norm over the time points that belong to a series.

    Parameters
    ----------
    width : int
        Values of each time point.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, points: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Give (n, time points, width), zero outside of the series; `inside` is a mask of truth values."""
        if not self.training:
            return self.norm(points.flatten(0, 1)).view_as(points) * inside.unsqueeze(2)
        # In training, padding must not count for the mean and variance of the batch.
        out = torch.zeros_like(points)
        out[inside] = self.norm(points[inside])
        return out


class InceptionModule(nn.Module):
    """Convolutions of several lengths side by side.

    Parameters
    ----------
    inputs : int
        Values of each time point that come in.
    filters : int, default=32
        Values that each of the four branches gives.
    bottleneck : int, default=32
        Values that the long convolutions read.
    lengths : tuple of int, default=(39, 19, 9)
        Lengths of the convolutions, odd.
    """

    def __init__(
        self, inputs: int, filters: int = 32, bottleneck: int = 32, lengths: tuple[int, ...] = (39, 19, 9)
    ) -> None:
        super().__init__()
        self.bottleneck = nn.Conv1d(inputs, bottleneck, 1, bias=False)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(bottleneck, filters, length, padding=length // 2, bias=False) for length in lengths
        )
        self.after_pooling = nn.Conv1d(inputs, filters, 1, bias=False)
        self.norm = PointNorm(filters * (len(lengths) + 1))
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module is self.bottleneck else "relu")

    def forward(self, points: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Give (n, time points, 4 * filters), zero outside of the series."""
        outside = ~inside.unsqueeze(1)
        points = points.transpose(1, 2)
        # Convolutions see zeros outside, as they do beyond the ends; the maximum must not see them.
        short = self.bottleneck(points.masked_fill(outside, 0.0))
        peaks = nn.functional.max_pool1d(points.masked_fill(outside, -torch.inf), 3, stride=1, padding=1)
        branches = [convolution(short) for convolution in self.convolutions]
        branches.append(self.after_pooling(peaks.masked_fill(outside, 0.0)))
        return self.norm(torch.cat(branches, dim=1).transpose(1, 2), inside)


class InceptionBlock(nn.Module):
    """Two Inception modules, added to what came in.

    Parameters
    ----------
    width : int
        Values of each time point; a multiple of four.
    """

    def __init__(self, width: int):
        super().__init__()
        self.first = InceptionModule(width, width // 4)
        self.second = InceptionModule(width, width // 4)

    def forward(self, points: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Give (n, time points, width)."""
        return torch.relu(points + self.second(torch.relu(self.first(points, inside)), inside))


class SeriesCNN(nn.Module):
    """Inception modules with residual connections, after InceptionTime (Ismail Fawaz et al. 2020, arXiv:1909.04939).

    Unlike there, the first module stands before the residual blocks and these hold two modules, not three: so there
    are four places to cut the network at.

    Parameters
    ----------
    channels : int
        Channels of the series.
    width : int, default=128
        Values of each time point inside.
    n_blocks : int, default=3
        Residual blocks.
    """

    def __init__(self, channels: int, width: int = 128, n_blocks: int = 3):
        super().__init__()
        self.stem = InceptionModule(channels, width // 4)
        self.blocks = nn.ModuleList(InceptionBlock(width) for _ in range(n_blocks))

    def forward(self, series: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Give a vector for each time point: (n, time points, width)."""
        inside = attention_mask.bool()
        points = torch.relu(self.stem(series, inside))
        for block in self.blocks:
            points = block(points, inside)
        return points


class RecurrentBlock(nn.Module):
    """An LSTM in both directions.

    Parameters
    ----------
    width : int
        Values of each time point that come in and go out; even.
    dropout : float
        Share of the outputs that are dropped in training.
    """

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("weight_hh"):
                for gate in parameter.data.chunk(4):
                    nn.init.orthogonal_(gate)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)
                if name.startswith("bias_ih"):  # remember at first (Jozefowicz et al. 2015)
                    parameter.data.chunk(4)[1].fill_(1.0)

    def forward(self, points: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Give (n, time points, width); the way back starts at the end of each series, not of the padding."""
        packed = pack_padded_sequence(points, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=points.shape[1])
        return self.dropout(out)


class SeriesLSTM(nn.Module):
    """A linear stem and LSTMs in both directions (Hochreiter and Schmidhuber 1997).

    Parameters
    ----------
    channels : int
        Channels of the series.
    width : int, default=128
        Values of each time point inside.
    n_blocks : int, default=2
        LSTMs.
    dropout : float, default=0.1
        Share of each LSTM's outputs that are dropped in training.
    """

    def __init__(self, channels: int, width: int = 128, n_blocks: int = 2, dropout: float = 0.1):
        super().__init__()
        self.stem = _linear(channels, width)
        self.blocks = nn.ModuleList(RecurrentBlock(width, dropout) for _ in range(n_blocks))

    def forward(self, series: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Give a vector for each time point: (n, time points, width)."""
        points, lengths = self.stem(series), attention_mask.sum(1)
        for block in self.blocks:
            points = block(points, lengths)
        return points


class AttentionBlock(nn.Module):
    """Self-attention and a feed-forward layer, each normalised before and added to what came in.

    Parameters
    ----------
    width : int
        Values of each time point.
    heads : int
        Attention heads.
    dropout : float
        Share of values that are dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = _linear(width, 3 * width)
        self.out = _linear(width, width)
        self.forward_norm = nn.LayerNorm(width)
        self.forward_layers = nn.Sequential(
            _linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), _linear(2 * width, width), nn.Dropout(dropout)
        )

    def forward(self, points: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Give (n, time points, width); no time point looks at padding."""
        n, length, width = points.shape
        packed = self.query_key_value(self.attention_norm(points))
        query, key, value = packed.view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(
            query, key, value, attn_mask=inside[:, None, None], dropout_p=self.dropout if self.training else 0.0
        )
        points = points + nn.functional.dropout(
            self.out(seen.transpose(1, 2).reshape(n, length, width)), self.dropout, self.training
        )
        return points + self.forward_layers(self.forward_norm(points))


class SeriesStem(nn.Module):
    """A short convolution, plus the place of each time point as sines and cosines, for series of any length.

    Parameters
    ----------
    channels : int
        Channels of the series.
    width : int
        Values of each time point; even.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        # A single value says little: what a time point is shows in its neighbours.
        self.convolution = nn.Conv1d(channels, width, 9, padding=4)
        nn.init.xavier_uniform_(self.convolution.weight)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """Give (n, time points, width)."""
        points = self.convolution(series.transpose(1, 2)).transpose(1, 2)
        length, width = points.shape[1:]
        # In float32 whatever the network computes in: in half precision late places would coincide.
        places = torch.arange(length, device=points.device, dtype=torch.float32)[:, None]
        steps = torch.arange(0, width, 2, device=points.device, dtype=torch.float32)
        angles = places * torch.exp(steps * (-math.log(10000.0) / width))
        return points + torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).to(points.dtype)


class SeriesTransformer(nn.Module):
    """A transformer encoder over time points (Vaswani et al. 2017, arXiv:1706.03762), normalised before each layer.

    Its cost grows with the square of the length: series of many thousand time points are better averaged down first.

    Parameters
    ----------
    channels : int
        Channels of the series.
    width : int, default=128
        Values of each time point inside.
    n_blocks : int, default=3
        Encoder layers.
    heads : int, default=8
        Attention heads.
    dropout : float, default=0.1
        Share of values that are dropped in training.
    """

    def __init__(self, channels: int, width: int = 128, n_blocks: int = 3, heads: int = 8, dropout: float = 0.1):
        super().__init__()
        self.stem = SeriesStem(channels, width)
        self.blocks = nn.ModuleList(AttentionBlock(width, heads, dropout) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, series: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Give a vector for each time point: (n, time points, width)."""
        inside = attention_mask.bool()
        points = self.stem(series.masked_fill(~inside.unsqueeze(2), 0.0))
        for block in self.blocks:
            points = block(points, inside)
        return self.norm(points)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
