"""The control link against the real server: calls, tables, and a controller that goes and comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.waiting import wait_until_async
from trygon.client.link import ControlLink
from trygon.control.server import ControlServer, Peer
from trygon.engine.sockets import bind_control
from trygon.errors import DeployError, InstanceError
from trygon.spec.application import ApplicationSpec
from trygon.spec.control import (
    Call,
    DeployApplications,
    FromPeer,
    GetStatus,
    Hello,
    ReplicaReady,
    Shutdown,
    TableApplied,
    TableChanged,
    ToPeer,
)
from trygon.spec.routing import ApplicationRoute, RoutingTable
from trygon.spec.wire import MessageReader, pack

DEPLOY = DeployApplications(applications=(ApplicationSpec(ingress="Main", deployments=()),))


class Controller:
    """A controller that only remembers; its listening socket outlives it, as the supervisor's does."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "c.sock")
        self.listener = bind_control(self.address)
        self.calls: list[Call] = []
        self.messages: list[FromPeer] = []
        self.server = ControlServer()

    async def start(self) -> None:
        self.server = ControlServer()
        self.server.on_call = lambda _, call: self.calls.append(call)
        self.server.on_message = lambda _, message: self.messages.append(message)
        await self.server.start(self.listener.dup())

    async def die(self) -> None:
        await self.server.close()

    def peer(self, role: str = "client") -> Peer | None:
        return next(self.server.of_role(role), None)


@contextlib.asynccontextmanager
async def controller(folder: Path) -> AsyncIterator[Controller]:
    made = Controller(folder)
    await made.start()
    try:
        yield made
    finally:
        await made.die()
        made.listener.close()


async def open_link(made: Controller, **callbacks: object) -> ControlLink:
    link = ControlLink(made.address, Hello(role="client", pid=1), **callbacks)  # type: ignore[arg-type]
    await link.open()
    await wait_until_async(made.peer, "the hello")
    return link


async def answer(made: Controller, number: int = 1, **reply: object) -> Call:
    """Answer the newest call when that many have come."""
    await wait_until_async(lambda: len(made.calls) >= number, "the call")
    peer = made.peer()
    assert peer is not None
    call = made.calls[-1]
    peer.reply(call.seq, **reply)  # type: ignore[arg-type]
    return call


def test_call_gets_its_answer_or_the_named_error(short_path: Path) -> None:
    async def body() -> None:
        async with controller(short_path) as made:
            link = await open_link(made)
            good = asyncio.create_task(link.call(GetStatus()))
            await answer(made, value={"a": 1})
            assert {"a": 1} == await good

            bad = asyncio.create_task(link.call(GetStatus()))
            await wait_until_async(lambda: len(made.calls) == 2, "the call")
            made.peer().refuse(made.calls[-1].seq, DeployError("no"))  # type: ignore[union-attr]
            with pytest.raises(DeployError, match="no"):
                await bad
            with pytest.raises(TimeoutError):
                await link.call(GetStatus(), timeout_s=0.01)
            await link.close()

    asyncio.run(body())


def test_older_tables_are_ignored(short_path: Path) -> None:
    async def body() -> None:
        tables: list[RoutingTable] = []
        async with controller(short_path) as made:
            link = await open_link(made, on_table=tables.append)
            route = ApplicationRoute(app_name="a", route_prefix="/", ingress="M", revision=1)
            for version in (5, 4, 6):
                made.server.publish(RoutingTable(version=version, applications=(route,)))
            await wait_until_async(lambda: link.table is not None and link.table.version == 6, "the table")
            await link.close()
        assert [0, 5, 6] == [table.version for table in tables]

    asyncio.run(body())


def test_restarted_controller_hears_everything_again(short_path: Path) -> None:
    async def body() -> None:
        async with controller(short_path) as made:
            link = await open_link(made)
            link.announce(ReplicaReady(replica_id="r", pid=1))
            link.announce(TableApplied(version=3))
            link.announce(TableApplied(version=4))
            waiting = asyncio.create_task(link.call(DEPLOY))
            await wait_until_async(lambda: made.calls, "the call")

            await made.die()
            await wait_until_async(lambda: not link.connected, "the link to break")
            await made.start()
            second = await answer(made, 2, value=7)

            assert 7 == await waiting
            first_token = made.calls[0].request.token  # type: ignore[union-attr]
            assert first_token
            assert first_token == second.request.token  # type: ignore[union-attr]
            assert [ReplicaReady(replica_id="r", pid=1)] * 2 == made.messages
            peer = made.peer()
            assert peer is not None
            assert 4 == peer.applied_version
            await link.close()

    asyncio.run(body())


def test_end_of_the_instance_fails_open_calls_and_is_told_once(short_path: Path) -> None:
    async def body() -> None:
        gone: list[bool] = []
        async with controller(short_path) as made:
            link = await open_link(made, on_gone=lambda: gone.append(True))
            status = asyncio.create_task(link.call(GetStatus()))
            shutdown = asyncio.create_task(link.call(Shutdown()))
            await wait_until_async(lambda: len(made.calls) == 2, "the calls")

        with pytest.raises(InstanceError, match="ended"):
            await status
        assert await shutdown is None
        assert [True] == gone
        with pytest.raises(InstanceError, match="gone"):
            await link.call(GetStatus())
        await link.close()

    asyncio.run(body())


def test_nobody_there_is_a_clear_error(short_path: Path) -> None:
    link = ControlLink(str(short_path / "c.sock"), Hello(role="client"))

    with pytest.raises(InstanceError, match="no instance answers"):
        asyncio.run(link.open())


def test_peer_that_speaks_another_language_is_cut_off(short_path: Path) -> None:
    async def body() -> None:
        async with controller(short_path) as made:
            reader, writer = await asyncio.open_unix_connection(made.address)
            writer.write(b"\3\0\0\0GET")
            assert b"" == await asyncio.wait_for(reader.read(), 5)
            writer.close()
            link = await open_link(made)
            await link.close()

    asyncio.run(body())


def test_slow_reader_gets_the_newest_table_and_not_all_of_them(short_path: Path) -> None:
    async def body() -> None:
        async with controller(short_path) as made:
            reader, writer = await asyncio.open_unix_connection(made.address, limit=1)
            writer.write(pack(Hello(role="client")))
            await wait_until_async(made.peer, "the hello")
            routes = tuple(
                ApplicationRoute(app_name=f"app{n}", route_prefix=f"/{n}", ingress="M", revision=1)
                for n in range(2000)
            )
            for version in range(1, 200):
                made.server.publish(RoutingTable(version=version, applications=routes))

            messages: MessageReader[ToPeer] = MessageReader(ToPeer)
            seen: list[int] = []
            while not seen or seen[-1] < 199:
                got = messages.feed(await asyncio.wait_for(reader.read(65536), 5))
                seen += [m.table.version for m in got if isinstance(m, TableChanged)]

            assert len(seen) < 100
            writer.close()

    asyncio.run(body())
