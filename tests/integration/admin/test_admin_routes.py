"""What the admin API does for those who may use it: look, deploy, compare and set, delete."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.integration.admin.conftest import Admin
from tests.waiting import wait_until
from trygon import serve

APP = """
import os
from trygon import serve

@serve.deployment(num_replicas=2, user_config={"greeting": "hello"})
class Greeter:
    def reconfigure(self, config):
        self.greeting = config["greeting"]

    def __call__(self, request):
        return f"{self.greeting} {os.environ.get('NAME', 'nobody')}"

app = Greeter.bind()
"""


@serve.deployment
def imperative(request: object) -> str:
    """Answer."""
    return "by a program"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Give a folder with an application of its own name, so that no test imports another one's."""
    (tmp_path / "greeter.py").write_text(APP)
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_left(admin: Admin) -> Iterator[None]:
    """End each test without applications."""
    yield
    assert 200 == admin.client.delete("/api/serve/applications/").status_code
    wait_until(lambda: not applications(admin), "all applications to be gone", timeout_s=30)


def applications(admin: Admin, **params: str) -> dict[str, Any]:
    answer = admin.client.get("/api/serve/applications/", params=params)
    assert 200 == answer.status_code, answer.text
    found: dict[str, Any] = answer.json()["applications"]
    return found


def entry(code: Path, **fields: Any) -> dict[str, Any]:
    return {"import_path": "greeter:app", "runtime_env": {"working_dir": str(code)}, **fields}


def ask(admin: Admin, path: str = "/") -> str:
    answer = httpx.get(f"http://127.0.0.1:{admin.record.port}{path}", timeout=20)
    return answer.text if answer.is_success else ""


def wait_running(admin: Admin, name: str = "default") -> dict[str, Any]:
    def running() -> dict[str, Any] | None:
        found = applications(admin).get(name)
        assert found is None or found["status"] != "DEPLOY_FAILED", found["message"]
        return found if found is not None and found["status"] == "RUNNING" else None

    return wait_until(running, f"{name} to run", timeout_s=30) or {}


def test_an_empty_instance_shows_the_empty_form(admin: Admin) -> None:
    def shown() -> dict[str, Any]:
        found: dict[str, Any] = admin.client.get("/api/serve/applications/").json()
        return found

    # The port answers while the ingress still starts.
    wait_until(
        lambda: {"0": "HEALTHY"} == {slot: one["status"] for slot, one in shown()["proxies"].items()},
        "the ingress",
    )
    found = shown()

    assert {} == found["applications"]
    assert {"controller_info", "proxy_location", "http_options", "grpc_options", "proxies"} <= found.keys()
    assert found["target_capacity"] is None


@pytest.mark.parametrize("notation", ["json", "yaml"])
def test_a_configuration_is_deployed_and_shown(admin: Admin, code: Path, notation: str) -> None:
    override = {"name": "Greeter", "num_replicas": 1, "user_config": {"greeting": "good day"}}
    config = {
        "applications": [
            entry(
                code,
                name="shop",
                route_prefix="/shop",
                deployments=[override],
                runtime_env={"working_dir": str(code), "env_vars": {"NAME": "you"}},
            )
        ]
    }
    body = json.dumps(config, indent="\t") if notation == "json" else yaml.safe_dump(config)

    answer = admin.client.put("/api/serve/applications/", content=body)

    assert (200, b"") == (answer.status_code, answer.content)
    found = wait_running(admin, "shop")
    assert "good day you" == ask(admin, "/shop")
    assert "declarative" == found["source"]
    assert config["applications"][0] == found["deployed_app_config"]
    deployment = found["deployments"]["Greeter"]
    assert ("HEALTHY", 1) == (deployment["status"], deployment["target_num_replicas"])
    assert override == {key: deployment["deployment_config"][key] for key in override}
    assert ["RUNNING"] == [replica["state"] for replica in deployment["replicas"]]
    assert {"CPU": 1.0} == deployment["required_resources"]
    assert "Greeter" == found["deployment_topology"]["ingress_deployment"]
    metrics = admin.client.get("/metrics").text
    assert 'trygon_application_status{application="shop"} 6' in metrics


def test_what_a_new_configuration_leaves_out_is_deleted_but_for_what_programs_deployed(
    admin: Admin, code: Path
) -> None:
    serve.run(imperative.bind(), name="program", route_prefix="/program")
    two = [entry(code, name=name, route_prefix=f"/{name}") for name in ("a", "b")]
    assert admin.client.put("/api/serve/applications/", json={"applications": two}).is_success
    wait_running(admin, "a")

    assert admin.client.put("/api/serve/applications/", json={"applications": two[1:]}).is_success

    wait_until(lambda: {"b", "program"} == applications(admin).keys(), "a to be gone", timeout_s=30)
    assert "by a program" == ask(admin, "/program")
    assert {"program"} == applications(admin, api_type="imperative").keys()
    assert {"b"} == applications(admin, api_type="declarative").keys()


def test_an_unknown_api_type_is_400(admin: Admin) -> None:
    answer = admin.client.get("/api/serve/applications/", params={"api_type": "both"})

    assert 400 == answer.status_code
    assert "api_type" in answer.json()["error"]


@pytest.mark.parametrize(
    "body, told",
    [
        (b"", r"request\.yaml"),
        (b"\xff\xfe\xff", "UTF-8"),
        (b"{", r"request\.json:1"),
        (b"applications:\n  - import_pth: a:b\n", r"request\.yaml:2: .*import_pth.*import_path"),
        (b'{"applications": [{"import_path": "no_such_module:app"}]}', "no_such_module"),
        (b'{"applications": [{"import_path": "os:_exit"}]}', "os:_exit"),
    ],
    ids=["empty", "not text", "broken", "misspelt", "no module", "exits"],
)
def test_mistakes_are_400_and_change_nothing(admin: Admin, code: Path, body: bytes, told: str) -> None:
    assert admin.client.put("/api/serve/applications/default", json=entry(code)).is_success
    before = wait_running(admin)

    answer = admin.client.put("/api/serve/applications/", content=body)

    assert 400 == answer.status_code, answer.text
    assert re.search(told, answer.json()["error"]), answer.text
    assert before["revision"] == applications(admin)["default"]["revision"]
    assert "hello nobody" == ask(admin)


def test_user_code_runs_neither_in_the_admin_process_nor_in_the_controller(
    admin: Admin, tmp_path: Path
) -> None:
    module = APP + f"\nopen({str(tmp_path / 'pids')!r}, 'a').write(f'{{os.getpid()}} {{os.getppid()}}\\n')\n"
    (tmp_path / "greeter.py").write_text(module)

    assert admin.client.put("/api/serve/applications/default", json=entry(tmp_path)).is_success
    wait_running(admin)

    pids = {int(line.split()[0]) for line in (tmp_path / "pids").read_text().splitlines()}
    own = {admin.pid(f"trygon-{kind}") for kind in ("admin", "controller", "ingress", "supervisor")}
    assert not pids & own


def test_a_build_ends_when_nobody_waits_for_it_any_more(admin: Admin, code: Path) -> None:
    slow = code / "begun"
    (code / "greeter.py").write_text(f"import time\nopen({str(slow)!r}, 'w').close()\ntime.sleep(300)\n")
    body = json.dumps(entry(code)).encode()
    head = (
        "PUT /api/serve/applications/default HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {admin.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    port = httpx.URL(admin.record.admin_url).port or 0
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(head.encode() + body)
        wait_until(slow.exists, "the build to import the module", timeout_s=30)

    wait_until(lambda: not _builds(admin), "the build to end", timeout_s=20)
    (code / "greeter.py").write_text(APP)
    assert admin.client.put("/api/serve/applications/default", json=entry(code)).is_success
    wait_running(admin)


def _builds(admin: Admin) -> list[int]:
    """Return the processes below the admin process: it has none but builds."""
    children = psutil.Process(admin.pid("trygon-admin")).children(recursive=True)
    return [child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE]


def test_a_change_is_made_only_at_the_revision_that_was_seen(admin: Admin, code: Path) -> None:
    path = "/api/serve/applications/default"
    created = admin.client.put(path, json=entry(code), headers={"if-none-match": "*"})
    wait_running(admin)
    seen = admin.client.get(path).headers["etag"]
    again = admin.client.put(path, json=entry(code), headers={"if-none-match": "*"})
    greeting = [{"name": "Greeter", "user_config": {"greeting": "bye"}}]
    first = admin.client.put(path, json=entry(code, deployments=greeting), headers={"if-match": seen})
    second = admin.client.put(path, json=entry(code), headers={"if-match": seen})
    deleted_late = admin.client.delete(path, headers={"if-match": seen})

    assert [200, 412, 200, 412, 412] == [
        answer.status_code for answer in (created, again, first, second, deleted_late)
    ]
    assert seen == created.headers["etag"] != first.headers["etag"]
    assert "revision" in second.json()["error"]
    wait_until(lambda: ask(admin) == "bye nobody", "the first change to serve", timeout_s=30)
    assert 200 == admin.client.delete(path, headers={"if-match": first.headers["etag"]}).status_code


def test_an_application_that_is_not_there_is_404(admin: Admin) -> None:
    path = "/api/serve/applications/nobody"

    assert 404 == admin.client.get(path).status_code
    assert 404 == admin.client.delete(path).status_code
    assert 412 == admin.client.delete(path, headers={"if-match": '"1"'}).status_code
    assert 404 == admin.client.get("/api/serve").status_code


def test_the_name_of_the_path_is_the_name_of_the_application(admin: Admin, code: Path) -> None:
    other = admin.client.put("/api/serve/applications/a", json=entry(code, name="b"))
    whole = admin.client.put("/api/serve/applications/a", json={"applications": [entry(code)]})

    assert [400, 400] == [other.status_code, whole.status_code]
    assert "'a'" in other.json()["error"]
    assert "whole configuration" in whole.json()["error"]
    assert {} == applications(admin)


def test_a_method_that_a_route_does_not_take_is_405_and_says_which_it_takes(admin: Admin) -> None:
    answer = admin.client.post("/api/serve/applications/", json={})

    assert 405 == answer.status_code
    assert "GET, PUT, DELETE" == answer.headers["allow"]
    assert 405 == admin.client.put("/metrics").status_code


def test_a_taken_route_prefix_is_400_and_the_other_serves_on(admin: Admin, code: Path) -> None:
    serve.run(imperative.bind(), name="program", route_prefix="/")

    answer = admin.client.put("/api/serve/applications/default", json=entry(code))

    assert 400 == answer.status_code
    assert "'/'" in answer.json()["error"]
    assert "by a program" == ask(admin)
