"""Who gets which GPU, what is refused, and that everything comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.engine.base import Holding
from trygon.engine.ledger import Ledger, Shortage
from trygon.spec.application import ResourceRequest


def gpus(amount: float) -> ResourceRequest:
    return ResourceRequest(num_gpus=amount)


def test_without_gpus_the_variable_is_left_alone() -> None:
    assert Ledger(cpus=2, custom={}).acquire("a", ResourceRequest()) is None


def test_replica_that_wants_no_gpu_sees_none() -> None:
    assert () == Ledger(cpus=2, gpu_ids=(0,), custom={}).acquire("a", ResourceRequest())


def test_fractions_share_the_fullest_gpu_that_has_room() -> None:
    ledger = Ledger(cpus=2, gpu_ids=(3, 5), custom={})

    got = [
        ledger.acquire(name, gpus(amount))
        for name, amount in (("a", 0.5), ("b", 0.7), ("c", 0.3), ("d", 0.5))
    ]

    assert [(3,), (5,), (5,), (3,)] == got


def test_whole_gpus_are_given_whole() -> None:
    ledger = Ledger(cpus=2, gpu_ids=(0, 1, 2), custom={})
    ledger.acquire("a", gpus(0.1))

    assert (1, 2) == ledger.acquire("b", gpus(2))
    with pytest.raises(Shortage, match=r"wants 1 of 'GPU', the machine has 3: a holds 0\.1; b holds 2"):
        ledger.acquire("c", gpus(1))


def test_refused_request_takes_nothing() -> None:
    ledger = Ledger(cpus=2, gpu_ids=(0,), custom={"press": 1})
    ledger.acquire("a", gpus(1))

    with pytest.raises(Shortage):
        ledger.acquire("b", ResourceRequest(num_gpus=1, resources={"press": 1}))

    assert (Holding("a", 1.0, {}),) == ledger.resources().holdings
    assert () == ledger.acquire("c", ResourceRequest(resources={"press": 1}))


def test_adopted_replica_holds_what_it_held() -> None:
    ledger = Ledger(cpus=2, gpu_ids=(0, 1), custom={"press": 1})

    ledger.adopt("a", ResourceRequest(num_gpus=2, resources={"press": 1}), (0, 1))

    with pytest.raises(Shortage):
        ledger.acquire("b", gpus(0.1))
    ledger.release("a")
    assert (0, 1) == ledger.acquire("b", gpus(2))


@given(st.lists(st.floats(0.01, 1.0), max_size=30))
def test_what_is_released_is_free_again(amounts: list[float]) -> None:
    ledger = Ledger(cpus=2, gpu_ids=(0, 1), custom={})
    held = []
    for number, amount in enumerate(amounts):
        try:
            ledger.acquire(str(number), gpus(amount))
            held.append(str(number))
        except Shortage:
            continue

    assert ledger.resources().gpus == 2.0
    assert sum(h.gpus for h in ledger.resources().holdings) <= 2.0 + 1e-3
    for name in held:
        ledger.release(name)
    ledger.release("nobody")

    assert (0, 1) == ledger.acquire("all", gpus(2))
