import pickle

import pytest
import torch
from safetensors.torch import save_file

from sktransfer.archive import read_tensors


class Payload:
    """Would leave a file behind if unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


@pytest.fixture
def tensors():
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_safetensors_and_torch_files_are_read(tmp_path, tensors):
    save_file(tensors, tmp_path / "w.safetensors")
    torch.save(tensors, tmp_path / "w.pt")
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "checkpoint.pt")
    for name in ("w.safetensors", "w.pt", "checkpoint.pt"):
        assert_same(read_tensors(tmp_path / name), tensors)


@pytest.mark.parametrize("writer", ["pickle", "torch", "module"])
def test_a_pickle_is_refused_and_does_not_run(tmp_path, writer):
    trace, path = tmp_path / "ran", tmp_path / "weights.bin"
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"a": Payload(trace)}, protocol=2))
    elif writer == "torch":
        torch.save({"a": Payload(trace)}, path)
    else:
        torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match="could run code.*safetensors"):
        read_tensors(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, tensors, name):
    path = tmp_path / name
    save_file(tensors, path) if name.endswith("safetensors") else torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=name):
        read_tensors(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file"):
        read_tensors(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}, torch.ones(2)])
def test_a_file_without_named_tensors_is_an_error(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="no dictionary of tensors"):
        read_tensors(tmp_path / "w.pt")
