import random
import threading

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


def test_bodies_of_threads_that_overlap_leave_the_callers_generators():
    for first_ends_first in (True, False):
        seed_all()
        expected = draws()
        seed_all()
        inner, outer = threading.Event(), threading.Event()

        def other(inner=inner, outer=outer):
            with preserved_generators(seed=4):
                draws()
                inner.set()
                outer.wait()
                draws()

        thread = threading.Thread(target=other)
        with preserved_generators(seed=5):
            thread.start()
            inner.wait()
            if not first_ends_first:
                outer.set()
                thread.join()
        outer.set()
        thread.join()
        assert draws() == expected
