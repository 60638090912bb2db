"""Checks that an estimator works inside scikit-learn's own: pipelines, searches, routing."""

from __future__ import annotations

import inspect
from typing import Any
from unittest import SkipTest

import numpy as np
from sklearn import config_context
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.utils.validation import has_fit_parameter

from sktransfer.testing.expectations import answers, close, expect, fitted, fresh, is_supervised, same, target_of
from sktransfer.testing.samples import Container, Sample, objects


def check_pipeline(estimator: Any, sample: Sample) -> None:
    """In a pipeline an estimator gives what it gives alone, and hands its columns on to the next step."""
    X, y = list(sample.rows), target_of(estimator, sample)
    alone = fitted(estimator, sample)
    pipeline = make_pipeline(fresh(estimator)).fit(X, y)
    same("a pipeline of one step gives what the step gives", answers(alone, X), answers(pipeline, X))
    if is_supervised(estimator):
        close("a pipeline scores as its step does", alone.score(X, y), pipeline.score(X, y))
        return
    close("fit_transform of a pipeline", alone.transform(X), make_pipeline(fresh(estimator)).fit_transform(X, y))
    head = LogisticRegression(max_iter=200)
    behind = make_pipeline(fresh(estimator), head).fit(X, sample.labels)
    wanted = LogisticRegression(max_iter=200).fit(alone.transform(X), sample.labels).predict(X=alone.transform(X))
    close("a classifier behind it gives what it gives on the transformed rows", wanted, behind.predict(X))


def check_column_transformer(estimator: Any, sample: Sample, container: Container) -> None:
    """ColumnTransformer, with the column named or in a list, gives the columns that the estimator gives alone."""
    frame = container.make(sample.rows)
    column = list(frame.columns)[0]
    wanted = fitted(estimator, sample).transform(list(sample.rows))
    y = target_of(estimator, sample)
    for chosen in (column, [column]):
        transformer = ColumnTransformer([("one", fresh(estimator), chosen)])
        close(f"ColumnTransformer with {chosen!r}", wanted, transformer.fit(frame, y).transform(frame))
        names = transformer.get_feature_names_out()
        expect(len(names) == wanted.shape[1], "ColumnTransformer gets a name for each column", f"{len(names)} names")


def check_feature_union(estimator: Any, sample: Sample) -> None:
    """FeatureUnion of two copies gives the columns twice."""
    X = list(sample.rows)
    wanted = fitted(estimator, sample).transform(X)
    union = FeatureUnion([("one", fresh(estimator)), ("two", fresh(estimator))])
    out = union.fit(X, target_of(estimator, sample)).transform(X)
    close("FeatureUnion gives the columns of both", np.hstack([wanted, wanted]), out)


def check_search(estimator: Any, sample: Sample) -> None:
    """GridSearchCV and cross_val_score run, and the container of X changes no score."""
    y = target_of(estimator, sample)
    if is_supervised(estimator):
        name, value = next(iter(estimator.get_params(deep=False).items()), (None, None))
        model, grid = fresh(estimator), {} if name is None else {name: [value]}
    else:
        # What follows the transformer needs classes.
        y = sample.labels
        model = Pipeline([("rows", fresh(estimator)), ("head", LogisticRegression(max_iter=200))])
        grid = {"head__C": [0.1, 10.0]}
    X = list(sample.rows)
    scores = cross_val_score(model, X, y, cv=2, error_score="raise")
    expect(np.isfinite(scores).all(), "cross_val_score gives finite scores", f"{scores}")
    again = cross_val_score(model, objects(X), y, cv=2, error_score="raise")
    close("cross_val_score of an array of objects and of a list", scores, again)
    for container in sample.containers:
        if container.tells_kind and container.name.startswith("pandas"):
            try:
                handed = container.make(X)
            except SkipTest:
                continue
            again = cross_val_score(model, handed, y, cv=2, error_score="raise")
            close(f"cross_val_score of a {container.name} and of a list", scores, again)
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
    expect(np.isfinite(search.best_score_), "GridSearchCV finds a finite best score", f"{search.best_score_}")
    seen = search.predict(X)
    expect(len(seen) == len(X), "the best estimator of GridSearchCV predicts", f"{len(seen)} for {len(X)} rows")


def check_metadata_routing(estimator: Any, sample: Sample) -> None:
    """With metadata routing on, parameters of `fit` can be requested by name and arrive."""
    arguments = list(inspect.signature(estimator.fit).parameters.values())
    loose = [one.name for one in arguments if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    expect(not loose, "fit names its parameters, so that they can be routed", f"* or ** of {', '.join(loose)}")
    X, y = list(sample.rows), target_of(estimator, sample)
    weights = np.linspace(0.5, 1.5, len(X))
    with config_context(enable_metadata_routing=True):
        copy = fresh(estimator)
        copy.get_metadata_routing()
        if has_fit_parameter(copy, "sample_weight"):
            copy.set_fit_request(sample_weight=True)
            wanted = answers(fresh(estimator).fit(X, y, sample_weight=weights), X)
            routed = Pipeline([("only", copy)]).fit(X, y, sample_weight=weights)
            same("sample_weight is routed to fit through a pipeline", wanted, answers(routed, X))
            if is_supervised(estimator):
                copy.set_score_request(sample_weight=False)
                cross_validate(copy, X, y, cv=2, params={"sample_weight": weights}, error_score="raise")
        if not is_supervised(estimator):
            head = LogisticRegression(max_iter=200).set_fit_request(sample_weight=True)
            head.set_score_request(sample_weight=True)
            weighted = make_pipeline(fresh(estimator), head)
            cross_validate(weighted, X, sample.labels, cv=2, params={"sample_weight": weights}, error_score="raise")
