"""How fast replicas that end unasked are replaced: at once, unless they die too often. Pure.

The rule is that of a supervisor in Erlang: so many restarts within so many seconds are free. Beyond that the
deployment is crash-looping, and each death makes the pause before the next start twice as long, up to a bound.
It is tried for ever: an instance has nobody above it that could do better by giving up.
"""

from __future__ import annotations

import msgspec

from trygon.control.state import StartRecord

__all__ = ["WINDOW_S", "after_crash", "is_crash_looping"]

WINDOW_S = 30.0
#: Deaths of a deployment within the window that are replaced at once, for each wanted replica. Four replicas
#: of which somebody kills one every 2 s lose 16 in 30 s, and have 20. One that dies of its own every 1.5 s
#: loses 20, and has 5.
FREE_DEATHS = 5
#: A loop is over when no more than this for each wanted replica died within the window. Were it
#: `FREE_DEATHS`, a pause of 10 s would end every loop, and the next would begin with starts at once.
CALM_DEATHS = 1
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0


def after_crash(record: StartRecord, error: str, now: float, *, num_replicas: int) -> StartRecord:
    """Return the record after a replica that had been ready ended unasked.

    Args:
        record: How it went so far.
        error: Why it ended.
        now: Monotonic seconds.
        num_replicas: How many the deployment wants.
    """
    wanted = max(1, num_replicas)
    recent = [when for when in record.deaths if when > now - WINDOW_S]
    # One more than are free is all that the rule asks about.
    deaths = (*recent, now)[-(FREE_DEATHS * wanted + 1) :]
    looping = is_crash_looping(record) and len(deaths) > CALM_DEATHS * wanted
    if not looping and len(deaths) <= FREE_DEATHS * wanted:
        return StartRecord(error=error, crashed=True, deaths=deaths)
    if record.retry_at > now:
        # The others of the same round: one pause is for all of them.
        return msgspec.structs.replace(record, error=error, deaths=deaths)
    failures = record.failures + 1 if is_crash_looping(record) else 1
    pause_s = min(_FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20), _LONGEST_PAUSE_S)
    return StartRecord(failures=failures, error=error, retry_at=now + pause_s, crashed=True, deaths=deaths)


def is_crash_looping(record: StartRecord) -> bool:
    """Return whether replicas are replaced after pauses, because too many died."""
    return record.crashed and record.failures > 0
