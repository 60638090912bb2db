"""How displays reach what a fitted estimator recorded."""

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted


def innermost(estimator):
    """Return the fitted estimator that did the training.

    Parameters
    ----------
    estimator : estimator
        Any fitted estimator. Of a search the best estimator is taken, of a pipeline the last step.

    Returns
    -------
    estimator
        What is neither a search nor a pipeline.

    Raises
    ------
    NotFittedError
        If it was not fitted.
    ValueError
        If it is a search that refitted no estimator.
    """
    while True:
        check_is_fitted(estimator)
        if isinstance(estimator, Pipeline):
            estimator = estimator[-1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif hasattr(estimator, "cv_results_"):
            raise ValueError(
                f"This {type(estimator).__name__} kept no fitted estimator, because it has refit=False. "
                "Set refit=True, or give an estimator that you fitted."
            )
        else:
            return estimator
