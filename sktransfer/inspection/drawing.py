"""What the displays share in drawing; matplotlib is imported when something is drawn."""

import numpy as np

from sktransfer._optional import import_optional


def axes_for(display, ax):
    """Return the axes to draw on, new ones where none are given.

    Parameters
    ----------
    display : object
        The display that draws, named where matplotlib is missing.
    ax : matplotlib Axes or None
        The caller's axes.

    Returns
    -------
    matplotlib Axes
        `ax` itself, or the axes of a new figure of pyplot.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    pyplot = import_optional("matplotlib.pyplot", extra="plot", purpose=f"{type(display).__name__}.plot")
    return pyplot.subplots(layout="constrained")[1] if ax is None else ax


def label_epochs(ax):
    """Make the horizontal axis one of whole epochs.

    Parameters
    ----------
    ax : matplotlib Axes
        The axes that were drawn on.
    """
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def ordered_colormap():
    """Return a colour map from dark to light that stays readable on white.

    Returns
    -------
    matplotlib Colormap
        Viridis without its pale end.
    """
    import matplotlib

    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, 256))
    return matplotlib.colors.ListedColormap(colors)
