"""Run wrk against one system and read what it says.

The Lua script below prints one JSON line at the end, because wrk's own text rounds the latencies.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError, Unavailable
from bench.processes import spawn
from bench.systems import Probe

__all__ = ["WrkResult", "require_wrk", "run_wrk", "wrk_version"]

_SCRIPT = """
wrk.method = {method}
wrk.body = {body}
wrk.headers["Content-Type"] = "application/json"
{rotation}
function done(summary, latency, requests)
  local e = summary.errors
  print(string.format(
    'RESULT {{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, ' ..
    '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""

#: Sends one body after the other, each built once.
_ROTATION = """
local requests, turn = {{}}, 0
function init(args)
  for number, body in ipairs({{ {bodies} }}) do requests[number] = wrk.format(nil, nil, nil, body) end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
"""


@dataclass(frozen=True)
class WrkResult:
    """One run of wrk."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    #: Failed connects, reads, writes and timeouts, and answers that were not 2xx or 3xx.
    num_errors: int
    #: The command as a reader would type it.
    command: str


def require_wrk() -> None:
    """Stop with the remedy when wrk is not installed."""
    if shutil.which("wrk") is None:
        raise BenchError("wrk is not installed; on Debian or Ubuntu: apt-get install wrk")


def wrk_version() -> str:
    """Return wrk's own version line."""
    done = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False, timeout=10)
    lines = (done.stdout + done.stderr).splitlines()
    return lines[0].split("Copyright")[0].strip() if lines else "wrk, version unknown"


def run_wrk(
    port: int, probe: Probe, *, connections: int, duration_s: float, bodies: Sequence[bytes] = ()
) -> WrkResult:
    """Drive one endpoint with one wrk thread and return the numbers; with `bodies`, it sends them in turn."""
    url = f"http://127.0.0.1:{port}{probe.path}"
    # wrk takes whole seconds only.
    seconds = max(1, round(duration_s))
    with tempfile.TemporaryDirectory(prefix="bench-wrk-") as folder:
        script = Path(folder, "request.lua")
        rotation = (
            _ROTATION.format(bodies=", ".join(_lua(body.decode()) for body in bodies)) if bodies else ""
        )
        body = _lua(probe.body.decode())
        script.write_text(_SCRIPT.format(method=_lua(probe.method), body=body, rotation=rotation))
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            "10s",
            "--latency",
            "-s",
            str(script),
            url,
        ]
        child = spawn(command, stdout=subprocess.PIPE, log_path=Path(folder, "errors.txt"))
        try:
            output, _ = child.process.communicate(timeout=seconds + 60)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"wrk did not end within {seconds + 60} s") from error
        finally:
            complaint = child.last_words()
            child.end(grace_s=1)
    return _parse(
        output.decode(),
        complaint,
        f"wrk -t1 -c{connections} -d{seconds}s --latency -s request.lua http://127.0.0.1:PORT{probe.path}",
    )


def _lua(text: str) -> str:
    return "nil" if not text else json.dumps(text)


def _parse(output: str, complaint: str, command: str) -> WrkResult:
    for line in output.splitlines():
        if line.startswith("RESULT "):
            numbers = json.loads(line.removeprefix("RESULT "))
            return WrkResult(
                requests_per_s=numbers["requests"] / (numbers["duration_us"] / 1e6),
                p50_ms=numbers["p50_us"] / 1000,
                p99_ms=numbers["p99_us"] / 1000,
                max_ms=numbers["max_us"] / 1000,
                num_errors=sum(numbers[kind] for kind in ("connect", "read", "write", "status", "timeout")),
                command=command,
            )
    raise Unavailable(f"wrk gave no result: {output.strip()[-300:] or complaint}")
