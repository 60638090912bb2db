"""Dask: a cluster of two processes behind joblib, and a fitted extractor over partitions.

The code between the lines "begin" and "end" is what the guide on scaling out shows.
"""

import itertools
import os

import dask.bag
import dask.dataframe
import joblib
import numpy as np
import pandas as pd
import pytest
from dask.distributed import Client, LocalCluster
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from support import observed
from support.networks import save_tiny_bert
from support.observed import Events, loads, observe, rows

# Itself and watched; under its own name, because the guide shows this code.
from support.observed import ObservedExtractor as PretrainedFeatureExtractor

HERE = os.getpid()
TEXTS = [
    " ".join(words)
    for words in itertools.islice(itertools.permutations(["card", "pin", "delivery", "late", "again"], 3), 30)
]
TOPICS = np.array([0, 1, 2] * 10)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    path = tmp_path_factory.mktemp("observed") / "events"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(observed.FILE, str(path))
        observe(patch.setattr)
        yield Events(path)


@pytest.fixture(scope="module")
def client(events):
    # begin cluster
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0")
    client = Client(cluster)
    # end cluster
    with cluster, client:
        yield client


@pytest.fixture
def bert(tmp_path):
    return save_tiny_bert(tmp_path / "bert")


def test_a_search_on_a_cluster_loads_once_in_each_process_and_shares_the_directory(bert, client, events, tmp_path):
    cache = tmp_path / "cache"
    model = Pipeline(
        [("embed", PretrainedFeatureExtractor(bert, cache=cache)), ("head", LogisticRegression(max_iter=2000))]
    )
    grid = {"head__C": [0.1, 1, 10, 100]}
    # begin search
    search = GridSearchCV(model, grid, cv=3, n_jobs=-1)
    with joblib.parallel_config("dask"):
        search.fit(TEXTS, TOPICS)
    # end search
    workers = set(client.run(os.getpid).values())
    seen = events.new()
    assert len(workers) == 2
    assert set(loads(seen)) <= {HERE, *workers}
    assert set(loads(seen)) & workers
    assert set(loads(seen).values()) == {1}
    ran = rows(seen)
    assert len({row for _, row in ran}) == 30
    assert len(ran) == len(set(ran)) <= 60, "a row runs at most once in each process"
    assert HERE not in {process for process, _ in ran}

    here = GridSearchCV(model, grid, cv=3).fit(TEXTS, TOPICS)
    np.testing.assert_array_equal(here.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"])
    assert rows(events.new()) == [], "this process finds what the workers stored"


def test_a_fitted_extractor_maps_over_the_partitions_of_a_frame(bert, client, events, tmp_path):
    frame = pd.DataFrame({"text": TEXTS, "topic": TOPICS})
    dask_frame = dask.dataframe.from_pandas(frame, npartitions=6)
    # begin frame
    extractor = PretrainedFeatureExtractor(bert, cache=tmp_path / "cache").set_output(transform="pandas")
    extractor.fit(frame[["text"]].head(1))
    columns = extractor.transform(frame[["text"]].head(1)).iloc[:0]
    embedded = dask_frame[["text"]].map_partitions(extractor.transform, meta=columns)
    # end frame
    events.new()
    result = embedded.compute()
    seen = events.new()
    assert HERE not in {process for process, *_ in seen}, "computed in the workers alone"
    assert set(loads(seen).values()) == {1}, "six partitions, one network in each process"
    assert len(rows(seen)) == 29, "the row of the fit was in the cache"
    expected = extractor.set_params(cache=None).transform(frame[["text"]])
    pd.testing.assert_frame_equal(result, expected, atol=1e-6)
    extractor.set_params(cache=tmp_path / "cache")
    events.new()
    pd.testing.assert_frame_equal(extractor.transform(frame[["text"]]), result, check_exact=True)
    assert rows(events.new()) == []


def test_a_fitted_extractor_maps_over_the_partitions_of_a_bag(bert, client, events):
    # begin bag
    extractor = PretrainedFeatureExtractor(bert).fit(TEXTS[:1])
    bag = dask.bag.from_sequence(TEXTS, npartitions=4)
    embedded = bag.map_partitions(lambda texts: extractor.transform(list(texts)))
    # end bag
    events.new()
    result = np.stack(embedded.compute())
    seen = events.new()
    np.testing.assert_allclose(result, extractor.transform(TEXTS), atol=1e-6)
    assert HERE not in {process for process, *_ in seen}
    assert set(loads(seen).values()) == {1}
    assert len(rows(seen)) == 30
