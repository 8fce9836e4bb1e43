"""Deployments for the tests of HTTP without FastAPI."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)

from tests.integration.serve.doors import Doors
from trygon import serve
from trygon.serve.context import _get_serve_request_context


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Color(enum.Enum):
    RED = "red"


Pair = collections.namedtuple("Pair", "a b")


def _pydantic() -> Any:
    from pydantic import BaseModel

    class Wine(BaseModel):
        name: str
        born: datetime.date
        price: decimal.Decimal | None = None

    return Wine(name="Merlot", born=datetime.date(2020, 1, 2))


def _secret() -> Any:
    from pydantic import SecretStr

    return {"password": SecretStr("do not show")}


def _numpy(make: str) -> Any:
    import numpy as np

    return {
        "int": lambda: np.int64(3),
        "float": lambda: np.float64(1.5),
        "bool": lambda: np.bool_(True),
        "array": lambda: np.arange(6).reshape(2, 3),
        "nested": lambda: {"a": [np.arange(2), np.int32(1)], "b": {"c": np.float32(0.5)}},
        "nan": lambda: np.array([np.nan, 1.0]),
        "text": lambda: np.array(["a", "b"]),
        "keys": lambda: {np.int64(1): 2},
    }[make]()


def _pandas(make: str) -> Any:
    import pandas as pd

    return {
        "frame": lambda: pd.DataFrame({"a": [1, 2], "b": ["x", None]}),
        "times": lambda: pd.DataFrame({"t": pd.to_datetime(["2020-01-02"])}),
        "nested": lambda: {"frame": pd.DataFrame({"a": [1.5]})},
        "series": lambda: pd.Series([1.5, 2.5], index=["x", "y"]),
        "missing": lambda: {"when": pd.NaT, "what": pd.NA},
    }[make]()


#: What a handler returns, by name; `EXPECTED` in the test says what a client gets.
VALUES: dict[str, Any] = {
    "str": lambda: "héllo",
    "empty": lambda: "",
    "bytes": lambda: b"\x00\xff",
    "none": lambda: None,
    "dict": lambda: {"a": 1, "ü": "é"},
    "list": lambda: [1, "two", None, True, 1.5],
    "tuple": lambda: (1, 2),
    "set": lambda: {1},
    "int": lambda: 3,
    "float": lambda: 1.5,
    "bool": lambda: True,
    "big": lambda: 2**70,
    "nan": lambda: float("nan"),
    "infinite": lambda: {"x": [float("inf"), 1.0]},
    "numpy int": lambda: _numpy("int"),
    "numpy float": lambda: _numpy("float"),
    "numpy bool": lambda: _numpy("bool"),
    "numpy array": lambda: _numpy("array"),
    "numpy nested": lambda: _numpy("nested"),
    "numpy nan": lambda: _numpy("nan"),
    "numpy text": lambda: _numpy("text"),
    "numpy keys": lambda: _numpy("keys"),
    "pandas frame": lambda: _pandas("frame"),
    "pandas times": lambda: _pandas("times"),
    "pandas nested": lambda: _pandas("nested"),
    "pandas series": lambda: _pandas("series"),
    "pandas missing": lambda: _pandas("missing"),
    "pydantic": _pydantic,
    "pydantic nested": lambda: [_pydantic()],
    "secret": _secret,
    "dataclass": lambda: Point(1, 2.5),
    "dataclass nested": lambda: {"p": [Point(1, 2.5)]},
    "datetime": lambda: datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
    "date": lambda: [datetime.date(2020, 1, 2), datetime.time(3, 4)],
    "timedelta": lambda: datetime.timedelta(seconds=90, milliseconds=5),
    "decimal": lambda: [decimal.Decimal("1.50"), decimal.Decimal(2)],
    "uuid": lambda: uuid.UUID(int=5),
    "enum": lambda: {Color.RED: Color.RED},
    "path": lambda: pathlib.PurePosixPath("/a"),
    "named tuple": lambda: Pair(1, 2),
    "deque": lambda: collections.deque([1]),
    "counter": lambda: collections.Counter("aab"),
    "bytes nested": lambda: {"b": b"abc", "deep": [{"c": bytearray(b"d")}]},
    "bad bytes": lambda: {"b": b"\xff"},
    "odd keys": lambda: {None: 1, 1.5: 2, 3: 4},
    "tuple keys": lambda: {(1, 2): 3},
    "surrogate": lambda: {"a": "\ud800"},
    "exception": lambda: {"e": ValueError("boom")},
    "object": object,
    "complex": lambda: 1j,
    "function": lambda: len,
    "generator": lambda: (number for number in range(3)),
    "deep": lambda: _deep(),
    "response": lambda: Response(b"x", 201, {"X-A": "1"}, "text/x"),
    "json": lambda: JSONResponse({"a": 1}, 404),
    "text": lambda: PlainTextResponse("plain"),
    "html": lambda: HTMLResponse("<p>"),
    "redirect": lambda: RedirectResponse("/elsewhere"),
    "no content": lambda: Response(status_code=204),
    "not modified": lambda: Response(status_code=304, headers={"etag": '"x"'}),
    "cookies": lambda: _cookies(),
    "file": lambda: FileResponse(__file__, media_type="text/x-python"),
    "large": lambda: Response(b"0123456789" * 300_000),
    "large json": lambda: list(range(300_000)),
    "split": lambda: Response("x", headers={"X-Bad": "a\r\nSet-Cookie: b"}),
}


def _deep() -> Any:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    return value


def _cookies() -> Response:
    response = Response("x")
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


@serve.deployment(max_ongoing_requests=50)
class Values:
    def __call__(self, request: Request) -> Any:
        return VALUES[request.query_params["name"]]()


colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


@serve.deployment(max_ongoing_requests=50)
class Web(Doors):
    """Does what the last part of the path says."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.produced = 0

    async def __call__(self, request: Request) -> Any:
        return await getattr(self, request.url.path.rpartition("/")[2])(request)

    async def describe(self, request: Request) -> Any:
        context = _get_serve_request_context()
        return {
            "method": request.method,
            "path": request.url.path,
            "raw": request.scope["raw_path"].decode(),
            "root": request.scope["root_path"],
            "query": request.scope["query_string"].decode(),
            "headers": [(name, value) for name, value in request.headers.items() if name.startswith("x-")],
            "client": request.client is not None,
            "version": request.scope["http_version"],
            "scheme": request.url.scheme,
            "id": context.request_id,
            "route": context.route,
            "http": context.is_http_request,
            "app": context.app_name,
        }

    async def length(self, request: Request) -> int:
        return len(await request.body())

    async def digest(self, request: Request) -> Any:
        size = parts = biggest = 0
        async for part in request.stream():
            size += len(part)
            parts += 1
            biggest = max(biggest, len(part))
        return {"size": size, "parts": parts, "biggest": biggest}

    async def json(self, request: Request) -> Any:
        return await request.json()

    async def form(self, request: Request) -> Any:
        async with request.form() as form:
            found = {}
            for name, value in form.multi_items():
                found[name] = value if isinstance(value, str) else [value.filename, len(await value.read())]
            return found

    async def slow_upload(self, request: Request) -> Any:
        """Take the first part, then wait for the door before the rest."""
        size = 0
        try:
            async for part in request.stream():
                if not size:
                    size += len(part)
                    await self.wait("upload")
                else:
                    size += len(part)
        except ClientDisconnect:
            self.notes.append("upload: disconnected")
            raise
        return size

    async def raises(self, request: Request) -> Any:
        raise ValueError("a secret of the deployment")

    async def cancels_itself(self, request: Request) -> Any:
        raise asyncio.CancelledError

    async def exits(self, request: Request) -> Any:
        raise SystemExit(3)

    async def waits(self, request: Request) -> Any:
        return await self.wait(request.query_params["door"])

    async def stream_sync(self, request: Request) -> Any:
        def produce() -> Iterator[str]:
            for number in range(int(request.query_params["count"])):
                self.produced += 1
                yield f"{number}\n"

        return StreamingResponse(produce(), media_type="text/plain")

    async def stream_async(self, request: Request) -> Any:
        async def produce() -> AsyncIterator[str]:
            for number in range(int(request.query_params["count"])):
                self.produced += 1
                yield f"{number}\n"

        return StreamingResponse(produce(), media_type="text/plain")

    async def stream_gated(self, request: Request) -> Any:
        async def produce() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await self.wait("stream")
                yield b"second"
            finally:
                self.notes.append("stream closed")

        return StreamingResponse(produce())

    async def stream_flood(self, request: Request) -> Any:
        async def produce() -> AsyncIterator[bytes]:
            try:
                while True:
                    self.produced += 1
                    yield b"x" * 10_000
            finally:
                self.notes.append("flood closed")

        return StreamingResponse(produce())

    async def stream_fails(self, request: Request) -> Any:
        async def produce() -> AsyncIterator[bytes]:
            yield b"some"
            raise ValueError("in the middle")

        return StreamingResponse(produce())

    async def background(self, request: Request) -> Any:
        async def later() -> None:
            await self.wait("background")
            self.notes.append("background done")

        return PlainTextResponse("at once", background=BackgroundTask(later))

    async def made(self) -> int:
        return self.produced

    async def noted(self) -> list[str]:
        return self.notes


@serve.deployment(max_ongoing_requests=10)
class Threads(Doors):
    """A synchronous handler: runs in a thread with the context of its request."""

    def __call__(self, request: Request) -> Any:
        colour.set(request.query_params.get("colour", "none"))
        if door := request.query_params.get("door"):
            self.wait_in_thread(door)
        return {
            "main": threading.current_thread() is threading.main_thread(),
            "colour": colour.get(),
            "id": _get_serve_request_context().request_id,
        }


@serve.deployment
class NoParameters:
    def __call__(self) -> str:
        return "nothing needed"


@serve.deployment
async def function(request: Request) -> str:
    return f"function at {request.url.path}"


@serve.deployment
def sync_function() -> dict[str, bool]:
    return {"sync": True}


@serve.deployment
class Predictor:
    """Has no __call__; `predict` stands in."""

    def predict(self, request: Request) -> list[int]:
        return [len(request.query_params)]


@serve.deployment
class AsyncInit:
    async def __init__(self, text: str) -> None:
        await asyncio.sleep(0)
        self.text = text

    async def __call__(self, request: Request) -> str:
        return self.text


@serve.deployment
class BareGenerator:
    def __call__(self, request: Request) -> Iterator[str]:
        yield "not supported"


@serve.deployment
class Configured:
    def __init__(self) -> None:
        self.config: Any = None

    def reconfigure(self, config: Any) -> None:
        self.config = config

    async def __call__(self, request: Request) -> str:
        return json.dumps(self.config)
