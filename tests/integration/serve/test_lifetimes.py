"""Starting, ending and sharing instances from Python: again in one process, forked, from two drivers."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import pytest

from tests.integration.serve.call_apps import Calls
from tests.integration.serve.change_apps import Version
from trygon import serve
from trygon.serve.exceptions import InstanceError, RayServeException
from trygon.serve.handle import DeploymentHandle
from trygon.serve.schema import ServeStatus

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    serve.shutdown()


def run(number: int = 1) -> DeploymentHandle:
    serve.start(http_options={"port": 0})
    return serve.run(Version.bind(number), name="app", route_prefix="/app")


def ask() -> int:
    return int(httpx.get(f"{serve.http_address()}/app", timeout=10).json()[0])


def test_shutdown_and_run_again_in_one_process() -> None:
    for number in range(3):
        handle = run(number)
        assert number == ask()
        assert number == handle.remote().result(timeout_s=5)[0]
        serve.shutdown()
        assert ServeStatus() == serve.status()
        with pytest.raises(RayServeException):
            serve.http_address()


def test_shutdown_without_an_instance_does_nothing() -> None:
    serve.shutdown()
    asyncio.run(serve.shutdown_async())
    serve.delete("nothing")

    assert {} == serve.status().applications


def test_shutdown_in_a_running_loop() -> None:
    run()

    asyncio.run(serve.shutdown_async())

    assert ServeStatus() == serve.status()


def test_an_old_handle_fails_clearly_after_shutdown() -> None:
    serve.start(http_options={"port": 0})
    handle = serve.run(Version.options(graceful_shutdown_timeout_s=0.2).bind(1), name="app")
    waiting = handle.wait.remote("door")
    handle.remote().result(timeout_s=5)

    serve.shutdown()

    with pytest.raises(Exception, match=r".+"):
        waiting.result(timeout_s=10)
    with pytest.raises((InstanceError, RayServeException)):
        handle.remote().result(timeout_s=5)


def test_a_found_handle_works_with_the_next_instance() -> None:
    run(1)
    serve.shutdown()
    run(2)

    assert 2 == serve.get_app_handle("app").remote().result(timeout_s=5)[0]


def test_run_from_a_thread_and_a_running_loop() -> None:
    found: list[int] = []

    def in_thread() -> None:
        run(5)
        found.append(ask())

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join(30)

    async def in_loop() -> int:
        handle = serve.run(Version.bind(6), name="app", route_prefix="/app")
        return int((await handle.remote())[0])

    assert [5] == found
    assert 6 == asyncio.run(in_loop())


def _find_and_ask(answers: Connection) -> None:
    _answer(answers, lambda: serve.get_app_handle("app"))


def _ask_given(handle: DeploymentHandle, answers: Connection) -> None:
    _answer(answers, lambda: handle)


def _join_and_ask_given(handle: DeploymentHandle, answers: Connection) -> None:
    serve.status()
    _answer(answers, lambda: handle)


def _answer(answers: Connection, find: Callable[[], DeploymentHandle]) -> None:
    try:
        answers.send(find().remote().result(timeout_s=10)[0])
    except BaseException as error:
        answers.send(repr(error))


@pytest.fixture
def no_resource_tracker() -> Iterator[None]:
    """End the process that multiprocessing keeps for the rest of this one's life."""
    yield
    resource_tracker._resource_tracker._stop()


@pytest.mark.parametrize(
    "method, targets",
    [("fork", [_find_and_ask, _ask_given]), ("spawn", [_find_and_ask, _join_and_ask_given])],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_children_of_the_driver_call_the_same_instance(
    method: str, targets: list[Callable[..., None]], no_resource_tracker: None
) -> None:
    handle = run(3)
    context = multiprocessing.get_context(method)

    for target in targets:
        here, there = context.Pipe()
        args = (there,) if target is _find_and_ask else (handle, there)
        child = context.Process(target=target, args=args)
        child.start()
        assert here.poll(20)
        assert 3 == here.recv()
        child.join(20)
        assert 0 == child.exitcode
        here.close()
        there.close()

    assert 3 == handle.remote().result(timeout_s=5)[0]
    assert 3 == ask()


def test_a_forked_child_that_ends_leaves_the_instance_alone() -> None:
    handle = run(4)

    pid = os.fork()
    if pid == 0:
        try:
            sys.exit(0)  # runs what is registered for the end of the interpreter
        except SystemExit:
            import atexit

            atexit._run_exitfuncs()
        os._exit(0)
    os.waitpid(pid, 0)

    assert 4 == handle.remote().result(timeout_s=5)[0]
    assert 4 == ask()


DRIVER = """
import sys
from trygon import serve
from tests.integration.serve.change_apps import Version
print(serve.get_app_handle("app").remote().result(timeout_s=10)[0], flush=True)
serve.run(Version.bind(20), name="second", route_prefix="/second")
print(serve.http_address(), flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["", "serve.delete('app')", "import os; os._exit(3)"])
def test_a_second_driver_joins_and_leaves(end: str) -> None:
    handle = run(7)

    driver = subprocess.run(
        [sys.executable, "-W", "error", "-c", DRIVER.format(end=end)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert ["7", serve.http_address()] == driver.stdout.split(), driver.stderr
    assert (3 if "_exit" in end else 0) == driver.returncode
    assert 20 == httpx.get(f"{serve.http_address()}/second").json()[0]
    assert 20 == serve.get_app_handle("second").remote().result(timeout_s=5)[0]
    if "delete" in end:
        assert {"second"} == set(serve.status().applications)
    else:
        assert 7 == handle.remote().result(timeout_s=5)[0]


def test_options_given_to_a_running_instance_are_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run()
    address = serve.http_address()

    serve.start(http_options={"port": 1})

    assert address == serve.http_address()
    assert "running already" in caplog.text


def test_a_port_in_use_is_named() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InstanceError, match=f"{port}"):
            serve.start(http_options={"port": port})
    assert ServeStatus() == serve.status()


def test_an_instance_without_http_serves_handles() -> None:
    serve.start(proxy_location="Disabled")
    handle = serve.run(Calls.bind(), name="calls", route_prefix="/calls")

    assert 1 == handle.echo.remote(1).result(timeout_s=5)
    with pytest.raises(RayServeException):
        serve.http_address()
