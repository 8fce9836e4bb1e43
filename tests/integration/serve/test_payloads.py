"""Large values through handles: equal, writable, and nothing of them left behind in either process."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.serve.call_apps import Calls
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.exceptions import ReplicaDiedError
from trygon.serve.handle import DeploymentHandle

np = pytest.importorskip("numpy")
pytestmark = pytest.mark.timeout(60)

MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def calls(url: str) -> Iterator[DeploymentHandle]:
    yield serve.run(Calls.bind(), name="calls", route_prefix=None)
    serve.delete("calls")


@pytest.fixture(scope="module")
def replica(calls: DeploymentHandle) -> psutil.Process:
    return psutil.Process(calls.pid.remote().result())


def array(size: int) -> Any:
    return np.random.default_rng(7).integers(0, 255, size, dtype=np.uint8)


@pytest.mark.parametrize("size", [0, 1, 1000, 500_000, 524_287, 524_288, 2_000_000, 50 * MEGABYTE])
@pytest.mark.parametrize("method", ["echo", "aecho"])
def test_arrays_come_back_equal_and_writable(calls: DeploymentHandle, method: str, size: int) -> None:
    sent = array(size)

    got = getattr(calls, method).remote(sent).result(timeout_s=30)

    assert np.array_equal(sent, got)
    assert got.flags.writeable
    if size:
        got[0] += 1
        assert sent[0] != got[0]


def test_the_receiver_changes_its_own_copy(calls: DeploymentHandle) -> None:
    for size in (10, 3_000_000):
        sent = np.zeros(size, dtype=np.uint8)

        got = calls.bump.remote(sent).result(timeout_s=10)

        assert (0, size) == (int(sent.sum()), int(got.sum()))


@pytest.mark.parametrize("size", [100, 3_000_000])
def test_many_buffers_in_one_value(calls: DeploymentHandle, size: int) -> None:
    value = {
        "a": [array(size), b"x" * size],
        "b": (np.float64(1.5), {"c": array(size).reshape(2, -1)}),
        "s": "ü" * size,
    }

    got = calls.echo.remote(value).result(timeout_s=20)

    assert np.array_equal(value["a"][0], got["a"][0])
    assert np.array_equal(value["b"][1]["c"], got["b"][1]["c"])
    assert (value["a"][1], value["s"], value["b"][0]) == (got["a"][1], got["s"], got["b"][0])


def test_frames_and_text_of_any_size(calls: DeploymentHandle) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": np.arange(200_000), "b": ["x"] * 200_000})

    assert frame.equals(calls.echo.remote(frame).result(timeout_s=20))
    for size in (10, 600_000, 5_000_000):
        assert "ü" * size == calls.aecho.remote("ü" * size).result(timeout_s=20)


def test_a_non_contiguous_array_travels(calls: DeploymentHandle) -> None:
    wide = np.arange(4_000_000).reshape(2000, 2000)

    for view in (wide[:, ::2], wide.T, np.asfortranarray(wide)):
        assert np.array_equal(view, calls.echo.remote(view).result(timeout_s=20))


def descriptors(process: psutil.Process) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def segments(process: psutil.Process) -> int:
    """Count memory files that a process holds open or has mapped."""
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    held = 0
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            held += "memfd:trygon" in os.readlink(entry)
        except FileNotFoundError:
            continue
    return held + maps.count("memfd:trygon")


@pytest.mark.linux
def test_segments_are_given_back_in_both_processes(calls: DeploymentHandle, replica: psutil.Process) -> None:
    me = psutil.Process()
    big = array(2_000_000)
    calls.echo.remote(big).result(timeout_s=10)
    gc.collect()
    before = descriptors(me), descriptors(replica)
    memory = replica.memory_info().rss

    for _ in range(200):
        assert 2_000_000 == len(calls.echo.remote(big).result(timeout_s=10))
    list(calls.options(stream=True).echo_many.remote(big, 30))
    gc.collect()

    wait_until(lambda: (segments(me), segments(replica)) == (0, 0), "both processes to hold no segment")
    wait_until(lambda: (descriptors(me), descriptors(replica)) <= before, "no descriptor more than before")
    assert replica.memory_info().rss - memory < 60 * MEGABYTE


@pytest.mark.linux
def test_segments_of_failed_and_cancelled_calls_are_given_back(
    calls: DeploymentHandle, replica: psutil.Process
) -> None:
    me = psutil.Process()
    big = array(2_000_000)

    for number in range(30):
        calls.echo.remote(big).cancel()
        with pytest.raises(TypeError):
            calls.echo.remote(big, big, big).result(timeout_s=10)
        with pytest.raises(TypeError):
            calls.numbers.remote(big).result(timeout_s=10)
        stream = calls.options(stream=True).echo_many.remote(big, 5)
        next(stream)
        stream.cancel()
        with pytest.raises(TimeoutError):
            calls.wait_with.remote(f"seg-{number}", big).result(timeout_s=0)
        calls.open.remote(f"seg-{number}").result()
    del stream
    gc.collect()

    wait_until(lambda: (segments(me), segments(replica)) == (0, 0), "both processes to hold no segment")


@pytest.mark.linux
def test_a_slow_reader_of_big_items_holds_few(calls: DeploymentHandle, replica: psutil.Process) -> None:
    stream = calls.options(stream=True).echo_many.remote(array(2_000_000), 200)
    next(stream)
    seen = [segments(replica) for _ in range(200)]

    assert max(seen) < 20
    assert 199 == sum(1 for _ in stream)


@pytest.mark.linux
def test_segments_of_a_killed_replica_vanish(url: str) -> None:
    handle = serve.run(Calls.options(name="Killed").bind(), name="killed", route_prefix=None)
    try:
        response = handle.wait_with.remote("door", array(5_000_000))
        wait_until(lambda: handle.count.remote("door").result() == 1, "the call to enter")
        psutil.Process(handle.pid.remote().result()).kill()
        with pytest.raises(ReplicaDiedError):
            response.result(timeout_s=10)
        del response
        gc.collect()
        wait_until(lambda: segments(psutil.Process()) == 0, "the caller's segment to be closed")
    finally:
        serve.delete("killed")


def test_big_values_between_replicas(url: str) -> None:
    from tests.integration.serve.graph_apps import graph

    parent = serve.run(graph, name="graph", route_prefix=None)
    try:
        big = array(8_000_000)
        for method in ("ask_async", "ask_sync"):
            _, got = getattr(parent, method).remote(big).result(timeout_s=20)
            assert np.array_equal(big, got)
    finally:
        serve.delete("graph")


def test_big_values_at_once(calls: DeploymentHandle) -> None:
    big = array(3_000_000)

    async def ask() -> list[float]:
        return list(await asyncio.gather(*(calls.sum_of.remote(big) for _ in range(20))))

    assert [float(big.sum())] * 20 == asyncio.run(ask())


def test_more_big_values_at_once_than_there_may_be_segments(calls: DeploymentHandle) -> None:
    big = array(600_000)

    async def ask() -> list[float]:
        return list(await asyncio.gather(*(calls.sum_of.remote(big) for _ in range(300))))

    assert [float(big.sum())] * 300 == asyncio.run(ask())
