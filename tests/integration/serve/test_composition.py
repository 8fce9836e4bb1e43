"""Deployments that call each other: arguments, errors, contexts, cancelling, handles at any depth."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from tests.integration.serve.conftest import RunApp
from tests.integration.serve.graph_apps import (
    Child,
    Holder,
    Parent,
    PassOn,
    Pipeline,
    add_one,
    double,
    graph,
    tall,
)
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.exceptions import (
    RayServeException,
    RequestCancelledError,
    SerializationError,
    TaskError,
)
from trygon.serve.handle import DeploymentHandle

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(scope="module")
def parent(url: str) -> Iterator[DeploymentHandle]:
    yield serve.run(graph, name="graph", route_prefix="/graph")
    serve.delete("graph")


@pytest.fixture(scope="module")
def child(parent: DeploymentHandle) -> DeploymentHandle:
    return serve.get_deployment_handle("Child", "graph")


# ---- calling a child


@pytest.mark.parametrize("method", ["ask_async", "ask_sync", "ask_in_thread"])
def test_methods_of_every_kind_call_a_child(parent: DeploymentHandle, method: str) -> None:
    expected = "thread" if method == "ask_in_thread" else 1

    assert ["child", expected] == getattr(parent, method).remote().result(timeout_s=5)


def test_a_child_is_called_over_http(parent: DeploymentHandle, client: httpx.Client) -> None:
    assert ["child", 1] == client.get("/graph").json()


def test_result_in_an_async_method_is_refused(parent: DeploymentHandle) -> None:
    with pytest.raises(RuntimeError, match="await"):
        parent.ask_wrongly.remote().result(timeout_s=5)


def test_many_children_are_called_together(parent: DeploymentHandle) -> None:
    assert [["child", number] for number in range(200)] == parent.ask_many.remote(200).result(timeout_s=10)


@pytest.mark.parametrize("method", ["stream_async", "stream_sync"])
def test_a_stream_passes_through_a_parent(parent: DeploymentHandle, method: str) -> None:
    handle = parent.options(stream=True, method_name=method)

    assert [number * 10 for number in range(1000)] == list(handle.remote(1000))


@pytest.mark.parametrize("method", ["fail_async", "fail_sync"])
def test_a_childs_error_passes_through_a_parent(parent: DeploymentHandle, method: str) -> None:
    with pytest.raises(ValueError, match="child failed") as caught:
        getattr(parent, method).remote().result(timeout_s=5)

    assert isinstance(caught.value, TaskError)
    assert method in caught.value.remote_traceback
    assert "in fail" in caught.value.remote_traceback


def test_a_parent_catches_the_type_its_child_raised(parent: DeploymentHandle) -> None:
    assert parent.caught.remote().result(timeout_s=5).startswith("caught")


def test_a_childs_error_is_500_without_its_text(parent: DeploymentHandle, client: httpx.Client) -> None:
    answer = client.get("/graph", params={"do": "fail_async"})

    assert (500, "Internal Server Error") == (answer.status_code, answer.text)


def test_siblings_and_applications_are_found_by_name(parent: DeploymentHandle) -> None:
    assert [["child", "name"], ["child", "self"]] == parent.by_name.remote().result(timeout_s=5)


# ---- responses as arguments


def test_a_response_is_an_argument(parent: DeploymentHandle, child: DeploymentHandle) -> None:
    one = child.remote(1)

    assert ["child", ["child", 1]] == child.remote(one).result(timeout_s=5)
    assert ["child", ["child", 1]] == child.remote(value=one).result(timeout_s=5)
    assert ["child", 1] == parent.call.remote(child, 1).result(timeout_s=5)


def test_responses_chain_in_code_and_in_replicas(parent: DeploymentHandle, child: DeploymentHandle) -> None:
    expected: Any = 1
    response: Any = 1
    for _ in range(5):
        response = child.remote(response)
        expected = ["child", expected]

    assert expected == response.result(timeout_s=5)
    assert ["child", ["child", ["child", 1]]] == parent.chain.remote().result(timeout_s=5)


def test_remote_does_not_wait_for_its_argument(child: DeploymentHandle) -> None:
    first = child.wait.remote("upstream")
    second = child.remote(first)

    child.open.remote("upstream").result(timeout_s=5)

    assert ["child", "upstream"] == second.result(timeout_s=5)


def test_an_upstream_error_surfaces_at_the_last_await(child: DeploymentHandle) -> None:
    failed = child.fail.remote("far up")
    last = child.remote(child.remote(value=failed))

    with pytest.raises(ValueError, match="far up"):
        last.result(timeout_s=5)
    with pytest.raises(ValueError, match="far up"):
        asyncio.run(_await(last))


async def _await(response: Any) -> Any:
    return await response


def test_a_cancelled_upstream_surfaces(child: DeploymentHandle) -> None:
    first = child.wait.remote("never")
    second = child.remote(first)
    wait_until(lambda: child.count.remote("never").result() == 1, "the upstream call to enter")

    first.cancel()

    with pytest.raises(RequestCancelledError):
        second.result(timeout_s=5)


def test_cancelling_before_the_argument_is_there_sends_nothing(child: DeploymentHandle) -> None:
    first = child.wait.remote("slow-argument")
    second = child.wait.remote(first)
    wait_until(lambda: child.count.remote("slow-argument").result() == 1, "the upstream call to enter")

    second.cancel()
    child.open.remote("slow-argument").result(timeout_s=5)

    assert "slow-argument" == first.result(timeout_s=5)
    with pytest.raises(RequestCancelledError):
        second.result(timeout_s=5)
    assert 1 == child.report.remote().result()["peak"]["slow-argument"]


def test_a_nested_response_names_the_remedy(child: DeploymentHandle) -> None:
    one = child.remote(1)

    for nested in ([one], {"a": one}, (1, [one])):
        with pytest.raises(RayServeException, match="top-level argument"):
            child.remote(nested).result(timeout_s=5)
    assert ["child", 1] == one.result(timeout_s=5)


def test_a_stream_is_no_argument(child: DeploymentHandle) -> None:
    items = child.options(stream=True).items.remote(3)

    with pytest.raises(RayServeException, match="streaming response"):
        child.remote(items).result(timeout_s=5)
    with pytest.raises(SerializationError):
        child.remote([items]).result(timeout_s=5)
    assert [0, 1, 2] == list(items)


# ---- contexts


@pytest.mark.parametrize("method", ["contexts", "contexts_sync"])
def test_the_request_id_follows_a_request_to_its_children(parent: DeploymentHandle, method: str) -> None:
    handle = parent.options(method_name=method, multiplexed_model_id="m", session_id="s")
    response = handle.remote()

    mine, childs = response.result(timeout_s=5)

    assert response.request_id == mine[0] == childs[0]
    assert "graph" == mine[2] == childs[2]
    assert ("m", "") == (mine[3], childs[3])


def test_id_and_route_of_an_http_request_reach_children(
    parent: DeploymentHandle, client: httpx.Client
) -> None:
    answer = client.get("/graph", params={"do": "contexts"}, headers={"X-Request-ID": "my-id"})

    mine, childs = answer.json()
    assert "my-id" == answer.headers["x-request-id"]
    assert ["my-id", "/graph", "graph"] == mine[:3] == childs[:3]


# ---- cancelling a tree


@pytest.mark.parametrize("method", ["wait_for_child", "wait_for_child_sync"])
def test_cancelling_a_parent_cancels_its_children(
    parent: DeploymentHandle, child: DeploymentHandle, method: str
) -> None:
    response = getattr(parent, method).remote(method)
    wait_until(lambda: child.count.remote(method).result() == 1, "the child to be called")

    response.cancel()

    with pytest.raises(RequestCancelledError):
        response.result(timeout_s=5)
    wait_until(
        lambda: f"{method}: cancelled" in child.report.remote().result()["done"], "the child's cancellation"
    )


def test_a_gone_client_cancels_three_hops(url: str, run_app: RunApp) -> None:
    run_app(tall, name="tall", route_prefix="/tall")
    child = serve.get_deployment_handle("Child", "tall")

    with httpx.Client(base_url=url, timeout=0.3) as client, pytest.raises(httpx.ReadTimeout):
        client.get("/tall", params={"door": "http"})
    wait_until(
        lambda: "http: cancelled" in child.report.remote().result()["done"], "the cancellation of the child"
    )


# ---- handles at any depth


def test_handles_are_found_in_containers(run_app: RunApp) -> None:
    app = Holder.bind(
        [Child.options(name="a").bind("a"), {"k": (Child.options(name="b").bind("b"), 1)}],
        deep={"x": [{"y": [Child.options(name="c").bind("c")]}]},
    )

    handle = run_app(app, name="deep", route_prefix="/deep")

    assert [["a", 0], ["b", 0], ["c", 0]] == handle.ask_all.remote().result(timeout_s=5)


def test_one_bound_object_twice_is_one_deployment(run_app: RunApp) -> None:
    shared = Child.bind("shared")

    handle = run_app(Holder.bind(shared, [shared], again=shared), name="shared", route_prefix=None)

    assert ["Child", "Child", "Child"] == handle.names.remote().result(timeout_s=5)
    assert {"Holder", "Child"} == set(serve.status().applications["shared"].deployments)


@pytest.mark.filterwarnings("ignore")
def test_two_binds_of_one_name_are_two_deployments(run_app: RunApp) -> None:
    handle = run_app(Holder.bind(Child.bind("one"), Child.bind("two")), name="two", route_prefix=None)

    assert ["Child", "Child_1"] == handle.names.remote().result(timeout_s=5)
    assert [["one", 0], ["two", 0]] == handle.ask_all.remote().result(timeout_s=5)


def test_a_diamond_shares_its_leaf(run_app: RunApp) -> None:
    leaf = Child.bind("leaf")
    left, right = Parent.options(name="L").bind(leaf), Parent.options(name="R").bind(leaf)

    handle = run_app(Holder.bind(left, right), name="diamond", route_prefix=None)

    assert ["L", "R"] == handle.names.remote().result(timeout_s=5)
    assert {"Holder", "L", "R", "Child"} == set(serve.status().applications["diamond"].deployments)
    assert ["leaf", 5] == serve.get_deployment_handle("L", "diamond").ask_sync.remote(5).result(timeout_s=5)


def test_a_pipeline_of_functions(run_app: RunApp) -> None:
    handle = run_app(Pipeline.bind(add_one.bind(), double.bind()), name="pipe", route_prefix=None)

    assert 8 == handle.remote(3).result(timeout_s=5)


def test_a_handle_of_another_application_is_an_argument(parent: DeploymentHandle, run_app: RunApp) -> None:
    other = run_app(Child.bind("other"), name="other", route_prefix=None)

    assert ["other", 2] == parent.call.remote(other, 2).result(timeout_s=5)


# ---- requests as values


@pytest.mark.parametrize("first", ["", "body"])
@pytest.mark.parametrize("size", [0, 5, 150_000])
def test_a_live_request_is_passed_to_a_child(
    client: httpx.Client, passing: None, first: str, size: int
) -> None:
    body = b"x" * size

    answer = client.post(f"/pass/on?a=1&first={first}", content=body, headers={"X-Mine": "yes"}).json()

    assert ("POST", "/pass/on", "yes") == (answer["method"], answer["path"], answer["header"])
    assert body.decode() == answer["body"]
    assert "1" == answer["query"]["a"]


def test_a_request_whose_body_still_arrives_is_passed_on_after_it_was_read(
    client: httpx.Client, passing: None
) -> None:
    body = b"x" * 600_000

    assert 500 == client.post("/pass/on", content=body).status_code  # the log says to read it first
    assert body.decode() == client.post("/pass/on?first=body", content=body).json()["body"]


@pytest.fixture(scope="module")
def passing(url: str) -> Iterator[None]:
    serve.run(PassOn.bind(Child.bind()), name="pass", route_prefix="/pass")
    yield
    serve.delete("pass")


def test_a_hand_made_request_goes_through_a_handle(child: DeploymentHandle) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"made up", "more_body": False}

    scope = {
        "type": "http",
        "method": "PUT",
        "path": "/made/here",
        "query_string": b"q=2",
        "headers": [(b"x-mine", b"made")],
    }

    found = child.read_request.remote(Request(scope, receive)).result(timeout_s=5)
    query = child.read_query.remote(Request(scope)).result(timeout_s=5)

    expected = {"method": "PUT", "path": "/made/here", "query": {"q": "2"}, "header": "made"}
    assert {**expected, "body": "made up"} == found
    assert {"q": "2"} == query
