"""What BERTs do in other processes, written to a file: how often they are loaded, and which rows they run.

The real parts run, they are only looked at. A worker process imports this module because the class that it gets lives
here, and starts to look when the environment names a file.
"""

import functools
import hashlib
import os
import time
from pathlib import Path

import transformers

from sktransfer import PretrainedFeatureExtractor

FILE = "SKTRANSFER_TEST_OBSERVED"
MEET = "SKTRANSFER_TEST_MEET"


class Events:
    """What processes wrote to a file.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._seen = 0

    def new(self):
        """Return what came since the last call, as tuples of process, event ("load" or "row") and detail."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self._seen, start = len(lines), self._seen
        return [(int(process), event, detail) for process, event, detail in map(str.split, lines[start:])]


def loads(events):
    """Number of networks loaded, by process."""
    found = [process for process, event, _ in events if event == "load"]
    return {process: found.count(process) for process in found}


def rows(events):
    """Process and digest of each row that was run, in the order in which they were."""
    return [(process, detail) for process, event, detail in events if event == "row"]


class ObservedExtractor(PretrainedFeatureExtractor):
    """Itself; the first fits of two processes begin at the same moment where the environment says so."""

    def fit(self, X, y=None):
        if MEET in os.environ:
            _wait_for_another(Path(os.environ[MEET]))
        return super().fit(X, y)


def _wait_for_another(directory):
    (directory / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(directory.iterdir())) < 2:
        assert time.monotonic() < deadline, "no other process has begun"
        time.sleep(0.001)


def _write(event, details):
    # One write for all of them, so that lines of several processes don't mix.
    descriptor = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, "".join(f"{os.getpid()} {event} {detail}\n" for detail in details).encode())
    finally:
        os.close(descriptor)


def observe(set_attribute=setattr):
    """Look at every BERT that this process loads and runs.

    Parameters
    ----------
    set_attribute : callable, default=setattr
        A test gives its monkeypatch's, which takes it back.
    """
    model_class = transformers.BertModel
    forward, load = model_class.forward, model_class.from_pretrained.__func__

    @functools.wraps(forward)  # with its arguments, which the package looks at
    def observed_forward(self, input_ids=None, attention_mask=None, **kwargs):
        kept = [ids[mask.bool()] for ids, mask in zip(input_ids, attention_mask, strict=True)]
        _write("row", [hashlib.sha256(ids.numpy().tobytes()).hexdigest() for ids in kept])
        return forward(self, input_ids, attention_mask, **kwargs)

    def observed_load(cls, directory, **kwargs):
        _write("load", [Path(directory).name])
        return load(cls, directory, **kwargs)

    set_attribute(model_class, "forward", observed_forward)
    set_attribute(model_class, "from_pretrained", classmethod(observed_load))


if FILE in os.environ:
    observe()
