"""Fine-tuning on a GPU: same answers, memory given back. Skipped, with the reason, where there is none."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from support.networks import TinyImage, seeded

from sktransfer import FineTunedClassifier, ModuleBackbone

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of CUDA")

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
LABELS = (IMAGES.mean((1, 2, 3)) > 127.5).astype(int)


def model(**parameters):
    backbone = ModuleBackbone(seeded(TinyImage), name="tiny")
    return FineTunedClassifier(backbone, freeze_depth=0, max_epochs=3, random_state=0, **parameters)


def test_predictions_are_those_of_the_processor():
    here = model(device="cpu").fit(IMAGES, LABELS)
    there = model(device="cuda").fit(IMAGES, LABELS)
    # Dropout draws other numbers there, so the same trained network is asked on both.
    moved = clone(there).set_params(device="cpu")
    moved.__dict__.update({name: value for name, value in vars(there).items() if name.endswith("_") or name[0] == "_"})
    np.testing.assert_allclose(there.predict_proba(IMAGES), moved.predict_proba(IMAGES), atol=1e-4)
    assert here.predict_proba(IMAGES).shape == there.predict_proba(IMAGES).shape


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_memory_is_given_back_after_fit_and_after_predict(precision):
    first = model(device="cuda", precision=precision).fit(IMAGES, LABELS)
    first.predict(IMAGES)
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    for _ in range(5):
        model(device="cuda", precision=precision).fit(IMAGES, LABELS).predict(IMAGES)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= held + 2**20


def test_the_callers_generator_on_the_gpu_stays_where_it_is():
    torch.cuda.manual_seed(0)
    expected = torch.rand(3, device="cuda")
    torch.cuda.manual_seed(0)
    model(device="cuda").fit(IMAGES, LABELS)
    torch.testing.assert_close(torch.rand(3, device="cuda"), expected)
