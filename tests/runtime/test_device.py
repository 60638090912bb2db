import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from joblib.externals import loky

from sktransfer.runtime.device import frozen_pass, resolve_device, resolve_precision, warn_of_shared_gpu

CPU = torch.device("cpu")


def test_auto_is_a_device_that_is_present():
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert resolve_device("auto").type == expected
    assert resolve_device(torch.device("cpu")) == CPU


def test_unknown_and_absent_devices_are_errors_that_say_what_to_use():
    with pytest.raises(ValueError, match="'gpu', which torch does not know.*'auto'"):
        resolve_device("gpu")
    with pytest.raises(ValueError, match="nothing is computed"):
        resolve_device("meta")
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ValueError, match="CUDA device.*device='auto'"):
        resolve_device(absent)


def test_precision_by_default_is_float32_and_auto_only_lowers_texts_and_images():
    assert resolve_precision("float32", CPU, "text") == torch.float32
    assert resolve_precision("auto", CPU, "table") == torch.float32
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert resolve_precision("auto", CPU, "text") == (torch.bfloat16 if native else torch.float32)
    with pytest.raises(ValueError, match="needs a GPU"):
        resolve_precision("float16", CPU, "text")


def test_frozen_pass_shuts_out_the_callers_autocast_and_gradients():
    layer, x = torch.nn.Linear(4, 4), torch.ones(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with frozen_pass(CPU):
            out = layer(x)
        assert torch.is_autocast_enabled("cpu")
    assert out.dtype == torch.float32


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_frozen_pass_computes_in_full_float32_and_restores_what_the_caller_set():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with frozen_pass(CPU):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_frozen_pass_makes_tensors_without_gradients_and_leaves_the_mode():
    with frozen_pass(CPU):
        out = torch.nn.Linear(4, 4)(torch.ones(2, 4))
    assert not out.requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("kind", ["multiprocessing", "loky"])
def test_processes_that_share_a_gpu_are_warned(kind, monkeypatch):
    warn_of_shared_gpu(torch.device("cuda:0"))  # not in the main process
    monkeypatch.setenv("PYTHONWARNINGS", "error::UserWarning")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) if kind == "multiprocessing" else loky.ProcessPoolExecutor(1) as pool:
        told = pool.submit(warn_of_shared_gpu, torch.device("cuda:0")).exception()
        assert "Several processes train on cuda:0" in str(told) and "n_jobs=1" in str(told)
        assert pool.submit(warn_of_shared_gpu, CPU).exception() is None
