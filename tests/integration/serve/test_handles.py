"""Calls through a handle, from sync code, a running event loop, threads, and other processes."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cloudpickle
import pytest

from tests.integration.serve.call_apps import Attributes, Calls, Custom, NotAnException, OddInit
from tests.waiting import wait_until, wait_until_async
from trygon import serve
from trygon.serve.exceptions import (
    DeploymentUnavailableError,
    RayServeException,
    RequestCancelledError,
    SerializationError,
    TaskError,
)
from trygon.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(scope="module")
def calls(url: str) -> Iterator[DeploymentHandle]:
    yield serve.run(Calls.bind(), name="calls", route_prefix="/calls")
    serve.delete("calls")


def done(calls: DeploymentHandle) -> list[str]:
    report: dict[str, list[str]] = calls.report.remote().result()
    return report["done"]


# ---- results


def test_remote_calls_dunder_call_with_all_its_arguments(calls: DeploymentHandle) -> None:
    response = calls.remote(1, "two", three=[3])

    assert isinstance(response, DeploymentResponse)
    assert [[1, "two"], {"three": [3]}] == response.result(timeout_s=5)


@pytest.mark.parametrize("method", ["echo", "aecho"])
def test_methods_are_attributes_and_an_option(calls: DeploymentHandle, method: str) -> None:
    assert 1 == getattr(calls, method).remote(1).result()
    assert 2 == calls.options(method_name=method).remote(value=2).result()


def test_result_may_be_asked_for_twice(calls: DeploymentHandle) -> None:
    response = calls.echo.remote([1])

    assert response.result() == response.result()


async def _await_twice(calls: DeploymentHandle) -> list[Any]:
    response = calls.aecho.remote(5)
    return [await response, await response]


def test_a_response_is_awaited_in_a_running_loop(calls: DeploymentHandle) -> None:
    assert [5, 5] == asyncio.run(_await_twice(calls))


def test_many_responses_are_awaited_together(calls: DeploymentHandle) -> None:
    async def gather() -> list[int]:
        return await asyncio.gather(*(calls.aecho.remote(number) for number in range(300)))

    assert list(range(300)) == asyncio.run(gather())


def test_result_in_a_running_loop_is_refused(calls: DeploymentHandle) -> None:
    async def ask() -> None:
        calls.echo.remote(1).result()

    with pytest.raises(RuntimeError, match="await"):
        asyncio.run(ask())


def test_two_loops_await_one_response(calls: DeploymentHandle) -> None:
    response = calls.wait.remote("two-loops")

    async def ask() -> str:
        return str(await response)

    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(asyncio.run, ask()) for _ in range(2)]
        wait_until(lambda: calls.count.remote("two-loops").result() == 1, "the call to enter")
        calls.open.remote("two-loops").result()
        assert ["two-loops", "two-loops"] == [answer.result(10) for answer in answers]


def test_threads_share_a_handle(calls: DeploymentHandle) -> None:
    def ask(number: int) -> int:
        return int(calls.echo.remote(number).result(timeout_s=10))

    with ThreadPoolExecutor(8) as threads:
        assert list(range(200)) == list(threads.map(ask, range(200)))


def test_late_result_is_a_timeout_and_the_request_goes_on(calls: DeploymentHandle) -> None:
    response = calls.wait.remote("late")

    with pytest.raises(TimeoutError):
        response.result(timeout_s=0.01)
    with pytest.raises(TimeoutError):
        response.result(timeout_s=0)
    calls.open.remote("late").result()

    assert "late" == response.result(timeout_s=5)


# ---- wrong calls


def test_wrong_method_names_those_that_exist(calls: DeploymentHandle) -> None:
    assert hasattr(calls, "nonsense")
    with pytest.raises(RayServeException, match=r"no method 'nonsense'.*aecho, anumbers"):
        calls.nonsense.remote().result(timeout_s=5)


def test_wrong_arguments_are_the_users_type_error(calls: DeploymentHandle) -> None:
    with pytest.raises(TypeError, match="positional argument") as caught:
        calls.echo.remote(1, 2, 3).result(timeout_s=5)

    assert isinstance(caught.value, TaskError)


def test_unknown_option_and_serialization_are_refused(calls: DeploymentHandle) -> None:
    with pytest.raises(TypeError):
        calls.options(nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="unknown serialization 'nonsense'"):
        calls.options(request_serialization="nonsense")


def test_options_leave_the_handle_as_it_was(calls: DeploymentHandle) -> None:
    changed = calls.options(stream=True, method_name="numbers")

    assert [0, 1] == list(changed.remote(2))
    assert [[], {}] == calls.remote().result()
    assert changed != calls


# ---- exceptions


@pytest.mark.parametrize("method", ["raises", "araises"])
@pytest.mark.parametrize(
    "kind, expected",
    [
        ("value", ValueError),
        ("key", KeyError),
        ("os", FileNotFoundError),
        ("custom", Custom),
        ("attributes", Attributes),
        ("unicode", UnicodeDecodeError),
        ("group", ExceptionGroup),
        ("timeout", TimeoutError),
        ("stop", RuntimeError),
        ("astop", Exception),
        ("unpicklable", TaskError),
        ("odd", TaskError),
        ("base", TaskError),
        ("generator_exit", TaskError),
        ("text", TaskError),
    ],
)
def test_exceptions_keep_their_type_and_are_task_errors(
    calls: DeploymentHandle, method: str, kind: str, expected: type[Exception]
) -> None:
    with pytest.raises(expected) as caught:
        calls.options(method_name=method).remote(kind).result(timeout_s=5)

    assert isinstance(caught.value, TaskError)
    assert "Traceback" in caught.value.remote_traceback
    assert method in caught.value.remote_traceback


def test_exceptions_keep_their_arguments_and_attributes(calls: DeploymentHandle) -> None:
    def catch(kind: str) -> Any:
        with pytest.raises(TaskError) as caught:
            calls.raises.remote(kind).result(timeout_s=5)
        return caught.value

    assert ("k",) == catch("key").args
    assert 7 == catch("custom").code
    assert {"left": 3} == catch("attributes").extra
    missing = catch("os")
    assert (2, "No such file", "f.txt") == (missing.errno, missing.strerror, missing.filename)
    unicode = catch("unicode")
    assert ("utf-8", b"\xff", 0, 1, "bad start") == unicode.args
    assert (b"\xff", 1) == (unicode.object, unicode.end)
    assert ["one"] == [str(error) for error in catch("group").exceptions if isinstance(error, ValueError)]
    assert isinstance(catch("value").cause, ValueError)


def test_exceptions_that_cannot_travel_come_as_text(calls: DeploymentHandle) -> None:
    for kind, text in (
        ("unpicklable", "Unpicklable: holds a lock"),
        ("odd", "OddInit: odd"),
        ("base", "odd one"),
    ):
        with pytest.raises(TaskError, match=text) as caught:
            calls.raises.remote(kind).result(timeout_s=5)
        assert not isinstance(caught.value, OddInit | NotAnException)


def test_the_remote_traceback_holds_the_whole_chain(calls: DeploymentHandle) -> None:
    with pytest.raises(ValueError, match="second") as caught:
        calls.raises_from.remote().result(timeout_s=5)

    assert isinstance(caught.value, TaskError)
    assert "KeyError: 'first'" in caught.value.remote_traceback
    assert "direct cause" in str(caught.value)


def test_a_task_error_pickles_with_type_and_traceback(calls: DeploymentHandle) -> None:
    with pytest.raises(Custom) as caught:
        calls.raises.remote("custom").result(timeout_s=5)

    again = pickle.loads(pickle.dumps(caught.value))

    assert isinstance(again, Custom)
    assert isinstance(again, TaskError)
    assert (7, ("mine", 7)) == (again.code, again.args)
    assert "raises" in again.remote_traceback


def test_user_code_that_raises_cancelled_error_answers(calls: DeploymentHandle) -> None:
    for method in ("raises", "araises"):
        with pytest.raises((RequestCancelledError, TaskError)):
            calls.options(method_name=method).remote("cancelled").result(timeout_s=5)


# ---- what cannot travel


def test_unpicklable_argument_is_named(calls: DeploymentHandle) -> None:
    with pytest.raises(SerializationError, match=r"positional argument 1 of type lock"):
        calls.remote(1, threading.Lock()).result(timeout_s=5)
    with pytest.raises(SerializationError, match=r"argument 'value' of type lock"):
        calls.echo.remote(value=threading.Lock()).result(timeout_s=5)
    with pytest.raises(TypeError):
        asyncio.run(_await(calls.echo.remote(value=threading.Lock())))


async def _await(response: DeploymentResponse) -> Any:
    return await response


def test_unpicklable_result_is_named(calls: DeploymentHandle) -> None:
    with pytest.raises(SerializationError, match="type lock"):
        calls.lock.remote().result(timeout_s=5)


def test_result_that_does_not_load_is_an_error_here(calls: DeploymentHandle) -> None:
    with pytest.raises(SerializationError, match="refuses to be rebuilt"):
        calls.wont_load.remote().result(timeout_s=5)


def test_argument_that_does_not_load_is_an_error_there(calls: DeploymentHandle) -> None:
    from tests.integration.serve.call_apps import WontLoad

    with pytest.raises(SerializationError, match="refuses to be rebuilt"):
        calls.echo.remote(WontLoad()).result(timeout_s=5)
    assert 1 == calls.echo.remote(1).result(timeout_s=5)


@pytest.mark.parametrize("serialization", ["cloudpickle", "pickle", "msgpack", "orjson"])
def test_serializations_carry_plain_data(calls: DeploymentHandle, serialization: str) -> None:
    handle = calls.options(request_serialization=serialization, response_serialization=serialization)
    value = {"a": [1, 2.5, "ü", None, True], "b": {"c": []}}

    assert value == handle.echo.remote(value).result(timeout_s=5)
    assert ["x" * 700_000] == handle.echo.remote(["x" * 700_000]).result(timeout_s=5)


def test_serialization_that_cannot_hold_the_value_says_so(calls: DeploymentHandle) -> None:
    for serialization in ("msgpack", "orjson"):
        with pytest.raises(SerializationError, match=f"as {serialization}"):
            calls.options(request_serialization=serialization).echo.remote(object()).result(timeout_s=5)
        with pytest.raises(SerializationError, match=f"as {serialization}"):
            calls.options(response_serialization=serialization).lock.remote().result(timeout_s=5)


def test_lambdas_and_local_classes_travel(calls: DeploymentHandle) -> None:
    class Local:
        value = 4

    assert 3 == calls.echo.remote(lambda: 3).result(timeout_s=5)()
    assert 4 == calls.echo.remote(Local()).result(timeout_s=5).value


# ---- cancelling


@pytest.mark.parametrize("how", ["sync", "loop"])
def test_cancel_reaches_async_user_code(calls: DeploymentHandle, how: str) -> None:
    door = f"cancel-{how}"
    response = calls.wait.remote(door)
    wait_until(lambda: calls.count.remote(door).result() == 1, "the call to enter")

    response.cancel()

    assert response.cancelled()
    ask = (lambda: response.result(timeout_s=5)) if how == "sync" else lambda: asyncio.run(_await(response))
    with pytest.raises(RequestCancelledError) as caught:
        ask()
    assert isinstance(caught.value, RayServeException)
    assert response.request_id in str(caught.value)
    wait_until(lambda: f"{door}: cancelled" in done(calls), "the CancelledError in user code")


def test_cancel_releases_the_caller_of_sync_code_at_once(calls: DeploymentHandle) -> None:
    response = calls.wait_in_thread.remote("sync-cancel")
    wait_until(lambda: calls.count.remote("sync-cancel").result() == 1, "the call to enter")

    response.cancel()

    with pytest.raises(RequestCancelledError):
        response.result(timeout_s=5)
    calls.open.remote("sync-cancel").result()
    wait_until(lambda: "sync-cancel: opened" in done(calls), "the method to run to its end")


def test_cancel_after_the_result_keeps_the_result(calls: DeploymentHandle) -> None:
    response = calls.echo.remote(1)
    assert 1 == response.result()

    response.cancel()

    assert 1 == response.result()


def test_cancel_right_after_remote_leaks_no_slot(calls: DeploymentHandle) -> None:
    # Both frames arrive in one read, so the task is cancelled before its first step.
    for _ in range(250):
        calls.aecho.remote(1).cancel()

    with ThreadPoolExecutor(100) as threads:
        waits = [threads.submit(calls.wait.remote("all").result, timeout_s=15) for _ in range(99)]
        wait_until(lambda: calls.count.remote("all").result(timeout_s=5) == 99, "every slot to be taken")
        calls.open.remote("all").result(timeout_s=5)
        assert {"all"} == {wait.result(15) for wait in waits}


def test_cancelled_await_cancels_the_request(calls: DeploymentHandle) -> None:
    async def ask() -> None:
        task = asyncio.ensure_future(_await(calls.wait.remote("awaited")))
        await wait_until_async(lambda: _entered(calls, "awaited"), "the call to enter")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())

    wait_until(lambda: "awaited: cancelled" in done(calls), "the CancelledError in user code")


async def _entered(calls: DeploymentHandle, door: str) -> bool:
    return bool(await calls.count.remote(door) == 1)


def test_a_shielded_await_leaves_the_request_alone(calls: DeploymentHandle) -> None:
    async def ask() -> str:
        response = calls.wait.remote("shielded")
        shielded = asyncio.ensure_future(_await(response))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(shielded), 0.01)
        await calls.open.remote("shielded")
        return str(await shielded)

    assert "shielded" == asyncio.run(ask())


# ---- handles as values


def test_handles_pickle_with_their_options(calls: DeploymentHandle) -> None:
    changed = calls.options(method_name="echo", session_id="s")

    for dumps in (pickle.dumps, cloudpickle.dumps):
        again = pickle.loads(dumps(changed))
        assert again == changed
        assert "v" == again.remote("v").result(timeout_s=5)


def test_a_handle_says_what_it_is(calls: DeploymentHandle) -> None:
    assert ("Calls", "calls") == (calls.deployment_name, calls.app_name)
    assert "Calls" in repr(calls)
    assert calls.running_replicas_populated()
    assert calls.is_initialized
    with pytest.raises(RuntimeError):
        calls._init()


def test_app_and_deployment_handles_are_found_by_name(calls: DeploymentHandle) -> None:
    assert 1 == serve.get_app_handle("calls").echo.remote(1).result()
    assert 1 == serve.get_deployment_handle("Calls", "calls").echo.remote(1).result()
    with pytest.raises(RayServeException, match=r"'nothing'.*'calls'"):
        serve.get_app_handle("nothing")
    with pytest.raises(RayServeException, match="app_name"):
        serve.get_deployment_handle("Calls")
    with pytest.raises(RayServeException, match="nothing"):
        serve.get_deployment_handle("nothing", "calls").remote().result(timeout_s=5)


def test_replica_context_tells_who_runs(calls: DeploymentHandle) -> None:
    found = calls.where.remote().result()

    assert {"app": "calls", "deployment": "Calls", "rank": 0, "world": 1, "self": True} == {
        key: value for key, value in found.items() if key != "tag"
    }
    assert found["tag"]
    assert "#" not in found["tag"]
    with pytest.raises(RayServeException):
        serve.get_replica_context()


@pytest.mark.parametrize("method", ["request", "arequest"])
def test_request_context_is_known_in_both_kinds_of_methods(calls: DeploymentHandle, method: str) -> None:
    handle = calls.options(method_name=method, multiplexed_model_id="m", session_id="s")
    response = handle.remote()

    found = response.result()

    assert response.request_id == found["request_id"]
    assert ("calls", "m", "s", False) == (
        found["app_name"],
        found["model"],
        found["session"],
        found["is_http"],
    )
    assert (method == "arequest") == found["thread"]


def test_each_request_has_an_id_of_its_own(calls: DeploymentHandle) -> None:
    ids = {calls.request.remote().result()["request_id"] for _ in range(20)}

    assert 20 == len(ids)


def test_a_handle_of_a_deleted_application_says_so(url: str) -> None:
    handle = serve.run(Calls.bind(), name="short", route_prefix="/short")
    assert 1 == handle.echo.remote(1).result()

    serve.delete("short")

    with pytest.raises(DeploymentUnavailableError, match="'short'"):
        handle.echo.remote(1).result(timeout_s=5)
    with pytest.raises(DeploymentUnavailableError):
        list(handle.options(stream=True).numbers.remote(1))


def test_deleting_waits_for_what_is_ongoing(url: str) -> None:
    handle = serve.run(Calls.bind(), name="busy", route_prefix="/busy")
    response = handle.wait.remote("last")
    wait_until(lambda: handle.count.remote("last").result() == 1, "the call to enter")

    with ThreadPoolExecutor(1) as thread:
        deleting = thread.submit(serve.delete, "busy")
        wait_until(lambda: _status("busy") in {"DELETING", ""}, "the deletion to begin")
        assert not response._call.is_over
        response.cancel()
        deleting.result(10)

    with pytest.raises(RequestCancelledError):
        response.result(timeout_s=5)
    assert "busy" not in serve.status().applications


def _status(name: str) -> str:
    found = serve.status().applications.get(name)
    return str(found.status) if found else ""


def test_streaming_options_give_a_generator(calls: DeploymentHandle) -> None:
    response = calls.options(stream=True).numbers.remote(1)

    assert isinstance(response, DeploymentResponseGenerator)
    assert [0] == list(response)
