"""The access log: form, batching, and a reader that does not read."""

from __future__ import annotations

import asyncio
import os
import re

from trygon.clock import RealClock
from trygon.protocols.http.access_log import AccessLog

LINE = re.compile(
    r"INFO \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ingress 7 (\S+) -- (\S+) (\S+) (\d{3}) (\d+\.\d)ms"
)


def log_lines(count: int) -> tuple[str, int]:
    """Log `count` requests to a pipe, and return what came out and how often it was written."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    async def scenario() -> None:
        clock = RealClock()
        log = AccessLog(writer, "7", asyncio.get_running_loop(), clock)
        for n in range(count):
            log.add("id-%d" % n, "GET", "/wine", 200, clock.monotonic(), 0.0012)
        assert b"" == drain(reader)
        log.close()

    asyncio.run(scenario())
    os.close(writer)
    text = drain(reader).decode()
    os.close(reader)
    return text, count


def drain(reader: int) -> bytes:
    try:
        return os.read(reader, 1 << 20)
    except BlockingIOError:
        return b""


def test_lines_have_ray_serves_form_and_wait_for_each_other() -> None:
    text, count = log_lines(3)

    lines = text.splitlines()
    assert count == len(lines)
    match = LINE.fullmatch(lines[2])
    assert match is not None
    assert ("id-2", "GET", "/wine", "200", "1.2") == match.groups()


def test_reader_that_does_not_read_costs_lines_and_no_wait() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    async def scenario() -> AccessLog:
        clock = RealClock()
        log = AccessLog(writer, "7", asyncio.get_running_loop(), clock)
        for _ in range(60_000):
            log.add("i" * 32, "GET", "/", 200, clock.monotonic(), 0.001)
        log.close()
        return log

    log = asyncio.run(scenario())
    os.close(reader)
    os.close(writer)

    assert 0 < log.num_lost < 60_000


def test_closed_descriptor_does_not_raise() -> None:
    reader, writer = os.pipe()
    os.close(reader)

    async def scenario() -> AccessLog:
        clock = RealClock()
        log = AccessLog(writer, "7", asyncio.get_running_loop(), clock)
        log.add("i", "GET", "/", 200, clock.monotonic(), 0.001)
        log.close()
        return log

    log = asyncio.run(scenario())
    os.close(writer)

    assert 1 == log.num_lost
