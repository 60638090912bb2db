"""A service: threads that predict while one fits anew, files that change while they are read, forks in between.

Every answer is held against those of a fresh process without a cache.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.networks import own_images

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor

TEXTS = ["how do i reset my card", "the delivery was late again", "thanks", "my card was late", "one two three", "late"]
LABELS = [np.array(["no", "yes"] * 3), np.array(["b", "b", "a", "a", "b", "a"])]
LENGTHS = (3, 5, 64)


def pictures():
    """Two pictures, of one size."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (16, 16, 3)).astype(np.uint8) for _ in range(2)]


def classifier(cache):
    return FineTunedClassifier("text-static", freeze_depth="all", max_length=8, random_state=0, cache=cache)


def answers():
    """What a process gives that has no cache and nothing beside: of both fits, of each length, of each picture."""
    made = {f"fit {place}": classifier(None).fit(TEXTS, y).predict_proba(TEXTS) for place, y in enumerate(LABELS)}
    for length in LENGTHS:
        extractor = PretrainedFeatureExtractor("text-static", max_length=length, cache=None)
        made[f"length {length}"] = extractor.fit_transform(TEXTS)
    made["pictures"] = PretrainedFeatureExtractor(own_images(), cache=None).fit_transform(pictures())
    return made


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("fresh") / "answers.npz"
    code = (
        "import sys, numpy, torch; torch.set_num_threads(1); from integration.test_service import answers;"
        "numpy.savez(sys.argv[1], **answers())"
    )
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, env={**os.environ, "PYTHONPATH": paths})
    with np.load(path) as made:
        return dict(made)


def _is_one_of(found, wanted):
    return any(found.shape == one.shape and np.allclose(found, one, atol=1e-5) for one in wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_a_service(expected, tmp_path, kind):
    cache = "memory" if kind == "memory" else tmp_path / "cache"
    names = [tmp_path / f"{number}.png" for number in range(3)]
    contents = []
    for number, picture in enumerate(pictures()):
        Image.fromarray(picture).save(tmp_path / f"true {number}.png")
        contents.append((tmp_path / f"true {number}.png").read_bytes())
    for name in names:
        name.write_bytes(contents[0])
    model = classifier(cache).fit(TEXTS, LABELS[0])
    extractors = {n: PretrainedFeatureExtractor("text-static", max_length=n, cache=cache).fit(TEXTS) for n in LENGTHS}
    reader = PretrainedFeatureExtractor(own_images(), cache=cache).fit(names)
    fits = [expected["fit 0"], expected["fit 1"]]
    done, errors = threading.Event(), []

    def check_texts(random):
        assert _is_one_of(model.predict_proba(TEXTS), fits)
        length = LENGTHS[random.integers(3)]
        rows = random.permutation(6)[:4]
        found = extractors[length].transform([TEXTS[row] for row in rows])
        np.testing.assert_allclose(found, expected[f"length {length}"][rows], atol=1e-5)

    def check_pictures():
        try:
            found = reader.transform(names)
        except (ValueError, OSError) as error:
            assert any(str(name) in str(error) for name in names), error
            return
        for row in found:
            assert _is_one_of(row, expected["pictures"])

    def guarded(work):
        def run():
            try:
                work()
            except BaseException as error:
                errors.append(error)

        return threading.Thread(target=run)

    def asks(seed):
        random = np.random.default_rng(seed)
        while not done.is_set():
            check_texts(random)
            check_pictures()

    def refits():
        for number in range(1, 11):
            model.fit(TEXTS, LABELS[number % 2])

    def changes_files():
        random = np.random.default_rng(9)
        for number in range(120):
            name, content = names[number % 3], contents[random.integers(2)]
            if number % 4 == 0:  # replaced
                other = tmp_path / "other.png"
                other.write_bytes(content)
                os.replace(other, name)
            elif number % 4 == 1:  # truncated, for now
                os.truncate(name, len(content) // 2)
                name.write_bytes(content)
            else:  # rewritten in place
                name.write_bytes(content)

    def forked():
        signal.alarm(30)
        random = np.random.default_rng(5)
        check_texts(random)
        check_pictures()

    def forks():
        for _ in range(3):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    forked()
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    asking = [guarded(lambda seed=seed: asks(seed)) for seed in range(3)]
    working = [guarded(refits), guarded(changes_files), guarded(forks)]
    for thread in asking + working:
        thread.start()
    for thread in working:
        thread.join()
    done.set()
    for thread in asking:
        thread.join()
    if errors:
        raise errors[0]
    # What was left in the cache.
    for number, content in enumerate(contents):
        for name in names:
            name.write_bytes(content)
        for row in PretrainedFeatureExtractor(own_images(), cache=cache).fit_transform(names):
            np.testing.assert_allclose(row, expected["pictures"][number], atol=1e-5)
    for length, extractor in extractors.items():
        np.testing.assert_allclose(extractor.transform(TEXTS), expected[f"length {length}"], atol=1e-5)
