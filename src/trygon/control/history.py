"""What the revisions of an application were and what became of them; pure but for the entries it keeps."""

from __future__ import annotations

from collections.abc import Container

import msgspec

from trygon.control.blobs import detach_definitions
from trygon.control.state import Application, Revision
from trygon.control.store import DeletedApplication, PastRevision
from trygon.errors import DeployError
from trygon.spec.history import Outcome, RevisionRecord

__all__ = ["History"]

#: Revisions of each application that are kept; those that are wanted or serve are kept beyond it.
_KEPT = 10
#: Applications that are gone, and for how long they can be brought back.
_KEPT_DELETED = 20
_KEPT_DELETED_S = 30 * 86400.0


class History:
    """The last revisions of each application, without their large definitions."""

    def __init__(self) -> None:
        #: Oldest first, by application.
        self._past: dict[str, tuple[PastRevision, ...]] = {}
        #: When an application went, in wall-clock seconds; also of those that came back since.
        self._deleted_at: dict[str, float] = {}

    def restore(self, name: str, past: tuple[PastRevision, ...]) -> None:
        """Take over what was saved."""
        self._past[name] = past

    def restore_deleted(self, gone: DeletedApplication) -> None:
        """Take over what was saved of an application that is gone."""
        self._past[gone.name] = gone.history
        self._deleted_at[gone.name] = gone.deleted_wall_s

    def bury(self, name: str, wall_s: float) -> None:
        """Remember that an application is gone since now."""
        self._deleted_at.pop(name, None)
        self._deleted_at[name] = wall_s

    def deleted(self, alive: Container[str]) -> tuple[DeletedApplication, ...]:
        """Return what is kept of applications that are gone, longest gone first.

        Args:
            alive: Names of those that are there.
        """
        return tuple(
            DeletedApplication(name=name, deleted_wall_s=at, history=self._past[name])
            for name, at in self._deleted_at.items()
            if name not in alive and self._past.get(name)
        )

    def expire(self, alive: Container[str], wall_s: float) -> None:
        """Drop applications that are gone for too long, or of which there are too many."""
        gone = self.deleted(alive)
        for index, entry in enumerate(gone):
            is_old = wall_s - entry.deleted_wall_s > _KEPT_DELETED_S
            if is_old or index < len(gone) - _KEPT_DELETED:
                del self._past[entry.name], self._deleted_at[entry.name]

    def add(self, name: str, revision: Revision) -> None:
        """Keep a revision that is now wanted, as `detached` returned it."""
        self._past[name] = (*self._past.get(name, ()), PastRevision(revision=revision))

    def remove(self, name: str, number: int) -> None:
        """Take back what `add` kept: it was not saved."""
        self._past[name] = tuple(p for p in self._past.get(name, ()) if p.revision.number != number)

    def detached(self, name: str, revision: Revision) -> tuple[Revision, dict[str, bytes]]:
        """Return a revision as it is saved, and its definitions unless they are saved already."""
        for past in self._past.get(name, ()):
            if past.revision.number == revision.number:
                return past.revision, {}
        spec, blobs = detach_definitions(revision.spec)
        return msgspec.structs.replace(revision, spec=spec), blobs

    def settled(self, application: Application, new: Revision | None = None) -> tuple[PastRevision, ...]:
        """Return the entries of an application, each with what has become of it.

        Args:
            application: As it is.
            new: A revision that is about to be wanted.
        """
        target = new or application.target
        serving = application.serving
        needed = {r.number for r in (target, serving) if r is not None}
        entries = tuple(
            _settle(past, application, target.number if target is not None else 0)
            for past in self._past.get(application.name, ())
        )
        entries = tuple(p for p in entries if p.revision.number in needed or not _is_resized(p, entries))
        newest = entries[-_KEPT:]
        entries = tuple(p for p in entries if p in newest or p.revision.number in needed)
        self._past[application.name] = entries
        return entries

    def earlier(self, application: Application, to: int | None) -> Revision:
        """Return the revision that an undo means.

        Raises:
            DeployError: There is none.
        """
        entries = self.settled(application)
        target = application.target
        if to is not None:
            for past in entries:
                if past.revision.number == to:
                    return past.revision
            numbers = ", ".join(str(past.revision.number) for past in entries) or "none"
            raise DeployError(
                f"application {application.name!r} has no revision {to} in its history; there are: {numbers}"
            )
        for past in reversed(entries):
            if past.outcome is Outcome.COMPLETE and (target is None or _root(past.revision) != _root(target)):
                return past.revision
        raise DeployError(
            f"application {application.name!r} has no other revision that was complete, so there is nothing "
            f"to go back to; trygon history {application.name} shows all, --to NUMBER takes any of them"
        )

    def records(self, application: Application) -> list[RevisionRecord]:
        """Return the history for people, newest first."""
        serving = application.serving
        is_gone = serving is None and application.target is None
        gone_at = self._deleted_at.get(application.name, 0.0) if is_gone else 0.0
        return [
            RevisionRecord(
                number=past.revision.number,
                outcome=past.outcome,
                is_serving=serving is not None and serving.number == past.revision.number,
                deployed_wall_s=past.revision.deployed_wall_s,
                origin=past.revision.origin,
                error=past.error,
                import_path=past.revision.spec.import_path,
                replicas={d.name: d.options.num_replicas for d in past.revision.spec.deployments},
                snapshot=past.revision.spec.code.snapshot,
                deleted_wall_s=gone_at,
            )
            for past in reversed(self.settled(application))
        ]


def _root(revision: Revision) -> int:
    """Return the number of the revision that brought the code, whatever its size is now."""
    return revision.scales or revision.number


def _is_resized(past: PastRevision, entries: tuple[PastRevision, ...]) -> bool:
    """Whether the same revision in another size has taken its place: a scaler must not push out the others."""
    return any(
        later.revision.scales == _root(past.revision)
        and later.revision.number > past.revision.number
        and later.outcome is Outcome.COMPLETE
        for later in entries
    )


def _settle(past: PastRevision, application: Application, target: int) -> PastRevision:
    number = past.revision.number
    if application.serving is not None and application.serving.number == number:
        return msgspec.structs.replace(past, outcome=Outcome.COMPLETE)
    failed = application.target is not None and application.target.number == number and application.failure
    if failed:
        return msgspec.structs.replace(past, outcome=Outcome.FAILED, error=application.failure)
    if number == target:
        # Also one whose replacement could not be saved after all.
        return msgspec.structs.replace(past, outcome=Outcome.DEPLOYING, error="")
    if past.outcome is Outcome.DEPLOYING:
        return msgspec.structs.replace(past, outcome=Outcome.REPLACED)
    return past
