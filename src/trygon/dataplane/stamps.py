"""Stamps: when a caller sent a request, in the `value` field of its frame, which nothing else uses.

CLOCK_MONOTONIC is one clock for all processes of a machine, so the replica can tell how long the way took.
0 is no stamp: the caller does not measure stages, and then its replica does not either.
"""

from __future__ import annotations

from typing import Final

from trygon.clock import RealClock

__all__ = [
    "SAMPLE_BUDGET",
    "SAMPLE_MASK",
    "monotonic",
    "renew_stamps",
    "seconds_since",
    "set_stamping",
    "stamp",
]

#: Units of 1.024 us (a shift costs a third of a division) in 32 bits: they come round after 73 minutes, and no
#: frame is under way for that long.
_MASK: Final = 0xFFFFFFFF
_SHIFT: Final = 10
_PER_S: Final = 1e9 / (1 << _SHIFT)
_UNIT_S: Final = 1 / _PER_S

#: Requests of this process whose stages are measured between two publications; of those beyond, one in sixteen.
#: Measuring all of 20,000 a second costs some per cent of them, and tells nothing more.
SAMPLE_BUDGET: Final = 256
#: Bits of the count below zero that are 0 for one in sixteen.
SAMPLE_MASK: Final = 15

monotonic = RealClock.monotonic
_monotonic_ns = RealClock.monotonic_ns
_is_on = True
#: What is left of the budget; below zero, how much was wanted beyond it.
_left = SAMPLE_BUDGET


def set_stamping(*, is_on: bool) -> None:
    """Say whether this process's requests carry a stamp; they do unless it is switched off."""
    global _is_on
    _is_on = is_on


def stamp() -> int:
    """Return the stamp of this moment, or 0 for a request that is not to be measured."""
    global _left
    _left -= 1
    if (_left < 0 and _left & SAMPLE_MASK) or not _is_on:
        return 0
    return (_monotonic_ns() >> _SHIFT) & _MASK or 1


def renew_stamps() -> None:
    """Stamp the next requests again; called at each publication."""
    global _left
    _left = SAMPLE_BUDGET


def seconds_since(sent: int, now: float) -> float:
    """Return the seconds from a stamp to `now`; one that is a little ahead of it counts as now."""
    passed = (int(now * _PER_S) - sent) & _MASK
    return passed * _UNIT_S if passed <= _MASK >> 1 else 0.0
