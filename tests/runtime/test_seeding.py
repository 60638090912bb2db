import random

import numpy as np
import torch

from sktransfer.runtime.seeding import preserved_generators


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def seed_all():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def test_what_the_body_draws_changes_no_later_draw():
    seed_all()
    expected = draws()
    seed_all()
    with preserved_generators():
        draws()
    assert draws() == expected


def test_generators_are_restored_after_an_error():
    seed_all()
    expected = draws()
    seed_all()
    try:
        with preserved_generators(seed=5):
            draws()
            raise KeyError
    except KeyError:
        pass
    assert draws() == expected


def test_a_seed_fixes_what_torch_draws_inside():
    with preserved_generators(seed=3):
        first = torch.rand(2)
    with preserved_generators(seed=3):
        assert torch.equal(torch.rand(2), first)
