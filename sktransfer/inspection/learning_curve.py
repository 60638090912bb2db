"""Losses by epoch."""

import math

import numpy as np

from sktransfer.inspection.drawing import axes_for, label_epochs
from sktransfer.inspection.fitted import innermost


class LearningCurveDisplay:
    """Training and validation loss by epoch, with the epoch whose weights were kept.

    Use :meth:`from_estimator` to create it from a fitted estimator. All parameters are stored as attributes.

    Parameters
    ----------
    epochs : array-like of shape (n_epochs,)
        Number of epochs done; 0 is the start.
    train_loss : array-like of shape (n_epochs,)
        Mean loss over the training rows, NaN where there is none, as at the start.
    valid_loss : array-like of shape (n_epochs,) or None, default=None
        Mean loss over the validation rows; None without validation rows.
    kept_epoch : int or None, default=None
        The epoch whose weights were kept. Not marked if None.

    Attributes
    ----------
    lines_ : list of matplotlib Artist
        The curves that were drawn.
    kept_line_ : matplotlib Artist or None
        The mark at the kept epoch.
    ax_ : matplotlib Axes
        Axes with the curves.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    StabilityDisplay : What training did to each stage.
    sklearn.model_selection.LearningCurveDisplay : Scores by number of training rows, which is something else.

    Examples
    --------
    >>> from sktransfer.inspection import LearningCurveDisplay
    >>> display = LearningCurveDisplay(
    ...     epochs=[0, 1, 2, 3],
    ...     train_loss=[float("nan"), 0.9, 0.5, 0.3],
    ...     valid_loss=[1.1, 0.8, 0.7, 0.75],
    ...     kept_epoch=2,
    ... )
    >>> display.plot().kept_line_.get_label()
    'kept: epoch 2'
    """

    def __init__(self, *, epochs, train_loss, valid_loss=None, kept_epoch=None):
        self.epochs = epochs
        self.train_loss = train_loss
        self.valid_loss = valid_loss
        self.kept_epoch = kept_epoch

    def plot(self, ax=None, *, line_kw=None):
        """Draw the losses.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; a new figure is made if None.
        line_kw : dict, default=None
            Keyword arguments for the two calls of matplotlib's ``plot``.

        Returns
        -------
        LearningCurveDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = axes_for(self, ax)
        curves = [("training", self.train_loss)]
        if self.valid_loss is not None:
            curves.append(("validation", self.valid_loss))
        style = {"marker": "o", "markersize": 4} | (line_kw or {})
        self.lines_ = [ax.plot(self.epochs, losses, **({"label": name} | style))[0] for name, losses in curves]
        self.kept_line_ = None
        if self.kept_epoch is not None:
            self.kept_line_ = ax.axvline(
                self.kept_epoch, color="grey", linestyle="--", zorder=0, label=f"kept: epoch {self.kept_epoch}"
            )
        label_epochs(ax)
        ax.set_ylabel("loss")
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, line_kw=None):
        """Draw the losses that an estimator recorded when it was fitted.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with a ``history_``, such as
            :class:`~sktransfer.FineTunedClassifier`; a fitted pipeline that ends with one; or a search that
            refitted one.
        ax : matplotlib Axes, default=None
            Axes to draw on; a new figure is made if None.
        line_kw : dict, default=None
            Keyword arguments for the two calls of matplotlib's ``plot``.

        Returns
        -------
        LearningCurveDisplay
            The display, drawn. The kept epoch is the last that the history calls the best, or the last of all
            where none is.

        Raises
        ------
        NotFittedError
            If the estimator was not fitted.
        ValueError
            If it has no history, or an empty one.
        ImportError
            If matplotlib is not installed.
        """
        estimator = innermost(estimator)
        history = getattr(estimator, "history_", None)
        if not history:
            raise ValueError(
                f"This {type(estimator).__name__} has no epochs in history_. Give a fitted estimator that trains by "
                "epochs, such as FineTunedClassifier or FineTunedRegressor."
            )
        best = [row["epoch"] for row in history if row["best"]]
        valid_loss = _numbers(history, "valid_loss")
        display = cls(
            epochs=np.array([row["epoch"] for row in history]),
            train_loss=_numbers(history, "train_loss"),
            valid_loss=None if np.isnan(valid_loss).all() else valid_loss,
            kept_epoch=best[-1] if best else history[-1]["epoch"],
        )
        return display.plot(ax, line_kw=line_kw)


def _numbers(history, key):
    return np.array([math.nan if row[key] is None else row[key] for row in history], dtype=np.float64)
