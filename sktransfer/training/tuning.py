"""From a backbone and labelled rows to a tuned network: cut, probe, head, training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.preparation import Preparation
from sktransfer.backbones.rows import about
from sktransfer.losses.l2_sp import l2_sp_penalty
from sktransfer.runtime.seeding import preserved_generators
from sktransfer.training.cut import Cut, cut_at
from sktransfer.training.interpolation import Interpolation
from sktransfer.training.loop import Labelled, Observer, evaluate, history_entry, train
from sktransfer.training.observers import GradualUnfreezing, StabilityObserver, stable_places
from sktransfer.training.plan import Examples, Plan
from sktransfer.training.probe import Scaling
from sktransfer.training.rows import NetworkRows
from sktransfer.training.running import run_network
from sktransfer.training.stability import StabilityRecord
from sktransfer.training.start import ROWS_TO_TRY, TemperedHead, add_hints, embeddings_of, make_network, start_head
from sktransfer.training.targets import Targets
from sktransfer.training.tunable import StageRates, TunableNetwork

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
    training: Examples,
    validation: Examples | None,
    targets: Targets,
    plan: Plan,
    *,
    earlier: TunableNetwork | None = None,
    watch: Callable[[TunableNetwork], Sequence[Observer]] = lambda network: (),
) -> Tuned:
    """Tune a copy of a network.

    Parameters
    ----------
    backbone : Backbone
        Where it starts. Only the stages that are trained are copied.
    preparation : Preparation
        Fitted to the training rows.
    training : Examples
        What it learns from.
    validation : Examples or None
        What decides on the best epoch.
    targets : Classes, Labels or Numbers
        What the codes are.
    plan : Plan
        How.
    earlier : TunableNetwork, optional
        A tuned network whose head and scaling are taken over.
    watch : callable, optional
        Returns observers of the training, given the network.

    Returns
    -------
    Tuned
    """
    cut = cut_at(backbone, preparation, plan.depth, pooling=plan.pooling)
    network = make_network(cut, preparation, training, targets, plan, earlier)
    done = _is_done(cut, plan, targets, earlier)
    sample = NetworkRows(cut, preparation, training.values[:ROWS_TO_TRY], plan.run, keep=False)
    _try_few(network, sample, validation, plan, done=done)
    rows = NetworkRows(cut, preparation, training.values, plan.run, augment=plan.augment)
    vectors, temperature = None, 1.0
    if plan.head_init == "probe" and (earlier is None or targets.n_hints):
        vectors = embeddings_of(rows, plan)
    if vectors is not None and earlier is None:
        temperature = start_head(network, vectors, training, targets, plan)
    held_out = None if validation is None else _held_out(cut, rows, validation, targets, plan)
    if done:
        return _as_it_starts(network, held_out, targets, plan)
    if targets.n_hints:
        add_hints(network, vectors, training, targets, plan)
    del vectors  # of many rows they are large, and training takes long
    data = Labelled(rows, targets.tensor(training.codes), torch.from_numpy(training.weights))
    changing = _changing(network, plan, 1.0 if cut.all_frozen else temperature, goes_on=earlier is not None)
    stability = _stability(network, rows, plan)
    observers = [*changing, *watch(network), *([] if stability is None else [stability])]
    try:
        result = train(
            network,
            data,
            targets.loss,
            network.parameter_groups(plan.rates, plan.weight_decay),
            plan.settings,
            validation=held_out,
            sample=sample,
            penalty=_penalty(network, plan.l2_sp) if plan.l2_sp else None,
            observers=observers,
        )
    finally:
        for observer in observers:
            observer.close()
        network.drop_hints()
    kept = next(entry for entry in result.history if entry["best"])
    for one in changing:
        if isinstance(one, Interpolation) and kept["epoch"]:
            one.apply()
            if stability is not None:
                stability.measure_again()
    record = None if stability is None else stability.result()
    return Tuned(network, result.history, result.n_epochs, record, plan.rates)


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
    network: TunableNetwork, sample: NetworkRows, validation: Examples | None, plan: Plan, *, done: bool
) -> None:
    """Find out with a few rows what would otherwise fail after all of them were run."""
    cut, preparation = network.cut, sample.preparation
    for name, values in (
        ("X_val", None if validation is None else validation.values),
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


def _held_out(cut: Cut, rows: NetworkRows, validation: Examples, targets: Targets, plan: Plan) -> Labelled:
    """Make validation rows ready; what they keep in memory counts beside what `rows` keep."""
    with about("X_val"):
        seen = NetworkRows(cut, rows.preparation, validation.values, plan.run, beside=rows)
    return Labelled(seen, targets.tensor(validation.codes), torch.from_numpy(validation.weights))


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


def _is_done(cut: Cut, plan: Plan, targets: Targets, earlier: TunableNetwork | None) -> bool:
    """Whether nothing is left to learn: a probe is the best linear head of frozen embeddings already."""
    solved = targets.solved_by_probe and plan.head == "linear" and plan.head_init == "probe" and earlier is None
    return plan.settings.max_epochs == 0 or (cut.all_frozen and solved and plan.augment is None)


def _as_it_starts(network: TunableNetwork, held_out: Labelled | None, targets: Targets, plan: Plan) -> Tuned:
    """Return the network as it starts, with the only entry of a history without epochs."""
    network.to(plan.settings.dtype).eval()
    valid_loss = None
    if held_out is not None:
        network.to(plan.settings.device)
        try:
            valid_loss = evaluate(network, held_out, targets.loss, plan.settings)
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
