"""What an application was before: its revisions as `trygon history` shows them."""

from __future__ import annotations

from enum import StrEnum

import msgspec

__all__ = ["Outcome", "RevisionRecord"]


class Outcome(StrEnum):
    """What became of a revision."""

    DEPLOYING = "DEPLOYING"
    #: All its replicas were ready at one moment, and it took the requests.
    COMPLETE = "COMPLETE"
    #: It was given up.
    FAILED = "FAILED"
    #: Another one was asked for before it was complete.
    REPLACED = "REPLACED"


class RevisionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of an application."""

    number: int
    outcome: Outcome
    #: Whether requests go to it now.
    is_serving: bool = False
    #: Wall-clock seconds.
    deployed_wall_s: float = 0.0
    #: What asked for it.
    origin: str = ""
    #: Why it was given up.
    error: str = ""
    #: Import path it was built from; empty for objects.
    import_path: str = ""
    #: Wanted replicas, by deployment.
    replicas: dict[str, int] = {}
    #: Digest of the snapshot of its code; empty when there is none.
    snapshot: str = ""
    #: When the application was deleted, in wall-clock seconds; 0 while it is there.
    deleted_wall_s: float = 0.0
