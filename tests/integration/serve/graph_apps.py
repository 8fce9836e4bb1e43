"""Applications of several deployments for the tests of composition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from starlette.requests import Request

from tests.integration.serve.doors import Doors
from trygon import serve
from trygon.serve.context import _get_serve_request_context
from trygon.serve.handle import DeploymentHandle


@serve.deployment(max_ongoing_requests=100)
class Child(Doors):
    def __init__(self, name: str = "child") -> None:
        super().__init__()
        self.name = name

    def __call__(self, value: Any = None) -> Any:
        return [self.name, value]

    def fail(self, text: str = "child failed") -> None:
        raise ValueError(text)

    async def context(self) -> list[str]:
        found = _get_serve_request_context()
        return [found.request_id, found.route, found.app_name, found.multiplexed_model_id]

    def items(self, count: int) -> Iterator[int]:
        yield from range(count)

    def read_query(self, request: Request) -> dict[str, str]:
        return dict(request.query_params)

    async def read_request(self, request: Request) -> dict[str, Any]:
        return {
            "method": request.method,
            "path": request.url.path,
            "query": dict(request.query_params),
            "header": request.headers.get("x-mine"),
            "body": (await request.body()).decode(),
        }


@serve.deployment(max_ongoing_requests=100)
class Parent(Doors):
    """Calls its child from every kind of method."""

    def __init__(self, child: DeploymentHandle) -> None:
        super().__init__()
        self.child = child

    async def __call__(self, request: Request) -> Any:
        return await getattr(self, request.query_params.get("do", "ask_async"))()

    async def ask_async(self, value: Any = 1) -> Any:
        return await self.child.remote(value)

    def ask_sync(self, value: Any = 1) -> Any:
        return self.child.remote(value).result(timeout_s=10)

    async def ask_wrongly(self) -> Any:
        return self.child.remote(1).result()

    async def ask_many(self, count: int) -> list[Any]:
        return list(await asyncio.gather(*(self.child.remote(number) for number in range(count))))

    async def ask_in_thread(self) -> Any:
        return await asyncio.to_thread(self.ask_sync, "thread")

    async def chain(self) -> Any:
        return await self.child.remote(self.child.remote(value=self.child.remote(1)))

    async def fail_async(self) -> Any:
        return await self.child.fail.remote()

    def fail_sync(self) -> Any:
        return self.child.fail.remote().result()

    async def caught(self) -> str:
        try:
            await self.child.fail.remote()
        except ValueError as error:
            return f"caught {type(error).__name__}"
        return "nothing to catch"

    async def contexts(self) -> list[list[str]]:
        found = _get_serve_request_context()
        mine = [found.request_id, found.route, found.app_name, found.multiplexed_model_id]
        return [mine, await self.child.context.remote()]

    def contexts_sync(self) -> list[list[str]]:
        found = _get_serve_request_context()
        mine = [found.request_id, found.route, found.app_name, found.multiplexed_model_id]
        return [mine, self.child.context.remote().result()]

    async def stream_async(self, count: int) -> AsyncIterator[int]:
        async for item in self.child.options(stream=True).items.remote(count):
            yield item * 10

    def stream_sync(self, count: int) -> Iterator[int]:
        for item in self.child.options(stream=True).items.remote(count):
            yield item * 10

    async def wait_for_child(self, door: str) -> Any:
        return await self.child.wait.remote(door)

    def wait_for_child_sync(self, door: str) -> Any:
        return self.child.wait.remote(door).result()

    async def call(self, handle: DeploymentHandle, value: Any) -> Any:
        return await handle.remote(value)

    async def by_name(self) -> list[Any]:
        sibling = serve.get_deployment_handle("Child")
        app = serve.get_app_handle("graph")
        return [await sibling.remote("name"), await app.ask_async.remote("self")]

    async def pass_request(self, request: Request) -> Any:
        return await self.child.read_request.remote(request)


@serve.deployment
class Grandparent(Doors):
    def __init__(self, parent: DeploymentHandle) -> None:
        super().__init__()
        self.parent = parent

    async def __call__(self, request: Request) -> Any:
        return await self.parent.wait_for_child.remote(request.query_params["door"])

    async def through(self, door: str) -> Any:
        return await self.parent.wait_for_child.remote(door)


@serve.deployment
class Holder:
    """Keeps whatever it was bound with, handles at any depth."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs

    async def ask_all(self) -> list[Any]:
        found: list[DeploymentHandle] = []
        _collect([self.args, self.kwargs], found)
        return sorted([await handle.remote(0) for handle in found])

    def names(self) -> list[str]:
        found: list[DeploymentHandle] = []
        _collect([self.args, self.kwargs], found)
        return sorted(handle.deployment_name for handle in found)


def _collect(value: Any, found: list[DeploymentHandle]) -> None:
    if isinstance(value, DeploymentHandle):
        found.append(value)
    elif isinstance(value, dict):
        _collect(list(value.values()), found)
    elif isinstance(value, list | tuple):
        for item in value:
            _collect(item, found)


@serve.deployment
class PassOn:
    """Gives its live request to a child."""

    def __init__(self, child: DeploymentHandle) -> None:
        self.child = child

    async def __call__(self, request: Request) -> Any:
        if request.query_params.get("first") == "body":
            await request.body()
        return await self.child.read_request.remote(request)


@serve.deployment
async def add_one(value: int) -> int:
    return value + 1


@serve.deployment
def double(value: int) -> int:
    return value * 2


@serve.deployment
class Pipeline:
    def __init__(self, *steps: DeploymentHandle) -> None:
        self.steps = steps

    async def __call__(self, value: int) -> int:
        result: Any = value
        for step in self.steps:
            result = step.remote(result)
        return int(await result)


graph = Parent.bind(Child.bind("child"))
tall = Grandparent.bind(Parent.bind(Child.bind()))
