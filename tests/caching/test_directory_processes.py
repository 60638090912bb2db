"""Several processes, killed ones, and directories that can't be written."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import cached_rows
from support.cached_rows import assert_none_is_wrong, keys, rows_of

from sktransfer import PretrainedFeatureExtractor, cache_info
from sktransfer.caching.directory import FILE_NAME, DirectoryCache, directory_cache

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}


@contextmanager
def writer(directory, start):
    """A process that writes for ever; yielded once it has begun."""
    command = [sys.executable, cached_rows.__file__, str(directory), str(start)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"ready\n", process.stderr.read()
            yield process
        finally:
            process.kill()


def run_script(script, *arguments):
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_killed_at_any_instant_of_writing(tmp_path):
    """After each of 100 kills the file is read as it is, all that was said to be stored is there, and nothing is wrong."""
    random.seed(0)
    cache = DirectoryCache(tmp_path)
    cache.check()
    cache.set_limit(6 * 2**20)  # so that making room is interrupted too
    stored = start = 0
    for _ in range(100):
        with writer(tmp_path, start) as process:
            time.sleep(random.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            said = [int(line) for line in process.stdout.read().split()]
        done = said[-1] if said else start
        names = keys(done + 20 - start, start)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no damage
            found = cache.get_many(names)
        assert_none_is_wrong(names, found)
        last = found[: done - start][-100:]
        assert all(row is not None for row in last), "only the batch being written is lost"
        stored += done - start
        start = done + 20
    assert stored > 2000
    assert (tmp_path / FILE_NAME).stat().st_size <= 6 * 2**20


def test_two_writers_and_a_reader_at_once(tmp_path):
    cache = DirectoryCache(tmp_path)
    cache.check()
    names = [*keys(400), *keys(400, 1_000_000)]
    with writer(tmp_path, 0) as first, writer(tmp_path, 1_000_000) as second:
        deadline = time.monotonic() + 20
        while (n := assert_none_is_wrong(names, cache.get_many(names))) < 800 and time.monotonic() < deadline:
            cache.put_many(keys(3, 2_000_000 + n), rows_of(keys(3, 2_000_000 + n)))
        assert first.poll() is None and second.poll() is None, "neither has failed"
    assert n == 800


def test_two_processes_that_find_the_damage_at_once(tmp_path):
    cache = DirectoryCache(tmp_path)
    cache.check()
    file = tmp_path / FILE_NAME
    with writer(tmp_path, 0) as first, writer(tmp_path, 0) as second:
        damaged = 0
        while damaged < 15:
            time.sleep(0.03)
            try:
                with open(file, "r+b") as opened:
                    opened.truncate(random.Random(0).randrange(max(file.stat().st_size, 1)))
            except FileNotFoundError:
                continue  # one of the writers is just replacing the damaged file
            damaged += 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert_none_is_wrong(keys(400), cache.get_many(keys(400)))
        assert first.poll() is None and second.poll() is None, "neither has failed"


def test_a_forked_process_goes_on_with_it(tmp_path):
    """While threads of the parent read and write, children do."""
    script = """
import os, sys, threading, warnings
from support.cached_rows import *
warnings.simplefilter("error")
cache = directory_cache(sys.argv[1])
cache.check()
stop = threading.Event()
def work(seed):
    start = seed * 10_000
    while not stop.is_set():
        cache.put_many(keys(50, start), rows_of(keys(50, start)))
        assert assert_none_is_wrong(keys(50, start), cache.get_many(keys(50, start))) == 50
        start += 50
threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
for thread in threads: thread.start()
for n in range(20):
    child = os.fork()
    if not child:
        status = 1
        try:
            names = keys(20, 1000 * n)
            cache.put_many(names, rows_of(names))
            status = assert_none_is_wrong(names, cache.get_many(names)) != 20
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads: thread.join()
names = [name for n in range(20) for name in keys(20, 1000 * n)]
print(assert_none_is_wrong(names, cache.get_many(names)))
"""
    assert run_script(script, tmp_path / "cache").split() == ["400"]


def _embed(arguments):
    directory, texts = arguments
    embedding = PretrainedFeatureExtractor(cache=directory).fit_transform(texts)
    return embedding, cache_info(directory).misses


def test_spawned_processes_share_it(tmp_path, texts):
    first, misses = _embed((tmp_path, texts))
    assert misses == len(set(texts))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        ((second, misses),) = pool.map(_embed, [(tmp_path, texts)])
    assert misses == 0
    assert (first == second).all()


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit on file sizes on this system")
def test_a_file_that_may_not_grow_costs_one_warning(tmp_path):
    script = """
import resource, signal, sys, warnings
from support.cached_rows import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
cache = directory_cache(sys.argv[1])
cache.check()
names = keys(100)
cache.put_many(names, rows_of(names))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for start in range(100, 3000, 100):
        cache._no_writes_before = 0.0  # try each time
        cache.put_many(keys(100, start), rows_of(keys(100, start), 300))
        assert_none_is_wrong(keys(3000), cache.get_many(keys(3000)))
    assert assert_none_is_wrong(names, cache.get_many(names)) == 100, "what was there is read"
print(len(caught), caught[0].category.__name__, caught[0].message)
"""
    said = run_script(script, tmp_path / "cache")
    assert said.startswith("1 UserWarning The cache in")
    assert "The run goes on" in said
    assert assert_none_is_wrong(keys(100), DirectoryCache(tmp_path / "cache").get_many(keys(100))) == 100


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a small file system; skips where that is not allowed."""
    mounts = []

    def mount(*arguments):
        result = subprocess.run(["mount", *arguments], capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"mounting is not allowed here: {result.stderr.strip()}")
        mounts.append(arguments[-1])

    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    yield mount
    for directory in dict.fromkeys(mounts):
        subprocess.run(["umount", directory], check=True)


def test_a_full_disk_costs_one_warning(tmp_path, mounted, texts):
    mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path))
    cache = directory_cache(tmp_path)
    cache.check()
    stored = 0
    with pytest.warns(UserWarning, match="full.*The run goes on") as caught:
        for start in range(0, 3000, 100):
            cache._no_writes_before = 0.0  # try each time
            cache.put_many(keys(100, start), rows_of(keys(100, start), 300))
            stored = max(stored, assert_none_is_wrong(keys(3000), cache.get_many(keys(3000))))
    assert len(caught) == 1
    assert stored >= 300
    assert assert_none_is_wrong(keys(3000), cache.get_many(keys(3000))) == stored
    expected = PretrainedFeatureExtractor(cache=None).fit_transform(texts)
    assert (PretrainedFeatureExtractor(cache=tmp_path).fit_transform(texts) == expected).all()


def test_a_disk_full_from_the_start_costs_one_warning(tmp_path, mounted, texts):
    mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path))
    with open(tmp_path / "filling", "wb") as file, pytest.raises(OSError, match="No space"):
        file.write(bytes(100_000))
        file.flush()
    expected = PretrainedFeatureExtractor(cache=None).fit_transform(texts)
    with pytest.warns(UserWarning, match="full.*The run goes on") as caught:
        embedding = PretrainedFeatureExtractor(cache=tmp_path / "cache").fit_transform(texts)
    assert len(caught) == 1
    assert (embedding == expected).all()


def test_a_read_only_directory_is_read(tmp_path, mounted):
    mounted("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path))
    cache = directory_cache(tmp_path)
    cache.check()
    cache.put_many(keys(100), rows_of(keys(100)))
    mounted("-o", "remount,ro", str(tmp_path))
    cache.check()  # reading alone needs no warning
    assert assert_none_is_wrong(keys(100), cache.get_many(keys(100))) == 100
    with pytest.warns(UserWarning, match="readonly.*The run goes on") as caught:
        cache.put_many(keys(100, 100), rows_of(keys(100, 100)))
        cache.put_many(keys(100, 200), rows_of(keys(100, 200)))
    assert len(caught) == 1
    assert cache.info().rows == 100
    with pytest.raises(OSError, match="The limit can't be set"):
        cache.set_limit(10)
    with pytest.raises(OSError, match=r"Read-only|readonly"):
        cache.clear()
    assert assert_none_is_wrong(keys(100), cache.get_many(keys(100))) == 100


def test_a_read_only_directory_without_a_cache_costs_one_warning(tmp_path, mounted, texts):
    mounted("-t", "tmpfs", "-o", "size=8m,ro", "tmpfs", str(tmp_path))
    expected = PretrainedFeatureExtractor(cache=None).fit_transform(texts)
    for directory in (tmp_path, tmp_path / "new"):
        with pytest.warns(UserWarning, match="The run goes on") as caught:
            embedding = PretrainedFeatureExtractor(cache=directory).fit_transform(texts)
        assert len(caught) == 1
        assert (embedding == expected).all()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no rights by user on this system")
def test_without_permission_every_question_says_so():
    """As another user than the owner: root may do everything."""
    script = """
import os, sys
from support.cached_rows import *
from sktransfer import cache_clear, cache_info, set_cache_limit
if not os.geteuid():
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
for call in (cache_info, cache_clear, lambda path: set_cache_limit(10**6, path)):
    try:
        print(call(sys.argv[1]).rows)
    except PermissionError as error:
        print(error)
    except OSError as error:
        print("OSError", error)
"""
    with tempfile.TemporaryDirectory() as parent:  # pytest's own may be entered by nobody else
        directory = Path(parent) / "cache"
        cache = DirectoryCache(directory)
        cache.check()
        cache.put_many(keys(5), rows_of(keys(5)))
        os.chmod(parent, 0o755)
        try:
            os.chmod(directory, 0o555)
            os.chmod(directory / FILE_NAME, 0o444)
            counted, *refused = run_script(script, directory).splitlines()
            assert counted == "5", "whoever may read may count"
            assert refused[0].startswith(
                f"[Errno 13] The cache can't be cleared in {str(directory)!r}: Permission denied"
            )
            assert refused[1].startswith(
                f"OSError The limit can't be set in {str(directory)!r}: attempt to write a readonly"
            )
            os.chmod(directory, 0o000)
            said = run_script(script, directory).splitlines()
            for line in said[:2]:
                assert line.startswith(
                    f"[Errno 13] The cache can't be looked for in {str(directory)!r}: Permission denied"
                )
            assert f"The limit can't be set in {str(directory)!r}" in said[2]
        finally:
            os.chmod(directory, 0o755)


def test_a_directory_that_cannot_be_made_costs_one_warning(tmp_path, texts):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="Not a directory.*The run goes on") as caught:
        PretrainedFeatureExtractor(cache=tmp_path / "file" / "cache").fit(texts).transform(texts)
    assert len(caught) == 1


def test_a_directory_removed_meanwhile_costs_one_warning_and_comes_back_with_the_next_run(tmp_path, texts):
    directory = tmp_path / "cache"
    cache = directory_cache(directory)
    cache.check()
    os.unlink(directory / FILE_NAME)
    os.rmdir(directory)
    with pytest.warns(UserWarning, match="The run goes on"):
        assert cache.get_many(keys(2)) == [None, None]
    PretrainedFeatureExtractor(cache=directory).fit(texts).transform(texts)
    assert cache_info(directory).rows == len(set(texts))
