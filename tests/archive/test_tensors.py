import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.serialization import config

from sktransfer.archive import read_tensors
from sktransfer.archive.content import state_of
from sktransfer.archive.tensors import check_stored


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


def save_both(directory, tensors):
    """Write weights in both formats, where safetensors can hold them; return the paths."""
    paths = [directory / "w.pt"]
    torch.save(tensors, paths[0])
    if all(isinstance(name, str) for name in tensors):
        paths.append(directory / "w.safetensors")
        save_file(tensors, paths[1])
    return paths


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({0: torch.ones(2)}, "the name of a tensor must be a string. Got 0"),
        ({"a.weight": torch.ones(2, dtype=torch.int64)}, "'a.weight' is of type"),
        ({"a.bias": torch.ones(2, dtype=torch.bool)}, "'a.bias' is of type"),
        ({"scale": torch.ones(2, dtype=torch.complex64)}, "'scale' is of type"),
        ({"a.weight": torch.ones(2).to(torch.float8_e4m3fn)}, "'a.weight' is of type"),
    ],
    ids=["name", "integers", "truth values", "complex", "8 bits"],
)
def test_what_is_no_weights_is_named(tmp_path, tensors, message):
    for path in save_both(tmp_path, tensors):
        with pytest.raises(ValueError, match=rf"{path.name}.*{message}"):
            read_tensors(path)
        with pytest.raises(ValueError, match=message):
            check_stored(path)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    "value, message",
    [
        (torch.ones(2).to_sparse(), "layout torch.sparse_coo"),
        (torch.ones(2, device="meta"), "device 'meta'"),
        (torch.ones(1).expand(10**12), "more than the file can hold"),
        (3, "no tensor but a int"),
    ],
    ids=["sparse", "meta", "expanded", "number"],
)
def test_values_beside_tensors_are_named(tmp_path, value, message):
    torch.save({"a": torch.ones(2), "b": value}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=f"'b' is .*{message}"):
        read_tensors(tmp_path / "w.pt")


def test_counters_positions_and_masks_are_read(tmp_path):
    tensors = {"norm.num_batches_tracked": torch.tensor(3), "position_ids": torch.arange(4), "mask": torch.ones(2) > 0}
    for path in save_both(tmp_path, tensors):
        assert_same(read_tensors(path), tensors)
        check_stored(path)


@pytest.mark.parametrize("mapped", [False, True])
def test_tensors_do_not_change_with_their_file(tmp_path, tensors, mapped):
    expected = {name: tensor.clone() for name, tensor in tensors.items()}
    for path in save_both(tmp_path, tensors):
        with config.patch({"load.mmap": mapped}):
            found = read_tensors(path)
        with path.open("r+b") as file:
            file.write(b"\xff" * path.stat().st_size)
        assert_same(found, expected)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError("no memory"), KeyboardInterrupt()])
def test_only_what_was_found_is_said(tmp_path, tensors, monkeypatch, name, error):
    save_both(tmp_path, tensors)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(Path, "read_bytes", fail)
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)) as found:
        read_tensors(tmp_path / name)
    assert found.value is error


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 64, b"\xff" * 64, (10).to_bytes(8, "little") + b'{"a": 1}  ', b"PK\x03\x04" + b"\0" * 60],
    ids=["empty", "zeros", "ones", "header", "archive"],
)
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*damaged"):
        read_tensors(tmp_path / name)


def test_a_file_that_is_written_to_meanwhile_is_no_damaged_one(tmp_path, tensors, monkeypatch):
    save_both(tmp_path, tensors)
    for name in ("w.pt", "w.safetensors"):
        path = tmp_path / name

        def write(*args, path=path, **kwargs):
            path.write_bytes(b"half")
            raise ValueError("cut off")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", write)
            patch.setattr(torch, "load", write)
            with pytest.raises(OSError, match=f"{name}.*was changed while it was read"):
                read_tensors(path)


def test_files_of_the_same_size_and_time_are_told_apart(tmp_path):
    path = tmp_path / "large"
    content = bytearray(b"a" * (1 << 20))
    path.write_bytes(content)
    first, status = state_of(path), path.stat()
    content[0] = 98
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = state_of(path)
    assert first[:3] == second[:3]
    assert first[3] != second[3]
    assert first[4] != second[4]
    assert state_of(path) == second
