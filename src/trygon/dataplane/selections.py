"""Calls to a replica that was named: broadcast to all, and reserve-then-send to one."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from trygon.dataplane.fairness import PLAIN
from trygon.dataplane.handle_calls import Outcome, UnaryCall
from trygon.dataplane.links import ReplicaLink, Withdrawable
from trygon.dataplane.messages import CallMeta
from trygon.dataplane.pool import Pool
from trygon.dataplane.runtime import Runtime

__all__ = ["BroadcastResponse", "ReplicaSelection", "TargetedCall"]

_encode_meta = msgspec.msgpack.Encoder().encode


class TargetedCall(UnaryCall):
    """A call for one replica only: a reject makes it wait for that replica."""

    __slots__ = ()

    is_targeted = True

    def evidence(self) -> None:
        """Judge nothing: a call for one replica cannot go to another."""


class BroadcastResponse:
    """The results of one call on every replica; Ray Serve says DeploymentBroadcastResponse."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._sent = Outcome()

    def sent(self, calls: list[TargetedCall]) -> None:
        """Take the calls that were made; on the loop's thread."""
        self._sent.set(calls)

    def fail(self, error: Exception) -> None:
        """Take the reason why no call was made."""
        self._sent.set(None, error)

    def results(self, *, timeout_s: float | None = None, return_exceptions: bool = False) -> list[Any]:
        """Return every replica's result, blocking this thread; the first error is raised unless asked otherwise.

        Raises:
            ValueError: A negative timeout.
            TimeoutError: Not all results were there in time.
            RuntimeError: Called in a running event loop.
        """
        if timeout_s is not None and timeout_s < 0:
            raise ValueError(f"timeout_s must be 0 or more, not {timeout_s!r}")
        if _in_running_loop():
            raise RuntimeError("results() would block the running event loop; use `await results_async()`")
        return asyncio.run(self.results_async(timeout_s=timeout_s, return_exceptions=return_exceptions))

    async def results_async(
        self, *, timeout_s: float | None = None, return_exceptions: bool = False
    ) -> list[Any]:
        """Return every replica's result; as `results`, for async code."""
        if timeout_s is not None and timeout_s < 0:
            raise ValueError(f"timeout_s must be 0 or more, not {timeout_s!r}")
        async with asyncio.timeout(timeout_s):
            await self._sent.wait()
            calls: list[TargetedCall] = self._sent.get()
            for call in calls:
                await call.outcome.wait()
        errors = [call.outcome.error for call in calls if call.outcome.error is not None]
        if errors and not return_exceptions:
            raise errors[0]
        return [call.outcome.error or call.outcome.value for call in calls]


def _in_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class ReplicaSelection:
    """A slot of one replica, held for one request."""

    def __init__(self, runtime: Runtime, deployment_id: tuple[str, str], session_id: str = "") -> None:
        self._runtime = runtime
        self.deployment_id = deployment_id
        self.session_id = session_id
        self.outcome = Outcome()
        self.pool: Withdrawable | None = None
        self._link: ReplicaLink | None = None
        self._is_used = False
        self._reservation: _Reservation | None = None

    @property
    def replica_id(self) -> str:
        """The replica that was chosen."""
        return self._link.replica_id if self._link is not None else ""

    def reserve(self, pool: Pool) -> None:
        """Wait in the pool's queue for a slot; on the loop's thread."""
        self.pool = pool
        self._reservation = _Reservation(self)
        pool.submit(self._reservation)

    def chosen(self, link: ReplicaLink, stream: int) -> None:
        """Hold the slot of `link`."""
        # The stream number is not used on the wire; only its slot is held.
        link.forget(stream)
        link.hold_slot()
        self._link = link
        self.outcome.set(None)

    def moved(self, pool: Withdrawable) -> None:
        """Wait in another pool; on the loop's thread."""
        self.pool = pool

    def use(self) -> None:
        """Mark the selection as used.

        Raises:
            ValueError: It was used before, or its block was left.
        """
        if self._is_used:
            raise ValueError("this replica selection was used or released already; choose again")
        self._is_used = True

    def leave(self) -> None:
        """Leave the block: a slot that was not used is given back."""
        if not self._is_used:
            self._is_used = True
            self._runtime.call(self._release)

    def take(self) -> ReplicaLink | None:
        """Give up the held slot to the request that is about to be sent; on the loop's thread."""
        link = self._link
        if link is not None:
            link.release_slot(announce=False)
        self._reservation = None
        return link

    def _release(self) -> None:
        """Give back the slot; on the loop's thread."""
        if self._link is not None:
            self._link.release_slot()
        elif self.pool is not None and self._reservation is not None:
            self.pool.withdraw(self._reservation)


class _Reservation:
    """Stands in the pool's queue for a request to come."""

    __slots__ = ("_selection", "session_id")

    #: A slot is for no model.
    model_id = ""
    ticket = PLAIN
    due = 0.0

    def __init__(self, selection: ReplicaSelection) -> None:
        self._selection = selection
        self.session_id = selection.session_id

    def question(self) -> tuple[bool, bytes, bytes]:
        """Say whose it is; the arguments come later."""
        _, app_name = self._selection.deployment_id
        return False, _encode_meta(CallMeta("", app_name=app_name, session_id=self.session_id)), b""

    def start(self, link: ReplicaLink, stream: int) -> None:
        self._selection.chosen(link, stream)

    def on_frame(self, kind: int, flags: int, status: int, head: bytes, body: bytes) -> None:
        return

    def on_moved(self, pool: Withdrawable) -> None:
        self._selection.moved(pool)

    def on_lost(self, replica_id: str) -> None:
        return

    def evidence(self) -> None:
        """Judge nothing: what the slot is for is not known yet."""

    def on_refused(self, error: Exception) -> None:
        self._selection.outcome.set(None, error)
