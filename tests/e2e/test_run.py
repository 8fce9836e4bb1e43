"""`trygon run`: from the command to the answer, and to the end."""

from __future__ import annotations

import json
import os
import signal
import socket
import textwrap
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.command import Command, run

Start = Callable[..., Command]

#: What the issue asks of Ctrl-C, on a machine of which the tests may have half a core.
STOP_S = 1.0


def is_free(port: int) -> bool:
    """Whether a program can listen on the port at once."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_serves_until_ctrl_c_at_the_terminal(command: Start, free_port: int) -> None:
    running = command("run", "hello:app", "--port", str(free_port), at_terminal=True)
    url = running.wait_until_serving()
    family = psutil.Process(running.process.pid).children(recursive=True)

    answer = httpx.get(url)
    code, took_s = running.stop()

    assert (200, "hello") == (answer.status_code, answer.text)
    assert url == f"http://127.0.0.1:{free_port}/"
    assert code == 0
    assert took_s < STOP_S
    assert "stopping" in running.output
    assert "Traceback" not in running.output
    assert family
    assert not [process for process in family if process.is_running()]
    assert is_free(free_port)


def test_the_same_port_serves_again_at_once(command: Start, free_port: int) -> None:
    for _ in range(2):
        running = command("run", "hello:app", "--port", str(free_port))
        assert httpx.get(running.wait_until_serving()).text == "hello"
        assert running.stop()[0] == 0


def test_sigterm_ends_it_like_ctrl_c(command: Start) -> None:
    running = command("run", "hello:app", "--port", "0")
    running.wait_until_serving()

    running.interrupt(signal.SIGTERM)

    assert running.wait() == 0
    assert "Traceback" not in running.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_at_once_while_a_constructor_is_slow(command: Start, number: signal.Signals) -> None:
    running = command("run", "slow:app", "--port", "0")
    running.wait_for("starting Slow")

    running.interrupt(number)

    assert running.wait(5) == 128 + number
    assert "Traceback" not in running.output


def test_ctrl_c_ends_a_slow_import(command: Start, folder: Path) -> None:
    (folder / "heavy.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    running = command("run", "heavy:app", "--port", "0", at_terminal=True)
    running.wait_for("loading")

    code, took_s = running.stop()

    assert code == 130
    assert took_s < STOP_S
    assert "Traceback" not in running.output


def test_requests_in_work_do_not_hold_up_ctrl_c(command: Start) -> None:
    running = command("run", "slow:busy", "--port", "0")
    url = running.wait_until_serving()
    with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 80)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        running.wait_for("| begun")

        code, took_s = running.stop()

    assert code == 0
    assert took_s < STOP_S + 0.5


def test_a_second_ctrl_c_forces_the_end(command: Start) -> None:
    running = command("run", "slow:busy", "--port", "0", "--grace", "60", at_terminal=True)
    url = running.wait_until_serving()
    with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 80)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        running.wait_for("| begun")
        running.press_ctrl_c()
        running.wait_for("stopping")

        code, took_s = running.stop()

    assert code == 130
    assert took_s < STOP_S
    assert "at once" in running.output


def test_shows_what_is_printed_and_logged(command: Start) -> None:
    running = command("run", "hello:app", "--port", "0")
    url = running.wait_until_serving()
    httpx.get(f"{url}some/where")

    output = running.wait_for("GET / 200")

    lines = output.splitlines()
    assert any("default_Hello" in line and line.endswith("| constructed") for line in lines)
    assert any(line.endswith("| printed /some/where") for line in lines)
    assert any(line.startswith("INFO ") and line.endswith("-- logged") for line in lines)


def test_log_lines_can_be_left_out(command: Start) -> None:
    running = command("run", "hello:app", "--port", "0", "--no-access-log", "--log-level", "warning")
    url = running.wait_until_serving()
    httpx.get(url)
    running.wait_for("| printed")

    running.stop()

    assert "GET /" not in running.output
    assert "-- logged" not in running.output


def test_builders_get_the_arguments(command: Start) -> None:
    running = command("run", "hello:build", "greeting=good=day", "--port", "0")

    assert httpx.get(running.wait_until_serving()).text == "good=day"


def test_typed_builders_get_checked_arguments(command: Start, folder: Path) -> None:
    (folder / "typed.py").write_text(
        "from pydantic import BaseModel\nfrom hello import Hello\n"
        "class Args(BaseModel):\n    count: int\n"
        "def build(args: Args):\n    return Hello.bind('x' * args.count)\n"
    )
    running = command("run", "typed:build", "count=3", "--port", "0")

    assert httpx.get(running.wait_until_serving()).text == "xxx"


def test_folders_and_variables_reach_the_replicas(command: Start, folder: Path) -> None:
    (folder / "src").mkdir()
    (folder / "data").mkdir()
    (folder / "src" / "where.py").write_text(
        textwrap.dedent("""
        import os
        from trygon import serve

        AT_IMPORT = os.environ["MODEL"]

        @serve.deployment
        class Where:
            def __call__(self, request):
                return [os.path.basename(os.getcwd()), AT_IMPORT]

        app = Where.bind()
        """)
    )
    running = command(
        *("run", "where:app", "--app-dir", "src", "--working-dir", "data", "--port", "0"),
        *("--runtime-env-json", '{"env_vars": {"MODEL": "forest"}}'),
    )

    assert httpx.get(running.wait_until_serving()).json() == ["data", "forest"]


def test_the_summary_names_route_and_documentation(command: Start, folder: Path) -> None:
    (folder / "api.py").write_text(
        textwrap.dedent("""
        from fastapi import FastAPI
        from trygon import serve

        api = FastAPI()

        @serve.deployment(num_replicas=2)
        @serve.ingress(api)
        class Api:
            @api.get("/add")
            def add(self, a: int, b: int) -> int:
                return a + b

        app = Api.bind()
        """)
    )
    running = command("run", "api:app", "--port", "0", "--route-prefix", "/maths", "--name", "sums")
    url = running.wait_until_serving()

    assert "sums: Api (2 replicas)" in running.output
    assert url.endswith("/maths")
    assert f"documentation  {url}/docs" in running.output
    assert httpx.get(f"{url}/add?a=1&b=2").text == "3"
    assert httpx.get(f"{url}/docs").status_code == 200


def test_failing_constructor_is_shown_once_and_ends_the_command(command: Start, folder: Path) -> None:
    (folder / "broken.py").write_text(
        textwrap.dedent("""
        from trygon import serve

        @serve.deployment
        class Broken:
            def __init__(self):
                raise RuntimeError("no weights in /models")

        app = Broken.bind()
        """)
    )
    running = command("run", "broken:app", "--port", "0")

    assert running.wait() == 1
    assert running.output.count("RuntimeError: no weights in /models") == 1
    assert "broken.py" in running.output
    assert "failed 3 times in a row" in running.output
    assert "trygon/" not in running.output.replace("trygon run", "")


def test_the_end_of_the_instance_is_told(command: Start, folder: Path) -> None:
    running = command("run", "hello:app", "--port", "0")
    running.wait_until_serving()
    (instance,) = json.loads(run("status", "--json", cwd=folder).stdout)["instances"]

    os.kill(instance["supervisor_pid"], signal.SIGKILL)

    assert running.wait() == 1
    assert "ended unexpectedly" in running.output
    assert "Traceback" not in running.output


def test_nothing_outlives_a_killed_command(command: Start) -> None:
    running = command("run", "hello:app", "--port", "0")
    running.wait_until_serving()
    family = psutil.Process(running.process.pid).children(recursive=True)

    running.interrupt(signal.SIGKILL)
    running.wait()

    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive


def test_a_port_in_use_is_refused_with_its_owner(folder: Path, free_port: int) -> None:
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", free_port))
        owner.listen()

        done = run("run", "hello:app", "--port", str(free_port), cwd=folder)

    assert done.returncode == 1
    assert f"port {free_port} on 127.0.0.1 is in use by process {os.getpid()}" in done.stderr
    assert "Traceback" not in done.stderr
