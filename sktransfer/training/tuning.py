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
from sktransfer.runtime.seeding import preserved_generators
from sktransfer.training.course import course_of
from sktransfer.training.cut import Cut, cut_at
from sktransfer.training.loop import Labelled, Observer, evaluate, history_entry
from sktransfer.training.observers import StabilityObserver, stable_places
from sktransfer.training.plan import Examples, Plan
from sktransfer.training.probe import Scaling
from sktransfer.training.rehearsal import rehearse
from sktransfer.training.restraint import head_norm, let_go
from sktransfer.training.rows import NetworkRows
from sktransfer.training.running import run_network
from sktransfer.training.stability import StabilityRecord
from sktransfer.training.start import ROWS_TO_TRY, add_hints, embeddings_of, make_network, start_head
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
    rehearsal: Sequence[Observer] = (),
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
    rehearsal : sequence of Observer
        Observers of the rehearsal, where there is one.

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
    vectors = None
    if plan.head_init == "probe" and (earlier is None or targets.n_hints):
        vectors = embeddings_of(rows, plan)
    if vectors is not None and earlier is None:
        start_head(network, vectors, training, targets, plan)
    held_out = None if validation is None else _held_out(cut, rows, validation, targets, plan)
    if done:
        return _as_it_starts(network, held_out, targets, plan)
    if targets.n_hints:
        add_hints(network, vectors, training, targets, plan)
    course = course_of(network, vectors, training, targets, plan, earlier=earlier, validates=held_out is not None)
    start, share = course.start, plan.interpolation
    if start is not None and held_out is None and share is None:
        assert vectors is not None
        share = rehearse(rows, vectors, training, targets, plan, sample=sample, observers=rehearsal)
    del vectors  # of many rows they are large, and training takes long
    data = Labelled(rows, targets.tensor(training.codes), torch.from_numpy(training.weights))
    stability = _stability(network, rows, plan)
    size = head_norm(network) if course.restraint != 1 else 0.0
    observers = [*watch(network), *([] if stability is None else [stability])]
    result = course.run(data, targets, plan, validation=held_out, sample=sample, observers=observers)
    kept = next(entry for entry in result.history if entry["best"])
    if start is not None and share is not None and held_out is None and kept["epoch"]:
        kept["share"] = share
        start.go_back(share)
    if course.restraint != 1 and kept["epoch"]:
        let_go(network, data, held_out, targets, plan, most=size)
    if stability is not None and kept["share"] < 1:
        stability.measure_again()
    record = None if stability is None else stability.result()
    return Tuned(network, result.history, result.n_epochs, record, course.rates)


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
