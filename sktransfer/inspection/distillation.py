"""What a student costs, and what it knows, next to its teacher."""

from sktransfer.inspection.drawing import axes_for
from sktransfer.inspection.fitted import innermost

_COSTS = {"bytes": "size in bytes", "seconds": "seconds for 1,000 predictions"}


class DistillationDisplay:
    """Size or time against score, for teacher, student, and the student without a teacher.

    Use :meth:`from_estimator` to create it from a fitted estimator. All parameters are stored as attributes.

    Parameters
    ----------
    names : sequence of str
        What the points are called.
    costs : array-like of shape (n_points,)
        Bytes, or seconds for 1,000 predictions.
    scores : array-like of shape (n_points,)
        Their scores.
    cost : {"bytes", "seconds"}, default="bytes"
        What the costs are.
    metric : str, default="accuracy"
        What the scores are.

    Attributes
    ----------
    points_ : list of matplotlib Artist
        The points that were drawn.
    ax_ : matplotlib Axes
        Axes with the points.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    sktransfer.DistilledClassifier : Makes the report, with ``report_fraction``.

    Examples
    --------
    >>> from sktransfer.inspection import DistillationDisplay
    >>> display = DistillationDisplay(names=["teacher", "student"], costs=[2e6, 5e3], scores=[0.96, 0.93])
    >>> display.plot().ax_.get_ylabel()
    'accuracy'
    """

    def __init__(self, *, names, costs, scores, cost="bytes", metric="accuracy"):
        self.names = names
        self.costs = costs
        self.scores = scores
        self.cost = cost
        self.metric = metric

    def plot(self, ax=None, *, scatter_kw=None):
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; a new figure is made if None.
        scatter_kw : dict, default=None
            Keyword arguments for matplotlib's ``scatter``.

        Returns
        -------
        DistillationDisplay
            The display itself.

        Raises
        ------
        ValueError
            If `cost` is neither of the two.
        ImportError
            If matplotlib is not installed.
        """
        if self.cost not in _COSTS:
            raise ValueError(f"cost must be one of {', '.join(map(repr, _COSTS))}. Got {self.cost!r}.")
        ax = axes_for(self, ax)
        points = zip(self.names, self.costs, self.scores, strict=True)
        self.points_ = [ax.scatter([x], [y], **({"label": name} | (scatter_kw or {}))) for name, x, y in points]
        ax.set_xscale("log")
        ax.set_xlabel(_COSTS[self.cost])
        ax.set_ylabel(self.metric)
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def from_estimator(cls, estimator, *, cost="bytes", ax=None, scatter_kw=None):
        """Draw the report of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            A fitted :class:`~sktransfer.DistilledClassifier` or :class:`~sktransfer.DistilledRegressor` with a
            report; a fitted pipeline that ends with one; or a search that refitted one.
        cost : {"bytes", "seconds"}, default="bytes"
            What the scores are drawn against.
        ax : matplotlib Axes, default=None
            Axes to draw on; a new figure is made if None.
        scatter_kw : dict, default=None
            Keyword arguments for matplotlib's ``scatter``.

        Returns
        -------
        DistillationDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If the estimator was not fitted.
        ValueError
            If it made no report.
        ImportError
            If matplotlib is not installed.
        """
        estimator = innermost(estimator)
        report = getattr(estimator, "distillation_report_", None)
        if report is None:
            raise ValueError(
                f"This {type(estimator).__name__} made no report. Fit a DistilledClassifier or DistilledRegressor with "
                "report_fraction=0.2, say."
            )
        student = getattr(report, f"student_{cost}", None)
        display = cls(
            names=["teacher", "student", "student alone"],
            costs=[getattr(report, f"teacher_{cost}", None), student, student],
            scores=[report.teacher_score, report.student_score, report.alone_score],
            cost=cost,
            metric=report.metric,
        )
        return display.plot(ax, scatter_kw=scatter_kw)
