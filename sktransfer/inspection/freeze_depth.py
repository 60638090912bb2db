"""A search over freeze depth and learning rate."""

from numbers import Integral, Real

import numpy as np
from sklearn.exceptions import NotFittedError

from sktransfer._nearest import did_you_mean
from sktransfer.inspection.drawing import axes_for, ordered_colormap

_MOST_NAMED_RATES = 8


class FreezeDepthDisplay:
    """Cross-validated score by freeze depth, a line for each learning rate.

    Use :meth:`from_search` to create it from a fitted search. All parameters are stored as attributes.

    Parameters
    ----------
    depths : sequence of int, float or "all"
        The freeze depths, from left to right. Whole numbers count stages, floats are shares: 1 is not 1.0.
    learning_rates : sequence of float or None
        The learning rates, None for the rate that the estimator had where none was searched.
    mean_scores : array-like of shape (n_learning_rates, n_depths)
        Mean score over the folds, NaN where a pair of rate and depth was not tried.
    std_scores : array-like of shape (n_learning_rates, n_depths)
        Standard deviation of the score over the folds.
    score_name : str, default="score"
        What the score is called.

    Attributes
    ----------
    errorbars_ : list of matplotlib ErrorbarContainer
        What was drawn, for each learning rate.
    ax_ : matplotlib Axes
        Axes with the curves.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    StabilityDisplay : What training did to each stage.

    Examples
    --------
    >>> from sktransfer.inspection import FreezeDepthDisplay
    >>> display = FreezeDepthDisplay(
    ...     depths=[0, -2, -1, "all"],
    ...     learning_rates=[1e-4, 1e-3],
    ...     mean_scores=[[0.81, 0.84, 0.83, 0.79], [0.62, 0.80, 0.84, 0.80]],
    ...     std_scores=[[0.02, 0.01, 0.01, 0.01], [0.05, 0.02, 0.01, 0.01]],
    ...     score_name="accuracy",
    ... )
    >>> display.plot().ax_.get_xlabel()
    'freeze depth'
    """

    def __init__(self, *, depths, learning_rates, mean_scores, std_scores, score_name="score"):
        self.depths = depths
        self.learning_rates = learning_rates
        self.mean_scores = mean_scores
        self.std_scores = std_scores
        self.score_name = score_name

    def plot(self, ax=None, *, errorbar_kw=None):
        """Draw the mean scores with their standard deviations.

        Depths stand side by side at equal distances, unless all of them are shares. Lines go from dark to light
        with the logarithm of the rate; up to eight rates are named in a legend, more are shown by a colour bar.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; a new figure is made if None.
        errorbar_kw : dict, default=None
            Keyword arguments for matplotlib's ``errorbar``.

        Returns
        -------
        FreezeDepthDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = axes_for(self, ax)
        means = np.asarray(self.mean_scores, dtype=np.float64)
        deviations = np.asarray(self.std_scores, dtype=np.float64)
        all_shares = all(isinstance(depth, float) for depth in self.depths)
        places = np.asarray(self.depths if all_shares else range(len(self.depths)), dtype=np.float64)
        scale, colors = self._colors()
        self.errorbars_ = []
        for line, (rate, color) in enumerate(zip(self.learning_rates, colors, strict=True)):
            tried = ~np.isnan(means[line])
            # Bars of different rates at one depth stand beside each other, or none could be read.
            aside = 0.0 if all_shares else 0.04 * (line - (len(colors) - 1) / 2) * min(1.0, 10 / len(colors))
            style = {"color": color, "label": _rate_label(rate), "marker": "o", "markersize": 4, "capsize": 2}
            drawn = ax.errorbar(
                places[tried] + aside, means[line, tried], deviations[line, tried], **(style | (errorbar_kw or {}))
            )
            self.errorbars_.append(drawn)
        if not all_shares:
            ax.set_xticks(places, [_depth_label(depth) for depth in self.depths])
        ax.set_xlabel("freeze depth")
        ax.set_ylabel(f"{self.score_name} (mean and sd over folds)")
        if len(colors) > _MOST_NAMED_RATES:
            ax.figure.colorbar(scale, ax=ax, label="learning rate")
        elif list(self.learning_rates) != [None]:
            ax.legend(title="learning rate")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def from_search(
        cls, search, *, depth="freeze_depth", learning_rate="learning_rate", metric=None, ax=None, errorbar_kw=None
    ):
        """Draw a search over the freeze depth and, if it was searched too, the learning rate.

        Parameters
        ----------
        search : GridSearchCV or RandomizedSearchCV
            A fitted search. Of the candidates that share depth and rate and differ in something else the one with
            the best mean score is drawn; candidates that set no depth, as another step of a pipeline may have
            them, are left out.
        depth : str, default="freeze_depth"
            Name of the searched parameter. A name without the steps that lead to it is enough
            (``freeze_depth`` for ``clf__freeze_depth``), if only one parameter ends so.
        learning_rate : str, default="learning_rate"
            Name of the parameter that gets a line for each value, found in the same way. With the default it may
            be missing from the search.
        metric : str, default=None
            Which score to draw from a search with several. By default the one that it refits by.
        ax : matplotlib Axes, default=None
            Axes to draw on; a new figure is made if None.
        errorbar_kw : dict, default=None
            Keyword arguments for matplotlib's ``errorbar``.

        Returns
        -------
        FreezeDepthDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If the search was not fitted.
        ValueError
            If the search has no such parameter, or several, no such metric, or several and none is chosen, if it
            holds a depth or rate that is none, or is a successive halving, whose scores come from different
            numbers of rows.
        ImportError
            If matplotlib is not installed.

        Notes
        -----
        The best of several candidates is a little better than it will be on new rows, the more so the more
        candidates there are; depths with more candidates look better for that alone.
        """
        results = getattr(search, "cv_results_", None)
        if results is None:
            raise NotFittedError(
                f"This {type(search).__name__} has no cv_results_. Give a GridSearchCV or RandomizedSearchCV, and "
                "call its fit first."
            )
        if "n_resources" in results:
            raise ValueError(
                f"{type(search).__name__} scores its candidates on different amounts of rows, so that their scores "
                "can't be compared. Use GridSearchCV or RandomizedSearchCV."
            )
        metric = _chosen_metric(search, metric)
        means, deviations = results[f"mean_test_{metric}"], results[f"std_test_{metric}"]
        candidates = results["params"]
        names = sorted({name for candidate in candidates for name in candidate})
        depth_name, rate_name = _searched(names, depth), _searched(names, learning_rate)
        if depth_name is None:
            raise ValueError(
                f"This search has no parameter {depth!r}. It went over: {', '.join(names)}.{did_you_mean(depth, names)}"
            )
        if rate_name is None and learning_rate != "learning_rate":
            raise ValueError(
                f"This search has no parameter {learning_rate!r}. It went over: {', '.join(names)}."
                f"{did_you_mean(learning_rate, names)}"
            )
        best = {}
        # From the best score to the worst; candidates whose fits failed have NaN, which is sorted last.
        for number in np.argsort(-np.asarray(means), kind="stable"):
            candidate = candidates[number]
            if depth_name in candidate:
                best.setdefault((_rate_key(candidate.get(rate_name)), _depth_key(candidate[depth_name])), number)
        rates = sorted({rate for rate, _ in best})
        depths = sorted({depth for _, depth in best})
        shape = len(rates), len(depths)
        mean_scores, std_scores = np.full(shape, np.nan), np.full(shape, np.nan)
        for (rate, of_depth), number in best.items():
            where = rates.index(rate), depths.index(of_depth)
            mean_scores[where], std_scores[where] = means[number], deviations[number]
        display = cls(
            depths=[value for _, value in depths],
            learning_rates=[None if missing else value for missing, value in rates],
            mean_scores=mean_scores,
            std_scores=std_scores,
            score_name="test score" if metric == "score" else f"test {metric}",
        )
        return display.plot(ax, errorbar_kw=errorbar_kw)

    def _colors(self):
        """Return the scale of colours, and the colour of each line."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LogNorm, Normalize

        searched = [rate for rate in self.learning_rates if rate is not None]
        lowest, highest = (min(searched), max(searched)) if searched else (1.0, 1.0)
        norm = (LogNorm if lowest > 0 else Normalize)(lowest, highest)
        scale = ScalarMappable(norm, ordered_colormap())
        return scale, ["grey" if rate is None else scale.to_rgba(rate) for rate in self.learning_rates]


def _chosen_metric(search, metric):
    """Return how the score to draw is called in ``cv_results_``."""
    known = [key.removeprefix("mean_test_") for key in search.cv_results_ if key.startswith("mean_test_")]
    if metric is None:
        if len(known) == 1:
            return known[0]
        if isinstance(search.refit, str):
            return search.refit
        raise ValueError(f"This search has several scores: choose metric= one of {', '.join(map(repr, known))}.")
    if metric not in known:
        raise ValueError(f"metric={metric!r} is no score of this search. It has: {', '.join(map(repr, known))}.")
    return metric


def _searched(names, wanted):
    """Return the name of the parameter that is called so, or ends so behind the names of steps."""
    if wanted in names:
        return wanted
    found = [name for name in names if name.endswith(f"__{wanted}")]
    if len(found) > 1:
        raise ValueError(
            f"Several parameters of this search end in {wanted!r}: give one of {', '.join(found)} in full."
        )
    return found[0] if found else None


def _depth_key(depth):
    """Return what depths are sorted and told apart by: their kind (1 is not 1.0), then their value."""
    if isinstance(depth, str) and depth == "all":
        return 3, "all"
    if isinstance(depth, Integral) and not isinstance(depth, bool):
        return (0 if depth >= 0 else 2), int(depth)
    if isinstance(depth, Real) and not isinstance(depth, bool):
        return 1, float(depth)
    raise ValueError(f"A freeze depth is a whole number, a share or 'all', but this search has {depth!r}.")


def _rate_key(rate):
    """Return what rates are sorted by: missing ones last."""
    if rate is None:
        return True, 0.0
    if isinstance(rate, Real) and not isinstance(rate, bool):
        return False, float(rate)
    raise ValueError(f"There is a line for each learning rate, which must be numbers, but this search has {rate!r}.")


def _depth_label(depth):
    return f"{depth:.4}" if isinstance(depth, float) else str(depth)


def _rate_label(rate):
    return "not searched" if rate is None else f"{rate:.3g}"
