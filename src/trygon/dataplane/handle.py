"""`DeploymentHandle`: calls a deployment from code, in any process, thread or event loop."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from trygon.dataplane.context import request_context
from trygon.dataplane.direct import begin_on_line
from trygon.dataplane.handle_calls import HandleCall, StreamCall, UnaryCall
from trygon.dataplane.messages import CallMeta
from trygon.dataplane.payloads import SERIALIZATIONS, dump
from trygon.dataplane.pool import Pool
from trygon.dataplane.responses import DeploymentResponse, DeploymentResponseGenerator
from trygon.dataplane.runtime import Runtime, current_runtime
from trygon.dataplane.selections import BroadcastResponse, ReplicaSelection, TargetedCall
from trygon.dataplane.stamps import monotonic
from trygon.errors import ReplicaUnavailableError, SerializationError, ServeError

__all__ = ["DeploymentHandle", "HandleOptions"]


class HandleOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a handle calls; `handle.options(...)` makes a changed copy."""

    method_name: str = "__call__"
    multiplexed_model_id: str = ""
    session_id: str = ""
    stream: bool = False
    request_serialization: str = "cloudpickle"
    response_serialization: str = "cloudpickle"
    #: Seconds from the call to the end of its time; 0 is no limit of its own. Not an option of Ray Serve's.
    timeout_s: float = 0.0
    #: Whether a call whose replica died unanswered is made once more; not an option of Ray Serve's.
    retryable: bool = False
    #: Where a call stands while it waits for a replica; greater goes first, and keys take turns. Not Ray Serve's.
    priority: int = 0
    fairness_key: str = ""


_DEFAULTS = HandleOptions()

#: Request ids of calls that no request caused: random prefix of the process, then a counter.
_counter = itertools.count(1)
_prefix = os.urandom(8).hex()


def _forget_prefix() -> None:
    global _prefix
    _prefix = os.urandom(8).hex()


os.register_at_fork(after_in_child=_forget_prefix)


class DeploymentHandle:
    """Calls the methods of a deployment.

    ``handle.remote(x)`` calls ``__call__``, ``handle.method.remote(x)`` any other method. Every attribute
    name "exists"; a wrong one fails at the call. Handles pickle: name, application and options travel.

    Args:
        deployment_name: The deployment to call.
        app_name: Its application.
    """

    __slots__ = ("_app_name", "_deployment_name", "_methods", "_options", "_runtime")

    def __init__(
        self,
        deployment_name: str,
        app_name: str,
        options: HandleOptions = _DEFAULTS,
        runtime: Runtime | None = None,
    ) -> None:
        self._deployment_name = deployment_name
        self._app_name = app_name
        self._options = options
        #: Found at the first call, since a handle may be unpickled before its process is connected.
        self._runtime = runtime
        self._methods: dict[str, DeploymentHandle] = {}

    # ---- what it is

    @property
    def deployment_name(self) -> str:
        """Name of the deployment that is called."""
        return self._deployment_name

    @property
    def app_name(self) -> str:
        """Name of its application."""
        return self._app_name

    @property
    def deployment_id(self) -> tuple[str, str]:
        """(deployment, application)."""
        return self._deployment_name, self._app_name

    @property
    def is_initialized(self) -> bool:
        """Whether the handle has found the instance it calls."""
        return self._runtime is not None

    def running_replicas_populated(self) -> bool:
        """Whether this process knows a replica of the deployment."""
        runtime = self._bind()
        try:
            return bool(
                runtime.router.pool(self._app_name, self._deployment_name, self._revision(runtime)).links
            )
        except ServeError:
            return False

    def __repr__(self) -> str:
        return f"DeploymentHandle(deployment={self._deployment_name!r}, app={self._app_name!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DeploymentHandle):
            return NotImplemented
        return self.deployment_id == other.deployment_id and self._options == other._options

    def __hash__(self) -> int:
        return hash((self.deployment_id, self._options))

    def __reduce__(self) -> tuple[Any, ...]:
        return DeploymentHandle, (self._deployment_name, self._app_name, self._options)

    # ---- options

    def options(  # noqa: PLR0913 - one keyword for each option
        self,
        *,
        method_name: str | None = None,
        multiplexed_model_id: str | None = None,
        session_id: str | None = None,
        stream: bool | None = None,
        request_serialization: str | None = None,
        response_serialization: str | None = None,
        retryable: bool | None = None,
        timeout_s: float | None = None,
        priority: int | None = None,
        fairness_key: str | None = None,
        _prefer_local_routing: bool | None = None,
        _by_reference: bool | None = None,
    ) -> DeploymentHandle:
        """Return a copy with some options changed; it shares connections with this one.

        Args:
            method_name: Method to call.
            multiplexed_model_id: Model the request is for.
            session_id: Session the request belongs to.
            stream: Whether the method is a generator whose items are wanted as they come.
            request_serialization: "cloudpickle" (default), "pickle", "msgpack" or "orjson".
            response_serialization: As `request_serialization`, for the result.
            retryable: Whether a call may be made once more on another replica when its replica died before
                it answered, or before a stream's first item; for calls that do no more when made twice.
                Such repeats are at most a tenth of the calls, and what one replica can have in work, in
                10 seconds. Not an option of Ray Serve's.
            priority: Among calls of this process that wait for a replica, greater goes first; 0 by default.
                Not an option of Ray Serve's.
            fairness_key: Whose call it is: of calls of one priority that wait, the keys take turns.
                Not an option of Ray Serve's.
            timeout_s: Seconds that a call may take, its wait for a replica included, and everything that it
                calls in turn; 0 is no limit but that of the request in which it is made, which always holds.
                A late call is cancelled and raises `RequestTimeoutError`. Not an option of Ray Serve's.

        Raises:
            ValueError: An unknown serialization, a time that is negative or no number, or a priority that is no
                whole number.
            TypeError: An option that a handle does not have.
        """
        for value in (request_serialization, response_serialization):
            if value is not None and value not in SERIALIZATIONS:
                raise ValueError(
                    f"unknown serialization {value!r}; choose one of {', '.join(SERIALIZATIONS)}"
                )
        if timeout_s is not None and not 0 <= timeout_s < math.inf:
            raise ValueError(f"timeout_s is a number of seconds, 0 for no limit, found {timeout_s!r}")
        if priority is not None and type(priority) is not int:
            raise ValueError(f"priority must be a whole number (greater goes first), not {priority!r}")
        given = {
            "method_name": method_name,
            "multiplexed_model_id": multiplexed_model_id,
            "session_id": session_id,
            "stream": stream,
            "request_serialization": request_serialization,
            "response_serialization": response_serialization,
            "retryable": retryable,
            "timeout_s": timeout_s,
            "priority": priority,
            "fairness_key": fairness_key,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        changed = msgspec.structs.replace(self._options, **changes)
        return DeploymentHandle(self._deployment_name, self._app_name, changed, self._runtime)

    def __getattr__(self, name: str) -> DeploymentHandle:
        # Protocol look-ups (pickling, copying, IPython's _repr_*) must not find a method.
        if name.startswith(("__", "_repr_", "_ipython_")):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        method = self._methods.get(name)
        if method is None:
            method = self._methods[name] = self.options(method_name=name)
        return method

    def _init(self, **_options: Any) -> None:
        """Accept Ray Serve's set-up call; there is nothing to choose here.

        Raises:
            RuntimeError: The handle has made a call already.
        """
        if self._runtime is not None:
            raise RuntimeError("handle._init() must come before the first call")

    # ---- calls

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the deployment; returns at once.

        The request waits in this process until a replica has room. A `DeploymentResponse` among the
        arguments (not inside a list or dict) is replaced by its result before the call is sent.

        Returns:
            A DeploymentResponse, or a DeploymentResponseGenerator with ``stream=True``.
        """
        runtime = self._runtime
        if runtime is None or not runtime.is_alive:
            runtime = self._bind()
        options = self._options
        context = request_context.get()
        if context is not None:
            meta = CallMeta(
                options.method_name,
                context.request_id,
                context.route,
                context.app_name,
                options.multiplexed_model_id,
                options.session_id,
                context.deadline,
                result_serialization=options.response_serialization,
            )
        else:
            meta = CallMeta(
                options.method_name,
                f"{_prefix}{next(_counter):016x}",
                "",
                self._app_name,
                options.multiplexed_model_id,
                options.session_id,
                result_serialization=options.response_serialization,
            )
        call = StreamCall(meta, None) if options.stream else UnaryCall(meta, None)
        call.is_retryable = options.retryable
        if options.timeout_s:
            own = monotonic() + options.timeout_s
            meta.deadline = min(own, meta.deadline) if meta.deadline else own
            runtime.call(call.limit_time, runtime.loop)
        if options.priority or options.fairness_key:
            call.ticket = (options.priority, options.fairness_key)
        if context is not None:
            if context.children is None:
                context.children = set()
            context.children.add(call)
            call.siblings = context.children
        if _has_response(args) or (kwargs and _has_response(kwargs.values())):
            runtime.call(runtime.spawn, self._resolve_and_submit(runtime, call, args, kwargs))
        else:
            self._prepare_and_submit(runtime, call, args, kwargs)
        if isinstance(call, StreamCall):
            return DeploymentResponseGenerator(call, runtime)
        return DeploymentResponse(call, runtime)

    def _prepare_and_submit(
        self, runtime: Runtime, call: HandleCall, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            payload = dump((args, kwargs), self._options.request_serialization)
        except SerializationError as error:
            runtime.call(call.on_refused, error)
            return
        call.payload = payload
        call.meta.payload = payload.meta
        if runtime.is_here:
            self._submit(runtime, call)
        elif (
            # The loop keeps its time.
            self._options.timeout_s
            or type(call) is not UnaryCall
            or not begin_on_line(runtime, call, self._known_pool(runtime))
        ):
            runtime.call(self._submit, runtime, call)

    def _submit(self, runtime: Runtime, call: HandleCall) -> None:
        if call.is_over:
            return
        try:
            pool = runtime.router.pool(self._app_name, self._deployment_name, self._revision(runtime))
        except ServeError as error:
            call.on_refused(error)
            return
        call.pool = pool
        pool.submit(call)

    async def _resolve_and_submit(
        self, runtime: Runtime, call: HandleCall, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            args = tuple([await _resolve(arg) for arg in args])
            kwargs = {name: await _resolve(arg) for name, arg in kwargs.items()}
        except Exception as error:  # noqa: BLE001 - whatever the upstream call raised is the result here
            call.on_refused(error)
            return
        if not call.is_over:
            self._prepare_and_submit(runtime, call, args, kwargs)

    def _known_pool(self, runtime: Runtime) -> Pool | None:
        return runtime.router.known_pool(self._app_name, self._deployment_name, self._revision(runtime))

    def _bind(self) -> Runtime:
        if self._runtime is None or not self._runtime.is_alive:
            self._runtime = current_runtime()
        return self._runtime

    def _revision(self, runtime: Runtime) -> int | None:
        return runtime.revision if runtime.app_name == self._app_name else None

    # ---- all replicas, one replica

    def broadcast(self, method_name: str, *args: Any, **kwargs: Any) -> BroadcastResponse:
        """Call `method_name` on every running replica; max_queued_requests does not apply.

        Returns:
            A response whose `results()` or `results_async()` gives one result per replica, in no order.
        """
        runtime = self._bind()
        response = BroadcastResponse(runtime)
        arguments = (args, kwargs)
        dump(arguments).close()  # what cannot travel is told here, not on the loop's thread
        meta = CallMeta(method_name, f"{_prefix}{next(_counter):016x}", "", self._app_name)

        def send() -> None:
            try:
                pool = runtime.router.pool(self._app_name, self._deployment_name, self._revision(runtime))
            except ServeError as error:
                response.fail(error)
                return
            calls = []
            for link in list(pool.links):
                payload = dump(arguments)
                one = TargetedCall(msgspec.structs.replace(meta, payload=payload.meta), payload)
                one.pool = pool
                calls.append(one)
                pool.submit_to(link, one)
            response.sent(calls)

        runtime.call(send)
        return response

    @asynccontextmanager
    async def choose_replica(self) -> AsyncIterator[ReplicaSelection]:
        """Reserve a slot of one replica; `dispatch` uses it, leaving the block gives it back.

        Raises:
            DeploymentUnavailableError: There is no such deployment.
        """
        runtime = self._bind()
        selection = ReplicaSelection(runtime, self.deployment_id, self._options.session_id)

        def reserve() -> None:
            try:
                pool = runtime.router.pool(self._app_name, self._deployment_name, self._revision(runtime))
            except ServeError as error:
                selection.outcome.set(None, error)
                return
            selection.reserve(pool)

        runtime.call(reserve)
        try:
            await selection.outcome.wait()
            selection.outcome.get()
            yield selection
        finally:
            selection.leave()

    def dispatch(self, selection: ReplicaSelection, *args: Any, **kwargs: Any) -> DeploymentResponse:
        """Send a request to a replica chosen with `choose_replica`.

        Raises:
            ValueError: The selection belongs to another deployment, or was used or released.
            ReplicaUnavailableError: The replica died since (raised when the response is awaited).
        """
        if selection.deployment_id != self.deployment_id:
            raise ValueError(
                f"the selection is of deployment {selection.deployment_id!r}, this handle calls "
                f"{self.deployment_id!r}"
            )
        runtime = self._bind()
        options = self._options
        payload = dump((args, kwargs), options.request_serialization)
        selection.use()
        meta = CallMeta(
            options.method_name,
            f"{_prefix}{next(_counter):016x}",
            "",
            self._app_name,
            options.multiplexed_model_id,
            options.session_id,
            payload=payload.meta,
            result_serialization=options.response_serialization,
        )
        call = TargetedCall(meta, payload)

        def send() -> None:
            link = selection.take()
            if link is None or not link.is_open:
                call.on_refused(ReplicaUnavailableError(f"replica {selection.replica_id!r} is gone"))
                return
            call.pool = selection.pool
            link.begin(call)

        runtime.call(send)
        return DeploymentResponse(call, runtime)

    def shutdown(self) -> None:
        """Accept Ray Serve's call; connections are shared by the process and end with it."""

    async def shutdown_async(self) -> None:
        """Accept Ray Serve's call, as `shutdown`."""


def _has_response(values: Any) -> bool:
    for value in values:
        kind = type(value)
        if kind is DeploymentResponse:
            return True
        if kind is DeploymentResponseGenerator:
            raise ServeError(
                "a streaming response cannot be an argument of another call; read its items and pass those"
            )
    return False


async def _resolve(value: Any) -> Any:
    return await value if type(value) is DeploymentResponse else value
