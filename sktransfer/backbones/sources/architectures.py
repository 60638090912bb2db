"""Networks of this package for tables and series: untrained, made to measure for the rows of a fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from typing import Any

from torch import nn

from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.identity.fingerprint import fingerprint, module_tensors
from sktransfer.backbones.networks.series_networks import SeriesCNN, SeriesLSTM, SeriesTransformer
from sktransfer.backbones.networks.table_networks import TableMLP, TableResNet
from sktransfer.backbones.sources.catalogue import card_of
from sktransfer.inputs.preparation import Preparation
from sktransfer.inputs.rows import Rows
from sktransfer.inputs.series import SeriesPreparation
from sktransfer.inputs.table import TablePreparation
from sktransfer.inputs.table_schema import TableSchema
from sktransfer.runtime.seeding import preserved_generators

_TABLE: dict[str, Callable[[TablePreparation], nn.Module]] = {"table-mlp": TableMLP, "table-resnet": TableResNet}
_SERIES: dict[str, Callable[[int], nn.Module]] = {
    "series-cnn": SeriesCNN,
    "series-lstm": SeriesLSTM,
    "series-transformer": SeriesTransformer,
}


def kind_of(name: Any) -> str | None:
    """Return the kind of rows that an architecture reads, None where `name` is not one."""
    if not isinstance(name, str):
        return None
    return "table" if name in _TABLE else "series" if name in _SERIES else None


def build(name: str, rows: Rows) -> tuple[Hashable, Callable[[], Backbone]]:
    """Learn from rows what the network has to read, and say how to make it.

    Parameters
    ----------
    name : str
        Name of an architecture.
    rows : Rows
        Of the kind that it reads.

    Returns
    -------
    key : hashable
        Equal for architectures and rows that make the same network.
    make : callable
        Makes the handle, with random weights from a fixed seed.
    """
    preparation: Any
    if name in _TABLE:
        preparation = TablePreparation(TableSchema.learnt_from(rows.values, rows.weights))
    else:
        preparation = SeriesPreparation.learnt_from(rows.values)
    key = (name, json.dumps(preparation.describe(), sort_keys=True))
    return key, lambda: _make(name, preparation)


def _make(name: str, preparation: Any) -> Backbone:
    with preserved_generators(seed=0):
        network = untrained(name, preparation)
    return trained(name, network, preparation)


def untrained(name: str, preparation: Any) -> nn.Module:
    """Make an architecture's network with random weights.

    Parameters
    ----------
    name : str
        Name of the architecture.
    preparation : Preparation
        What the network is made for, as `build` learns it from rows.

    Returns
    -------
    nn.Module
        Its weights are drawn from torch's global generator.
    """
    return _TABLE[name](preparation) if name in _TABLE else _SERIES[name](len(preparation.mean))


def trained(name: str, network: nn.Module, preparation: Preparation) -> Backbone:
    """Make the handle of an architecture's network, with the weights that it has.

    Parameters
    ----------
    name : str
        Name of the architecture.
    network : nn.Module
        Owned by the handle from here on.
    preparation : Preparation
        What the network was made for.

    Returns
    -------
    Backbone
        Its weights travel in its pickle.
    """
    card = card_of(name)
    assert card is not None
    n_blocks = len(network.get_submodule("blocks"))  # type: ignore[arg-type]
    return Backbone(
        card=card,
        network=network,
        preparation=preparation,
        fingerprint=fingerprint(module_tensors(network), [name, preparation.describe()]),
        stage_names=("stem", *(f"blocks.{block}" for block in range(n_blocks))),
    )
