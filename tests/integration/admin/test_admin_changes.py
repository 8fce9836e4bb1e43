"""What the admin API changes beyond deploys: sizes, revisions gone by, and the instance as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.admin.conftest import Admin
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.schema import (
    DeploymentSchema,
    ScaleDeploymentRequest,
    ServeApplicationSchema,
    ServeDeploySchema,
    ServeInstanceDetails,
)

APP = """
import asyncio, os
from trygon import serve

@serve.deployment
class Worker:
    async def __call__(self, request):
        await asyncio.sleep(float(request.query_params.get("for", "0")))
        return str(os.getpid())

app = Worker.bind()
scaling = Worker.options(autoscaling_config={"max_replicas": 3}).bind()
"""
SCALE = "/api/v1/applications/staff/deployments/Worker/scale"


@serve.deployment
def imperative(request: object) -> str:
    """Answer."""
    return "by a program"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Give a folder with an application of its own name, so that no test imports another one's."""
    (tmp_path / "worker.py").write_text(APP)
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_left(admin: Admin) -> Iterator[None]:
    """End each test without applications, and with all replicas wanted."""
    yield
    assert 200 == put(admin, []).status_code
    assert 200 == admin.client.delete("/api/serve/applications/").status_code
    wait_until(lambda: not details(admin).applications, "all applications to be gone", timeout_s=30)


def details(admin: Admin) -> ServeInstanceDetails:
    answer = admin.client.get("/api/serve/applications/")
    assert 200 == answer.status_code, answer.text
    return ServeInstanceDetails(**answer.json())


def application(
    code: Path, num_replicas: int = 2, *, name: str = "staff", **fields: Any
) -> ServeApplicationSchema:
    worker = DeploymentSchema(name="Worker", num_replicas=num_replicas)
    given: dict[str, Any] = {"import_path": "worker:app", "deployments": [worker], **fields}
    return ServeApplicationSchema(name=name, runtime_env={"working_dir": str(code)}, **given)


def put(admin: Admin, applications: list[ServeApplicationSchema], **top: Any) -> httpx.Response:
    config = ServeDeploySchema(applications=applications, **top)
    return admin.client.put("/api/serve/applications/", json=config.model_dump(exclude_unset=True))


def wait_replicas(admin: Admin, count: int, *, name: str = "staff") -> None:
    def ready() -> bool:
        found = details(admin).applications[name]
        assert found.status != "DEPLOY_FAILED", found.message
        running = [r for r in found.deployments["Worker"].replicas if r.state == "RUNNING"]
        return found.status == "RUNNING" and len(running) == count

    wait_until(ready, f"{count} replicas to run", timeout_s=30)


def pids(admin: Admin) -> set[int | None]:
    return {replica.pid for replica in details(admin).applications["staff"].deployments["Worker"].replicas}


def ask(admin: Admin, query: str = "") -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{admin.record.port}/{query}", timeout=20)


# ---- external scalers


def test_an_external_scaler_sets_the_number_of_replicas_in_place(admin: Admin, code: Path) -> None:
    assert 200 == put(admin, [application(code, external_scaler_enabled=True)]).status_code
    wait_replicas(admin, 2)
    before = pids(admin)

    grown = admin.client.post(SCALE, json=ScaleDeploymentRequest(target_num_replicas=3).model_dump())
    wait_replicas(admin, 3)
    after = pids(admin)
    shrunk = admin.client.post(SCALE, json={"target_num_replicas": 1})
    wait_replicas(admin, 1)

    assert [200, 200] == [grown.status_code, shrunk.status_code]
    assert before < after
    assert pids(admin) < before
    assert details(admin).applications["staff"].external_scaler_enabled


def test_a_scaler_does_not_push_the_deployed_revisions_out_of_the_history(admin: Admin, code: Path) -> None:
    put(admin, [application(code, name="sized", external_scaler_enabled=True)])
    wait_replicas(admin, 2, name="sized")
    for count in (3, 1, 2, 1):
        path = SCALE.replace("staff", "sized")
        assert 200 == admin.client.post(path, json={"target_num_replicas": count}).status_code
        wait_replicas(admin, count, name="sized")

    revisions = admin.client.get("/api/serve/applications/sized/history").json()["revisions"]
    back = admin.client.post("/api/serve/applications/sized/undo")

    assert [("COMPLETE", {"Worker": 1}, "scaled: Worker to 1")] == [
        (r["outcome"], r["replicas"], r["origin"]) for r in revisions
    ]
    assert 400 == back.status_code
    assert "no other revision" in back.json()["error"]


def test_a_deployment_that_is_scaled_to_zero_answers_at_once_that_nobody_is_there(
    admin: Admin, code: Path
) -> None:
    put(admin, [application(code, external_scaler_enabled=True)])
    wait_replicas(admin, 2)

    assert 200 == admin.client.post(SCALE, json={"target_num_replicas": 0}).status_code
    answer = wait_until(lambda: (found := ask(admin)).status_code == 503 and found, "a refusal")

    assert "none are wanted" in answer.text
    assert 200 == admin.client.post(SCALE, json={"target_num_replicas": 1}).status_code
    wait_replicas(admin, 1)
    assert 200 == ask(admin).status_code


def test_what_may_not_be_scaled_is_refused(admin: Admin, code: Path) -> None:
    put(admin, [application(code)])
    wait_replicas(admin, 2)

    asked = {"target_num_replicas": 3}
    assert 412 == admin.client.post(SCALE, json=asked).status_code
    assert 404 == admin.client.post(SCALE.replace("staff", "play"), json=asked).status_code
    assert 404 == admin.client.post(SCALE.replace("Worker", "Player"), json=asked).status_code
    assert 405 == admin.client.get(SCALE).status_code
    for body in (
        "",
        "3",
        "[]",
        '{"target_num_replicas": -1}',
        '{"target_num_replicas": 1.5}',
        '{"target": 1}',
    ):
        answer = admin.client.post(SCALE, content=body)
        assert (400, True) == (answer.status_code, bool(answer.json()["error"])), body
    assert 2 == len(pids(admin))


def test_an_application_is_not_scaled_by_two(admin: Admin, code: Path) -> None:
    own = {"import_path": "worker:scaling", "deployments": []}

    answer = put(admin, [application(code, external_scaler_enabled=True, **own)])

    assert 400 == answer.status_code
    assert "remove one of the two" in answer.json()["error"]
    with pytest.raises(ValueError, match="remove one of the two"):
        serve.run(
            imperative.options(autoscaling_config={"max_replicas": 2}).bind(),  # type: ignore[attr-defined]
            external_scaler_enabled=True,
        )


def test_a_program_may_let_others_scale_its_application(admin: Admin) -> None:
    serve.run(imperative.bind(), name="staff", route_prefix="/", external_scaler_enabled=True)  # type: ignore[attr-defined]

    answer = admin.client.post(SCALE.replace("Worker", "imperative"), json={"target_num_replicas": 2})

    assert 200 == answer.status_code
    wait_until(
        lambda: len(details(admin).applications["staff"].deployments["imperative"].replicas) == 2,
        "two replicas",
    )


# ---- capacity


def test_target_capacity_scales_all_counts_and_is_shown(admin: Admin, code: Path) -> None:
    assert 200 == put(admin, [application(code, 4)], target_capacity=50).status_code
    wait_replicas(admin, 2)
    before = pids(admin)

    found = details(admin)
    worker = found.applications["staff"].deployments["Worker"]
    status = serve.status()
    put(admin, [application(code, 4)])
    wait_replicas(admin, 4)

    assert 50 == found.target_capacity == status.target_capacity
    assert (2, 4) == (worker.target_num_replicas, worker.deployment_config["num_replicas"])
    assert before < pids(admin)
    assert details(admin).target_capacity is None


def test_at_no_capacity_nothing_runs_and_callers_hear_of_it(admin: Admin, code: Path) -> None:
    assert 200 == put(admin, [application(code)], target_capacity=0).status_code
    wait_replicas(admin, 0)

    assert 503 == ask(admin).status_code
    assert 200 == put(admin, [application(code)], target_capacity=100).status_code
    wait_replicas(admin, 2)
    assert 200 == ask(admin).status_code


def test_applications_of_programs_are_not_scaled_by_a_capacity(admin: Admin, code: Path) -> None:
    serve.run(imperative.options(num_replicas=2).bind(), name="own", route_prefix="/own")  # type: ignore[attr-defined]

    put(admin, [application(code)], target_capacity=50)
    wait_replicas(admin, 1)

    assert 2 == len(details(admin).applications["own"].deployments["imperative"].replicas)


# ---- revisions gone by


def test_a_deleted_application_is_brought_back(admin: Admin, code: Path) -> None:
    put(admin, [application(code)])
    wait_replicas(admin, 2)
    gone = details(admin).applications["staff"].revision
    put(admin, [])
    wait_until(lambda: "staff" not in details(admin).applications, "the application to be gone")

    history = admin.client.get("/api/serve/applications/staff/history").json()
    back = admin.client.post("/api/serve/applications/staff/undo")
    wait_replicas(admin, 2)

    assert gone == history["revisions"][0]["number"]
    assert history["revisions"][0]["deleted_wall_s"] > 0
    assert (200, gone + 1) == (back.status_code, back.json()["revision"])
    assert f'"{gone + 1}"' == back.headers["etag"]
    assert 200 == ask(admin).status_code
    assert "declarative" == details(admin).applications["staff"].source


def test_undo_takes_a_revision_and_a_precondition(admin: Admin, code: Path) -> None:
    put(admin, [application(code, 1)])
    wait_replicas(admin, 1)
    first = details(admin).applications["staff"].revision
    put(admin, [application(code, 2)])
    wait_replicas(admin, 2)
    undo = "/api/serve/applications/staff/undo"

    stale = admin.client.post(undo, headers={"if-match": f'"{first}"'})
    unknown = admin.client.post(undo, json={"to": 999})
    wrong = admin.client.post(undo, json={"too": first})
    right = admin.client.post(undo, json={"to": first}, headers={"if-match": f'"{first + 1}"'})
    wait_replicas(admin, 1)

    assert [412, 400, 400, 200] == [a.status_code for a in (stale, unknown, wrong, right)]
    assert "did you mean 'to'" in wrong.json()["error"]


def test_what_never_was_has_no_history(admin: Admin) -> None:
    assert 404 == admin.client.get("/api/serve/applications/never/history").status_code
    assert 404 == admin.client.post("/api/serve/applications/never/undo").status_code


# ---- options of the instance


def test_timeouts_change_while_the_instance_runs(admin: Admin, code: Path) -> None:
    put(admin, [application(code)])
    wait_replicas(admin, 2)
    assert 200 == ask(admin, "?for=0.2").status_code

    assert 200 == put(admin, [application(code)], http_options={"request_timeout_s": 0.05}).status_code
    wait_until(lambda: ask(admin, "?for=10").status_code == 408, "the new timeout to hold")
    shown = details(admin).http_options["request_timeout_s"]
    assert 200 == put(admin, [application(code)], http_options={"keep_alive_timeout_s": 7}).status_code
    wait_until(lambda: ask(admin, "?for=0.2").status_code == 200, "the old timeout to hold again")

    assert 0.05 == shown
    assert 7 == details(admin).http_options["keep_alive_timeout_s"]


def test_options_that_count_at_the_start_only_are_refused_with_what_to_do(admin: Admin, code: Path) -> None:
    wanted = {"port": admin.record.port + 1, "root_path": "/shop", "ssl_certfile": "/x", "ssl_keyfile": "/y"}

    answer = put(admin, [application(code)], http_options=wanted, proxy_location="Disabled")

    assert 400 == answer.status_code
    for option in ("port", "root_path", "ssl_certfile", "ssl_keyfile"):
        assert f"http_options.{option} is" in answer.json()["error"]
    assert "proxy_location: the running instance serves HTTP" in answer.json()["error"]
    assert "shut it down and start it with this configuration" in answer.json()["error"]
    assert not details(admin).applications


def test_options_that_the_instance_has_already_are_fine(admin: Admin, code: Path) -> None:
    same = {"host": admin.record.host, "port": admin.record.port, "root_path": ""}

    answer = put(admin, [application(code)], http_options=same, proxy_location="EveryNode")

    assert 200 == answer.status_code, answer.text
    wait_replicas(admin, 2)
