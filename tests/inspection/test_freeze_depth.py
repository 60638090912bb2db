import numpy as np
import pytest
from scipy.stats import loguniform, uniform
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer.inspection import FreezeDepthDisplay

N_STAGES = 4


class DepthClassifier(SGDClassifier):
    """A linear classifier on the features that `freeze_depth` leaves it, with the meaning of the depth."""

    def __init__(self, freeze_depth=0, learning_rate=0.01, alpha=1e-4):
        super().__init__(alpha=alpha, random_state=0, max_iter=20, tol=None)
        self.freeze_depth = freeze_depth
        self.learning_rate = learning_rate

    def _open(self):
        depth = self.freeze_depth
        if depth == "all":
            return slice(0, 1)
        first = int(depth * N_STAGES) if isinstance(depth, float) else depth % N_STAGES
        return slice(0, N_STAGES + 1 - first)

    def fit(self, X, y):
        if self.learning_rate > 100:
            raise ValueError("diverged")
        self._model = SGDClassifier(
            alpha=self.alpha,
            eta0=self.learning_rate,
            learning_rate="constant",
            random_state=0,
            max_iter=20,
            tol=None,
        ).fit(X[:, self._open()], y)
        self.classes_ = self._model.classes_
        return self

    def predict(self, X):
        return self._model.predict(X[:, self._open()])


@pytest.fixture(scope="module")
def rows():
    return make_classification(120, 6, n_informative=5, n_redundant=0, random_state=0)


def by_params(search, **wanted):
    """Mean and deviation of the candidates with these parameters, best mean first."""
    results = search.cv_results_
    found = [
        (mean, deviation)
        for params, mean, deviation in zip(
            results["params"], results["mean_test_score"], results["std_test_score"], strict=True
        )
        if all(type(params[name]) is type(value) and params[name] == value for name, value in wanted.items())
    ]
    return sorted(found, reverse=True)


def test_a_pipeline_grid_over_depth_and_rate(rows):
    pipeline = Pipeline([("scale", StandardScaler()), ("clf", DepthClassifier())])
    grid = {"clf__freeze_depth": ["all", -1, 0, -2, 0.5], "clf__learning_rate": [1e-1, 1e-3]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(*rows)
    display = FreezeDepthDisplay.from_search(search)
    assert display.depths == [0, 0.5, -2, -1, "all"]
    assert display.learning_rates == [1e-3, 1e-1]
    assert display.mean_scores.shape == (2, 5)
    for line, rate in enumerate(display.learning_rates):
        for column, depth in enumerate(display.depths):
            ((mean, deviation),) = by_params(search, clf__freeze_depth=depth, clf__learning_rate=rate)
            assert display.mean_scores[line, column] == mean
            assert display.std_scores[line, column] == deviation
        np.testing.assert_array_equal(display.errorbars_[line].lines[0].get_ydata(), display.mean_scores[line])
    assert len(np.unique(display.mean_scores)) > 3
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == ["0", "0.5", "-2", "-1", "all"]
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["0.001", "0.1"]
    display.figure_.canvas.draw()
    assert FreezeDepthDisplay.from_search(search, depth="clf__freeze_depth").depths == display.depths


def test_one_stage_is_not_the_share_of_all(rows):
    search = GridSearchCV(DepthClassifier(), {"freeze_depth": [1.0, 1, 0, 0.0]}, cv=3).fit(*rows)
    display = FreezeDepthDisplay.from_search(search)
    assert [(type(depth), depth) for depth in display.depths] == [(int, 0), (int, 1), (float, 0), (float, 1)]
    for column, depth in enumerate(display.depths):
        assert display.mean_scores[0, column] == by_params(search, freeze_depth=depth)[0][0]
    assert display.mean_scores[0, 1] != display.mean_scores[0, 3]


def test_without_a_searched_rate_there_is_one_line_and_no_legend(rows):
    search = GridSearchCV(DepthClassifier(), {"freeze_depth": np.arange(4)}, cv=3).fit(*rows)
    display = FreezeDepthDisplay.from_search(search)
    assert display.learning_rates == [None]
    assert display.depths == [0, 1, 2, 3] and len(display.errorbars_) == 1
    assert display.ax_.get_legend() is None


def test_of_other_parameters_the_best_is_drawn(rows):
    grid = {"freeze_depth": [0, 2], "learning_rate": [1e-2], "alpha": [10.0, 1e-4, 1.0]}
    search = GridSearchCV(DepthClassifier(), grid, cv=3).fit(*rows)
    display = FreezeDepthDisplay.from_search(search)
    for column, depth in enumerate((0, 2)):
        (mean, deviation), *others = by_params(search, freeze_depth=depth)
        assert mean > others[-1][0]
        assert display.mean_scores[0, column] == mean
        assert display.std_scores[0, column] == deviation


def test_a_random_search_over_shares_and_rates_has_true_places_and_a_colour_bar(rows):
    search = RandomizedSearchCV(
        DepthClassifier(),
        {"freeze_depth": uniform(0, 1), "learning_rate": loguniform(1e-4, 1)},
        n_iter=12,
        cv=2,
        random_state=0,
    ).fit(*rows)
    display = FreezeDepthDisplay.from_search(search)
    assert np.isfinite(display.mean_scores).sum() == 12
    drawn = sorted(bars.lines[0].get_xdata().item() for bars in display.errorbars_)
    np.testing.assert_array_equal(drawn, sorted(params["freeze_depth"] for params in search.cv_results_["params"]))
    _, colour_bar = display.figure_.axes
    assert colour_bar.get_yscale() == "log"
    assert display.ax_.get_legend() is None
    display.figure_.canvas.draw()


def test_pairs_that_were_not_tried_are_left_out_and_the_line_goes_on(rows):
    grids = [
        {"freeze_depth": [0, 2, "all"], "learning_rate": [1e-2]},
        {"freeze_depth": [0, "all"], "learning_rate": [1e-1]},
        {"freeze_depth": [2]},
    ]
    display = FreezeDepthDisplay.from_search(GridSearchCV(DepthClassifier(), grids, cv=3).fit(*rows))
    assert display.learning_rates == [1e-2, 1e-1, None]
    assert np.isnan(display.mean_scores).tolist() == [[False] * 3, [False, True, False], [True, False, True]]
    assert [len(bars.lines[0].get_ydata()) for bars in display.errorbars_] == [3, 2, 1]
    assert display.ax_.get_legend().get_texts()[-1].get_text() == "not searched"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning", "ignore:One or more of the test scores")
def test_candidates_that_failed_give_way_to_others(rows):
    grid = {"freeze_depth": [0, 1], "learning_rate": [1e-2, 1e3], "alpha": [1e-4]}
    search = GridSearchCV(DepthClassifier(), grid, cv=3).fit(*rows)
    display = FreezeDepthDisplay.from_search(search)
    assert np.isnan(display.mean_scores).tolist() == [[False, False], [True, True]]
    best = FreezeDepthDisplay.from_search(search, learning_rate="alpha")
    np.testing.assert_array_equal(best.mean_scores[0], display.mean_scores[0])


def test_candidates_with_another_estimator_are_left_out(rows):
    pipeline = Pipeline([("clf", DepthClassifier())])
    grids = [{"clf__freeze_depth": [0, 1]}, {"clf": [LogisticRegression()], "clf__C": [0.1, 1.0]}]
    search = GridSearchCV(pipeline, grids, cv=3).fit(*rows)
    assert FreezeDepthDisplay.from_search(search).mean_scores.shape == (1, 2)


def test_one_of_several_scores(rows):
    arguments = {"scoring": ["accuracy", "neg_mean_absolute_error"], "cv": 3}
    grid = {"freeze_depth": [0, 3]}
    search = GridSearchCV(DepthClassifier(), grid, refit="accuracy", **arguments).fit(*rows)
    display = FreezeDepthDisplay.from_search(search)
    np.testing.assert_array_equal(display.mean_scores[0], search.cv_results_["mean_test_accuracy"])
    assert display.ax_.get_ylabel().startswith("test accuracy")
    other = FreezeDepthDisplay.from_search(search, metric="neg_mean_absolute_error")
    np.testing.assert_array_equal(other.mean_scores[0], search.cv_results_["mean_test_neg_mean_absolute_error"])
    with pytest.raises(ValueError, match="metric='f1' is no score.*'accuracy', 'neg_mean"):
        FreezeDepthDisplay.from_search(search, metric="f1")
    without = GridSearchCV(DepthClassifier(), grid, refit=False, **arguments).fit(*rows)
    with pytest.raises(ValueError, match="choose metric= one of 'accuracy', 'neg_mean"):
        FreezeDepthDisplay.from_search(without)


def test_what_cannot_be_drawn_is_refused(rows):
    with pytest.raises(NotFittedError, match="GridSearchCV has no cv_results_"):
        FreezeDepthDisplay.from_search(GridSearchCV(DepthClassifier(), {"freeze_depth": [0]}))
    rates = GridSearchCV(DepthClassifier(), {"learning_rate": [1e-3, 1e-2]}, cv=2).fit(*rows)
    with pytest.raises(ValueError, match="no parameter 'freeze_depth'. It went over: learning_rate"):
        FreezeDepthDisplay.from_search(rates)
    depths = GridSearchCV(DepthClassifier(), {"freeze_depth": [0, 1]}, cv=2).fit(*rows)
    with pytest.raises(ValueError, match="no parameter 'freeze_deph'.*Did you mean 'freeze_depth'"):
        FreezeDepthDisplay.from_search(depths, depth="freeze_deph")
    with pytest.raises(ValueError, match="no parameter 'rate'"):
        FreezeDepthDisplay.from_search(depths, learning_rate="rate")
    with pytest.raises(ValueError, match="whole number, a share or 'all', but this search has 'hinge'"):
        FreezeDepthDisplay.from_search(
            GridSearchCV(SGDClassifier(), {"loss": ["hinge"]}, cv=2).fit(*rows), depth="loss"
        )
    twice = Pipeline([("a", StandardScaler()), ("clf", DepthClassifier())])
    twice.set_params(a=Deep())
    search = GridSearchCV(twice, {"a__freeze_depth": [0], "clf__freeze_depth": [0, 1]}, cv=2).fit(*rows)
    with pytest.raises(ValueError, match="Several.*a__freeze_depth, clf__freeze_depth in full"):
        FreezeDepthDisplay.from_search(search)
    assert FreezeDepthDisplay.from_search(search, depth="clf__freeze_depth").depths == [0, 1]


class Deep(StandardScaler):
    """A transformer that has a depth too."""

    def __init__(self, freeze_depth=0):
        super().__init__()
        self.freeze_depth = freeze_depth


def test_scores_of_successive_halving_are_not_mixed(rows):
    search = HalvingGridSearchCV(DepthClassifier(), {"freeze_depth": [0, 1, 2, 3]}, cv=2, random_state=0).fit(*rows)
    with pytest.raises(ValueError, match="HalvingGridSearchCV scores its candidates on different amounts"):
        FreezeDepthDisplay.from_search(search)
