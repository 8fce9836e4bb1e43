"""How a process is, from the kernel's text."""

from __future__ import annotations

import os

import pytest

from trygon.engine.base import Vitals
from trygon.engine.vitals import parse_stat, read_vitals

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
STAT = b"42 (a) b (c)) %c 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 10"


@pytest.mark.parametrize(
    "state, stopped, running",
    [
        (b"T", True, False),
        (b"t", False, False),
        (b"R", False, True),
        (b"S", False, False),
        (b"D", False, False),
    ],
)
def test_the_state_and_the_time_are_read_past_a_wild_name(state: bytes, stopped: bool, running: bool) -> None:
    assert Vitals(stopped=stopped, running=running, cpu_s=3.0, memory_bytes=10 * PAGE_BYTES) == parse_stat(
        STAT % state[0], 100
    )


@pytest.mark.linux
def test_this_process_runs() -> None:
    vitals = read_vitals(os.getpid())

    assert vitals is not None
    assert not vitals.stopped
    assert vitals.cpu_s > 0


def test_a_process_that_is_not_there_has_none() -> None:
    assert read_vitals(2**22 + 1) is None
