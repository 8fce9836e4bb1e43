"""A router and replicas on one loop, over real sockets: slots, cancels, drains, lost peers, garbage."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.waiting import wait_until_async
from trygon.dataplane.frames import HEADER, HEADER_SIZE, FrameKind, encode
from trygon.dataplane.handle import DeploymentHandle
from trygon.dataplane.messages import CallMeta, ErrorKind, HttpMeta
from trygon.dataplane.payloads import dump, load
from trygon.dataplane.replica import Replica
from trygon.dataplane.router import Router
from trygon.dataplane.runtime import Runtime
from trygon.dataplane.user_callable import UserCallable
from trygon.errors import BackPressureError, DeploymentUnavailableError, ReplicaDiedError
from trygon.spec.routing import ApplicationRoute, DeploymentTargets, ReplicaTarget, RoutingTable

pytestmark = pytest.mark.timeout(30)


class Work:
    def __init__(self) -> None:
        self.begun = 0
        self.ended: list[str] = []
        self.door = asyncio.Event()

    async def wait(self, value: Any = None) -> Any:
        self.begun += 1
        try:
            await self.door.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("opened")
        return value

    async def echo(self, value: Any = None) -> Any:
        return value

    def thread(self, value: Any = None) -> Any:
        return value

    async def __call__(self, request: Any) -> Any:
        return await self.wait("http")


class House:
    """A replica that listens, and the object in it."""

    def __init__(self, replica: Replica, work: Work, path: str) -> None:
        self.replica, self.work, self.path = replica, work, path


@asynccontextmanager
async def house(folder: Path, name: str = "one", limit: int = 2) -> AsyncIterator[House]:
    loop = asyncio.get_running_loop()
    user = UserCallable("Work", limit)
    await user.construct(Work, (), {})
    replica = Replica(loop, user, app_name="app", max_ongoing_requests=limit)
    path = str(folder / name)
    await replica.listen(path)
    try:
        yield House(replica, user.instance, path)
    finally:
        user.instance.door.set()
        await replica.drain(0)
        await replica.cancel_all(1.0)
        replica.close()
        await user.close()


def table(version: int, *houses: House, limit: int = 2, **options: Any) -> RoutingTable:
    replicas = tuple(ReplicaTarget(f"app#Work#{Path(one.path).name}", one.path) for one in houses)
    return RoutingTable(
        version=version,
        applications=(ApplicationRoute(app_name="app", route_prefix="/", ingress="Work", revision=1),),
        deployments=(
            DeploymentTargets(
                app_name="app",
                name="Work",
                revision=1,
                max_ongoing_requests=limit,
                replicas=replicas,
                **options,
            ),
        ),
    )


@asynccontextmanager
async def caller(first: RoutingTable) -> AsyncIterator[tuple[Router, DeploymentHandle]]:
    loop = asyncio.get_running_loop()
    router = Router(loop)
    router.apply(first)
    try:
        yield router, DeploymentHandle("Work", "app", runtime=Runtime(loop, router))
    finally:
        await router.close()


def run(test: Callable[[], Any]) -> None:
    asyncio.run(test())


# ---- raw frames


class Peer:
    """A caller that speaks frames by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def frame(self) -> tuple[int, int, int, int, bytes, bytes]:
        """Return kind, stream, status, value, head and body of the next frame."""
        head = await self.reader.readexactly(HEADER_SIZE)
        length, stream, kind, _flags, status, head_length, value = HEADER.unpack(head)
        payload = await self.reader.readexactly(length)
        return kind, stream, status, value, payload[:head_length], payload[head_length:]


@asynccontextmanager
async def peer(path: str) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()


def call(stream: int, method: str, *args: Any) -> bytes:
    payload = dump((args, {}))
    return encode(FrameKind.CALL, stream, msgspec.msgpack.encode(CallMeta(method, "r")), payload.body)


def http(stream: int) -> bytes:
    meta = HttpMeta("GET", "/", b"/", b"", [], "r")
    return encode(FrameKind.HTTP, stream, msgspec.msgpack.encode(meta))


@pytest.mark.parametrize("request_frame", [lambda n: call(n, "wait"), http])
def test_a_request_and_its_cancel_in_one_write_free_the_slot(
    short_path: Path, request_frame: Callable[[int], bytes]
) -> None:
    async def scene() -> None:
        async with house(short_path) as one, peer(one.path) as me:
            for number in range(1, 200):
                me.writer.write(request_frame(number) + encode(FrameKind.CANCEL, number))
            me.writer.write(call(1000, "echo", "still here"))
            while True:
                kind, stream, status, _, _, body = await me.frame()
                if stream == 1000 and kind == FrameKind.RESULT:
                    break
                if kind == FrameKind.REJECT and stream == 1000:
                    me.writer.write(call(1000, "echo", "still here"))
                elif kind == FrameKind.ERROR:
                    assert status == ErrorKind.CANCELLED
            assert "still here" == load(body)
            assert 0 == one.replica.ongoing

    run(scene)


def test_one_too_many_is_rejected_and_told_of_room(short_path: Path) -> None:
    async def scene() -> None:
        async with house(short_path, limit=2) as one, peer(one.path) as me, peer(one.path) as other:
            me.writer.write(call(1, "wait") + call(2, "wait"))
            await wait_until_async(lambda: one.work.begun == 2, "both to begin")
            other.writer.write(call(1, "echo"))
            assert (FrameKind.REJECT, 1, 0, 2) == (await other.frame())[:4]
            one.work.door.set()
            kind, stream, _, value, *_ = await other.frame()
            assert (FrameKind.CREDIT, 0) == (kind, stream)
            assert value >= 1
            other.writer.write(call(2, "echo", "now"))
            assert "now" == load((await other.frame())[5])

    run(scene)


def test_a_ping_is_answered_while_every_slot_is_taken(short_path: Path) -> None:
    async def scene() -> None:
        async with house(short_path) as one, peer(one.path) as me:
            me.writer.write(call(1, "wait") + call(2, "wait") + encode(FrameKind.PING, 0, value=77))
            assert (FrameKind.PONG, 0, 0, 77) == (await me.frame())[:4]

    run(scene)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
        HEADER.pack(2**32 - 1, 1, 2, 0, 0, 0, 0),
        encode(99, 5, b"x", b"y") * 3 + encode(FrameKind.PING, 0),
        encode(FrameKind.CALL, 3, b"\xc1 no msgpack", b""),
        encode(FrameKind.HTTP, 3, b"\xc1 no msgpack", b""),
        encode(FrameKind.DATA, 9, b"", b"for nobody") + encode(FrameKind.CREDIT, 9, value=5),
    ],
)
def test_garbage_hurts_no_other_caller(short_path: Path, garbage: bytes) -> None:
    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        async with house(short_path) as one:
            for _ in range(5):
                async with peer(one.path) as bad:
                    bad.writer.write(garbage)
                    await bad.writer.drain()
            async with peer(one.path) as me:
                me.writer.write(call(1, "echo", "fine"))
                assert "fine" == load((await me.frame())[5])
            assert 0 == one.replica.ongoing

    run(scene)


def test_a_lost_caller_cancels_its_requests(short_path: Path) -> None:
    async def scene() -> None:
        async with house(short_path, limit=3) as one:
            async with peer(one.path) as me:
                me.writer.write(call(1, "wait") + http(2) + call(3, "wait"))
                await wait_until_async(lambda: one.work.begun == 3, "the requests to begin")
            await wait_until_async(lambda: one.replica.ongoing == 0, "every slot")
            assert ["cancelled"] * 3 == one.work.ended

    run(scene)


# ---- a router and its replicas


def test_a_call_waits_for_the_first_replica(short_path: Path) -> None:
    async def scene() -> None:
        async with caller(table(1)) as (router, handle):
            response = handle.echo.remote("early")
            async with house(short_path) as one:
                router.apply(table(2, one))
                assert "early" == await response

    run(scene)


def test_an_older_table_is_ignored(short_path: Path) -> None:
    async def scene() -> None:
        async with house(short_path) as one, caller(table(5, one)) as (router, handle):
            router.apply(table(4))
            assert 1 == await handle.echo.remote(1)
            assert 5 == router.table.version

    run(scene)


def test_a_replica_that_leaves_finishes_what_it_has(short_path: Path) -> None:
    async def scene() -> None:
        async with (
            house(short_path, "old") as old,
            house(short_path, "new") as new,
            caller(table(1, old)) as (router, handle),
        ):
            begun = [handle.wait.remote(number) for number in range(2)]
            queued = [handle.echo.remote(number) for number in range(3)]
            await wait_until_async(lambda: old.work.begun == 2, "both to begin")
            router.apply(table(2, new))
            assert [0, 1, 2] == [await one for one in queued]
            draining = asyncio.ensure_future(old.replica.drain(5))
            await asyncio.sleep(0)
            assert not draining.done()
            old.work.door.set()
            assert [0, 1] == [await one for one in begun]
            assert await draining

    run(scene)


def test_what_crosses_the_news_of_a_drain_goes_elsewhere(short_path: Path) -> None:
    async def scene() -> None:
        async with (
            house(short_path, "old") as old,
            house(short_path, "new") as new,
            caller(table(1, old)) as (router, handle),
        ):
            assert 0 == await handle.echo.remote(0)
            old.replica.is_draining = True
            crossing = [handle.echo.remote(number) for number in range(20)]
            await asyncio.sleep(0)
            router.apply(table(2, new))
            assert list(range(20)) == [await one for one in crossing]

    run(scene)


def test_a_lost_replica_fails_what_it_had_and_keeps_what_waits(short_path: Path) -> None:
    async def scene() -> None:
        async with house(short_path, "one") as one, caller(table(1, one)) as (_, handle):
            begun = [handle.wait.remote() for _ in range(2)]
            queued = [handle.echo.remote(number) for number in range(3)]
            await wait_until_async(lambda: one.work.begun == 2, "both to begin")
            for connection in list(one.replica._connections):
                connection.abort()
            for response in begun:
                with pytest.raises(ReplicaDiedError):
                    await response
            assert [0, 1, 2] == [await response for response in queued]

    run(scene)


def test_a_dying_process_that_still_takes_connections_gets_no_request(short_path: Path) -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        async with house(short_path, "one") as one, caller(table(1, one)) as (_, handle):
            assert 1 == await handle.echo.remote(1)
            with socket.socket(socket.AF_UNIX) as dying:
                dying.setblocking(False)
                one.replica._server.close()  # type: ignore[union-attr]
                Path(one.path).unlink()
                dying.bind(one.path)
                dying.listen()
                for connection in list(one.replica._connections):
                    connection.abort()
                accepted, _ = await loop.sock_accept(dying)
                with accepted:
                    crossing = handle.echo.remote(2)
                    heard = await loop.sock_recv(accepted, 65536)
            Path(one.path).unlink()
            await one.replica.listen(one.path)

            assert 2 == await crossing

        assert encode(FrameKind.PING, 0) == heard

    run(scene)


def test_an_unavailable_deployment_refuses_at_once(short_path: Path) -> None:
    async def scene() -> None:
        async with caller(table(1)) as (router, handle):
            waiting = handle.echo.remote(1)
            await asyncio.sleep(0)
            router.apply(table(2, unavailable="it has no model"))
            with pytest.raises(DeploymentUnavailableError, match="no model"):
                await waiting
            with pytest.raises(DeploymentUnavailableError, match="no model"):
                await handle.echo.remote(1)
            router.apply(RoutingTable(version=3))
            with pytest.raises(DeploymentUnavailableError, match="'app'"):
                await handle.echo.remote(1)

    run(scene)


def test_a_full_queue_refuses_and_room_is_used(short_path: Path) -> None:
    async def scene() -> None:
        async with house(short_path) as one, caller(table(1, one, max_queued_requests=2)) as (_, handle):
            fitting = [handle.wait.remote(number) for number in range(2)]
            await wait_until_async(lambda: one.work.begun == 2, "both to begin")
            fitting += [handle.wait.remote(number) for number in range(2, 4)]
            with pytest.raises(BackPressureError):
                await handle.wait.remote("too many")
            one.work.door.set()
            assert [0, 1, 2, 3] == [await response for response in fitting]

    run(scene)


def test_a_replica_that_was_busy_for_others_gets_requests_again(short_path: Path) -> None:
    async def scene() -> None:
        async with (
            house(short_path, "a", 10) as first,
            house(short_path, "b", 10) as second,
            caller(table(1, first, second, limit=10)) as (router, handle),
        ):
            await asyncio.gather(*(handle.echo.remote() for _ in range(20)))
            links = router.pool("app", "Work").links
            links[0].others = 9
            seen = [0, 0]
            while not min(seen):
                before = [link._next_stream for link in links]
                await handle.echo.remote()
                seen = [n + link._next_stream - b for n, link, b in zip(seen, links, before, strict=True)]

    run(scene)


@pytest.mark.parametrize("method", ["echo", "thread"])
def test_many_calls_over_few_slots_all_end(short_path: Path, method: str) -> None:
    async def scene() -> None:
        async with house(short_path, "a") as first, house(short_path, "b") as second:
            async with (
                caller(table(1, first, second)) as (_, one),
                caller(table(1, first, second)) as (_, two),
            ):
                calls = [
                    handle.options(method_name=method).remote(number)
                    for number in range(300)
                    for handle in (one, two)
                ]
                expected = [number for number in range(300) for _ in (one, two)]
                assert expected == list(await asyncio.gather(*calls))
            assert (0, 0) == (first.replica.ongoing, second.replica.ongoing)

    run(scene)
