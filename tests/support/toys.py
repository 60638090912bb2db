"""Small honest estimators over texts, images and series, without a network: what the contract checks are tried on."""

import zlib
from numbers import Integral, Real

import narwhals.stable.v2 as nw
import numpy as np
from PIL import Image
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from sktransfer.inputs.rows import read_rows


def describe_text(text, width):
    """Count words by hash."""
    counts = np.zeros(width)
    for word in text.lower().split():
        counts[zlib.crc32(word.encode("utf-8", "replace")) % width] += 1
    return counts


def describe_image(image, width):
    """Grey values and how they change, from a few pixels."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[2:] == (1,) else image))
    elif not isinstance(image, Image.Image):
        image = Image.open(image)
    grey = np.asarray(image.convert("RGB").convert("L").resize((24, 24)), dtype=float) / 255
    down, across = np.abs(np.diff(grey, axis=0)), np.abs(np.diff(grey, axis=1))
    return np.resize([*down.mean(axis=0), *across.mean(axis=1), down.std(), across.std()], width)


def describe_series(series, width):
    """Level, spread and rhythm of each channel."""
    spectrum = [np.abs(np.fft.rfft(channel - channel.mean(), 32)) / len(channel) for channel in series.astype(float)]
    return np.resize([*series.mean(axis=1), *series.std(axis=1), *np.concatenate(spectrum)], width)


class Toy(BaseEstimator):
    """Reads rows; what it makes of them is up to the subclass."""

    reads = None  # the kind of rows, where X doesn't tell
    _parameter_constraints: dict = {"width": [Interval(Integral, 1, None, closed="left")]}

    def _describe(self, X, reset=False):
        if reset:
            self._validate_params()
        else:
            check_is_fitted(self)
        rows = read_rows(X, self.reads if reset else self.kind_)
        if rows.kind == "series":
            channels = len(rows.values[0]) if reset else self._channels
            if any(len(series) != channels for series in rows.values):
                raise ValueError(f"All series must have {channels} channels.")
            self._channels = channels
        self._check_columns(X, reset)
        if reset:
            self.kind_ = rows.kind
        describe = {"text": describe_text, "image": describe_image, "series": describe_series}[rows.kind]
        return np.stack([describe(row, self.width) for row in rows.values])

    def _check_columns(self, X, reset):
        for name in ("n_features_in_", "feature_names_in_") if reset else ():
            self.__dict__.pop(name, None)
        if isinstance(nw.from_native(X, eager_only=True, pass_through=True), nw.DataFrame):
            validate_data(self, X, reset=reset, skip_check_array=True)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        return tags


class ToyTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Toy):
    """Describe rows by a few numbers, centred.

    Parameters
    ----------
    width : int, default=100
        Number of columns.

    Attributes
    ----------
    kind_ : str
        Kind of row.
    mean_ : ndarray
        Subtracted from the numbers.
    """

    def __init__(self, width=100):
        self.width = width

    def fit(self, X, y=None):
        self.mean_ = self._describe(X, reset=True).mean(axis=0)
        self._n_features_out = self.width
        return self

    def transform(self, X):
        return self._describe(X) - self.mean_


class Predictor(Toy):
    """What classifier and regressor share."""

    def _check_y(self, X, y):
        if y is None:
            raise ValueError("This toy requires y to be passed, but the target y is None.")
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_consistent_length(X, y)
        return y

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


class ToyClassifier(ClassifierMixin, Predictor):
    """Logistic regression on the description of rows.

    Parameters
    ----------
    width : int, default=100
        Number of columns.
    C : float, default=10
        As in LogisticRegression.
    class_weight : dict, "balanced" or None, default=None
        As in LogisticRegression.
    max_iter : int, default=500
        As in LogisticRegression.

    Attributes
    ----------
    kind_ : str
        Kind of row.
    classes_ : ndarray
        Labels.
    model_ : LogisticRegression
        The model.
    n_iter_ : ndarray
        Iterations.
    """

    _parameter_constraints = {
        **Toy._parameter_constraints,
        "C": [Interval(Real, 0, None, closed="neither")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, width=100, C=10.0, class_weight=None, max_iter=500):
        self.width = width
        self.C = C
        self.class_weight = class_weight
        self.max_iter = max_iter

    def fit(self, X, y, sample_weight=None):
        vectors = self._describe(X, reset=True)
        y = self._check_y(vectors, y)
        check_classification_targets(y)
        # A solver that needs few iterations: the checks fit hundreds of times.
        self.model_ = LogisticRegression(
            C=self.C, class_weight=self.class_weight, max_iter=self.max_iter, solver="newton-cholesky"
        )
        self.model_.fit(vectors, y, sample_weight=sample_weight)
        self.classes_, self.n_iter_ = self.model_.classes_, self.model_.n_iter_
        return self

    def predict(self, X):
        vectors = self._describe(X)
        return self.model_.predict(vectors)

    def predict_proba(self, X):
        vectors = self._describe(X)
        return self.model_.predict_proba(vectors)

    def predict_log_proba(self, X):
        return np.log(self.predict_proba(X))

    def decision_function(self, X):
        vectors = self._describe(X)
        return self.model_.decision_function(vectors)


class ToyRegressor(RegressorMixin, Predictor):
    """Ridge regression on the description of rows.

    Parameters
    ----------
    width : int, default=100
        Number of columns.
    alpha : float, default=0.1
        As in Ridge.

    Attributes
    ----------
    kind_ : str
        Kind of row.
    model_ : Ridge
        The model.
    """

    _parameter_constraints = {**Toy._parameter_constraints, "alpha": [Interval(Real, 0, None, closed="neither")]}

    def __init__(self, width=100, alpha=0.1):
        self.width = width
        self.alpha = alpha

    def fit(self, X, y, sample_weight=None):
        vectors = self._describe(X, reset=True)
        y = self._check_y(vectors, y)
        self.model_ = Ridge(alpha=self.alpha).fit(vectors, y.astype(float), sample_weight=sample_weight)
        return self

    def predict(self, X):
        vectors = self._describe(X)
        return self.model_.predict(vectors)


class SeriesTransformer(ToyTransformer):
    __doc__ = ToyTransformer.__doc__
    reads = "series"


class SeriesClassifier(ToyClassifier):
    __doc__ = ToyClassifier.__doc__
    reads = "series"


class SeriesRegressor(ToyRegressor):
    __doc__ = ToyRegressor.__doc__
    reads = "series"
