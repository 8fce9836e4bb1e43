"""A sender as a process of its own: reads a plan from its input, writes reports to its output.

``python -m trygon.loadtest.worker``. Both are msgpack, each value after its length as a little-endian u32.
SIGTERM, or the end of its input, ends the sending early; nothing that was seen is lost by it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import struct
import sys
from typing import IO, TypeVar

import msgspec

from trygon.clock import RealClock
from trygon.loadtest.plan import LoadPlan
from trygon.loadtest.result import Report
from trygon.loadtest.sender import Sender

__all__ = ["main", "read_value", "write_value"]

_LENGTH = struct.Struct("<I")
_Value = TypeVar("_Value")


def write_value(stream: IO[bytes], value: object) -> None:
    """Write one value; OSError when the reader is gone."""
    data = msgspec.msgpack.encode(value)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def read_value(stream: IO[bytes], kind: type[_Value]) -> _Value | None:
    """Read one value; None at the end."""
    head = _read_exactly(stream, _LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    data = _read_exactly(stream, _LENGTH.unpack(head)[0])
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.DecodeError:
        return None


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    """Read `size` bytes, or fewer at the end; a body from a file may be larger than a pipe."""
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


async def _send(plan: LoadPlan) -> None:
    loop = asyncio.get_running_loop()

    def report(found: Report) -> None:
        try:
            write_value(sys.stdout.buffer, found)
        except OSError:
            sender.stop()

    sender = Sender(plan, report, RealClock())
    loop.add_signal_handler(signal.SIGTERM, sender.stop)

    def hear_the_end() -> None:
        if not os.read(0, 1):
            loop.remove_reader(0)
            sender.stop()

    loop.add_reader(0, hear_the_end)
    await sender.run()


def main() -> None:
    """Send what the input says."""
    # Ctrl-C is for the command line, which stops its senders and shows what they saw.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Unbuffered, so that nothing is left in a buffer when the loop begins to watch the descriptor.
    with open(0, "rb", buffering=0, closefd=False) as source:
        plan = read_value(source, LoadPlan)
    if plan is None:
        return
    # A collection would look like a slow server.
    gc.disable()
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_send(plan))


if __name__ == "__main__":
    main()
