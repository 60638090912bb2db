"""From a backbone and labelled rows to a tuned network: cut, probe, head, training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from sktransfer.backbones.backbone import Backbone
from sktransfer.inputs.preparation import Preparation
from sktransfer.inputs.rows import about
from sktransfer.losses.l2_sp import l2_sp_penalty
from sktransfer.runtime.seeding import preserved_generators
from sktransfer.training.cut import Cut, cut_at
from sktransfer.training.inference import evaluate, run_network
from sktransfer.training.interpolation import Interpolation
from sktransfer.training.loop import Observer, history_entry, train
from sktransfer.training.network import StageRates, TunableNetwork, parameter_groups
from sktransfer.training.objective import Objective
from sktransfer.training.observers import GradualUnfreezing, StabilityObserver, stable_places
from sktransfer.training.plan import Plan
from sktransfer.training.probe import Scaling
from sktransfer.training.rows import NetworkRows
from sktransfer.training.stability import StabilityRecord
from sktransfer.training.start import (
    ROWS_TO_TRY,
    TemperedHead,
    embeddings_of,
    make_network,
    n_features_of,
    scaled_as_in,
    start_head,
)

_ROWS_TO_WATCH = 64


@dataclass
class Tuned:
    """What came out.

    Attributes
    ----------
    network : TunableNetwork
        In eval mode, on the processor.
    history : list of dict
        One entry for each epoch.
    n_epochs : int
        Epochs that ran.
    stability : StabilityRecord or None
        What training did to each stage.
    rates : StageRates or None
        The rates that it was trained with; None where nothing was trained.
    """

    network: TunableNetwork
    history: list[dict[str, Any]] = field(default_factory=list)
    n_epochs: int = 0
    stability: StabilityRecord | None = None
    rates: StageRates | None = None


def tune(
    backbone: Backbone,
    preparation: Preparation,
    values: Sequence[Any],
    validation_values: Sequence[Any] | None,
    objective: Objective,
    plan: Plan,
    *,
    earlier: TunableNetwork | None = None,
    make_observers: Callable[[TunableNetwork], Sequence[Observer]] = lambda network: (),
) -> Tuned:
    """Tune a copy of a network.

    Parameters
    ----------
    backbone : Backbone
        Where it starts. Only the stages that are trained are copied.
    preparation : Preparation
        Fitted to the training rows.
    values : sequence
        The training samples, as the preparation takes them.
    validation_values : sequence or None
        The validation samples, by which the best epoch is chosen.
    objective : Objective
        What is learned of them.
    plan : Plan
        How.
    earlier : TunableNetwork, optional
        A tuned network whose head and scaling are taken over.
    make_observers : callable, optional
        Returns observers of the training, given the network.

    Returns
    -------
    Tuned
    """
    cut = cut_at(backbone, preparation, plan.depth, pooling=plan.pooling)
    n_features = n_features_of(cut, preparation, values, plan) if earlier is None else len(earlier.center)
    network = make_network(cut, preparation, n_features, objective.n_outputs, plan, earlier)
    done = _is_done(cut, plan, objective, earlier)
    sample = NetworkRows(cut, preparation, values[:ROWS_TO_TRY], plan.run, keep=False)
    _try_few(network, sample, validation_values, plan, done=done)
    rows = NetworkRows(cut, preparation, values, plan.run, augment=plan.augment)
    vectors, temperature = None, 1.0
    if plan.head_init == "probe" and earlier is None:
        vectors = embeddings_of(rows, plan)
        probe_temperature = start_head(network, vectors, objective, plan)
        if plan.tempered and not cut.all_frozen:
            temperature = probe_temperature
    held_out = None if validation_values is None else _held_out(cut, rows, validation_values, plan)
    if done:
        return _as_it_starts(network, held_out, objective, plan)
    with preserved_generators(seed=plan.settings.seed):
        objective.begin(n_features, None if vectors is None else scaled_as_in(network, vectors))
    del vectors  # of many rows they are large, and training takes long
    changing = _changing(
        network, plan, temperature if plan.tempered and not cut.all_frozen else 1.0, goes_on=earlier is not None
    )
    stability = _stability(network, rows, plan)
    observers = [*changing, *make_observers(network), *([] if stability is None else [stability])]
    try:
        result = train(
            network,
            rows,
            objective,
            [*network.parameter_groups(plan.rates, plan.weight_decay), *_own_groups(objective, plan)],
            plan.settings,
            validation=held_out,
            sample=sample,
            penalty=_penalty(network, plan.l2_sp) if plan.l2_sp else None,
            observers=observers,
        )
    finally:
        for observer in observers:
            observer.close()
    kept = next(entry for entry in result.history if entry["best"])
    for one in changing:
        if isinstance(one, Interpolation) and kept["epoch"]:
            one.apply()
            if stability is not None:
                stability.measure_again()
    record = None if stability is None else stability.result()
    return Tuned(network, result.history, result.n_epochs, record, plan.rates)


def _own_groups(objective: Objective, plan: Plan) -> list[dict[str, Any]]:
    """Return the groups of the objective's own modules for an optimizer."""
    groups: list[dict[str, Any]] = []
    for name, module in objective.modules.items():
        rate = objective.learning_rates.get(name, plan.rates.head)
        groups += parameter_groups(name, module, module.parameters(), rate, plan.weight_decay)
    return groups


def _changing(network: TunableNetwork, plan: Plan, temperature: float, *, goes_on: bool) -> list[Observer]:
    """Return the observers that change the network, before it is trained, meanwhile and afterwards."""
    changing: list[Any] = []
    if plan.unfreeze_every is not None and not network.cut.all_frozen:
        changing.append(GradualUnfreezing(network, plan.unfreeze_every))
    if temperature != 1:
        changing.append(TemperedHead(network.head, temperature))
    if plan.interpolation != 1 and plan.head_init == "probe" and not goes_on:
        changing.append(Interpolation(network, plan.interpolation))  # behind the head: the start is the tempered one
    return changing


def _penalty(network: TunableNetwork, l2_sp: float) -> Callable[[], torch.Tensor]:
    """Return what is added to the loss: the pull of the network towards its start."""
    weights = network.parameters_behind_the_cut()
    start = [one.detach().clone() for one in weights]

    def penalty() -> torch.Tensor:
        # Stages that are not open yet are where they started.
        start[:] = [then.to(now.device, now.dtype) for now, then in zip(weights, start, strict=True)]
        pairs = [(now, then) for now, then in zip(weights, start, strict=True) if now.requires_grad]
        if not pairs:
            return torch.zeros((), device=network.center.device)
        return l2_sp * l2_sp_penalty([now for now, _ in pairs], [then for _, then in pairs])

    return penalty


def _try_few(
    network: TunableNetwork, sample: NetworkRows, validation_values: Sequence[Any] | None, plan: Plan, *, done: bool
) -> None:
    """Find out with a few rows what would otherwise fail after all of them were run."""
    cut, preparation = network.cut, sample.preparation
    for name, values in (
        ("X_val", validation_values),
        ("source_probe", None if plan.source is None else plan.source[0]),
    ):
        if values is not None:
            with about(name):
                preparation.digests(values)  # files are opened, which shows those that are none
                cut.embed(preparation, values[:1], plan.run)
    if done:
        return
    if plan.augment is not None:
        with preserved_generators(seed=plan.settings.seed):
            NetworkRows(cut, preparation, sample.values[:1], plan.run, augment=plan.augment, keep=False).chunks([0])
    if not cut.all_frozen:
        _check_gradient(network, sample)


def _held_out(cut: Cut, rows: NetworkRows, values: Sequence[Any], plan: Plan) -> NetworkRows:
    """Make validation samples ready; what they keep in memory counts beside what `rows` keep."""
    with about("X_val"):
        return NetworkRows(cut, rows.preparation, values, plan.run, beside=rows)


def _stability(network: TunableNetwork, rows: NetworkRows, plan: Plan) -> StabilityObserver | None:
    """Return what keeps the stability record, where one is asked for."""
    if plan.stability_every is None:
        return None
    places = stable_places(len(rows), _ROWS_TO_WATCH, plan.settings.seed)
    score = None if plan.source is None else _source_score(network, rows.preparation, plan)
    return StabilityObserver(network, rows.plain(), places, plan.settings, plan.stability_every, score)


def _check_gradient(network: TunableNetwork, rows: NetworkRows) -> None:
    """Refuse a network that hands on no gradient: its stages would stay what they are without a word."""
    if not any(one.requires_grad for stage in network.stage_parameters.values() for one in stage):
        return  # stages without weights
    network.eval()
    dtype = next(network.parameters()).dtype
    with preserved_generators(), torch.enable_grad():
        _, chunk = rows.chunks([0])[0]
        if not network.embed(chunk.to(torch.device("cpu"), dtype)).requires_grad:
            raise ValueError(
                f"The network {network.cut.backbone.name!r} gives outputs without a gradient, as under torch.no_grad() or "
                "after detach(), so its stages can't be tuned. Use freeze_depth='all', or mend its forward."
            )


def _is_done(cut: Cut, plan: Plan, objective: Objective, earlier: TunableNetwork | None) -> bool:
    """Whether nothing is left to learn: a probe is the best linear head of frozen embeddings already."""
    solved = objective.solved_by_probe and plan.head == "linear" and plan.head_init == "probe" and earlier is None
    return plan.settings.max_epochs == 0 or (cut.all_frozen and solved and plan.augment is None)


def _as_it_starts(network: TunableNetwork, held_out: NetworkRows | None, objective: Objective, plan: Plan) -> Tuned:
    """Return the network as it starts, with the only entry of a history without epochs."""
    network.to(plan.settings.dtype).eval()
    valid_loss = None
    if held_out is not None:
        network.to(plan.settings.device)
        try:
            valid_loss = evaluate(network, held_out, objective, plan.settings)
        finally:
            network.to("cpu")
    entry = history_entry(0, None, valid_loss, 0.0, 0.0)
    return Tuned(network, [entry | {"best": True}])


def _source_score(network: TunableNetwork, preparation: Preparation, plan: Plan) -> Callable[[], float]:
    """Accuracy on half of the source's rows of a linear model of the other half's pretrained embeddings."""
    assert plan.source is not None
    values, labels = plan.source
    with about("source_probe"):
        rows = NetworkRows(network.cut, preparation, values, plan.run)

    def embeddings() -> np.ndarray:
        return run_network(network, rows, next(network.parameters()).device, "embed")

    start = embeddings()
    fitted, judged = np.arange(0, len(values), 2), np.arange(1, len(values), 2)
    scaling = Scaling.of(start[fitted], np.ones(len(fitted)))
    model = LogisticRegression(C=10.0 / start.shape[1], max_iter=1000).fit(scaling.apply(start[fitted]), labels[fitted])
    return lambda: float(model.score(scaling.apply(embeddings()[judged]), labels[judged]))
