"""FastAPI and bare ASGI applications behind serve.ingress."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import (
    APIRouter,
    BackgroundTasks,
    Cookie,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    WebSocket,
    WebSocketDisconnect,
    status,
)
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from tests.integration.serve.doors import Doors
from trygon import serve
from trygon.serve.context import _get_serve_request_context
from trygon.serve.handle import DeploymentHandle


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    yield {"model": "loaded at startup"}


app = FastAPI(title="Shop", lifespan=lifespan)
router = APIRouter(prefix="/sub", tags=["sub"])
mounted = FastAPI()


class Item(BaseModel):
    name: str
    price: float = Field(gt=0)
    tags: list[str] = []


class Sold(Exception):
    pass


def page(limit: Annotated[int, Query(ge=1, le=100)] = 10) -> int:
    return limit


async def user(x_user: Annotated[str | None, Header()] = None) -> str:
    if x_user is None:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "who are you?")
    return x_user


def session() -> Iterator[list[str]]:
    opened = ["open"]
    try:
        yield opened
    finally:
        opened.append("closed")


@app.exception_handler(Sold)
async def sold(request: Request, error: Exception) -> PlainTextResponse:
    return PlainTextResponse(f"sold out: {error} at {request.url.path}", status_code=410)


@app.middleware("http")
async def stamp(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    response.headers["x-stamp"] = request.url.path
    return response


@app.get("/plain-function")
async def plain_function(limit: Annotated[int, Depends(page)]) -> dict[str, int]:
    return {"limit": limit}


@router.get("/thing/{number}")
def thing(number: int) -> dict[str, int]:
    return {"thing": number}


@mounted.get("/inside")
def inside(request: Request) -> dict[str, str]:
    return {"root": request.scope["root_path"], "url": str(request.url_for("inside").path)}


app.include_router(router)
app.mount("/mounted", mounted)


@serve.deployment(max_ongoing_requests=50)
@serve.ingress(app)
class Shop(Doors):
    def __init__(self, prefix: str, child: DeploymentHandle | None = None) -> None:
        super().__init__()
        self.prefix = prefix
        self.child = child
        self.notes: list[str] = []
        self.sent = 0

    @app.get("/items/{item_id}")
    async def read(self, item_id: int, limit: Annotated[int, Depends(page)], q: str | None = None) -> Any:
        return {"item": f"{self.prefix}{item_id}", "limit": limit, "q": q}

    @app.post("/items", status_code=201)
    def create(self, item: Item, response: Response) -> Item:
        response.headers["x-made"] = item.name
        return item

    @app.get("/me")
    async def me(
        self, name: Annotated[str, Depends(user)], sid: Annotated[str | None, Cookie()] = None
    ) -> Any:
        return {"name": name, "sid": sid}

    @app.get("/state")
    async def state(self, request: Request) -> Any:
        return {"model": request.state.model, "root": request.scope["root_path"], "path": request.url.path}

    @app.get("/yields")
    async def yields(self, opened: Annotated[list[str], Depends(session)]) -> Any:
        return list(opened)

    @app.get("/sold")
    async def sell(self) -> None:
        raise Sold("wine")

    @app.get("/fails")
    async def fails(self) -> None:
        raise ValueError("secret")

    @app.get("/teapot")
    async def teapot(self) -> None:
        raise HTTPException(418, {"short": "stout"}, headers={"x-tea": "green"})

    @app.get("/later")
    async def later(self, tasks: BackgroundTasks) -> str:
        tasks.add_task(self.note, "async task")
        tasks.add_task(self.note_sync, "sync task")
        return "soon"

    @app.get("/stream")
    async def stream(self, count: int) -> StreamingResponse:
        async def produce() -> AsyncIterator[bytes]:
            for number in range(count):
                yield b"%d\n" % number

        return StreamingResponse(produce())

    @app.get("/child")
    async def ask_child(self) -> Any:
        assert self.child is not None
        return await self.child.remote("async")

    @app.get("/child-sync")
    def ask_child_sync(self) -> Any:
        assert self.child is not None
        return self.child.remote("sync").result(timeout_s=5)

    @app.get("/child-fails")
    async def ask_failing_child(self) -> Any:
        assert self.child is not None
        try:
            await self.child.fail.remote("expected")
        except ValueError as error:
            raise HTTPException(422, type(error).__name__) from error

    @app.get("/context")
    def context(self) -> Any:
        found = _get_serve_request_context()
        return {"id": found.request_id, "route": found.route, "app": found.app_name}

    @app.post("/size")
    async def size(self, request: Request) -> int:
        total = 0
        async for part in request.stream():
            total += len(part)
        return total

    @app.get("/wait")
    async def wait_here(self, door: str) -> str:
        return await self.wait(door)

    @app.websocket("/echo")
    async def echo(self, websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(message["code"], message.get("reason") or "")
                if message.get("text") is not None:
                    await websocket.send_text(self.prefix + message["text"])
                else:
                    await websocket.send_bytes(message["bytes"][::-1])
        except WebSocketDisconnect as error:
            self.notes.append(f"disconnected {error.code} {error.reason}")

    @app.websocket("/typed/{name}")
    async def typed(self, websocket: WebSocket, name: str, limit: Annotated[int, Depends(page)]) -> None:
        await websocket.accept(subprotocol="chat" if "chat" in websocket.scope["subprotocols"] else None)
        await websocket.send_json({"name": name, "limit": limit, "state": websocket.state.model})
        await websocket.close(4001, "enough")

    @app.websocket("/refuse")
    async def refuse(self, websocket: WebSocket) -> None:
        await websocket.close(1008)

    @app.websocket("/breaks")
    async def breaks(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("before")
        raise ValueError("secret")

    @app.websocket("/breaks-early")
    async def breaks_early(self, websocket: WebSocket) -> None:
        raise ValueError("secret")

    @app.websocket("/returns")
    async def returns(self, websocket: WebSocket) -> None:
        await websocket.accept()

    @app.websocket("/flood")
    async def flood(self, websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_bytes(b"x" * 50_000)
                self.sent += 1
        except Exception as error:
            self.notes.append(f"flood ended: {type(error).__name__}")
            raise

    @app.websocket("/count")
    async def count_messages(self, websocket: WebSocket) -> None:
        await websocket.accept()
        expected = int(await websocket.receive_text())
        await self.wait("counting")
        size = 0
        for _ in range(expected):
            size += len(await websocket.receive_bytes())
        await websocket.send_json(size)
        await websocket.close()

    async def note(self, text: str) -> None:
        self.notes.append(text)

    def note_sync(self, text: str) -> None:
        self.notes.append(text)

    async def how_many(self) -> int:
        return self.sent

    async def noted(self) -> list[str]:
        return self.notes


based = FastAPI()


class WithRoute:
    """Routes of a base class belong to its sub-class."""

    @based.get("/inherited")
    async def inherited(self) -> str:
        return type(self).__name__


@serve.deployment
@serve.ingress(based)
class Inheriting(WithRoute):
    @based.get("/own")
    def own(self) -> str:
        return "own"


@serve.deployment
@serve.ingress(FastAPI())
class AsyncShop:
    async def __init__(self, text: str) -> None:
        await asyncio.sleep(0)
        self.text = text

    def say(self) -> str:
        return self.text


async def bare_asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """An application without a framework, which knows no lifespan."""
    if scope["type"] != "http":
        raise RuntimeError(f"{scope['type']} is not for me")
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 202, "headers": [(b"x-kind", b"bare")]})
    await send({"type": "http.response.body", "body": scope["path"].encode() + b" ", "more_body": True})
    await send({"type": "http.response.body", "body": body})


@serve.deployment
@serve.ingress(bare_asgi)
class Bare:
    pass


def build() -> FastAPI:
    """Build in the replica, where handles can be found by name."""
    built = FastAPI()

    @built.get("/built")
    async def answer() -> Any:
        return await serve.get_deployment_handle("Child").remote("from a factory")

    return built


@serve.deployment
@serve.ingress(build)
class Built:
    def __init__(self, child: DeploymentHandle) -> None:
        self.child = child


@contextlib.asynccontextmanager
async def broken_lifespan(_: FastAPI) -> AsyncIterator[None]:
    raise RuntimeError("the database is not there")
    yield


@serve.deployment
@serve.ingress(FastAPI(lifespan=broken_lifespan))
class BrokenStart:
    pass


@contextlib.asynccontextmanager
async def noting_lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.note = "started"
    yield
    print("the lifespan ended well", flush=True)


ended = FastAPI(lifespan=noting_lifespan)


@ended.get("/note")
async def note(request: Request) -> str:
    return str(request.app.state.note)


@serve.deployment
@serve.ingress(ended)
class Ending:
    pass
