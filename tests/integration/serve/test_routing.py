"""Requests go where the router of their deployment says, from every door."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.serve.conftest import RunApp
from tests.integration.serve.routing_apps import ByNumber, ByStats, Faulty, Place
from tests.waiting import wait_until
from trygon import serve

pytestmark = pytest.mark.timeout(40)


def routed(router: object, **options: Any) -> dict[str, Any]:
    return {"request_router_class": router, **options}


@serve.deployment
class Caller:
    """Calls the deployment beneath it."""

    def __init__(self, place: Any) -> None:
        self.place = place

    async def __call__(self, number: int) -> str:
        return str(await self.place.remote(number))


def test_round_robin_takes_turns(run_app: RunApp) -> None:
    handle = run_app(Place.options(request_router_config=routed("round_robin")).bind())

    answers = [handle.remote().result(timeout_s=10) for _ in range(9)]

    assert 3 == len(set(answers))
    assert answers[:3] * 3 == answers


def test_the_least_loaded_replica_takes_a_request(run_app: RunApp) -> None:
    handle = run_app(Place.options(request_router_config=routed("least_loaded")).bind())
    handle.broadcast("hold", is_held=True).results(timeout_s=10)
    waiting = [handle.remote() for _ in range(12)]
    handle.broadcast("hold", is_held=False).results(timeout_s=10)

    assert {4} == set(Counter(response.result(timeout_s=10) for response in waiting).values())


def test_a_session_goes_to_one_replica_from_every_door(run_app: RunApp, client: httpx.Client) -> None:
    config = routed("ray.serve.experimental.consistent_hash_router:ConsistentHashRouter")
    handle = run_app(Place.options(request_router_config=config).bind())

    def answers(session: str) -> set[str]:
        by_header = {client.get("/", headers={"x-session-id": session}).text for _ in range(5)}
        return by_header | {
            handle.options(session_id=session).remote().result(timeout_s=10) for _ in range(5)
        }

    for session in ("ann", "bob", "eve", "joe"):
        # A replica that a busy machine keeps from answering pings is passed over meanwhile.
        wait_until(lambda session=session: 1 == len(answers(session)), "one replica for all")


def test_requests_without_a_session_are_spread(run_app: RunApp) -> None:
    handle = run_app(Place.options(request_router_config=routed("consistent_hash")).bind())

    assert 1 < len({handle.remote().result(timeout_s=10) for _ in range(40)})


def test_a_session_waits_for_its_replicas_and_goes_to_its_fallbacks(run_app: RunApp) -> None:
    config = routed("consistent_hash", request_router_kwargs={"num_fallback_replicas": 1})
    app = Place.options(max_ongoing_requests=1, request_router_config=config).bind()
    session = run_app(app).options(session_id="ann", method_name="slow")

    responses = [session.remote() for _ in range(6)]

    assert 2 == len({response.result(timeout_s=10) for response in responses})


def test_a_class_of_the_users_sees_the_arguments_whoever_calls(
    run_app: RunApp, client: httpx.Client, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    place = Place.options(
        request_router_config=routed(ByNumber, request_router_kwargs={"path": str(said)})
    ).bind()
    handle = run_app(place)
    tags = sorted(replica.replica_id.split("#")[-1] for replica in _links(handle))

    def by_handle() -> list[str]:
        return [handle.remote(number).result(timeout_s=10) for number in range(6)]

    def by_http() -> list[str]:
        return [client.get("/", params={"n": number}).text for number in range(6)]

    # On a busy machine an answer may be late, and power of two choices takes that request.
    wait_until(lambda: tags * 2 == by_handle(), "calls that go where the router says")
    wait_until(lambda: tags * 2 == by_http(), "HTTP requests that go where the router says")
    wait_until(lambda: 12 <= len(said.read_text().splitlines()), "on_request_routed of every request")
    assert f"5 {tags[2]}" in said.read_text()


def _links(handle: Any) -> Any:
    runtime = handle._bind()
    return runtime.router.pool(handle.app_name, handle.deployment_name).links


def test_a_call_of_a_replica_is_routed_too(run_app: RunApp) -> None:
    place = Place.options(request_router_config=routed(ByNumber)).bind()
    handle = run_app(Caller.bind(place))

    def is_routed() -> bool:
        answers = [handle.remote(number).result(timeout_s=10) for number in range(6)]
        return 3 == len(set(answers)) and answers[:3] * 2 == answers

    # On a busy machine an answer may be late, and power of two choices takes that request.
    wait_until(is_routed, "calls that go where the router says")


def test_a_router_knows_what_replicas_record_and_which_models_they_have(run_app: RunApp) -> None:
    config = routed(ByStats, request_routing_stats_period_s=0.1)
    handle = run_app(Place.options(request_router_config=config).bind())
    best = max(handle.broadcast("hold", is_held=False).results(timeout_s=10))

    def chosen() -> set[int]:
        # One that holds nothing says who it is.
        return {handle.hold.remote(is_held=False).result(timeout_s=10) for _ in range(5)}

    wait_until(lambda: chosen() == {best}, "the numbers of the replicas")
    one = handle.options(multiplexed_model_id="m", method_name="with_model")
    wait_until(
        lambda: 1 == len({one.remote().result(timeout_s=10) for _ in range(10)}), "the models of the replicas"
    )


def test_a_full_replica_that_the_router_insists_on_is_waited_for(run_app: RunApp) -> None:
    place = Place.options(max_ongoing_requests=2, request_router_config=routed(ByNumber)).bind()
    handle = run_app(place)
    full = [handle.slow.remote(0) for _ in range(7)]
    other = handle.slow.remote(1)

    assert 1 == len({response.result(timeout_s=10) for response in full})
    assert other.result(timeout_s=10) != full[0].result(timeout_s=10)


@pytest.mark.parametrize("fault", ["raise", "nonsense", "hang", "block"])
def test_a_router_that_fails_costs_no_request_and_is_told_of(
    run_app: RunApp, tmp_path: Path, fault: str
) -> None:
    said = tmp_path / "said"
    said.write_text("")
    config = routed(Faulty, request_router_kwargs={"path": str(said)})
    handle = run_app(Place.options(request_router_config=config).bind())
    first = {handle.remote().result(timeout_s=10) for _ in range(10)}
    said.write_text(fault)

    answers = [handle.remote() for _ in range(100)]
    spread = {answer.result(timeout_s=10) for answer in answers}

    assert 1 == len(first)
    assert 1 < len(spread)
    message = wait_until(lambda: _message(), "the failure in the status")
    assert "the request router failed" in str(message)

    said.write_text("")
    wait_until(
        lambda: {handle.remote().result(timeout_s=10) for _ in range(10)} == first,
        "a router that routes again",
    )


def _message() -> str:
    return str(serve.status().applications["default"].deployments["Place"].message)


def test_a_request_waits_while_the_router_names_nobody(run_app: RunApp, tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_text("empty")
    config = routed(Faulty, request_router_kwargs={"path": str(said)}, max_backoff_s=0.05)
    handle = run_app(Place.options(request_router_config=config).bind())
    response = handle.remote()

    with pytest.raises(TimeoutError):
        response.result(timeout_s=0.3)
    said.write_text("")

    assert response.result(timeout_s=10)


def test_a_replica_is_chosen_by_the_router_for_a_targeted_call_too(run_app: RunApp) -> None:
    handle = run_app(Place.options(request_router_config=routed("consistent_hash")).bind())
    session = handle.options(session_id="ann")
    expected = session.remote().result(timeout_s=10)

    async def chosen() -> str:
        async with session.choose_replica() as selection:
            return str(await session.dispatch(selection))

    assert expected == asyncio.run(chosen())


def test_a_class_that_is_no_router_is_told_of_and_requests_are_answered(run_app: RunApp) -> None:
    handle = run_app(Place.options(request_router_config=routed(dict)).bind())

    assert handle.remote().result(timeout_s=15)
    wait_until(lambda: "subclass" in _message(), "the reason in the status")
