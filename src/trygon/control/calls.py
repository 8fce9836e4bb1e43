"""Calls that are answered later: who waits for what. Looks at the state after every step; holds no clock."""

from __future__ import annotations

import asyncio

import msgspec

from trygon.control.reconcile.status import application_status
from trygon.control.server import Peer
from trygon.control.state import ControllerState
from trygon.errors import DeployError
from trygon.spec.control import ApplicationChanged
from trygon.spec.status import ApplicationStatus, ApplicationStatusOverview

__all__ = ["Waiters"]


class _Running(msgspec.Struct):
    peer: Peer
    seq: int
    revisions: dict[str, int]
    #: The status last sent, by application.
    told: dict[str, ApplicationStatusOverview] = {}


class Waiters:
    """Callers with an open WaitApplications, WaitDeleted or Shutdown, and tasks that wait for ingress."""

    def __init__(self) -> None:
        self._running: list[_Running] = []
        self._deleted: list[tuple[Peer, int, str]] = []
        self._shutdown: list[tuple[Peer, int]] = []
        self._applied = asyncio.Event()

    def add_running(self, peer: Peer, seq: int, revisions: dict[str, int]) -> None:
        """Answer when all of these run, or one of them failed."""
        self._running.append(_Running(peer, seq, revisions))

    def add_deleted(self, peer: Peer, seq: int, name: str) -> None:
        """Answer when nothing is left of this application."""
        self._deleted.append((peer, seq, name))

    def add_shutdown(self, peer: Peer, seq: int) -> None:
        """Answer when all replicas are gone."""
        self._shutdown.append((peer, seq))

    def forget(self, peer: Peer) -> None:
        """Drop the calls of a peer that is gone."""
        self._running = [w for w in self._running if w.peer is not peer]
        self._deleted = [w for w in self._deleted if w[0] is not peer]
        self._shutdown = [w for w in self._shutdown if w[0] is not peer]

    def look(self, state: ControllerState) -> None:
        """Answer whom the state allows to answer."""
        self._running = [waiter for waiter in self._running if not self._answer(waiter, state)]
        open_calls = []
        for peer, seq, name in self._deleted:
            application = state.applications.get(name)
            if application is None or not application.deleting:
                peer.reply(seq)
            else:
                open_calls.append((peer, seq, name))
        self._deleted = open_calls

    def end(self) -> None:
        """Answer those who asked for the shutdown, and refuse who waits for something else."""
        for peer, seq in self._shutdown:
            peer.reply(seq)
        for waiter in self._running:
            waiter.peer.refuse(waiter.seq, DeployError("the instance was shut down meanwhile"))
        self._shutdown, self._running = [], []

    def tell_applied(self) -> None:
        """Wake whoever waits for ingress processes to apply a table."""
        self._applied.set()
        self._applied = asyncio.Event()

    async def applied(self, timeout_s: float) -> None:
        """Wait until some ingress applied a table, or the time is over."""
        event = self._applied
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            pass

    def _answer(self, waiter: _Running, state: ControllerState) -> bool:
        open_names = 0
        for name, revision in waiter.revisions.items():
            application = state.applications.get(name)
            if application is None or application.deleting:
                waiter.peer.refuse(
                    waiter.seq, DeployError(f"application {name!r} was deleted while it was deployed")
                )
                return True
            status = application_status(application)
            if waiter.told.get(name) != status:
                waiter.told[name] = status
                waiter.peer.send(ApplicationChanged(name=name, status=status))
            if status.status is ApplicationStatus.DEPLOY_FAILED:
                waiter.peer.refuse(
                    waiter.seq, DeployError(f"application {name!r} could not be deployed: {status.message}")
                )
                return True
            if status.status is not ApplicationStatus.RUNNING or status.revision < revision:
                open_names += 1
        if open_names:
            return False
        waiter.peer.reply(waiter.seq)
        return True
