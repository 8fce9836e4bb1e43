"""Requests that leave on time whatever the server does, on kept and on new connections, and what came of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.load import Sample, Target

ROOT = Path(__file__).resolve().parents[2]
#: A test that never ends its sender gets this, not a sender for ever.
MAX_S = 60
#: One more than the sender waits for an answer.
END_S = 20


class Seen:
    """Every request of one sender."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def outcomes(self) -> Counter[str]:
        return Counter(sample.outcome for sample in self.samples)

    def bodies(self) -> list[Any]:
        return [json.loads(sample.body) for sample in self.samples if sample.is_good]


def kept_and_new(path: str = "/", *, rps: float = 60) -> list[Target]:
    """Return GETs and POSTs, each on kept connections and on new ones."""
    return [
        Target(f"{is_post}-{is_fresh}", path, rps / 4, is_fresh, is_post)
        for is_post in (False, True)
        for is_fresh in (False, True)
    ]


@contextmanager
def sending(url: str, targets: Sequence[Target], folder: Path) -> Iterator[Seen]:
    """Send for the length of the block; what was seen is there after it."""
    output = folder / "samples.json"
    command = [sys.executable, "-m", "bench.load", "--port", str(urlsplit(url).port), "--seconds", str(MAX_S)]
    command += ["--output", str(output), *(target.text() for target in targets)]
    seen = Seen()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as sender:
        try:
            assert sender.stdout is not None
            assert b"started" == sender.stdout.readline().strip()
            yield seen
            sender.send_signal(signal.SIGTERM)
            assert 0 == sender.wait(END_S)
        finally:
            sender.kill()
    seen.samples = [Sample(*fields) for fields in json.loads(output.read_text())]
