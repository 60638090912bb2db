"""From a backbone and labelled rows to a tuned network: cut, probe, head, training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.preparation import Preparation
from sktransfer.backbones.rows import about
from sktransfer.losses.l2_sp import l2_sp_penalty
from sktransfer.runtime.seeding import preserved_generators
from sktransfer.training.cut import Cut, cut_at
from sktransfer.training.heads import make_head, start_from_probe
from sktransfer.training.interpolation import Start, goes_back
from sktransfer.training.loop import Labelled, Observer, evaluate, train
from sktransfer.training.observers import GradualUnfreezing, StabilityObserver, stable_places
from sktransfer.training.plan import Examples, Plan
from sktransfer.training.probe import Scaling, fit_probe
from sktransfer.training.restraint import Restraint, head_norm, judge_of, let_go, restraint_for
from sktransfer.training.rows import NetworkRows
from sktransfer.training.running import run_network, scaled_embeddings
from sktransfer.training.stability import StabilityRecord
from sktransfer.training.targets import Targets
from sktransfer.training.tunable import StageRates, TunableNetwork

_ROWS_TO_WATCH = 64
_ROWS_TO_TRY = 4
# Deviation of embeddings times this, over the size of their mean: below 1 rates are smaller.
_ENOUGH_SPREAD = 2.0


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
    network = _network(cut, preparation, training, targets, plan, earlier)
    done = _is_done(cut, plan, targets, earlier)
    sample = NetworkRows(cut, preparation, training.values[:_ROWS_TO_TRY], plan.run, keep=False)
    _try_few(network, sample, validation, plan, done=done)
    rows = NetworkRows(cut, preparation, training.values, plan.run, augment=plan.augment)
    interrupted = earlier is None and plan.head_init == "probe" and _start(network, rows, training, targets, plan)
    held_out = None if validation is None or interrupted else _held_out(cut, rows, validation, targets, plan)
    if interrupted or done:
        return Tuned(network.to(plan.settings.dtype).eval(), [_nothing_trained(network, held_out, targets, plan)])
    if targets.n_hints:
        _add_hints(network, rows, training, targets, plan)
    data = Labelled(rows, targets.tensor(training.codes), torch.from_numpy(training.weights))
    restraint = restraint_for(network, targets, plan, earlier, validates=held_out is not None)
    stability = _stability(network, rows, plan)
    observers: list[Any] = [*watch(network), *([] if stability is None else [stability])]
    start = None
    if earlier is None and goes_back(network, targets, plan, validates=held_out is not None):
        start = Start(network)
        observers.insert(0, start)
    if restraint != 1 and earlier is None:
        observers.insert(
            0, Restraint(network, rows, training, targets, plan, restraint, validates=held_out is not None)
        )
    if plan.unfreeze_every is not None and not cut.all_frozen:
        observers.insert(0, GradualUnfreezing(network, plan.unfreeze_every))
    rates = _rates(network, plan)
    size = head_norm(network) if restraint != 1 else 0.0
    try:
        result = train(
            network,
            data,
            targets.loss,
            network.parameter_groups(rates, plan.weight_decay),
            plan.settings,
            validation=held_out,
            sample=sample,
            penalty=_penalty(network, plan.l2_sp, restraint),
            judge=None if restraint == 1 else judge_of(targets),
            observers=observers,
        )
    finally:
        for observer in observers:
            observer.close()
        network.drop_hints()
    if start is not None and start.go_back() and stability is not None:
        stability.measure_again()
    if restraint != 1 and not result.history[0]["best"]:
        let_go(network, data, held_out, targets, plan, most=size)
    record = None if stability is None else stability.result()
    return Tuned(network, result.history, result.n_epochs, record, rates)


def _network(
    cut: Cut,
    preparation: Preparation,
    training: Examples,
    targets: Targets,
    plan: Plan,
    earlier: TunableNetwork | None,
) -> TunableNetwork:
    """Make the network with its head. A head that does not fit is told before the whole of the rows is run."""
    with preserved_generators(seed=plan.settings.seed):
        n_features = _n_features(cut, preparation, training, plan) if earlier is None else len(earlier.center)
        head = make_head(plan.head if earlier is None else earlier.head, n_features, targets.n_outputs)
        network = TunableNetwork(cut, preparation, head, n_features, fixed_norms=plan.fixed_norms)
        if earlier is not None:
            for name in ("center", "scale", "head_penalty"):
                setattr(network, name, getattr(earlier, name).clone())
            if earlier.rest_weight is not None and earlier.rest_bias is not None:
                network.hold_back(earlier.rest_weight.clone(), earlier.rest_bias.clone())
        elif plan.untrained is not None and plan.head_init == "random":
            network.suffix.network.load_state_dict(plan.untrained().state_dict())  # type: ignore[union-attr]
    return network


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


def _start(network: TunableNetwork, rows: NetworkRows, training: Examples, targets: Targets, plan: Plan) -> bool:
    """Let the head start from a probe, and say whether the user stopped that."""
    cut = network.cut
    vectors = rows.vectors if rows.vectors is not None else cut.embed(rows.preparation, training.values, plan.run)
    scaling = Scaling.of(vectors, training.weights)
    network.center = torch.from_numpy(scaling.center).float()
    network.scale = torch.tensor(scaling.scale)
    scaled = scaling.apply(vectors)
    if not isinstance(network.head, nn.Linear) or plan.head != "linear":
        if cut.all_frozen and plan.augment is None:
            return False  # what follows is the same training
        return _train_head_alone(network.head, scaled, training, targets, plan)
    codes = targets.probe_codes(training.codes)
    probe = fit_probe(scaled, codes, training.weights, targets.kind, targets.n_classes)
    network.head_penalty = torch.tensor(probe.penalty)
    start_from_probe(network.head, probe)
    return False


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


def _add_hints(network: TunableNetwork, rows: NetworkRows, training: Examples, targets: Targets, plan: Plan) -> None:
    """Let the network predict a teacher's features from its embedding, from a ridge regression on where it starts."""
    with preserved_generators(seed=plan.settings.seed):
        projection = network.add_hints(targets.n_hints)
    if plan.head_init == "probe":
        scaled = scaled_embeddings(network, rows, training, plan)
        start_from_probe(projection, fit_probe(scaled, targets.hints(training.codes), training.weights, "numbers"))


def _n_features(cut: Cut, preparation: Preparation, training: Examples, plan: Plan) -> int:
    """Return the length of an embedding, which the first rows show."""
    return cut.embed(preparation, list(training.values[:2]), plan.run).shape[1]


class _Vectors:
    """Vectors as rows for a head that is trained alone."""

    def __init__(self, vectors: torch.Tensor):
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def chunks(self, places: Sequence[int]) -> list[tuple[list[int], torch.Tensor]]:
        return [(list(range(len(places))), self.vectors[list(places)])]

    def batches(self, batches: Sequence[Sequence[int]]) -> Any:
        return (self.chunks(places) for places in batches)

    def in_order(self) -> Any:
        yield list(range(len(self))), self.vectors


def _train_head_alone(head: nn.Module, vectors: np.ndarray, training: Examples, targets: Targets, plan: Plan) -> bool:
    """Train a head that is not linear on the frozen embeddings, and say whether the user stopped it.

    It is what a probe is to a linear head.
    """
    data = Labelled(
        _Vectors(torch.from_numpy(vectors)), targets.tensor(training.codes), torch.from_numpy(training.weights)
    )
    groups = [{"params": list(head.parameters()), "lr": plan.rates.head, "weight_decay": plan.weight_decay}]
    sample = _Vectors(torch.from_numpy(vectors[:_ROWS_TO_TRY]))
    return train(head, data, targets.loss, groups, plan.settings, sample=sample).interrupted


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


def _nothing_trained(
    network: TunableNetwork, held_out: Labelled | None, targets: Targets, plan: Plan
) -> dict[str, Any]:
    """Return the only entry of a history without epochs."""
    valid_loss = None
    if held_out is not None:
        network.to(plan.settings.device)
        try:
            valid_loss = evaluate(network, held_out, targets.loss, plan.settings)
        finally:
            network.to("cpu")
    return {
        "epoch": 0,
        "train_loss": None,
        "valid_loss": valid_loss,
        "learning_rate": 0.0,
        "seconds": 0.0,
        "best": True,
    }


def _rates(network: TunableNetwork, plan: Plan) -> StageRates:
    """Return the learning rates: a head that has learned already moves no faster than the stage below it.

    Adam's steps are as long as the rate, however small the gradient, and at a probe there is next to none. Where embeddings
    of different rows are nearly the same, the probe tells them apart by small differences, which steps of the usual length
    would drown; rates are then as much smaller.
    """
    if network.cut.all_frozen or plan.head_init == "random" or not plan.rates.ratio:
        return plan.rates
    mean = float(network.center.double().square().mean().sqrt())
    slower = min(1.0, _ENOUGH_SPREAD * float(network.scale) / mean) if mean else 1.0
    return replace(plan.rates, head=plan.rates.head * plan.rates.ratio * slower, ratio=1.0)


def _penalty(network: TunableNetwork, l2_sp: float, restraint: float) -> Callable[[], torch.Tensor] | None:
    """Return what is added to the loss: the pull of the network towards its start, and the probe's own penalty.

    A head that starts as a probe and then lost the probe's penalty would move away from it even on a frozen network.
    """
    weights = network.parameters_behind_the_cut()
    start = [one.detach().clone() for one in weights] if l2_sp else []
    of_head = 0.5 * restraint * float(network.head_penalty)
    rows = [one for one in network.head.parameters() if one.ndim > 1]
    if not start and not of_head:
        return None

    def penalty() -> torch.Tensor:
        total = torch.zeros((), device=network.center.device)
        if of_head:
            total = total + of_head * rows[0].square().sum()
        # Stages that are not open yet are where they started.
        start[:] = [then.to(now.device, now.dtype) for now, then in zip(weights, start, strict=False)]
        pairs = [(now, then) for now, then in zip(weights, start, strict=False) if now.requires_grad]
        if pairs:
            total = total + l2_sp * l2_sp_penalty([now for now, _ in pairs], [then for _, then in pairs])
        return total

    return penalty


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
