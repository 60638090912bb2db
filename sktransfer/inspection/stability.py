"""What training did to each stage."""

import numpy as np

from sktransfer.inspection.drawing import axes_for, label_epochs, ordered_colormap
from sktransfer.inspection.fitted import innermost

_LABELS = {
    "cka": "similarity to the start (linear CKA)",
    "weight_change": "relative change of the weights",
    "gradient_norm": "norm of the gradient (root mean square)",
    "forgetting": "drop of the score on the source",
}
_MOST_LINES = 10
_MOST_TICKS = 24


class StabilityDisplay:
    """What training did to each stage, by epoch.

    Use :meth:`from_estimator` to create it from a fitted estimator. All parameters are stored as attributes.

    Parameters
    ----------
    stages : sequence of str
        Names of the stages, in forward order.
    epochs : array-like of shape (n_records,)
        The epochs that were recorded; 0 is the start.
    weight_change : array-like of shape (n_records, n_stages)
        Distance of the weights from the start, as a share of their norm at the start.
    gradient_norm : array-like of shape (n_records, n_stages)
        Root mean square of the norm of the gradient over the steps since the last record.
    cka : array-like of shape (n_records, n_stages)
        Linear CKA of the representation of the probe rows to the one at the start.
    forgetting : array-like of shape (n_records,) or None, default=None
        Score on the source at the start minus the score now.

    Attributes
    ----------
    lines_ : list of matplotlib Artist or None
        The lines that were drawn; None for a heat map.
    heatmap_ : matplotlib Artist or None
        The heat map that was drawn; None for lines.
    ax_ : matplotlib Axes
        Axes with the drawing.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    LearningCurveDisplay : Losses by epoch.
    sktransfer.metrics.linear_cka : The similarity of two representations.

    Examples
    --------
    >>> from sktransfer.inspection import StabilityDisplay
    >>> display = StabilityDisplay(
    ...     stages=["embeddings", "layer.0", "layer.1"],
    ...     epochs=[0, 1, 2],
    ...     weight_change=[[0, 0, 0], [0, 0.01, 0.02], [0, 0.02, 0.03]],
    ...     gradient_norm=[[0, float("nan"), float("nan")], [0, 1.2, 2.0], [0, 0.8, 1.1]],
    ...     cka=[[1, 1, 1], [1, 0.98, 0.93], [1, 0.97, 0.9]],
    ... )
    >>> display.plot(quantity="weight_change").ax_.get_ylabel()
    'relative change of the weights'
    """

    def __init__(self, *, stages, epochs, weight_change, gradient_norm, cka, forgetting=None):
        self.stages = stages
        self.epochs = epochs
        self.weight_change = weight_change
        self.gradient_norm = gradient_norm
        self.cka = cka
        self.forgetting = forgetting

    def plot(self, ax=None, *, quantity="cka", kind="auto", line_kw=None):
        """Draw one quantity.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; a new figure is made if None.
        quantity : {"cka", "weight_change", "gradient_norm", "forgetting"}, default="cka"
            What to draw. Norms that span a factor of 100 or more get a logarithmic axis.
        kind : {"auto", "lines", "heatmap"}, default="auto"
            A line for each stage, dark for the first and light for the last, or a row of a heat map for each
            stage, with the last on top. "auto" draws lines for up to ten stages. Forgetting is always a line.
        line_kw : dict, default=None
            Keyword arguments for matplotlib's ``plot``, where lines are drawn.

        Returns
        -------
        StabilityDisplay
            The display itself.

        Raises
        ------
        ValueError
            If the quantity or the kind is unknown, or forgetting was not recorded.
        ImportError
            If matplotlib is not installed.
        """
        self._check(quantity, kind)
        ax = axes_for(self, ax)
        values = np.asarray(getattr(self, quantity), dtype=np.float64)
        if kind == "auto":
            kind = "lines" if len(self.stages) <= _MOST_LINES else "heatmap"
        self.lines_ = self.heatmap_ = None
        if quantity == "forgetting":
            self.lines_ = self._draw_forgetting(ax, values, line_kw or {})
        elif kind == "lines":
            self.lines_ = self._draw_lines(ax, values, quantity, line_kw or {})
        else:
            self.heatmap_ = self._draw_heatmap(ax, values, quantity)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def from_estimator(cls, estimator, *, quantity="cka", kind="auto", ax=None, line_kw=None):
        """Draw the stability record of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            An estimator that was fitted with a ``stability_every``, such as
            :class:`~sktransfer.FineTunedClassifier`; a fitted pipeline that ends with one; or a search that
            refitted one.
        quantity : {"cka", "weight_change", "gradient_norm", "forgetting"}, default="cka"
            What to draw.
        kind : {"auto", "lines", "heatmap"}, default="auto"
            See :meth:`plot`.
        ax : matplotlib Axes, default=None
            Axes to draw on; a new figure is made if None.
        line_kw : dict, default=None
            Keyword arguments for matplotlib's ``plot``, where lines are drawn.

        Returns
        -------
        StabilityDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If the estimator was not fitted.
        ValueError
            If it has no stability record, the quantity or the kind is unknown, or forgetting was not recorded.
        ImportError
            If matplotlib is not installed.
        """
        estimator = innermost(estimator)
        record = getattr(estimator, "stability_", None)
        if record is None:
            raise ValueError(
                f"This {type(estimator).__name__} was fitted without a stability record. Set stability_every=1 on a "
                "FineTunedClassifier or FineTunedRegressor (or n, to record each n-th epoch), and fit it again. Where nothing "
                "is trained (max_epochs=0, or a probe with freeze_depth='all') there is nothing to record."
            )
        display = cls(
            stages=record.stages,
            epochs=record.epochs,
            weight_change=record.weight_change,
            gradient_norm=record.gradient_norm,
            cka=record.cka,
            forgetting=record.forgetting,
        )
        return display.plot(ax, quantity=quantity, kind=kind, line_kw=line_kw)

    def _check(self, quantity, kind):
        if quantity not in _LABELS:
            raise ValueError(f"quantity must be one of {', '.join(map(repr, _LABELS))}, but is {quantity!r}.")
        if kind not in ("auto", "lines", "heatmap"):
            raise ValueError(f"kind must be 'auto', 'lines' or 'heatmap', but is {kind!r}.")
        if quantity == "forgetting" and self.forgetting is None:
            raise ValueError(
                "Forgetting was not recorded, because the estimator was fitted without source rows to score."
            )

    def _draw_forgetting(self, ax, values, line_kw):
        ax.axhline(0, color="grey", linewidth=0.8, zorder=0)
        ax.set_ylabel(_LABELS["forgetting"])
        label_epochs(ax)
        return ax.plot(self.epochs, values, **({"marker": "o", "markersize": 4} | line_kw))

    def _draw_lines(self, ax, values, quantity, line_kw):
        colors = ordered_colormap()(np.linspace(0, 1, len(self.stages)))
        lines = []
        for stage, color, of_stage in zip(self.stages, colors, values.T, strict=True):
            style = {"color": color, "label": stage, "marker": "o", "markersize": 4} | line_kw
            lines += ax.plot(self.epochs, of_stage, **style)
        if _wide_span(quantity, values):
            # Frozen stages have 0, which a purely logarithmic axis would not show.
            ax.set_yscale("symlog", linthresh=_smallest_positive(values))
        ax.set_ylabel(_LABELS[quantity])
        label_epochs(ax)
        # As the network is drawn in a heat map: the last stage on top.
        ax.legend(lines[::-1], self.stages[::-1], title="stage", fontsize="small")
        return lines

    def _draw_heatmap(self, ax, values, quantity):
        style = {"norm": "log"} if _wide_span(quantity, values) else {}
        shown = np.where(values > 0, values, np.nan) if style else values
        image = ax.imshow(np.ma.masked_invalid(shown.T), aspect="auto", origin="lower", cmap="viridis", **style)
        for axis, names in ((ax.xaxis, self.epochs), (ax.yaxis, self.stages)):
            places = np.arange(0, len(names), 1 + (len(names) - 1) // _MOST_TICKS)
            axis.set_ticks(places, [str(names[place]) for place in places])
        ax.set_xlabel("epoch")
        ax.set_ylabel("stage")
        ax.figure.colorbar(image, ax=ax, label=_LABELS[quantity])
        return image


def _smallest_positive(values):
    return values[(values > 0) & np.isfinite(values)].min()


def _wide_span(quantity, values):
    """Whether norms differ so much that the small ones would vanish on a linear axis."""
    norms = values[(values > 0) & np.isfinite(values)]
    return quantity in ("weight_change", "gradient_norm") and norms.size > 0 and norms.max() >= 100 * norms.min()
