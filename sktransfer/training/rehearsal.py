"""A rehearsal: training on a part of the rows, to see on the others how far to go with all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sktransfer.training.course import course_of
from sktransfer.training.interpolation import HALF_WAY
from sktransfer.training.loop import BatchSource, Labelled, Observer
from sktransfer.training.plan import Examples, Plan
from sktransfer.training.rows import NetworkRows, PartOfRows
from sktransfer.training.running import run_network
from sktransfer.training.scale import best_scale
from sktransfer.training.start import make_network, start_head
from sktransfer.training.targets import Targets
from sktransfer.training.tunable import TunableNetwork

# One row of so many judges.
_EVERY = 4
_FEWEST_JUDGES = 8
# Standard errors by which these shares of the way have to be better than half of it. To go nowhere by mistake costs all
# that was learned.
_SURE = {1.0: 1.0, 0.0: 2.0}
# Differences of losses that are not worth a word, whatever their error.
_NOTHING = 1e-3


def rehearse(
    rows: NetworkRows,
    vectors: np.ndarray,
    training: Examples,
    targets: Targets,
    plan: Plan,
    *,
    sample: BatchSource,
    observers: Sequence[Observer] = (),
) -> float:
    """Train on three quarters of the rows, and let the others say how much of the way from start to end to keep.

    Parameters
    ----------
    rows : NetworkRows
        The training rows.
    vectors : ndarray of shape (n, d)
        Their embeddings at the start.
    training : Examples
        The same rows with their targets.
    targets : Classes, Labels or Numbers
        What the codes are.
    plan : Plan
        How.
    sample : BatchSource
        As in `train`.
    observers : sequence of Observer
        Who looks on.

    Returns
    -------
    float
        Half of the way, unless rows say otherwise: all of it where that is better by more than the standard error of the
        difference of losses, none where it is by more than two. Half, without a rehearsal, where too few rows judge, or the
        others would be too few to learn the same from: with fewer than four different rows a class.

    Notes
    -----
    Which rows judge depends on what they hold, not on their order, and equal rows stay together; so in a search the probe of a
    rehearsal is fitted once for each fold.
    """
    groups = _groups(rows.digests)
    classes = training.codes if targets.kind == "classes" else None
    judges = _judges(groups, classes)
    if len(np.unique(groups[judges])) < _FEWEST_JUDGES:
        return HALF_WAY
    if classes is not None and groups.max() + 1 < _EVERY * len(np.unique(classes)):
        return HALF_WAY
    taught, judging = np.flatnonzero(~judges), np.flatnonzero(judges)
    some, others = training.at(taught), training.at(judging)
    network = make_network(rows.cut.again(rows.preparation), rows.preparation, some, targets, plan)
    start_head(network, vectors[taught], some, targets, plan, tell=False)
    course = course_of(network, vectors[taught], some, targets, plan)
    assert course.start is not None
    data = Labelled(PartOfRows(rows, taught), targets.tensor(some.codes), torch.from_numpy(some.weights))
    trained = course.run(data, targets, plan, sample=sample, observers=observers, tell=False)
    if trained.n_epochs < plan.settings.max_epochs:
        return HALF_WAY  # rates under which losses explode: the training itself will tell
    judged = PartOfRows(rows.plain(), judging)
    losses = {}
    for share in (HALF_WAY, *_SURE):
        with course.start.at(share):
            losses[share] = _losses(network, judged, others, targets, plan)
    return _best_share(losses, others.weights, groups[judging])


def _best_share(losses: Mapping[float, np.ndarray], weights: np.ndarray, groups: np.ndarray) -> float:
    """Return the share whose losses are clearly lower than half way, or that."""
    for share, n_errors in _SURE.items():
        gain, error = _mean_and_error(losses[HALF_WAY] - losses[share], weights, groups)
        if gain > max(n_errors * error, _NOTHING):
            return share
    return HALF_WAY


def _groups(digests: Sequence[bytes]) -> np.ndarray:
    """Give rows numbers by their content, in the order of digests, which is as good as random; equal rows get one."""
    numbers = {digest: number for number, digest in enumerate(sorted(set(digests)))}
    return np.array([numbers[digest] for digest in digests])


def _judges(groups: np.ndarray, classes: np.ndarray | None) -> np.ndarray:
    """Choose rows that judge, of each class alike; the only row of a class is there to learn from."""
    of_group = np.zeros(groups.max() + 1, int)
    if classes is not None:
        of_group[:] = classes.max()
        np.minimum.at(of_group, groups, classes)  # of equal rows with several classes, whatever their order
    order = np.argsort(of_group, kind="stable")
    chosen = order[_EVERY - 1 :: _EVERY]
    counts = np.bincount(of_group)
    chosen = chosen[counts[of_group[chosen]] > 1]
    return np.isin(groups, chosen)


def _losses(network: TunableNetwork, rows: PartOfRows, judging: Examples, targets: Targets, plan: Plan) -> np.ndarray:
    """Return the loss of each row, at the scale of scores that suits them best."""
    outputs = torch.from_numpy(run_network(network, rows, plan.settings.device))
    codes = targets.tensor(judging.codes)
    if targets.kind != "numbers":
        outputs *= best_scale(targets.loss, outputs, codes, torch.from_numpy(judging.weights), targets.n_outputs)[0]
    return targets.loss(outputs, codes).double().numpy()


def _mean_and_error(values: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Return a weighted mean over rows and its standard error, for which equal rows are one."""
    _, places = np.unique(groups, return_inverse=True)
    sums, of_group = np.bincount(places, weights * values), np.bincount(places, weights)
    mean = float(sums.sum() / of_group.sum())
    n_groups = len(sums)
    residues = np.square(sums - of_group * mean).sum() * n_groups / (n_groups - 1)
    return mean, float(np.sqrt(residues) / of_group.sum())
