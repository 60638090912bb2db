"""Several processes, threads and estimators over one network: what is loaded, run and held, and how often."""

import copy
import gc
import itertools
import os
import pickle

import joblib
import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend.reduction import dumps
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC
from support import observed
from support.networks import TinyImage, save_tiny_bert, seeded
from support.observed import Events, ObservedExtractor, loads, observe, rows

from sktransfer import PretrainedFeatureExtractor, unload_backbones
from sktransfer.backbones.backbone import Backbone
from sktransfer.runtime.kernels import FrozenKernels

# Of words that the tiny network knows too.
TEXTS = [" ".join(words) for words in itertools.permutations(["card", "pin", "delivery", "late", "again"], 3)]
TOPICS = np.array([0, 1, 2] * 20)
HERE = os.getpid()


def new_workers():
    """Let go of loky's worker processes: the next parallel call starts others."""
    get_reusable_executor().shutdown(wait=True)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    path = tmp_path_factory.mktemp("observed") / "events"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(observed.FILE, str(path))
        observe(patch.setattr)
        new_workers()  # those that an earlier test left don't look
        yield Events(path)
        new_workers()


@pytest.fixture
def bert(tmp_path):
    return save_tiny_bert(tmp_path / "bert")


# Processes


def test_a_search_in_two_processes_loads_once_in_each_and_the_second_search_encodes_nothing(
    minilm, events, tmp_path, monkeypatch
):
    (tmp_path / "meeting").mkdir()
    monkeypatch.setenv(observed.MEET, str(tmp_path / "meeting"))
    embed = ObservedExtractor(minilm, cache=tmp_path / "cache")
    model = Pipeline([("embed", embed), ("head", LogisticRegression())])
    search = GridSearchCV(model, {"head__C": [0.1, 1, 10, 100]}, cv=5, n_jobs=2)
    first = clone(search).fit(TEXTS, TOPICS)
    seen = events.new()
    workers = set(loads(seen)) - {HERE}
    assert len(workers) == 2
    assert set(loads(seen).values()) == {1}, "20 fits, one network in each process"
    ran = rows(seen)
    assert len({row for _, row in ran}) == 60
    # Two that begin at once may run the same row, before either has stored it; none runs it twice.
    assert len(ran) == len(set(ran)) <= 120
    assert {process for process, _ in ran} <= workers, "the refit in this process finds all rows"

    new_workers()
    second = clone(search).fit(TEXTS, TOPICS)
    seen = events.new()
    assert rows(seen) == []
    assert set(loads(seen)) - {HERE}, "new processes have loaded the network"
    assert not set(loads(seen)) & workers
    assert set(loads(seen).values()) == {1}
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(first.cv_results_[name], second.cv_results_[name])


def test_a_fitted_extractor_transforms_in_two_processes(bert, events):
    extractor = ObservedExtractor(bert, cache=None).fit(TEXTS)
    expected = extractor.transform(TEXTS)
    events.new()
    parts = joblib.Parallel(n_jobs=2)(joblib.delayed(extractor.transform)(TEXTS[i : i + 6]) for i in range(0, 60, 6))
    np.testing.assert_allclose(np.vstack(parts), expected, atol=1e-6)
    seen = events.new()
    assert HERE not in loads(seen)
    assert set(loads(seen).values()) == {1}, "ten tasks, one network in each process"
    assert len(rows(seen)) == 60


def test_workers_get_a_name_instead_of_weights(minilm):
    """Measured as joblib sends it."""
    extractor = PretrainedFeatureExtractor(minilm)
    model = make_pipeline(extractor, LogisticRegression())
    assert len(dumps(clone(model))) < 5_000
    extractor.fit(TEXTS[:1])
    assert len(dumps(extractor)) < 5_000
    assert len(dumps(extractor.transform)) < 5_000


def test_workers_get_the_weights_of_a_module_once_before_the_fit_and_twice_after(images):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 400, 9), torch.nn.ReLU())
    size = sum(parameter.nbytes for parameter in module.parameters())
    extractor = PretrainedFeatureExtractor(module)
    assert size < len(dumps(extractor)) < 1.1 * size
    extractor.fit(images)
    assert 2 * size < len(dumps(extractor)) < 2.1 * size


def test_a_module_keeps_its_cache_entries_in_other_processes(images, tmp_path):
    """Whoever computes a fingerprint from weights and code, in whatever process, gets the same."""
    extractor = PretrainedFeatureExtractor(seeded(TinyImage), cache=tmp_path)
    E = extractor.fit(images).transform(images)
    answers = joblib.Parallel(n_jobs=2)(joblib.delayed(fitted_anew)(extractor, images) for _ in range(4))
    for fingerprint, again, n_missed in answers:
        assert fingerprint == extractor.backbone_.fingerprint
        np.testing.assert_array_equal(again, E)
        assert n_missed == 0


def fitted_anew(extractor, X):
    """Fit and transform in a worker, and return what it found in the cache."""
    from sktransfer import cache_info

    before = cache_info(extractor.cache).misses
    fitted = clone(extractor).fit(X)
    E = fitted.transform(X)
    return fitted.backbone_.fingerprint, E, cache_info(extractor.cache).misses - before


def test_threads_share_one_network_and_its_work(bert, events):
    extractor = ObservedExtractor(bert)
    expected = clone(extractor).set_params(cache=None).fit_transform(TEXTS)
    unload_backbones()
    events.new()
    with joblib.parallel_config("threading", n_jobs=4):
        results = joblib.Parallel()(joblib.delayed(clone(extractor).fit_transform)(TEXTS) for _ in range(8))
    for E in results:
        np.testing.assert_allclose(E, expected, atol=1e-6)
    seen = events.new()
    assert loads(seen) == {HERE: 1}
    assert len(rows(seen)) == 60


# Many estimators in one process


def every_way_to_ten(backbone, X, y):
    """Extractors, pipelines, copies and clones over one backbone, all fitted and used."""
    model = make_pipeline(PretrainedFeatureExtractor(backbone, cache=None), KNeighborsClassifier(1))
    extractors = [PretrainedFeatureExtractor(backbone, cache=None).fit(X) for _ in range(3)]
    extractors += [copy.deepcopy(extractors[0]), pickle.loads(pickle.dumps(extractors[0]))]
    extractors += [clone(extractors[0]).fit(X), PretrainedFeatureExtractor(extractors[0], cache=None).fit(X)]
    pipelines = [clone(model).fit(X, y) for _ in range(2)]
    pipelines += [GridSearchCV(model, {"kneighborsclassifier__n_neighbors": [1, 2]}, cv=2).fit(X, y)]
    for extractor in extractors:
        extractor.transform(X)
    for pipeline in pipelines:
        pipeline.predict(X)
    assert len(extractors) + len(pipelines) == 10
    return extractors, pipelines


def held():
    """What this process holds: bytes of all weights by address, the number of handles, of sets of packed weights."""
    gc.collect()
    storages, counts = {}, {Backbone: 0, FrozenKernels: 0}
    for thing in gc.get_objects():
        kind = type(thing)  # not isinstance, which asks proxies what they are
        if kind in counts:
            counts[kind] += 1
        elif issubclass(kind, torch.nn.Module):
            for tensor in (
                *thing.__dict__.get("_parameters", {}).values(),
                *thing.__dict__.get("_buffers", {}).values(),
            ):
                if tensor is not None:
                    storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return storages, counts[Backbone], counts[FrozenKernels]


@pytest.mark.parametrize("kind", ["text", "image"])
def test_ten_extractors_pipelines_and_clones_hold_one_copy_of_the_weights(tmp_path, images, kind):
    if kind == "text":
        backbone, X = save_tiny_bert(tmp_path, hidden_size=64, intermediate_size=128), TEXTS[:6]
    else:
        # By name: a module of the caller's is one more copy, the caller's own.
        backbone, X = "image-resnet", images
    y = np.array([0, 1] * 3)
    unload_backbones()
    before = held()
    one = PretrainedFeatureExtractor(backbone, cache=None).fit(X)
    one.transform(X)
    after_one = held()
    many = every_way_to_ten(backbone, X, y)
    assert held() == after_one
    # What makes the passes fast is the backbone's too: linear weights packed for the processor, and of an image network a
    # second copy of the convolutions, with batch norm folded in.
    assert (after_one[1] - before[1], after_one[2] - before[2]) in [(1, 0), (1, 1)]
    weights = sum(tensor.nbytes for tensor in one.backbone_.snapshot().state_dict().values())
    held_by_one = sum(size for at, size in after_one[0].items() if before[0].get(at) != size)
    assert 0.99 * weights <= held_by_one <= (1.01 if kind == "text" else 2.01) * weights
    del many


def test_many_text_classifiers_over_one_encoder_encode_each_text_once(bert, events):
    encoder = ObservedExtractor(bert)
    heads = [LogisticRegression(), RidgeClassifier(), LinearSVC(), RandomForestClassifier(5, random_state=0)]
    unload_backbones()
    events.new()
    models = [make_pipeline(clone(encoder), head).fit(TEXTS, TOPICS) for head in heads]
    models += [OneVsRestClassifier(make_pipeline(encoder, LogisticRegression())).fit(np.array(TEXTS), TOPICS)]
    models += [VotingClassifier([(str(i), clone(model)) for i, model in enumerate(models)]).fit(TEXTS, TOPICS)]
    for model in models:
        assert model.predict(TEXTS).shape == (60,)
    for model in models[:4]:
        cross_val_score(model, TEXTS, TOPICS, cv=5)
    other_task = make_pipeline(encoder, LogisticRegression()).fit(TEXTS, np.arange(60) % 2)
    assert other_task.predict(TEXTS[:5]).shape == (5,)
    seen = events.new()
    assert loads(seen) == {HERE: 1}
    assert len(rows(seen)) == 60
