"""Deployments for the tests of handles."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from tests.integration.serve.doors import Doors
from trygon import serve
from trygon.serve.context import _get_serve_request_context


class Custom(Exception):
    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text, code)
        self.code = code


class OddInit(Exception):
    """Cannot be rebuilt from its args."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__("odd")
        self.first, self.second = first, second


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class Attributes(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.extra = {"left": 3}


class NotAnException(BaseException):
    """What an ``except Exception`` lets through."""


class BadText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class WontLoad:
    def __reduce__(self) -> tuple[Any, ...]:
        return _fail_to_load, ()


def _fail_to_load() -> None:
    raise ValueError("this object refuses to be rebuilt")


ERRORS: dict[str, Any] = {
    "value": lambda: ValueError("a bad value"),
    "key": lambda: KeyError("k"),
    "os": lambda: FileNotFoundError(2, "No such file", "f.txt"),
    "custom": lambda: Custom("mine", code=7),
    "odd": lambda: OddInit(1, 2),
    "unpicklable": Unpicklable,
    "attributes": lambda: Attributes("x"),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad start"),
    "group": lambda: ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    "stop": lambda: StopIteration(3),
    "astop": lambda: StopAsyncIteration(3),
    "timeout": lambda: TimeoutError("user's own"),
    "base": lambda: NotAnException("odd one"),
    "generator_exit": lambda: GeneratorExit("x"),
    "text": lambda: BadText("x"),
    "cancelled": lambda: asyncio.CancelledError("by user code"),
    "runtime": lambda: RuntimeError("r"),
}


@serve.deployment(max_ongoing_requests=100, max_queued_requests=-1)
class Calls(Doors):
    """Answers in every way a method can."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[str] = []
        self.produced = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs]

    def echo(self, value: Any = None) -> Any:
        return value

    async def aecho(self, value: Any = None) -> Any:
        return value

    def lengthen(self, text: str, count: int) -> str:
        return text * count

    def raises(self, kind: str) -> None:
        raise ERRORS[kind]()

    async def araises(self, kind: str) -> None:
        raise ERRORS[kind]()

    def raises_from(self) -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    def lock(self) -> Any:
        return threading.Lock()

    def wont_load(self) -> Any:
        return WontLoad()

    def numbers(self, count: int) -> Iterator[int]:
        try:
            for number in range(count):
                self.produced += 1
                yield number
        finally:
            self.closed.append("sync")

    async def anumbers(self, count: int) -> AsyncIterator[int]:
        try:
            for number in range(count):
                self.produced += 1
                yield number
        finally:
            self.closed.append("async")

    def some_then_error(self, count: int) -> Iterator[int]:
        yield from range(count)
        raise ValueError("after the last")

    async def asome_then_error(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number
        raise ValueError("after the last")

    def returns_generator(self, count: int) -> Any:
        return (number for number in range(count))

    def bad_item(self) -> Iterator[Any]:
        yield 1
        yield threading.Lock()

    def echo_many(self, value: Any, count: int) -> Iterator[Any]:
        for _ in range(count):
            yield value

    async def gated(self, door: str) -> AsyncIterator[str]:
        try:
            yield "first"
            await self.wait(door)
            yield "second"
        finally:
            self.closed.append(door)

    async def what_closed(self) -> list[str]:
        return self.closed

    async def how_many(self) -> int:
        return self.produced

    def where(self) -> dict[str, Any]:
        found = serve.get_replica_context()
        return {
            "app": found.app_name,
            "deployment": found.deployment,
            "tag": found.replica_tag,
            "rank": found.rank.rank,
            "world": found.world_size,
            "self": found.servable_object is self,
        }

    def request(self) -> dict[str, Any]:
        return _describe_request()

    async def arequest(self) -> dict[str, Any]:
        return _describe_request()

    def bump(self, values: Any) -> Any:
        """Change an array in place: what arrives must be the receiver's own."""
        values += 1
        return values

    async def wait_with(self, door: str, value: Any) -> Any:
        await self.wait(door)
        return value

    async def pid(self) -> int:
        return os.getpid()

    def sum_of(self, values: Any) -> float:
        return float(values.sum())


def _describe_request() -> dict[str, Any]:
    context = _get_serve_request_context()
    return {
        "request_id": context.request_id,
        "route": context.route,
        "app_name": context.app_name,
        "model": context.multiplexed_model_id,
        "session": context.session_id,
        "is_http": context.is_http_request,
        "thread": threading.current_thread() is threading.main_thread(),
    }


answer: contextvars.ContextVar[int] = contextvars.ContextVar("answer", default=0)
