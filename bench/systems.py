"""The systems that are measured: how each is started, when it is ready, how it is ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import venvs
from bench.errors import Unavailable
from bench.processes import Child, spawn

__all__ = [
    "APPS",
    "PEERS",
    "Probe",
    "Running",
    "System",
    "ask",
    "environment",
    "free_port",
    "ray",
    "run_to_end",
    "start",
    "trygon",
    "uvicorn",
]

APPS = Path(__file__).resolve().parent / "apps"


@dataclass(frozen=True)
class Probe:
    """One request, and the JSON value its answer must have (None: any 200 will do)."""

    path: str = "/"
    method: str = "POST"
    body: bytes = b'{"x": 1}'
    answer: Any = field(default_factory=lambda: {"x": 1})


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of a table."""

    name: str
    #: Virtual environment it runs in, see `venvs`.
    venv: str
    #: Program, port -> command line.
    command: Callable[[int], list[str | Path]]
    env: Mapping[str, str] = field(default_factory=dict)
    probe: Probe = field(default_factory=Probe)
    start_timeout_s: float = 20.0
    #: How long it may take to end by itself before it is killed.
    grace_s: float = 5.0


@dataclass(frozen=True)
class Running:
    """A system that has answered its probe."""

    system: System
    port: int
    child: Child
    #: From the start of the process to the first right answer.
    first_answer_s: float


def trygon(
    name: str,
    target: str,
    *,
    probe: Probe | None = None,
    access_log: bool = False,
    arguments: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> System:
    """Trygon with ``trygon run module:app``, or, when the target is a file, a program that starts it itself."""

    def command(port: int) -> list[str | Path]:
        if target.endswith(".py"):
            return [venvs.executable(venvs.MAIN, "python"), APPS / target, "--port", str(port), *arguments]
        run = venvs.executable(venvs.MAIN, "trygon")
        return [run, "run", target, "--host", "127.0.0.1", "--port", str(port), "--app-dir", APPS]

    return System(
        name=name,
        venv=venvs.MAIN,
        command=command,
        env={**_log_env(access_log), **(env or {})},
        probe=probe or Probe(),
        grace_s=10,
    )


def uvicorn(name: str, target: str, *, probe: Probe | None = None, access_log: bool = False) -> System:
    """An ASGI application on uvicorn with uvloop and httptools, one process."""

    def command(port: int) -> list[str | Path]:
        log = ["--access-log"] if access_log else ["--no-access-log", "--log-level", "warning"]
        place = ["--host", "127.0.0.1", "--port", str(port), "--app-dir", str(APPS)]
        return [
            venvs.executable("base", "uvicorn"),
            target,
            *place,
            "--loop",
            "uvloop",
            "--http",
            "httptools",
            *log,
        ]

    return System(name=name, venv="base", command=command, probe=probe or Probe())


def ray(
    name: str,
    target: str,
    *,
    probe: Probe | None = None,
    is_tuned: bool = False,
    access_log: bool = False,
    arguments: Sequence[str] = (),
    num_cpus: int | None = None,
) -> System:
    """Ray Serve with its defaults, or throughput-optimised with HAProxy, running the same program as Trygon."""

    def command(port: int) -> list[str | Path]:
        program = APPS / target if target.endswith(".py") else target
        place = ["--port", str(port), *arguments]
        return [venvs.executable("ray", "python"), APPS / "ray_main.py", program, *place]

    env = {
        "PYTHONPATH": f"{APPS / 'ray_shim'}:{APPS}",
        "RAY_USAGE_STATS_ENABLED": "0",
        **_log_env(access_log),
    }
    if num_cpus is not None:
        env["BENCH_RAY_CPUS"] = str(num_cpus)
    if is_tuned:
        env |= {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}
    return System(
        name=name,
        venv="ray",
        command=command,
        env=env,
        probe=probe or Probe(),
        start_timeout_s=120,
        grace_s=20,
    )


def _log_env(access_log: bool) -> dict[str, str]:
    return {"BENCH_ACCESS_LOG": "1" if access_log else "0"}


def _mosec(port: int) -> list[str | Path]:
    return [
        venvs.executable("mosec", "python"),
        APPS / "mosec_app.py",
        "--address",
        "127.0.0.1",
        "--port",
        str(port),
    ]


def _litserve(port: int) -> list[str | Path]:
    return [venvs.executable("litserve", "python"), APPS / "litserve_app.py", str(port)]


def _bentoml(port: int) -> list[str | Path]:
    bentoml = venvs.executable("bentoml", "bentoml")
    return [
        bentoml,
        "serve",
        "bentoml_app:Echo",
        "--working-dir",
        APPS,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]


#: Serving systems from PyPI that answer the echo; Ray Serve is in the list of each scenario that it can run.
PEERS = (
    System(name="mosec", venv="mosec", command=_mosec, probe=Probe(path="/inference")),
    System(
        name="litserve", venv="litserve", command=_litserve, probe=Probe(path="/predict"), start_timeout_s=60
    ),
    System(
        name="bentoml",
        venv="bentoml",
        command=_bentoml,
        env={"BENTOML_DO_NOT_TRACK": "1"},
        probe=Probe(path="/echo"),
        start_timeout_s=60,
    ),
)


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def ask(port: int, probe: Probe, *, timeout_s: float = 10.0) -> tuple[int, bytes]:
    """Send one request on a fresh connection and return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        headers = {"Content-Type": "application/json"} if probe.body else {}
        connection.request(probe.method, probe.path, body=probe.body or None, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@contextlib.contextmanager
def start(system: System) -> Iterator[Running]:
    """Run a system for the length of the block; Unavailable says why it does not answer."""
    venvs.ensure(system.venv)
    port = free_port()
    command = system.command(port)
    if not Path(command[0]).exists():
        raise Unavailable(f"{command[0]} is not installed")
    # A short path: the systems put Unix sockets there, whose paths end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        child = spawn(
            command, env=environment(system, folder), cwd=Path(folder), log_path=Path(folder, "output.log")
        )
        try:
            yield Running(system, port, child, _wait_answer(system, port, child))
        finally:
            child.end(system.grace_s)


def run_to_end(system: System, timeout_s: float) -> dict[str, Any]:
    """Run a program that measures by itself and return the JSON value of its RESULT line."""
    venvs.ensure(system.venv)
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        command, log_path = system.command(free_port()), Path(folder, "output.log")
        child = spawn(
            command,
            env=environment(system, folder),
            cwd=Path(folder),
            stdout=subprocess.PIPE,
            log_path=log_path,
        )
        try:
            output, _ = child.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"did not end within {timeout_s:.0f} s; {child.last_words()}") from error
        finally:
            child.end(system.grace_s)
        for line in output.decode(errors="replace").splitlines():
            if line.startswith("RESULT "):
                found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
                return found
        raise Unavailable(f"ended with status {child.process.returncode} and no result; {child.last_words()}")


def environment(system: System, folder: str) -> dict[str, str]:
    """Return the variables of a system, with a place of its own for what it leaves behind."""
    return {
        **system.env,
        "BENCH_RAY_TEMP": folder,
        "TRYGON_HOME": f"{folder}/home",
        "TRYGON_RUNTIME_DIR": f"{folder}/run",
    }


def _wait_answer(system: System, port: int, child: Child) -> float:
    deadline = child.started_at + system.start_timeout_s
    seen = "no connection"
    while time.monotonic() < deadline:
        if child.process.poll() is not None:
            raise Unavailable(
                f"ended with status {child.process.returncode} before it answered: {child.last_words()}"
            )
        try:
            status, body = ask(port, system.probe, timeout_s=5)
        except (OSError, http.client.HTTPException) as error:
            seen = f"{type(error).__name__}: {error}"
        else:
            if status == 200 and _is_right(system.probe, body):
                return time.monotonic() - child.started_at
            seen = f"status {status}, body {body[:80]!r}"
        time.sleep(0.003)
    raise Unavailable(f"no right answer within {system.start_timeout_s:.0f} s ({seen}); {child.last_words()}")


def _is_right(probe: Probe, body: bytes) -> bool:
    if probe.answer is None:
        return True
    try:
        return bool(json.loads(body) == probe.answer)
    except ValueError:
        return False
