"""Measures how replicas are: what their watchdogs say, and what the kernel says of those that are silent.

It measures and decides nothing: `control.reconcile.health` says what the signs mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import msgspec

from trygon.clock import Clock
from trygon.control.events import ReplicaObserved
from trygon.control.reconcile.health import SILENT_AFTER_S, Signs, diagnose
from trygon.control.reconcile.replica import ReplicaPhase
from trygon.control.state import ControllerState, Replica
from trygon.engine.base import Engine, Vitals
from trygon.spec.control import ReplicaAlive

__all__ = ["HealthWatch"]

#: Between two looks at the replicas that are silent.
LOOK_S = 0.5
#: A look that comes later than this found the controller itself stopped or starved; nobody else is to blame.
_LATE_S = 2.0


class HealthWatch:
    """Keeps the signs of life of every replica, and tells what they mean when that changes.

    Args:
        state: The controller's state; only read.
        engine: Knows the processes.
        clock: Tells the time.
        tell: Gets the events.
        look_s: Between two looks at the replicas that are silent.
    """

    def __init__(
        self,
        state: ControllerState,
        engine: Engine,
        clock: Clock,
        tell: Callable[[ReplicaObserved], None],
        *,
        look_s: float = LOOK_S,
    ) -> None:
        self._state = state
        self._engine = engine
        self._clock = clock
        self._tell = tell
        self._look_s = look_s
        #: By replica id; of replicas that are known.
        self._signs: dict[str, Signs] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looked_at = clock.monotonic()
        #: How often it looked; for those who wait for a look.
        self.num_looks = 0

    def start(self) -> None:
        """Begin to look."""
        self._looked_at = self._clock.monotonic()
        self._timer = asyncio.get_running_loop().call_later(self._look_s, self._look)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def heard(self, message: ReplicaAlive) -> None:
        """Take a beat of a watchdog."""
        application = self._state.owner(message.replica_id)
        if application is None:
            return
        now = self._clock.monotonic()
        signs = Signs(heard_at=now, blocked_s=message.blocked_s, where=message.where, worked_at=now)
        self._signs[message.replica_id] = signs
        self._judge(application.replicas[message.replica_id], signs, now)

    def _look(self) -> None:
        now = self._clock.monotonic()
        late_s = now - self._looked_at - self._look_s
        self._looked_at = now
        self.num_looks += 1
        self._timer = asyncio.get_running_loop().call_later(self._look_s, self._look)
        if late_s > _LATE_S:
            self._signs = {name: _moved(signs, late_s) for name, signs in self._signs.items()}
            return
        replicas = list(self._replicas())
        known = {replica.replica_id for replica in replicas}
        self._signs = {name: signs for name, signs in self._signs.items() if name in known}
        for replica in replicas:
            self._look_at(replica, now)

    def _look_at(self, replica: Replica, now: float) -> None:
        signs = self._signs.get(replica.replica_id)
        if signs is None:
            # It says nothing; one that is stopped must be found even so, whenever this controller started.
            signs = Signs(heard_at=None, worked_at=now)
        elif signs.heard_at is not None and now - signs.heard_at < SILENT_AFTER_S:
            return
        signs = _seen(signs, self._engine.vitals(replica.replica_id), now)
        self._signs[replica.replica_id] = signs
        self._judge(replica, signs, now)

    def _judge(self, replica: Replica, signs: Signs, now: float) -> None:
        trouble = diagnose(signs, now)
        if trouble is not None or replica.trouble is not None:
            self._tell(ReplicaObserved(replica.replica_id, trouble))

    def _replicas(self) -> Iterator[Replica]:
        for application in self._state.applications.values():
            for replica in application.replicas.values():
                if replica.phase is not ReplicaPhase.STARTING:
                    yield replica


def _seen(signs: Signs, vitals: Vitals | None, now: float) -> Signs:
    """Return the signs after a look at the process."""
    before = signs.vitals
    has_worked = vitals is not None and (before is None or vitals.cpu_s > before.cpu_s)
    # Whether it has worked since the last beat cannot be told from the first look.
    worked_at = now if has_worked and before is not None else signs.worked_at
    return msgspec.structs.replace(signs, vitals=vitals, worked_at=worked_at)


def _moved(signs: Signs, by_s: float) -> Signs:
    """Return the signs as if they had been seen later."""
    heard_at = signs.heard_at + by_s if signs.heard_at is not None else None
    return msgspec.structs.replace(signs, heard_at=heard_at, worked_at=signs.worked_at + by_s)
