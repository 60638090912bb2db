"""Every lock of the package is made in one place, and free in a forked process."""

import ast
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from support.networks import three_layers

import sktransfer
from sktransfer import (
    DistilledClassifier,
    FineTunedClassifier,
    PretrainedFeatureExtractor,
    _locks,
    cache_clear,
    cache_info,
)
from sktransfer._locks import ProcessLock, process_locks
from sktransfer.backbones.splitting.hooks import own_hooks
from sktransfer.caching import memory_cache

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")

_MAKERS = {"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier", "register_at_fork"}
# It has a lock of its own before Python 3.12.
_HIDDEN = {"cached_property"}


def exit_code(work):
    """Run something in a forked process, which is ended if it hangs."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Holder:
    """Holds locks in a thread of its own while the body runs."""

    def __init__(self, *locks):
        self.locks = locks
        self.held, self.done = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._hold)

    def _hold(self):
        for lock in self.locks:
            lock.__enter__()
        self.held.set()
        self.done.wait()
        for lock in reversed(self.locks):
            lock.__exit__()

    def __enter__(self):
        self.thread.start()
        self.held.wait()

    def __exit__(self, *error):
        self.done.set()
        self.thread.join()


# The one renews tqdm's lock, the other tells locks by their type.
_MAKES_NONE = ("progress.py", "description.py")


def test_every_lock_of_the_package_is_made_in_one_place():
    found = []
    for path in Path(sktransfer.__file__).parent.rglob("*.py"):
        if path.name == "_locks.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
            if name in _HIDDEN or (name in _MAKERS and path.name not in _MAKES_NONE):
                found.append(f"{path.name}:{node.lineno} {name}")
    assert not found


@pytest.fixture
def table():
    random = np.random.default_rng(0)
    X = random.normal(size=(24, 6))
    return X, np.where(X[:, 0] > 0, "yes", "no")


def test_a_forked_process_works_whatever_lock_another_thread_holds(table, tmp_path):
    X, y = table
    extractor = PretrainedFeatureExtractor(three_layers(), cache=tmp_path).fit(X)
    tuned = FineTunedClassifier(three_layers(), freeze_depth=1, max_epochs=1, random_state=0).fit(X, y)
    expected = extractor.transform(X), tuned.predict_proba(X)
    forest = RandomForestClassifier(n_estimators=3, random_state=0)

    def work():
        np.testing.assert_array_equal(extractor.transform(X), expected[0])
        np.testing.assert_allclose(tuned.predict_proba(X), expected[1], atol=1e-6)
        PretrainedFeatureExtractor(tuned, verbose=1).fit(X).transform(X + 1)
        PretrainedFeatureExtractor(three_layers(), layer=0).fit_transform(X)
        PretrainedFeatureExtractor(RandomForestClassifier(n_estimators=2).fit(X, y)).fit_transform(X)
        tuned.fit(X, y)
        DistilledClassifier(forest, LogisticRegression(), random_state=0).fit(X, y).predict(X)
        cache_clear()
        assert cache_info(tmp_path).rows >= 24
        for lock in process_locks():
            with lock:
                pass

    ours = [lock for lock in process_locks() if not lock.fork_waits]
    names = {lock.name for lock in ours}
    assert {
        "a network",
        "networks that are loaded",
        "generators of a fit",
        "states of the global generators",
        "attributes of estimators",
        "rows of the memory cache",
        "fits that candidates share",
        "the last probes",
        "copies of fitted models",
        "networks on another device",
    } <= names
    with Holder(*ours):
        assert exit_code(work) == 0
    for lock in ours:  # and one at a time, in which case others are not freed for its sake
        with Holder(lock):
            assert exit_code(lambda lock=lock: lock.__enter__()) == 0, lock.name  # looked up in the child


def test_a_fork_waits_for_what_must_not_be_cut_in_two():
    waited_for = [lock for lock in process_locks() if lock.fork_waits]
    assert _locks.loading in waited_for and len(waited_for) == 2
    for lock in waited_for:
        steps, begun = [], threading.Event()

        def work(lock=lock, steps=steps, begun=begun):
            with lock:
                begun.set()
                for step in range(100_000):
                    steps.append(step)

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()

        def whole(lock=lock, steps=steps):
            assert len(steps) == 100_000
            with lock:
                pass

        assert exit_code(whole) == 0
        thread.join()
        with lock:
            pass


def test_a_thread_that_forks_goes_on_holding_what_it_holds():
    lock = ProcessLock("mine")
    with lock, lock:

        def still():
            with lock:
                pass
            lock.__exit__()
            lock.__exit__()
            with pytest.raises(RuntimeError):
                lock.__exit__()

        assert exit_code(still) == 0
    with pytest.raises(RuntimeError):
        lock.__exit__()


def test_the_bytes_of_the_memory_cache_are_counted_anew():
    memory_cache.put_many([b"a"], [np.zeros(10, np.float32)])
    right = memory_cache.info().n_bytes
    before = memory_cache._n_bytes
    memory_cache._n_bytes += 1000  # as a thread that was stopped half way
    with Holder(memory_cache._lock):

        def counted():
            assert memory_cache.info().n_bytes == right

        assert exit_code(counted) == 0
    memory_cache._n_bytes = before


def test_hooks_of_another_thread_are_gone_in_a_forked_process():
    from torch import nn, zeros

    module, seen = nn.Linear(2, 2), []
    hooks = own_hooks([(module, lambda *_: seen.append(1))])
    with Holder(hooks_lock := _Entered(hooks)):
        module(zeros(1, 2))
        assert not seen  # only the thread that set them has its passes seen

        def none():
            assert not module._forward_hooks

        assert exit_code(none) == 0
        assert len(module._forward_hooks) == 1
    assert hooks_lock and not module._forward_hooks


class _Entered:
    """A context manager as a lock to hold."""

    def __init__(self, manager):
        self.manager = manager

    def __enter__(self):
        self.manager.__enter__()

    def __exit__(self, *error):
        self.manager.__exit__(None, None, None)
