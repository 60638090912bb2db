"""Networks for tables: an MLP and a ResNet, after Gorishniy et al. 2021, arXiv:2106.11959.

Their output is the representation that the paper puts a linear head on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sktransfer.inputs.table import TablePreparation


class TableStem(nn.Module):
    """Numbers through a linear layer, plus an embedding for each category.

    The sum is what a linear layer gives on the numbers beside one-hot coded categories.

    Parameters
    ----------
    preparation : TablePreparation
        Says how many numbers and codes there are.
    width : int
        Number of values that come out.
    """

    def __init__(self, preparation: TablePreparation, width: int):
        super().__init__()
        # Either may be lacking, and torch warns of layers without weights.
        self.numbers = nn.Linear(preparation.n_numbers, width) if preparation.n_numbers else None
        self.categories = nn.Embedding(preparation.n_codes, width) if preparation.n_columns else None
        spread = (2 / (preparation.n_numbers + preparation.n_columns)) ** 0.5
        if self.numbers is not None:
            nn.init.normal_(self.numbers.weight, std=spread)
            nn.init.normal_(self.numbers.bias, std=spread)
        if self.categories is not None:
            nn.init.normal_(self.categories.weight, std=spread)
            with torch.no_grad():
                # A code that no row of the fit has, such as that of unseen strings, says nothing.
                self.categories.weight[list(preparation.idle_codes)] = 0.0

    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Give (n, width) for numbers (n, n_numbers) and codes (n, n_columns)."""
        if self.categories is None:
            assert self.numbers is not None  # a table has a column
            return self.numbers(numbers)
        embedded = self.categories(codes).sum(1)
        return embedded if self.numbers is None else self.numbers(numbers) + embedded


class TableMLP(nn.Module):
    """Linear layers, each with ReLU and dropout behind it; the first is the stem.

    Parameters
    ----------
    preparation : TablePreparation
        Says how many numbers and codes there are.
    width : int, default=256
        Values of each layer.
    n_blocks : int, default=3
        Layers behind the stem.
    dropout : float, default=0
        Share of values that are dropped in training.
    """

    def __init__(self, preparation: TablePreparation, width: int = 256, n_blocks: int = 3, dropout: float = 0.0):
        super().__init__()
        self.stem = TableStem(preparation, width)
        self.activation = nn.Sequential(nn.ReLU(), nn.Dropout(dropout))
        self.blocks = nn.ModuleList(
            nn.Sequential(_relu_linear(width, width), nn.ReLU(), nn.Dropout(dropout)) for _ in range(n_blocks)
        )

    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Give the representation (n, width)."""
        hidden = self.activation(self.stem(numbers, codes))
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


class ResidualBlock(nn.Module):
    """Batch norm and two linear layers, added to what came in.

    Parameters
    ----------
    width : int
        Values that come in and go out.
    hidden : int
        Values between the two layers.
    dropout : float
        Share of the values between the layers that are dropped in training.
    """

    def __init__(self, width: int, hidden: int, dropout: float):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.first = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.second = _relu_linear(hidden, width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Give (n, width) for (n, width)."""
        return values + self.second(self.dropout(torch.relu(self.first(self.norm(values)))))


class TableResNet(nn.Module):
    """A linear stem, residual blocks, and batch norm with ReLU at the end.

    Parameters
    ----------
    preparation : TablePreparation
        Says how many numbers and codes there are.
    width : int, default=192
        Values between the blocks.
    n_blocks : int, default=3
        Number of residual blocks.
    dropout : float, default=0.2
        Share of values inside the blocks that are dropped in training.
    """

    def __init__(self, preparation: TablePreparation, width: int = 192, n_blocks: int = 3, dropout: float = 0.2):
        super().__init__()
        self.stem = TableStem(preparation, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, 2 * width, dropout) for _ in range(n_blocks))
        self.norm = nn.BatchNorm1d(width)

    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Give the representation (n, width)."""
        hidden: Any = self.stem(numbers, codes)
        for block in self.blocks:
            hidden = block(hidden)
        return torch.relu(self.norm(hidden))


def _relu_linear(inputs: int, outputs: int) -> nn.Linear:
    """Make a linear layer that keeps the size of what comes out of a ReLU (He et al. 2015, arXiv:1502.01852)."""
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer
