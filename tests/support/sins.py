"""Estimators that break one contract each, and the checks that have to notice."""

import logging
import os
import random
import time
import warnings

import joblib
import numpy as np
import torch
from sklearn import get_config
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sktransfer.inputs.rows import read_rows
from support.toys import SeriesTransformer, Toy, ToyClassifier, ToyRegressor, ToyTransformer

# The name of a check, the class that it has to fail for, and the kind of rows that bring it to light.
SINS = []


def breaks(*names, kind="text"):
    """Register a class as breaking these contracts."""

    def register(cls):
        SINS.extend((name, cls, kind) for name in names)
        return cls

    return register


@breaks("check_unfitted")
class NotFittedUnnoticed(ToyTransformer):
    def transform(self, X):
        return np.zeros((len(X), 2))


@breaks("check_is_fitted_after_fit")
class FittedFromTheStart(ToyTransformer):
    def __sklearn_is_fitted__(self):
        return True


@breaks("check_fit_returns_self")
class FitReturnsNone(ToyTransformer):
    def fit(self, X, y=None):
        super().fit(X, y)


@breaks("check_no_attributes_set_in_init")
class LearnsInInit(ToyTransformer):
    def __init__(self, width=100):
        self.width = width
        self.weights = np.ones(width)


@breaks("check_fit_keeps_parameters")
class OverwritesParameter(ToyTransformer):
    def fit(self, X, y=None):
        super().fit(X, y)
        self.width = float(self.width)
        return self


@breaks("check_fit_keeps_parameters")
class TrainsTheModuleItWasGiven(ToyTransformer):
    def __init__(self, width=100, module=torch.nn.Linear(2, 2)):  # noqa: B008
        self.width = width
        self.module = module

    def fit(self, X, y=None):
        self.module.weight.data += 1
        return super().fit(X, y)


@breaks("check_fit_sets_no_public_attributes")
class PublicAttribute(ToyTransformer):
    def fit(self, X, y=None):
        self.vectors = 3
        return super().fit(X, y)


@breaks("check_methods_keep_state")
class RemembersTheLastRows(ToyTransformer):
    def transform(self, X):
        self.last_ = len(X)
        return super().transform(X)


@breaks("check_methods_keep_state")
class CountsInPlace(ToyTransformer):
    def fit(self, X, y=None):
        self.seen_ = []
        return super().fit(X, y)

    def transform(self, X):
        self.seen_.append(len(X))
        return super().transform(X)


@breaks("check_fit_idempotent")
class OtherAtEveryFit(ToyTransformer):
    def fit(self, X, y=None):
        super().fit(X, y)
        self.mean_ = self.mean_ + np.random.default_rng().random()
        return self


@breaks("check_second_fit_forgets_first", "check_fit_idempotent")
class GoesOnFromTheFirstFit(ToyTransformer):
    def fit(self, X, y=None):
        old = getattr(self, "mean_", 0)
        super().fit(X, y)
        self.mean_ = self.mean_ + old
        return self


@breaks("check_second_fit_forgets_first")
class KeepsOldColumnNames(ToyTransformer):
    def _check_columns(self, X, reset):
        names = getattr(self, "feature_names_in_", None)
        super()._check_columns(X, reset)
        if names is not None:
            self.feature_names_in_ = names


@breaks("check_set_params_takes_effect")
class StaleAfterSetParams(ToyTransformer):
    def fit(self, X, y=None):
        kept = getattr(self, "_kept_width", self.width)
        super().fit(X, y)
        self._kept_width = kept
        return self

    def transform(self, X):
        return super().transform(X)[:, : self._kept_width]


@breaks("check_clone_of_fitted")
class CloneStaysFitted(ToyTransformer):
    def __sklearn_clone__(self):
        copy = super().__sklearn_clone__()
        copy.__dict__.update(self.__dict__)
        return copy


@breaks("check_pickle", "check_memory_mapped_pickle")
class HalfPickled(ToyTransformer):
    def __getstate__(self):
        state = dict(self.__dict__)
        if "mean_" in state:
            state["mean_"] = state["mean_"] + 1
        return state


@breaks("check_memory_mapped_pickle")
class WritesToItsOwnArrays(ToyTransformer):
    def transform(self, X):
        self.mean_ += 0
        return super().transform(X)


@breaks("check_pickle_unfitted")
class NotPickledUnfitted(ToyTransformer):
    def __getstate__(self):
        if not hasattr(self, "mean_"):
            raise AssertionError("there is nothing to pickle yet")
        return dict(self.__dict__)


@breaks("check_documentation")
class Undocumented(ToyTransformer):
    """Says nothing of width."""


@breaks("check_html_repr")
class NoHtml(ToyTransformer):
    def _repr_html_(self):
        return "<div></div>"


@breaks("check_container")
class ReadsObjectArraysBackwards(ToyTransformer):
    def transform(self, X):
        return super().transform(X[::-1] if isinstance(X, np.ndarray) else X)


@breaks("check_list_unchanged", "check_global_state")
class SortsTheListItWasGiven(ToyTransformer):
    def transform(self, X):
        random.shuffle(X)
        return super().transform(X)


@breaks("check_input_unchanged")
class LowersTheArrayItWasGiven(ToyTransformer):
    def transform(self, X):
        if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1:
            X[:] = [text.lower() for text in X]
        return super().transform(X)


@breaks("check_readonly_input")
class NeedsToWriteToArrays(ToyTransformer):
    def fit(self, X, y=None):
        if isinstance(X, np.ndarray):
            X[0] = X[0]
        return super().fit(X, y)


@breaks("check_odd_rows")
class NanForEmptyTexts(ToyTransformer):
    def transform(self, X):
        vectors = super()._describe(X)
        with np.errstate(invalid="ignore"):
            return vectors / vectors.sum(axis=1, keepdims=True)


@breaks("check_one_row")
class SqueezesOneRow(ToyTransformer):
    def transform(self, X):
        return super().transform(X).squeeze()


@breaks("check_empty_input")
class EmptyIsFine(ToyTransformer):
    def transform(self, X):
        return super().transform(X) if len(X) else np.empty((0, self.width))


@breaks("check_missing_rows", "check_missing_in_frame", "check_wrong_rows")
class EverythingIsText(ToyTransformer):
    def _describe(self, X, reset=False):
        # Column of a frame or not: what is no str is made one.
        rows = X.iloc[:, 0] if hasattr(X, "iloc") and X.ndim == 2 else X
        rows = rows[rows.columns[0]] if hasattr(rows, "columns") else rows
        return super()._describe([str(row) for row in rows], reset)


@breaks("check_wrong_inputs")
class ReadsAnyKindLater(ToyTransformer):
    def transform(self, X):
        if isinstance(X, np.ndarray) and X.ndim == 4:
            return np.zeros((len(X), self.width))
        return super().transform(X)


@breaks("check_bare_row")
class ReadsOneTextLetterByLetter(ToyTransformer):
    def _describe(self, X, reset=False):
        return super()._describe(list(X) if isinstance(X, str) else X, reset)


@breaks("check_sparse_input")
class SparseIsRefusedByAccident(ToyTransformer):
    def _describe(self, X, reset=False):
        if hasattr(X, "nnz"):
            raise TypeError("len() of unsized object")
        return super()._describe(X, reset)


@breaks("check_several_columns")
class TakesTheFirstColumn(ToyTransformer):
    def _describe(self, X, reset=False):
        if isinstance(X, np.ndarray) and X.ndim == 2:
            X = X[:, 0]
        return super()._describe(X, reset)


@breaks("check_columns", "check_feature_names_out_of_frame")
class IgnoresColumnNames(ToyTransformer):
    def _check_columns(self, X, reset):
        pass


@breaks("check_row_order", "check_row_subsets")
class LongestFirst(ToyTransformer):
    def transform(self, X):
        order = np.argsort([-len(str(row)) for row in X], kind="stable")
        return super().transform(X)[order]


@breaks("check_row_subsets")
class ScalesByTheBatch(ToyTransformer):
    def transform(self, X):
        vectors = super().transform(X)
        return vectors / (1 + np.abs(vectors).max())


@breaks("check_repeated_calls")
class HandsOutItsCache(ToyTransformer):
    def fit(self, X, y=None):
        self._cache = {}
        return super().fit(X, y)

    def transform(self, X):
        key = joblib.hash(X)
        if key not in self._cache:
            self._cache[key] = super().transform(X)
        return self._cache[key]


@breaks("check_repeated_calls")
class HandsOutReadOnly(ToyTransformer):
    def transform(self, X):
        vectors = super().transform(X)
        vectors.flags.writeable = False
        return vectors


@breaks("check_threads")
class SharesABuffer(ToyTransformer):
    def fit(self, X, y=None):
        super().fit(X, y)
        self._buffer = np.zeros(self.width)
        return self

    def transform(self, X):
        vectors = super().transform(X)
        for row in vectors:
            self._buffer[:] = row
            time.sleep(1e-4)
            row[:] = self._buffer
        return vectors


@breaks("check_transform_output")
class GivesAList(ToyTransformer):
    def transform(self, X):
        return super().transform(X).tolist()

    def set_output(self, *, transform=None):
        return self


@breaks("check_fit_transform", "check_pipeline")
class AnotherFitTransform(ToyTransformer):
    def fit_transform(self, X, y=None):
        return self.fit(X, y).transform(X) + 1


@breaks("check_feature_names_out")
class SameNameForAll(ToyTransformer):
    def get_feature_names_out(self, input_features=None):
        check_is_fitted(self)
        return np.array(["x"] * self.width, dtype=object)


@breaks("check_set_output_default")
class FrameByDefault(ToyTransformer):
    def set_output(self, *, transform=None):
        self.mean_ = self.mean_ + (transform == "default")
        return self


@breaks("check_set_output")
class IgnoresSetOutput(ToyTransformer, auto_wrap_output_keys=None):
    def set_output(self, *, transform=None):
        return self


@breaks("check_column_transformer")
class LearnsFromTheFirstRowOfAFrame(ToyTransformer):
    def fit(self, X, y=None):
        if hasattr(X, "columns"):
            X = X.iloc[:1] if hasattr(X, "iloc") else X[:1]
        return super().fit(X, y)


@breaks("check_feature_union")
class DiffersFromItsClone(ToyTransformer):
    made = 0

    def fit(self, X, y=None):
        super().fit(X, y)
        type(self).made += 1
        self.mean_ = self.mean_ + type(self).made
        return self


@breaks("check_search")
class NeedsAList(ToyTransformer):
    def fit(self, X, y=None):
        if not isinstance(X, list):
            raise AssertionError("only lists")
        return super().fit(X, y)


@breaks("check_metadata_routing")
class OpenFit(ToyTransformer):
    def fit(self, X, y=None, **kwargs):
        return super().fit(X, y)


def _sinner(name, act):
    """Make a transformer whose fit does something to the process."""

    def fit(self, X, y=None):
        act()
        return ToyTransformer.fit(self, X, y)

    return breaks("check_global_state")(type(name, (ToyTransformer,), {"fit": fit, "__module__": __name__}))


UsesPythonsGenerator = _sinner("UsesPythonsGenerator", lambda: random.random())
UsesNumpysGenerator = _sinner("UsesNumpysGenerator", lambda: np.random.rand())
UsesTorchsGenerator = _sinner("UsesTorchsGenerator", lambda: torch.rand(1))
SetsThreads = _sinner("SetsThreads", lambda: torch.set_num_threads(torch.get_num_threads() + 1))
SwitchesGradientsOff = _sinner("SwitchesGradientsOff", lambda: torch.set_grad_enabled(False))
SetsDefaultType = _sinner("SetsDefaultType", lambda: torch.set_default_dtype(torch.float64))
SilencesALogger = _sinner("SilencesALogger", lambda: logging.getLogger("PIL").setLevel(logging.CRITICAL))
SilencesTheRoot = _sinner("SilencesTheRoot", lambda: logging.getLogger().setLevel(logging.CRITICAL))
FiltersWarnings = _sinner("FiltersWarnings", lambda: warnings.filterwarnings("ignore", "sins of an estimator"))
SetsTheEnvironment = _sinner("SetsTheEnvironment", lambda: os.environ.update(SKTRANSFER_SIN="1"))
SeedsEverything = _sinner("SeedsEverything", lambda: (random.seed(0), np.random.seed(0), torch.manual_seed(0)))


@breaks("check_array_api_dispatch")
class OtherUnderDispatch(ToyTransformer):
    def transform(self, X):
        return super().transform(X) + get_config()["array_api_dispatch"]


@breaks("check_no_deprecated_calls")
class CallsTheDeprecated(ToyTransformer):
    def transform(self, X):
        warnings.warn("this will be removed", FutureWarning, stacklevel=2)
        return super().transform(X)


@breaks("check_methods_take_y")
class FitWithoutY(ToyTransformer):
    def fit(self, X, labels=None):
        return super().fit(X)


@breaks("check_y_required")
class NoNeedOfY(ToyClassifier):
    def fit(self, X, y=None, sample_weight=None):
        return super().fit(X, [i % 2 for i in range(len(X))] if y is None else y, sample_weight)


@breaks("check_y_length")
class CutsToTheShorter(ToyClassifier):
    def fit(self, X, y, sample_weight=None):
        n = min(len(X), len(y))
        return super().fit(X[:n], y[:n], sample_weight)


@breaks("check_y_missing", "check_integer_target")
class RepairsY(ToyRegressor):
    def fit(self, X, y, sample_weight=None):
        y = np.asarray(y)
        return super().fit(X, np.nan_to_num(y.astype(float)) + (y.dtype.kind == "i"), sample_weight)


@breaks("check_y_containers")
class ReadsListsBackwards(ToyClassifier):
    def fit(self, X, y, sample_weight=None):
        return super().fit(X, y[::-1] if isinstance(y, list) else y, sample_weight)


@breaks("check_y_unchanged")
class WritesToY(ToyRegressor):
    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        if isinstance(y, np.ndarray):
            y -= y.mean()
        return self


@breaks("check_y_column")
class RavelsSilently(ToyClassifier):
    def fit(self, X, y, sample_weight=None):
        return super().fit(X, np.ravel(y), sample_weight)


@breaks("check_several_targets")
class TakesTheFirstTarget(ToyRegressor):
    def fit(self, X, y, sample_weight=None):
        y = np.asarray(y)
        return super().fit(X, y[:, 0] if y.ndim == 2 else y, sample_weight)


@breaks("check_n_iter")
class CountsNoIterations(ToyClassifier):
    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        del self.n_iter_
        return self


@breaks("check_score")
class PercentScore(ToyRegressor):
    def score(self, X, y, sample_weight=None):
        return 100 * super().score(X, y, sample_weight)


@breaks("check_classes")
class PredictsPlaces(ToyClassifier):
    def predict(self, X):
        return np.searchsorted(self.classes_, super().predict(X))


@breaks("check_classifier_learns")
class PredictsTheFirst(ToyClassifier):
    def predict(self, X):
        return np.full(len(super().predict(X)), self.classes_[0])


@breaks("check_predict_proba")
class SumsToTwo(ToyClassifier):
    def predict_proba(self, X):
        return 2 * super().predict_proba(X)


@breaks("check_predict_proba")
class MostProbableIsAnother(ToyClassifier):
    def predict_proba(self, X):
        return super().predict_proba(X)[:, ::-1]


@breaks("check_decision_function")
class UpsideDown(ToyClassifier):
    def decision_function(self, X):
        return -super().decision_function(X)


@breaks("check_decision_function")
class TwoColumnsForTwoClasses(ToyClassifier):
    def decision_function(self, X):
        scores = super().decision_function(X)
        return np.column_stack([-scores, scores]) if scores.ndim == 1 else scores


@breaks("check_one_class")
class SpeechlessAtOneClass(ToyClassifier):
    def fit(self, X, y, sample_weight=None):
        try:
            return super().fit(X, y, sample_weight)
        except ValueError as error:
            raise ValueError("it did not work") from error


@breaks("check_continuous_target")
class ClassifiesAnything(ToyClassifier):
    def fit(self, X, y, sample_weight=None):
        y = np.asarray(y)
        return super().fit(X, (y > 0).astype(int) if y.dtype.kind == "f" else y, sample_weight)


@breaks("check_class_weight")
class IgnoresClassWeight(ToyClassifier):
    def fit(self, X, y, sample_weight=None):
        given, self.class_weight = self.class_weight, None
        super().fit(X, y, sample_weight)
        self.class_weight = given
        return self


@breaks("check_regressor_learns")
class PredictsTheMean(ToyRegressor):
    def predict(self, X):
        return np.full(len(X), np.mean(super().predict(X)))


@breaks("check_no_decision_function")
class RegressorWithProbabilities(ToyRegressor):
    def predict_proba(self, X):
        return self.predict(X)


@breaks("check_weights_of_one")
class OnesAreSpecial(ToyRegressor):
    def fit(self, X, y, sample_weight=None):
        return super().fit(X, y if sample_weight is None else np.asarray(y) + 1, sample_weight)


@breaks("check_weight_containers")
class ForgetsListsOfWeights(ToyRegressor):
    def fit(self, X, y, sample_weight=None):
        return super().fit(X, y, None if isinstance(sample_weight, list) else sample_weight)


@breaks("check_weights_unchanged")
class ScalesWeightsInPlace(ToyRegressor):
    def fit(self, X, y, sample_weight=None):
        if isinstance(sample_weight, np.ndarray):
            sample_weight /= sample_weight.sum()
        return super().fit(X, y, sample_weight)


@breaks("check_weight_shape", "check_weights_of_zero", "check_weights_equal_copies")
class IgnoresWeights(ToyRegressor):
    def fit(self, X, y, sample_weight=None):
        return super().fit(X, y)


@breaks("check_one_class_left_by_weights")
class PredictsClassesWithoutWeight(ToyClassifier):
    def fit(self, X, y, sample_weight=None):
        return super().fit(X, y)


# What scikit-learn's own checks are here to notice.


@breaks("check_estimator_cloneable", "check_set_params")
class CopiesItsParameter(ToyTransformer):
    def __init__(self, width=(100,)):
        self.width = list(width)


@breaks("check_estimator_repr")
class NoRepr(ToyTransformer):
    def __repr__(self):
        raise RuntimeError("no words")


@breaks("check_do_not_raise_errors_in_init_or_set_params")
class ValidatesInInit(ToyTransformer):
    def __init__(self, width=100):
        if not isinstance(width, int):
            raise TypeError("width must be an int")
        self.width = width


@breaks("check_param_validation")
class ValidatesNothing(ToyTransformer):
    def _validate_params(self):
        pass


@breaks("check_estimator_tags_renamed")
class OldTags(ToyTransformer):
    def _more_tags(self):
        return {}


@breaks("check_valid_tag_types")
class TagOfAnotherType(ToyTransformer):
    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.no_validation = "no"
        return tags


@breaks("check_mixin_order")
class MixinBehindTheBase(Toy, TransformerMixin):
    def __init__(self, width=100):
        self.width = width

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return self._describe(X)


@breaks("check_parameters_default_constructible")
class MutableDefault(ToyTransformer):
    def __init__(self, width=[100]):  # noqa: B006
        self.width = width


@breaks("check_get_params_invariance")
class ShallowHasMore(ToyTransformer):
    def get_params(self, deep=True):
        return {**super().get_params(deep), **({} if deep else {"only_shallow": 1})}

    def __sklearn_clone__(self):
        return type(self)(self.width)


# Sins that only images bring to light.


@breaks("check_container", kind="image")
class ReadsMemoryInItsOrder(ToyTransformer):
    def _describe(self, X, reset=False):
        if isinstance(X, np.ndarray) and X.ndim == 4:
            X = np.frombuffer(X.tobytes("A"), X.dtype).reshape(X.shape)
        return super()._describe(X, reset)


@breaks("check_wrong_inputs", kind="image")
class RepairsPixels(ToyTransformer):
    def _describe(self, X, reset=False):
        if isinstance(X, np.ndarray) and X.dtype.kind == "f":
            X = np.nan_to_num(X, posinf=0)
        return super()._describe(X, reset)


@breaks("check_readonly_input", kind="image")
class ScalesPixelsInPlace(ToyTransformer):
    def _describe(self, X, reset=False):
        if isinstance(X, np.ndarray):
            X //= 1
        return super()._describe(X, reset)


@breaks("check_odd_rows", kind="image")
class ReadsColourOnly(ToyTransformer):
    def _describe(self, X, reset=False):
        for row in X:
            if getattr(row, "mode", "RGB") != "RGB":
                raise ValueError("not RGB")
        return super()._describe(X, reset)


@breaks("check_row_subsets", kind="series")
class PadsWithTheLastValue(SeriesTransformer):
    def _describe(self, X, reset=False):
        rows = [np.atleast_2d(row) for row in X]
        if all(row.ndim == 2 and row.dtype.kind in "biuf" and row.size for row in rows):
            length = max(row.shape[1] for row in rows)
            X = [np.pad(row.astype(float), ((0, 0), (0, length - row.shape[1])), mode="edge") for row in rows]
        return super()._describe(X, reset)


@breaks("check_odd_rows", "check_list_unchanged", kind="series")
class ReadsOneLengthOnly(SeriesTransformer):
    def _describe(self, X, reset=False):
        rows = read_rows(X, "series").values
        if len({row.shape for row in rows}) > 1:
            raise ValueError("All series must have one length.")
        return super()._describe(X, reset)


@breaks("check_wrong_rows", "check_wrong_inputs", kind="series")
class FillsGaps(SeriesTransformer):
    def _describe(self, X, reset=False):
        try:
            X = [np.nan_to_num(np.asarray(row, dtype=float), posinf=0, neginf=0) for row in X]
        except (TypeError, ValueError):
            pass
        return super()._describe(X, reset)


@breaks("check_wrong_rows", "check_wrong_inputs", kind="series")
class TakesTheFirstChannels(SeriesTransformer):
    def _describe(self, X, reset=False):
        if isinstance(X, np.ndarray) and X.ndim == 3:
            X = X[:, :2]
        elif isinstance(X, list):
            X = [row[:2] if isinstance(row, np.ndarray) and row.ndim == 2 else row for row in X]
        return super()._describe(X, reset)


@breaks("check_container", kind="series")
class ReadsTimeFirst(SeriesTransformer):
    def _describe(self, X, reset=False):
        if isinstance(X, np.ndarray) and X.ndim == 3 and not X.flags.c_contiguous:
            X = np.ascontiguousarray(X[:, :, ::-1])
        return super()._describe(X, reset)


@breaks("check_readonly_input", "check_input_unchanged", kind="series")
class CentresInPlace(SeriesTransformer):
    def _describe(self, X, reset=False):
        if isinstance(X, np.ndarray) and X.ndim == 3 and X.dtype.kind == "f":
            X -= 1
        return super()._describe(X, reset)


@breaks("check_several_columns", kind="series")
class TakesTheFirstColumnOfSeries(SeriesTransformer):
    def _describe(self, X, reset=False):
        if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 2:
            X = X[:, 0]
        return super()._describe(X, reset)
