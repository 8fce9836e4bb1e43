"""The controller's side of user-code helpers: starts them when they are needed, asks them, and waits no longer than it may.

It runs no user code and decides nothing: what a helper says comes back as an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec

from trygon.clock import Clock
from trygon.control.actions import AskPolicy
from trygon.control.events import PolicyAnswered
from trygon.control.state import Application, ControllerState, Revision
from trygon.engine.base import Engine, Vitals
from trygon.scaling.decision import Proposal
from trygon.spec.helper import AUTOSCALING, Answer, Ask, UserFunction, helper_address, helper_key
from trygon.spec.instance import InstanceRecord
from trygon.spec.launch import HelperLaunch
from trygon.spec.routers import CUSTOM
from trygon.spec.wire import MessageReader, pack

__all__ = ["HelperDesk"]

#: What a policy may take. The first answer may have to wait for imports.
ANSWER_S = 10.0
FIRST_ANSWER_S = 60.0
#: Between two tries to connect to a helper that is being started.
_CONNECT_PAUSES_S = (0.005, 0.25)


class HelperDesk:
    """Asks the policies of applications.

    Args:
        state: The controller's state; only read.
        engine: Starts and ends helpers.
        clock: Tells the time.
        record: The instance.
        blobs: Where snapshots of code are kept; None for none.
        tell: Gets the events.
    """

    def __init__(
        self,
        state: ControllerState,
        engine: Engine,
        clock: Clock,
        record: InstanceRecord,
        blobs: Path | None,
        tell: Callable[[PolicyAnswered], None],
    ) -> None:
        self._state = state
        self._engine = engine
        self._clock = clock
        self._record = record
        self._blobs = blobs
        self._tell = tell
        self._links: dict[str, _HelperLink] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: Processor time of replicas when their policy was last asked, and that moment.
        self._cpu: dict[str, tuple[float, float]] = {}

    def ask(self, application: Application, action: AskPolicy) -> None:
        """Ask a policy; a PolicyAnswered follows, within the time it may take."""
        serving = application.serving
        assert serving is not None, "only what serves is scaled"
        key = helper_key(action.app_name, action.revision)
        link = self._link(serving, key)
        task = asyncio.get_running_loop().create_task(self._run(key, link, action))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def prepare(self, name: str) -> None:
        """Start what the wanted and the serving revision of an application need from the first request on: routers."""
        application = self._state.applications.get(name)
        if application is None:
            return
        for revision in (application.wanted, application.serving):
            if revision is not None and _routers(revision):
                self._link(revision, helper_key(name, revision.number))

    def _link(self, revision: Revision, key: str) -> _HelperLink:
        link = self._links.get(key)
        if link is None:
            launch = self._launch(revision, key)
            self._engine.start_helper(launch)
            link = self._links[key] = _HelperLink(launch.address)
        return link

    def tidy(self) -> None:
        """End the helpers of revisions that neither serve nor are about to."""
        if not self._links:
            return
        needed = {
            helper_key(name, revision.number)
            for name, application in self._state.applications.items()
            for revision in (application.wanted, application.serving)
            if revision is not None and not application.deleting
        }
        for key in self._links.keys() - needed:
            self._links.pop(key).close()
            self._engine.stop_helper(key, forget=True)

    def close(self) -> None:
        """Wait for no answer any more; helpers run on."""
        for task in self._tasks:
            task.cancel()
        for link in self._links.values():
            link.close()

    async def _run(self, key: str, link: _HelperLink, action: AskPolicy) -> None:
        deadline_s = ANSWER_S if link.has_answered else FIRST_ANSWER_S
        proposals: dict[str, Proposal] = {}
        error = ""
        try:
            async with asyncio.timeout(deadline_s):
                answer = await link.ask(action, self._on_the_wall(action.contexts))
            error = answer.error
            if not error:
                proposals = msgspec.convert(answer.body, dict[str, Proposal])
        except TimeoutError:
            # It may hold the interpreter, or wait for what never comes: a fresh process helps, waiting does not.
            link.close()
            self._engine.stop_helper(key, forget=False)
            error = (
                f"{action.function.title} did not answer within {deadline_s:g} s, and its process was ended"
            )
        except (OSError, msgspec.ValidationError) as problem:
            link.close()
            error = f"{action.function.title} could not be asked: {problem}; see {self._log_path(key)}"
        self._tell(PolicyAnswered(action.app_name, action.revision, action.owner, proposals, error))

    def _launch(self, revision: Revision, key: str) -> HelperLaunch:
        code = revision.spec.code
        return HelperLaunch(
            key=key,
            code=code,
            address=helper_address(self._record.runtime_dir, key),
            log_path=self._log_path(key),
            snapshot_path=str(self._blobs / code.snapshot) if self._blobs and code.snapshot else "",
            routers=_routers(revision),
        )

    def _log_path(self, key: str) -> str:
        name = "".join(char if char.isalnum() or char in "._-" else "-" for char in key.rpartition("#")[0])
        return os.path.join(self._record.log_dir, f"helper_{name[:80]}.log")

    def _on_the_wall(self, contexts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return contexts with wall-clock times, and with what the processes of the replicas use."""
        now = self._clock.monotonic()
        offset = self._clock.wall() - now
        done = {}
        for name, context in contexts.items():
            times = {
                field: context[field] + offset if context[field] is not None else None
                for field in ("current_time", "last_scale_up_time", "last_scale_down_time")
            }
            raw = {
                metric: {key: [(at + offset, value) for at, value in told] for key, told in found.items()}
                for metric, found in context["raw_metrics"].items()
            }
            usage = self._usage(context["running_replicas"], now)
            done[name] = {**context, **times, "raw_metrics": raw, **usage}
        return done

    def _usage(self, replica_ids: list[str], now: float) -> dict[str, dict[str, float]]:
        cpu: dict[str, float] = {}
        memory: dict[str, float] = {}
        for replica_id in replica_ids:
            vitals: Vitals | None = self._engine.vitals(replica_id)
            if vitals is None:
                continue
            before = self._cpu.get(replica_id)
            self._cpu[replica_id] = vitals.cpu_s, now
            memory[replica_id] = float(vitals.memory_bytes)
            if before is not None and now > before[1]:
                cpu[replica_id] = max(0.0, (vitals.cpu_s - before[0]) / (now - before[1]))
        self._cpu = {key: kept for key, kept in self._cpu.items() if self._state.owner(key) is not None}
        return {"cpu_by_replica": cpu, "memory_by_replica": memory}


def _routers(revision: Revision) -> dict[str, UserFunction]:
    """Return the router classes of the user's, by deployment."""
    found = {}
    for deployment in revision.spec.deployments:
        rule = deployment.options.router
        if rule.name == CUSTOM:
            found[deployment.name] = UserFunction(
                import_path="" if deployment.router else rule.router_class,
                definition=deployment.router,
                name=rule.router_class,
                kwargs=rule.kwargs,
            )
    return found


class _HelperLink:
    """The connection to one helper, made when it is needed."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._seq = 0
        #: Whether its imports are done.
        self.has_answered = False

    async def ask(self, action: AskPolicy, contexts: dict[str, dict[str, Any]]) -> Answer:
        """Return the answer; OSError when the helper goes before it has answered."""
        async with self._connecting:
            if self._connection is None or self._connection.is_lost:
                self.has_answered = False
                self._connection = await self._connect()
        self._seq += 1
        ask = Ask(
            seq=self._seq,
            service=AUTOSCALING,
            function=action.function,
            owner=action.owner,
            body=contexts,
        )
        answer = await self._connection.ask(ask)
        self.has_answered = True
        return answer

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        pause_s, longest_s = _CONNECT_PAUSES_S
        while True:
            # The supervisor may not have made the socket yet; whoever waits here has a deadline.
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return (await loop.create_unix_connection(_Connection, self._address))[1]
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    def close(self) -> None:
        """Drop the connection; the next question makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._reader: MessageReader[Answer] = MessageReader(Answer)
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no sub-class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            answers = self._reader.feed(data)
        except (ValueError, msgspec.DecodeError):
            # Whatever user code made of its helper, it must not end the controller.
            self.close()
            return
        for answer in answers:
            waiter = self._waiting.get(answer.seq)
            if waiter is not None and not waiter.done():
                waiter.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(ConnectionResetError("its process ended"))

    async def ask(self, ask: Ask) -> Answer:
        assert self._transport is not None, "a connection is made before it is used"
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[ask.seq] = waiter
        try:
            self._transport.write(pack(ask))
            return await waiter
        finally:
            del self._waiting[ask.seq]

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
