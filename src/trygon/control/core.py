"""The controller's core: events in, actions out, until nothing follows any more. Pure but for its state.

The controller runs it on sockets and the real clock, the simulator and the tests in virtual time.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

from trygon.control.actions import Action
from trygon.control.events import Event
from trygon.control.fold import fold
from trygon.control.reconcile.application import reconcile
from trygon.control.reconcile.routing import Routes
from trygon.control.state import Application, ControllerState

__all__ = ["Core", "Unsettled", "Wakes"]

#: An ordinary step looks at an application three or four times: it acts, sees what came of it, and finds nothing.
_ORDINARY_ROUNDS = 16
#: Start, find no place, make room, give up, put in order again what is left.
_ROUNDS_PER_DEPLOYMENT = 8


class Unsettled(Exception):
    """Deciding that does not come to rest, because one rule undoes what another one did."""


class _Rounds:
    """Counts how often one step looks at each application, and knows when it never ends.

    One round does for all replicas of a deployment what a rule asks for. Another follows where a rule has to
    answer to what came of that, a few times for each deployment; so the bound follows from how many there are.
    It does not count replicas: those that a step starts and lets go again must not put off its end.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def count(self, application: Application, actions: tuple[Action, ...]) -> None:
        """Take note of one round.

        Raises:
            Unsettled: There were too many.
        """
        name = application.name
        self._counts[name] = count = self._counts.get(name, 0) + 1
        if count > _ORDINARY_ROUNDS and count > _most_rounds(application):
            raise Unsettled(
                f"deciding about application {name!r} should come to rest, but goes on after {count} rounds;"
                f" the last one asked for {_told(actions)}"
            )


def _most_rounds(application: Application) -> int:
    revisions = (application.target, application.serving)
    num_deployments = sum(len(revision.by_name) for revision in revisions if revision is not None)
    return _ORDINARY_ROUNDS + _ROUNDS_PER_DEPLOYMENT * num_deployments


def _told(actions: tuple[Action, ...]) -> str:
    """Say what was asked for; one round may start a thousand replicas."""
    more = f" and {len(actions) - 3} more" if len(actions) > 3 else ""
    return ", ".join(map(repr, actions[:3])) + more


class Wakes:
    """When each application wants to be looked at although nothing happened."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        #: Superset of `_at`; entries that are not in it any more are skipped.
        self._heap: list[tuple[float, str]] = []

    def set(self, name: str, at: float | None) -> None:
        """Wake `name` at this time only; None does not wake it."""
        if at is None:
            self._at.pop(name, None)
        elif self._at.get(name) != at:
            self._at[name] = at
            heapq.heappush(self._heap, (at, name))

    def next(self) -> float | None:
        """Return the first time that somebody asked for."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: float) -> tuple[str, ...]:
        """Return whose time has come, and forget them."""
        due = []
        while (at := self.next()) is not None and at <= now:
            name = heapq.heappop(self._heap)[1]
            del self._at[name]
            due.append(name)
        return tuple(due)


class Core:
    """State, and the loop that folds events into it and reconciles what they touched.

    Args:
        run: Has one action carried out, and adds the event that it begins with, or ends in, before anything
            that may come of it.
        now: Tells the monotonic time.
    """

    def __init__(self, run: Callable[[Application, Action], None], now: Callable[[], float]) -> None:
        self.state = ControllerState()
        self.wakes = Wakes()
        self.routes = Routes()
        #: Bounds every drain, while the whole instance shuts down.
        self.longest_drain_s: float | None = None
        #: Applications looked at so far, a measure of work.
        self.num_reconciled = 0
        self._run = run
        self._now = now
        self._events: deque[Event] = deque()
        self._is_running = False

    def add(self, event: Event) -> None:
        """Keep an event for the next `tell`."""
        self._events.append(event)

    def tell(self, *events: Event) -> bool | None:
        """Fold events and whatever follows from them.

        Returns:
            Whether the routing table changed; None when called from an action, whose `tell` goes on with these.

        Raises:
            Unsettled: What follows from them never ends. The state is not to be used any more.
        """
        self._events.extend(events)
        if self._is_running:
            return None
        self._is_running = True
        touched: set[str] = set()
        seen: set[str] = set()
        rounds = _Rounds()
        try:
            while self._events or touched:
                while self._events:
                    touched |= fold(self.state, self._events.popleft(), self._now())
                if touched:
                    name = touched.pop()
                    seen.add(name)
                    self._reconcile(name, rounds)
        finally:
            self._is_running = False
        return self.routes.refresh(self.state, seen)

    def _reconcile(self, name: str, rounds: _Rounds) -> None:
        application = self.state.applications.get(name)
        if application is None:
            self.wakes.set(name, None)
            return
        self.num_reconciled += 1
        plan = reconcile(application, self._now(), longest_drain_s=self.longest_drain_s)
        rounds.count(application, plan.actions)
        self.wakes.set(name, plan.wake_at)
        for action in plan.actions:
            self._run(application, action)

    def mark_routed(self, version: int) -> None:
        """Remember in which version of the table revisions that are complete first take requests."""
        for name in self.state.unserved:
            application = self.state.applications[name]
            if application.serving is not None and not application.routed_version:
                application.routed_version = version
