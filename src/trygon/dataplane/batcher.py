"""Runs the batches of one function on one loop: a timer, callbacks, and a task for each batch.

Which items go together and when is `dataplane.batching`'s business. A caller has no task, timer or wait of its own
here: its item is one object, and its answer one future.
"""

from __future__ import annotations

import asyncio
import contextvars
import traceback
from collections.abc import Callable, Sized
from typing import Any

from trygon.dataplane.batch_items import CallItem, StreamItem, feed
from trygon.dataplane.batch_statistics import BatchCounter, BatchReport, observe
from trygon.dataplane.batching import BatchQueue, BatchSettings
from trygon.dataplane.context import RequestContext, batch_context, request_context
from trygon.errors import RequestCancelledError, ServeError

__all__ = ["NO_REQUEST", "Batcher"]

_NEVER = float("inf")

#: Stands for the request of code that works on none.
NO_REQUEST = RequestContext()


class Batcher:
    """The queue of one function, or of one object's method, on one loop.

    Args:
        function: Takes lists and returns a list, or yields lists.
        name: Name of the function in errors and statistics.
        settings: Shared with whoever may change them.
        counter: Where finished batches are counted.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        settings: BatchSettings,
        counter: BatchCounter,
        is_stream: bool,
        bisects: bool,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.queue: BatchQueue[CallItem] = BatchQueue(settings)
        #: Running batches and when they began, in seconds of the loop.
        self.running: dict[asyncio.Task[None], float] = {}
        self._function = function
        self._name = name
        self._counter = counter
        self._is_stream = is_stream
        self._bisects = bisects
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER
        self._is_looking = False
        # What the loop's code may know (replica, runtime) without what belongs to the request that came first.
        self._context = contextvars.copy_context()

    # ---- callers

    def add(self, item: CallItem) -> None:
        """Let an item wait.

        Raises:
            RuntimeError: The item alone is larger than a batch may be.
        """
        if self.queue.add(item):
            self._start_due(item.arrived_at)
        elif not self._is_looking:
            # Only its own group can be due earlier now.
            self._set_timer(self.queue.due_at(item))

    def leave(self, item: CallItem) -> None:
        """Drop an item whose caller gave up; a batch that nobody waits for any more is cancelled."""
        self.queue.remove(item)
        on_left, item.on_left = item.on_left, None
        if on_left is not None:
            on_left()

    # ---- time

    def _set_timer(self, at: float) -> None:
        if at == _NEVER or at >= self._timer_at:
            # An earlier timer looks again; moving it for each item would cost more.
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_at = _NEVER
        now = self.loop.time()
        if at <= now:
            # What else comes in this turn of the loop shall join.
            self._look_soon()
            return
        self._timer_at = at
        self._timer = self.loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        # Timers have a millisecond's grain: one that fires early must not be set again and again.
        now = max(self.loop.time(), self._timer_at)
        self._timer = None
        self._timer_at = _NEVER
        self._start_due(now)

    def _look_soon(self) -> None:
        """Look at the queue after the loop has read what came while user code ran, and begun those requests."""
        if not self._is_looking:
            self._is_looking = True
            self.loop.call_soon(self.loop.call_soon, self._look)

    def _look(self) -> None:
        self._is_looking = False
        self._start_due(self.loop.time())

    def _start_due(self, now: float) -> None:
        while (taken := self.queue.take(now)) is not None:
            for item in taken.expired:
                item.fail(RequestCancelledError(item.request.request_id))
            self._counter.expired(len(taken.expired))
            if taken.batch:
                self._start(taken.batch, now)
        self._set_timer(self.queue.wake_at)

    # ---- running

    def _start(self, batch: list[CallItem], now: float) -> None:
        context = self._context.copy()
        context.run(_enter, batch)
        task = self.loop.create_task(self._run(batch, now), context=context)
        self.running[task] = now
        left = len(batch)

        def on_left() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                task.cancel()

        for item in batch:
            item.on_left = on_left

    async def _run(self, batch: list[CallItem], taken_at: float) -> None:
        began = self.loop.time()
        try:
            if self._is_stream:
                await self._stream(batch)
            else:
                await self._answer(batch)
        except BaseException as error:  # noqa: BLE001 - user code raises anything; its callers are told
            for item in batch:
                item.fail(error)
        finally:
            ended = self.loop.time()
            task = asyncio.current_task()
            if task is not None:
                self.running.pop(task, None)
            self.queue.finish(len(batch), ended - began, ended)
            self._report(batch, taken_at, ended - began)
            self._look_soon()

    def _report(self, batch: list[CallItem], taken_at: float, execution_s: float) -> None:
        limit = self.queue.settings.max_batch_size
        waits_s = [taken_at - item.arrived_at for item in batch]
        report = BatchReport(self._name, len(batch), limit, waits_s, execution_s, len(self.queue))
        self._counter.ran(report)
        observe(report)

    async def _answer(self, batch: list[CallItem]) -> None:
        """Run the batch; with bisection, run the halves of one that failed until the bad items are alone."""
        todo = [batch]
        while todo:
            part = todo.pop()
            if part is not batch:
                part = [item for item in part if not item.is_gone]
            if not part:
                continue
            try:
                results = _checked(await self._call(part), len(part), self._name)
            except Exception as error:  # noqa: BLE001 - user code raises anything; its callers are told
                if not self._bisects or len(part) == 1:
                    for item in part:
                        item.fail(error)
                    continue
                # Only an item that ran alone is known to be bad: the others of its part may have left meanwhile.
                half = len(part) // 2
                todo += [part[half:], part[:half]]
                self._counter.bisected()
            else:
                for item, result in zip(part, results, strict=True):
                    if not item.is_gone:
                        item.answer(result)

    def _call(self, batch: list[CallItem]) -> Any:
        """Call the function with one list for each parameter."""
        first = batch[0]
        if not first.kwargs and len(first.args) == 1:
            return self._function([item.args[0] for item in batch])
        args = [[item.args[position] for item in batch] for position in range(len(first.args))]
        kwargs = {name: [item.kwargs[name] for item in batch] for name in first.kwargs}
        return self._function(*args, **kwargs)

    async def _stream(self, batch: list[CallItem]) -> None:
        streams = [item for item in batch if isinstance(item, StreamItem)]
        await feed(self._call(batch), streams, lambda results: _checked(results, len(batch), self._name))

    # ---- introspection

    def stacks(self) -> str:
        """Return the stacks of the running batches as text, innermost frame last."""
        return "".join(f"{task.get_name()}\n{_stack(task.get_coro())}" for task in list(self.running))


def _stack(coroutine: Any) -> str:
    """Return the frames of a suspended coroutine and of what it awaits."""
    lines: list[str] = []
    while coroutine is not None:
        kind = "cr" if hasattr(coroutine, "cr_frame") else "ag"
        frame = getattr(coroutine, f"{kind}_frame", None)
        if frame is None:
            break
        lines += traceback.format_stack(frame, limit=1)
        coroutine = getattr(coroutine, f"{kind}_await", None)
    return "".join(lines)


def _enter(batch: list[CallItem]) -> None:
    """Set what user code in the batch sees: one request for its own, and those of all callers."""
    requests = [item.request for item in batch]
    first = requests[0]
    if len(batch) > 1:
        # The calls that the batch makes belong to all of its callers: one that leaves must not cancel them.
        own = RequestContext(
            first.route, first.request_id, first.app_name, first.multiplexed_model_id, first.session_id
        )
        own.deadline = (
            0.0 if any(not each.deadline for each in requests) else max(e.deadline for e in requests)
        )
        first = own
    request_context.set(first if first is not NO_REQUEST else None)
    batch_context.set(requests)


def _checked(results: Any, wanted: int, name: str) -> Any:
    """Return the results if there is one for each item.

    Raises:
        ServeError: There is not; all callers of the batch get it.
    """
    if isinstance(results, str | bytes | dict | set) or not isinstance(results, Sized):
        raise ServeError(
            f"batched function {name!r} must give a list with one result for each of its {wanted} items, "
            f"found {type(results).__name__}"
        )
    if len(results) != wanted:
        raise ServeError(
            f"batched function {name!r} must give one result for each of its {wanted} items, "
            f"found {len(results)}; the order of the results is the order of the items"
        )
    return results
