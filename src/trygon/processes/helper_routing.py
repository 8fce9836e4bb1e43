"""The helper's side of routers of the user's: one object for each deployment, on a thread and a loop of its own."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from trygon.clock import RealClock
from trygon.dataplane.messages import CallMeta, HttpMeta
from trygon.dataplane.payloads import load
from trygon.dataplane.replica_context import ReplicaID
from trygon.dataplane.requests import HttpRequest, http_scope
from trygon.dataplane.routing.request_router import (
    PendingRequest,
    RequestMetadata,
    RequestRouter,
    RunningReplica,
)
from trygon.processes.user_objects import load_user_object
from trygon.scaling.context import DeploymentID
from trygon.spec.helper import (
    ROUTING,
    Answer,
    Ask,
    RoutingAnswer,
    RoutingBatch,
    RoutingQuestion,
    RoutingReplica,
    RoutingStats,
    UserFunction,
)

__all__ = ["Reply", "RoutingDesk"]

logger = logging.getLogger("trygon.helper")

#: Sends the answers of one turn to the caller that asked.
Reply = Callable[[list[Answer]], None]

#: Requests of which it is not known yet where they went; a caller that ends never says so.
_MAX_PENDING = 10_000
#: Questions under way in one router; what comes on top is told to go by power of two choices.
_MAX_ONGOING = 20_000

_decode_http = msgspec.msgpack.Decoder(HttpMeta).decode
_decode_call = msgspec.msgpack.Decoder(CallMeta).decode


class RoutingDesk:
    """The routers of one application; lives on the helper's loop.

    Args:
        loop: The helper's.
        app_name: The application.
        routers: The user's classes, by deployment.
        on_hung: Called when a router held its thread for `hung_s`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        app_name: str,
        routers: Mapping[str, UserFunction],
        on_hung: Callable[[], None],
        hung_s: float,
    ) -> None:
        self._loop = loop
        self._on_hung = on_hung
        self._hung_s = hung_s
        self._hosts = {name: _Host(app_name, name, function) for name, function in routers.items()}
        for host in self._hosts.values():
            # Now, so that the first request does not wait for imports.
            host.start()
        #: Ends the helper unless the router's thread comes round before.
        self._alarms: dict[str, asyncio.TimerHandle] = {}

    def take(self, ask: Ask, reply: Reply) -> None:
        """Route what is asked for; `reply` is called on the helper's loop, as answers come."""
        host = self._hosts.get(ask.owner)
        if host is None:
            logger.warning("deployment %r has no router here", ask.owner)
            return
        if ask.service == ROUTING:
            batch: RoutingBatch | RoutingStats = msgspec.convert(ask.body, RoutingBatch)
        else:
            batch = msgspec.convert(ask.body, RoutingStats)
        if ask.owner not in self._alarms:
            self._alarms[ask.owner] = self._loop.call_later(self._hung_s, self._on_hung)
        host.post(batch, reply, self._loop, lambda: self._came_round(ask.owner))

    def _came_round(self, owner: str) -> None:
        alarm = self._alarms.pop(owner, None)
        if alarm is not None:
            alarm.cancel()

    def close(self) -> None:
        """Begin nothing more."""
        for alarm in self._alarms.values():
            alarm.cancel()
        for host in self._hosts.values():
            host.close()


class _Host:
    """One router and its thread."""

    def __init__(self, app_name: str, deployment: str, function: UserFunction) -> None:
        self._app_name = app_name
        self._deployment = deployment
        self._function = function
        self._loop = asyncio.new_event_loop()
        self._router: RequestRouter | None = None
        self._error = ""
        self._wants_routed = False
        self._replicas: dict[str, RunningReplica] = {}
        #: Ids of the last batch; the router hears when they are others.
        self._listed: tuple[str, ...] = ()
        #: What replicas said of themselves, maybe before any caller named them.
        self._stats: OrderedDict[str, RoutingStats] = OrderedDict()
        self._pending: OrderedDict[tuple[int, int], PendingRequest] = OrderedDict()
        self._num_ongoing = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: list[tuple[Reply, Answer]] = []
        self._helper: asyncio.AbstractEventLoop | None = None

    # ---- the helper's thread

    def post(
        self,
        batch: RoutingBatch | RoutingStats,
        reply: Reply,
        helper: asyncio.AbstractEventLoop,
        came_round: Callable[[], None],
    ) -> None:
        """Give work to the router's thread."""
        self._helper = helper
        self._loop.call_soon_threadsafe(self._take, batch, reply, came_round)

    def start(self) -> None:
        """Make the router."""
        name = f"router-{self._deployment}"
        threading.Thread(target=self._run, args=(self._loop,), name=name, daemon=True).start()
        self._loop.call_soon_threadsafe(self._make)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    # ---- the router's thread

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    def _take(self, batch: RoutingBatch | RoutingStats, reply: Reply, came_round: Callable[[], None]) -> None:
        self._tell_helper(came_round)
        if isinstance(batch, RoutingStats):
            self._learn(batch)
            return
        if self._router is None:
            for question in batch.questions:
                self._answer(reply, Answer(seq=question.seq, error=self._error))
            return
        candidates = self._update(self._router, batch.replicas)
        for seq, replica_id in batch.routed.items():
            self._routed(self._router, id(reply), seq, replica_id)
        for question in batch.questions:
            if self._num_ongoing >= _MAX_ONGOING:
                self._answer(reply, Answer(seq=question.seq, error="too many requests are being routed"))
                continue
            self._num_ongoing += 1
            task = asyncio.get_running_loop().create_task(
                self._choose(self._router, question, candidates, reply)
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _make(self) -> None:
        try:
            made = _load(self._function)(DeploymentID(self._deployment, self._app_name), None)
            made.initialize_state(**self._function.kwargs)
        except BaseException as error:  # noqa: BLE001 - user code raises anything, SystemExit too
            self._error = f"{self._function.title} could not be made: {_told(error)}"
            logger.error("%s", self._error)
            return
        self._router = made
        self._wants_routed = type(made).on_request_routed is not RequestRouter.on_request_routed

    def _update(self, router: RequestRouter, told: tuple[RoutingReplica, ...]) -> list[RunningReplica]:
        candidates = []
        for one in told:
            replica = self._replicas.get(one.replica_id)
            if replica is None:
                replica = self._replicas[one.replica_id] = RunningReplica(_replica_id(one.replica_id))
                stats = self._stats.get(one.replica_id)
                if stats is not None:
                    self._learn(stats)
            replica.queue_len = one.ongoing
            replica.max_ongoing_requests = one.max_ongoing_requests
            candidates.append(replica)
        listed = tuple(one.replica_id for one in told)
        if listed != self._listed:
            self._listed = listed
            self._replicas = {name: self._replicas[name] for name in listed}
            try:
                router.update_replicas(candidates)
            except Exception:  # user code raises anything
                logger.exception("update_replicas of %s failed", self._function.title)
        return candidates

    def _learn(self, stats: RoutingStats) -> None:
        self._stats[stats.replica_id] = stats
        self._stats.move_to_end(stats.replica_id)
        while len(self._stats) > _MAX_PENDING:
            self._stats.popitem(last=False)
        replica = self._replicas.get(stats.replica_id)
        if replica is not None:
            replica.routing_stats = stats.stats
            replica.multiplexed_model_ids = set(stats.model_ids)

    async def _choose(
        self, router: RequestRouter, question: RoutingQuestion, candidates: list[RunningReplica], reply: Reply
    ) -> None:
        try:
            pending = _pending(question)
            found = await router.choose_replicas(list(candidates), pending)
            ranks = [[_full_id(replica) for replica in rank] for rank in found]
        except BaseException as error:  # noqa: BLE001 - user code raises anything, SystemExit too
            answer = Answer(seq=question.seq, error=f"{self._function.title} failed: {_told(error)}")
        else:
            answer = Answer(seq=question.seq, body=RoutingAnswer(ranks, self._wants_routed))
            if self._wants_routed:
                self._pending[id(reply), question.seq] = pending
                if len(self._pending) > _MAX_PENDING:
                    self._pending.popitem(last=False)
        finally:
            self._num_ongoing -= 1
        self._answer(reply, answer)

    def _routed(self, router: RequestRouter, caller: int, seq: int, replica_id: str) -> None:
        pending = self._pending.pop((caller, seq), None)
        if pending is None:
            return
        try:
            router.on_request_routed(pending, _replica_id(replica_id), None)
        except Exception:  # user code raises anything
            logger.exception("on_request_routed of %s failed", self._function.title)

    def _answer(self, reply: Reply, answer: Answer) -> None:
        self._answers.append((reply, answer))
        if len(self._answers) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        answers, self._answers = self._answers, []
        by_caller: dict[Reply, list[Answer]] = {}
        for reply, answer in answers:
            by_caller.setdefault(reply, []).append(answer)
        for reply, found in by_caller.items():
            self._tell_helper(lambda reply=reply, found=found: reply(found))  # type: ignore[misc]

    def _tell_helper(self, what: Callable[[], None]) -> None:
        if self._helper is not None and not self._helper.is_closed():
            self._helper.call_soon_threadsafe(what)


def _load(function: UserFunction) -> Callable[..., RequestRouter]:
    target = load_user_object(function)
    if not inspect.isclass(target) or not issubclass(target, RequestRouter):
        raise TypeError(
            f"wanted a subclass of trygon.serve.request_router.RequestRouter, found {target!r}; derive it from that"
        )
    return target


def _pending(question: RoutingQuestion) -> PendingRequest:
    if question.is_http:
        http = _decode_http(question.head)
        metadata = RequestMetadata(
            request_id=http.request_id,
            route=http.route,
            multiplexed_model_id=http.model_id,
            session_id=http.session_id,
            is_http_request=True,
        )
        return PendingRequest(metadata, lambda: _http_arguments(http, question.body), RealClock.wall())
    call = _decode_call(question.head)
    metadata = RequestMetadata(
        request_id=call.request_id,
        call_method=call.method,
        route=call.route,
        app_name=call.app_name,
        multiplexed_model_id=call.model_id,
        session_id=call.session_id,
    )
    return PendingRequest(metadata, lambda: _call_arguments(call, question), RealClock.wall())


def _http_arguments(meta: HttpMeta, body: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    async def nothing_more() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    return (HttpRequest(http_scope(meta, {}), nothing_more, body),), {}


def _call_arguments(meta: CallMeta, question: RoutingQuestion) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not question.is_whole or not (question.body or (meta.payload is not None and meta.payload.segment)):
        return (), {}
    args, kwargs = load(question.body, meta.payload)
    return args, kwargs


def _replica_id(full_id: str) -> ReplicaID:
    app_name, deployment, tag = full_id.split("#", 2)
    return ReplicaID(tag, deployment, app_name)


def _full_id(replica: Any) -> str:
    if not isinstance(replica, RunningReplica):
        raise TypeError(
            f"choose_replicas returns a list of lists of its candidates, found {replica!r} in one"
        )
    found = replica.replica_id
    return f"{found.app_name}#{found.deployment}#{found.unique_id}"


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()
