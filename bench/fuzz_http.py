"""Send malformed, mutated and truncated HTTP and websocket requests through a socket, and judge what comes back.

``python -m bench.fuzz_http --url http://127.0.0.1:8000 --requests 1000000 --seed 1 --pid PID``

A case is a find when the answer is a 5xx other than 501 and 505 or no HTTP at all, when the server keeps a
half-closed connection open, or when it stops answering good requests. With ``--pid`` its memory, descriptors and
life are watched too. Each find is written to ``--corpus`` as a file that the tests replay. Case n of a seed
is always the same bytes: ``--only n`` sends it alone.
"""

from __future__ import annotations

import argparse
import errno
import random
import selectors
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

__all__ = ["Case", "Fuzzer", "Report", "main", "make_case"]

Random = random.Random

#: 501 and 505 are what the RFCs ask for.
ALLOWED_5XX = frozenset((501, 505))
#: A server that says nothing for so long is taken to wait for more; then the sending side is shut.
QUIET_S = 0.02
#: A half-closed connection must end within this.
HANG_S = 5.0
#: A good request is sent after so many bad ones.
PROBE_EVERY = 5000
GROWTH_LIMIT_BYTES = 32 * 1024 * 1024
_RESET = struct.pack("ii", 1, 0)
_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="

METHODS = (
    b"GET",
    b"POST",
    b"HEAD",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"PATCH",
    b"CONNECT",
    b"TRACE",
    b"get",
    b"PRI",
)
VERSIONS = (b"HTTP/1.1",) * 8 + (
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"http/1.1",
    b"HTTP/1.2",
    b"HTTP/1",
    b"HTTP/1.1 ",
    b"",
    b"HTTP/11",
)
TARGETS = (
    b"/", b"/echo", b"/meta", b"/?a=b", b"/a%20b", b"/%zz", b"/%00", b"/%ff", b"/a#b", b"*", b"http://a/", b"//", b"/\\",
    b"/../..", b"a", b"", b"/" + b"a" * 5000, b"/" + b"%41" * 3000, b"/\xc3\xa9", b"/ ", b"http://", b"/-/healthz", b"/-/routes",
)  # fmt: skip
LINE_ENDS = (b"\r\n",) * 12 + (b"\n", b"\r", b"\r\r\n", b"\n\r", b"", b"\r\n ", b"\r\n\t", b"\x0b\r\n")
HEADER_LINES = (
    b"Host: a", b"Host: a", b"Host: ", b"Host: a b", b"Host:a", b"Host : a", b"host: [::1]:80", b"Host: a/b",
    b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: +5", b"Content-Length: -1", b"Content-Length: 5, 5",
    b"Content-Length: 99999999999999999999", b"Content-Length: 0x5", b"Content-Length: 300000", b"Content-Length:",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding : chunked", b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: xchunked",
    b"Connection: close", b"Connection: keep-alive", b"Connection: Upgrade", b"Connection: ,,,", b"Upgrade: websocket",
    b"Upgrade: h2c", b"Expect: 100-continue", b"Expect: 200-ok", b"X: \0", b"X: \x7f", b"X\0: a", b"X: " + b"a" * 3000,
    b": a", b"a", b" a: b", b"X-Request-ID: a\tb", b"X-Request-ID: " + b"i" * 200, b"X-Request-Timeout-Seconds: nan",
    b"X-Request-Timeout-Seconds: 1e999", b"X-Session-ID: \xff", b"serve_multiplexed_model_id: m", b"Cookie: a=b; c=d",
    b"Sec-WebSocket-Key: " + _KEY, b"Sec-WebSocket-Key: !", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8",
    b"Sec-WebSocket-Extensions: permessage-deflate", b"TE: trailers", b"Trailer: X", b"Content-Type: application/json",
)  # fmt: skip
CHUNK_BODIES = (
    b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\n\r\n", b"g\r\n\r\n", b"5\nhello\n0\n\n", b"-1\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"00000000000000000\r\n\r\n",
    b"5\r\nhello0\r\n\r\n", b"5\r\nhel", b"0\r\nX: y\r\n\r\n", b"0\r\nX : y\r\n\r\n", b"0\r\n\n", b"1\r\na\r\n" * 40 + b"0\r\n\r\n",
)  # fmt: skip
SPECIALS = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\r\n\r\n", b"\x7f", b"\x80", b"\xff", b"%", b"%00", b"#", b"?", b",", b";",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"HTTP/1.1", b"0\r\n\r\n", b"\r\n ", b"\x0b", b"\x0c",
)  # fmt: skip
GOOD = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /meta?x=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\nAccept: */*\r\nX-Request-ID: abc\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: u\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://a/meta HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /stream?n=3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
)
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: "
    + _KEY
    + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@dataclass(frozen=True)
class Case:
    """Bytes for one connection, in the pieces they are sent in, and how many requests they stand for."""

    kind: str
    parts: tuple[bytes, ...]
    num_requests: int

    @property
    def raw(self) -> bytes:
        """All of it."""
        return b"".join(self.parts)


# ---- making cases


def _grammar(rng: Random) -> bytes:
    """Put a request together from good and bad pieces."""
    pick = rng.choice
    space = b" " if rng.random() < 0.95 else pick((b"  ", b"\t", b"", b"\x0b", b"\xa0"))
    lines = [pick(METHODS) + space + pick(TARGETS) + space + pick(VERSIONS)]
    if rng.random() < 0.8:
        lines.append(b"Host: a")
    lines += [pick(HEADER_LINES) for _ in range(rng.randrange(0, 5))]
    raw = b"".join(line + pick(LINE_ENDS) for line in lines) + (b"\r\n" if rng.random() < 0.95 else b"")
    if rng.random() < 0.5:
        raw += pick(CHUNK_BODIES) if rng.random() < 0.6 else rng.randbytes(rng.randrange(0, 12))
    return raw


def _mutate(rng: Random, raw: bytes) -> bytes:
    """Change a few bytes of a good request."""
    data = bytearray(raw)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(0, len(data) + 1)
        action = rng.randrange(7)
        if action == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif action == 1:
            data[at:at] = rng.choice(SPECIALS)
        elif action == 2:
            del data[at : at + rng.randrange(1, 8)]
        elif action == 3 and at < len(data):
            data[at] = rng.randrange(256)
        elif action == 4:
            data[at:at] = data[at : at + rng.randrange(1, 40)]
        elif action == 5:
            data[at:at] = rng.randbytes(rng.randrange(1, 6))
        else:
            data[at : at + 1] = rng.choice(SPECIALS)
    return bytes(data)


def _truncate(rng: Random, raw: bytes) -> bytes:
    return raw[: rng.randrange(0, len(raw))]


def _frames(rng: Random) -> bytes:
    """Put websocket frames together, most of them wrong somewhere."""
    out = b""
    for _ in range(rng.randrange(1, 6)):
        opcode = rng.choice((0, 1, 1, 2, 2, 8, 9, 10, rng.randrange(16)))
        first = (
            opcode
            | (0x80 if rng.random() < 0.8 else 0)
            | (rng.randrange(8) << 4 if rng.random() < 0.1 else 0)
        )
        size = rng.choice((0, 1, 5, 125, 126, 127, 300, rng.randrange(2000)))
        masked = 0x80 if rng.random() < 0.9 else 0
        wide = rng.random()
        if size < 126 and wide < 0.9:
            head = bytes((first, masked | size))
        elif wide < 0.97:
            head = bytes((first, masked | 126)) + size.to_bytes(2)
        else:
            head = bytes((first, masked | 127)) + rng.choice((size, 1 << 63, 1 << 40, 17_000_000)).to_bytes(8)
        data = rng.randbytes(size) if rng.random() < 0.5 else b"a" * size
        out += head + (b"\0\0\0\0" if masked else b"") + data
    return out if rng.random() < 0.7 else _truncate(rng, out)


def _one(rng: Random) -> bytes:
    share = rng.random()
    if share < 0.45:
        return _grammar(rng)
    if share < 0.9:
        return _mutate(rng, rng.choice(GOOD))
    return rng.choice(GOOD)


def _pipeline(rng: Random) -> bytes:
    return b"".join(rng.choice(GOOD) for _ in range(rng.randrange(1, 4))) + _one(rng)


_KINDS: tuple[tuple[str, int, Callable[[Random], bytes]], ...] = (
    ("grammar", 30, _grammar),
    ("mutated", 30, lambda rng: _mutate(rng, rng.choice(GOOD))),
    ("truncated", 10, lambda rng: _truncate(rng, rng.choice(GOOD))),
    ("pipelined", 10, _pipeline),
    ("garbage", 4, lambda rng: rng.randbytes(rng.randrange(1, 300))),
    ("handshake", 6, lambda rng: _mutate(rng, HANDSHAKE)),
    ("frames", 10, lambda rng: HANDSHAKE + _frames(rng)),
)
_WEIGHTS = [weight for _, weight, _ in _KINDS]


def make_case(seed: int, number: int) -> Case:
    """Return case `number` of a seed: the same bytes every time."""
    rng = Random(seed * 1_000_003 + number)
    kind, _, make = rng.choices(_KINDS, _WEIGHTS)[0]
    raw = make(rng)
    if rng.random() < 0.15 and len(raw) > 1:
        cut = rng.randrange(1, len(raw))
        return Case(kind, (raw[:cut], raw[cut:]), max(1, raw.count(b" HTTP/")))
    return Case(kind, (raw,), max(1, raw.count(b" HTTP/")))


# ---- judging answers


def judge(answer: bytes) -> tuple[list[int], str]:
    """Return the statuses in what a server sent, and what is wrong with it ("" if nothing)."""
    statuses: list[int] = []
    pos = 0
    while pos < len(answer):
        if not answer.startswith(b"HTTP/1.1 ", pos):
            return statuses, "no HTTP at byte %d" % pos
        end = answer.find(b"\r\n\r\n", pos)
        if end < 0:
            return statuses, ""
        head = answer[pos:end]
        status = int(answer[pos + 9 : pos + 12])
        statuses.append(status)
        if status >= 500 and status not in ALLOWED_5XX:
            return statuses, "status %d" % status
        if b"\0" in head or head.replace(b"\r\n", b"").count(b"\n"):
            return statuses, "control byte in a header"
        pos = end + 4
        if status == 101:
            return statuses, ""
        size = _body_size(head, answer, pos)
        if size < 0:
            # A body of unknown end: HEAD, or cut, or up to the close.
            return statuses, ""
        pos += size
    return statuses, ""


def _body_size(head: bytes, answer: bytes, pos: int) -> int:
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length: "):
            size = int(line[16:])
            # The answer to HEAD has a length and no body; the next status line shows it.
            return 0 if answer.startswith(b"HTTP/1.1 ", pos) and size else size
        if line == b"transfer-encoding: chunked":
            end = answer.find(b"0\r\n\r\n", pos)
            return end + 5 - pos if end >= 0 else -1
    return 0 if head.startswith(b"HTTP/1.1 100") else -1


@dataclass
class Report:
    """What a run saw."""

    num_cases: int = 0
    num_requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    silent: int = 0
    #: Case number and what is wrong.
    finds: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0
    growth_bytes: int = 0
    #: Descriptors more than at the start.
    descriptors: int = 0

    def lines(self) -> Iterator[str]:
        """Yield the report for people."""
        yield "%d requests in %d cases, %.0f s" % (self.num_requests, self.num_cases, self.seconds)
        yield "kinds: " + ", ".join("%s %d" % item for item in self.kinds.most_common())
        yield "answers: " + ", ".join("%d: %d" % item for item in sorted(self.statuses.items()))
        yield "connections without an answer (incomplete requests): %d" % self.silent
        yield "memory growth %.1f MB, descriptors %+d" % (self.growth_bytes / 1e6, self.descriptors)
        yield "finds: %d" % len(self.finds)
        for number, reason in self.finds[:20]:
            yield "  case %d: %s" % (number, reason)


class _Slot:
    """One connection at work on one case."""

    __slots__ = ("answer", "case", "deadline", "number", "parts", "shut", "sock")

    def __init__(self, sock: socket.socket, number: int, case: Case) -> None:
        self.sock = sock
        self.number = number
        self.case = case
        self.parts = list(case.parts)
        self.answer = b""
        self.shut = False
        self.deadline = 0.0


class Fuzzer:
    """Keeps a number of connections busy with cases."""

    def __init__(self, address: tuple[str, int], seed: int, num_connections: int, pid: int | None) -> None:
        self._address = address
        self._seed = seed
        self._num_connections = num_connections
        self._process = psutil.Process(pid) if pid else None
        self._selector = selectors.DefaultSelector()
        self._slots: dict[_Slot, None] = {}
        self.report = Report()

    def run(self, numbers: Sequence[int], num_requests: int, progress: Callable[[Report], None]) -> Report:
        """Send cases until `num_requests` requests were sent, or the numbers end."""
        report = self.report
        start = time.monotonic()
        base_rss = base_descriptors = 0
        todo = iter(numbers)
        more = True
        while more or self._slots:
            while more and len(self._slots) < self._num_connections:
                number = next(todo, None)
                if number is None or report.num_requests >= num_requests or len(report.finds) >= 100:
                    more = False
                    break
                self._open(number)
                if report.num_cases % PROBE_EVERY == 0:
                    self._probe(number)
                    progress(report)
                if self._process is not None and report.num_cases == min(20_000, num_requests // 20 + 1):
                    # Caches and pools are warm by now.
                    base_rss, base_descriptors = self._weigh()
            self._turn()
        self._probe(-1)
        report.seconds = time.monotonic() - start
        if self._process is not None and base_rss:
            self._wait_settled(base_descriptors)
            rss, descriptors = self._weigh()
            report.growth_bytes = rss - base_rss
            report.descriptors = descriptors - base_descriptors
            if report.growth_bytes > GROWTH_LIMIT_BYTES:
                report.finds.append((-1, "memory grew by %d bytes" % report.growth_bytes))
        return report

    def _weigh(self) -> tuple[int, int]:
        assert self._process is not None
        # Those of our own connections are not the server's fault.
        return self._process.memory_info().rss, self._process.num_fds() - len(self._slots)

    def _wait_settled(self, descriptors: int) -> None:
        """Lingering connections take a few seconds to go."""
        assert self._process is not None
        deadline = time.monotonic() + 10
        with selectors.DefaultSelector() as pause:
            while self._process.num_fds() > descriptors and time.monotonic() < deadline:
                pause.select(0.2)

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(self._address, timeout=HANG_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A reset leaves no TIME_WAIT behind, of which there is room for 28,000.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        return sock

    def _open(self, number: int) -> None:
        report = self.report
        case = make_case(self._seed, number)
        report.num_cases += 1
        report.num_requests += case.num_requests
        report.kinds[case.kind] += 1
        try:
            sock = self._connect()
        except OSError as error:
            report.finds.append((number, "cannot connect: %s" % error))
            return
        sock.setblocking(False)
        slot = _Slot(sock, number, case)
        self._slots[slot] = None
        self._selector.register(sock, selectors.EVENT_READ, slot)
        self._send(slot)

    def _send(self, slot: _Slot) -> None:
        """Send the next part; a case is far smaller than a socket's buffer."""
        slot.deadline = time.monotonic() + QUIET_S
        if slot.parts:
            try:
                slot.sock.send(slot.parts.pop(0))
            except OSError:
                slot.parts.clear()

    def _turn(self) -> None:
        """Take what has arrived, and push on those that wait in vain."""
        for key, _ in self._selector.select(QUIET_S / 2):
            self._read(key.data)
        now = time.monotonic()
        for slot in [held for held in self._slots if held.deadline < now]:
            if slot.parts:
                self._send(slot)
            elif slot.shut:
                self._end(slot, "connection still open %.0f s after half-close" % HANG_S)
            else:
                slot.shut = True
                slot.deadline = now + HANG_S
                try:
                    slot.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    self._end(slot, "")

    def _read(self, slot: _Slot) -> None:
        try:
            data = slot.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(slot, "" if error.errno in (errno.ECONNRESET, errno.EPIPE) else str(error))
            return
        if data:
            slot.answer += data
            if not slot.shut:
                slot.deadline = time.monotonic() + QUIET_S
        else:
            self._end(slot, "")

    def _end(self, slot: _Slot, reason: str) -> None:
        self._selector.unregister(slot.sock)
        slot.sock.close()
        del self._slots[slot]
        statuses, wrong = judge(slot.answer)
        self.report.statuses.update(statuses)
        if not statuses:
            self.report.silent += 1
        if reason or wrong:
            self.report.finds.append((slot.number, reason or wrong))

    def _probe(self, number: int) -> None:
        """Ask a good question."""
        try:
            with self._connect() as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answer = b""
                while data := sock.recv(65536):
                    answer += data
        except OSError as error:
            answer = str(error).encode()
        if not answer.startswith(b"HTTP/1.1 200 "):
            self.report.finds.append((number, "good request answered with %r" % answer[:60]))


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 1 if there are finds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, default=None, help="send this case alone and show the answer")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--pid", type=int, default=None, help="process of the server, to watch")
    parser.add_argument("--corpus", type=Path, default=Path("tests/corpus/http"))
    args = parser.parse_args(argv)
    url = urlsplit(args.url)
    fuzzer = Fuzzer((url.hostname or "127.0.0.1", url.port or 80), args.seed, args.connections, args.pid)

    def progress(report: Report) -> None:
        sys.stdout.write("\r%d requests, %d finds " % (report.num_requests, len(report.finds)))
        sys.stdout.flush()

    first = args.first if args.only is None else args.only
    count = args.requests if args.only is None else 1
    if args.only is not None:
        sys.stdout.write("%r\n" % (make_case(args.seed, args.only),))
    report = fuzzer.run(range(first, first + count), count, progress)
    sys.stdout.write("\n" + "\n".join(report.lines()) + "\n")
    for number, _ in report.finds:
        if number >= 0:
            args.corpus.mkdir(parents=True, exist_ok=True)
            path = args.corpus / ("find-%d-%d.bin" % (args.seed, number))
            path.write_bytes(make_case(args.seed, number).raw)
    return 1 if report.finds else 0


if __name__ == "__main__":
    sys.exit(main())
