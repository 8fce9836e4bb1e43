"""Whether a replica's death was its own doing, by how its process ended. Pure."""

from __future__ import annotations

import signal

from trygon.spec.routing import DeathCause

__all__ = ["death_cause"]

#: Sent by the kernel to a process for what it did itself, SIGABRT by the process.
_FAULTS = frozenset(
    (
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    )
)


def death_cause(
    exit_code: int | None, signal_number: int | None, *, is_told: bool, is_out_of_memory: bool = False
) -> DeathCause | None:
    """Return why a replica that served is gone, or None when it left as it was told.

    A request may only be blamed for what is certainly the replica's doing. SIGKILL is not: whoever sent it,
    a person or the kernel in want of memory, looks the same to the parent.

    Args:
        exit_code: None when a signal ended it.
        signal_number: None when it exited.
        is_told: Whether it was on its way out already.
        is_out_of_memory: Whether the kernel is known to have taken it for want of memory.
    """
    if is_out_of_memory:
        return DeathCause.OUT_OF_MEMORY
    if signal_number is not None:
        return DeathCause.OWN if signal_number in _FAULTS else DeathCause.OUTSIDE
    if exit_code is None:
        return DeathCause.OUTSIDE  # the engine has no word for it
    # 0 too: a replica that nobody told to leave has ended itself.
    return None if is_told and exit_code == 0 else DeathCause.OWN
