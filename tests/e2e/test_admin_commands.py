"""The admin port as a person meets it: `trygon start` names it, `trygon token` opens it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.certificates import Authority
from tests.e2e.command import run
from trygon.client.instances import find
from trygon.config import read_settings

NAME = "adm-e2e"


@pytest.fixture
def kept(folder: Path) -> Iterator[Path]:
    """Give a folder; the instance that is started in it ends with the test."""
    yield folder
    run("shutdown", "-y", "--instance", NAME, cwd=folder)


def start(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Start the instance; return the URL of its admin API."""
    done = run("start", "--name", NAME, "--http-port", "0", *arguments, cwd=folder, env=env)
    assert 0 == done.returncode, done.stderr
    found = re.search(r"admin API is at (http\S+),", done.stdout)
    return found[1] if found is not None else ""


def token(folder: Path) -> str:
    done = run("token", "--instance", NAME, cwd=folder)
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


def test_port_and_token_come_back_after_everything_was_killed(kept: Path, free_port: int) -> None:
    url = start(kept, "--admin-port", str(free_port))
    headers = {"authorization": f"Bearer {token(kept)}"}
    answer = httpx.put(
        f"{url}/api/serve/applications/default",
        json={"import_path": "hello:app"},
        headers=headers,
        timeout=30,
    )
    assert 200 == answer.status_code, answer.text
    record = find(read_settings().runtime_dir, NAME)
    assert record is not None
    os.kill(record.supervisor_pid, signal.SIGKILL)

    again = start(kept)

    assert f"http://127.0.0.1:{free_port}" == url == again
    found = httpx.get(f"{again}/api/serve/applications/", headers=headers, timeout=20).json()
    assert {"default"} == found["applications"].keys()


def test_a_file_names_a_certificate_that_lies_beside_it(kept: Path) -> None:
    (kept / "etc").mkdir()
    authority = Authority(kept / "etc")
    authority.write()
    (kept / "etc" / "serve.yaml").write_text(
        "http_options: {ssl_keyfile: key.pem, ssl_certfile: cert.pem}\n"
        "applications: [{import_path: 'hello:app', runtime_env: {working_dir: ..}}]\n"
    )
    start(kept, "--config", "etc/serve.yaml")
    record = find(read_settings().runtime_dir, NAME)
    assert record is not None

    answer = httpx.get(f"https://127.0.0.1:{record.port}", verify=authority.client(), timeout=20)

    assert "hello" == answer.text


def test_the_admin_port_may_have_a_certificate_of_its_own(kept: Path) -> None:
    authority = Authority(kept)
    authority.write("admin.key", "admin.pem")
    half = run("start", "--name", NAME, "--admin-ssl-certfile", "admin.pem", cwd=kept)

    url = start(
        kept, "--admin-port", "0", "--admin-ssl-keyfile", "admin.key", "--admin-ssl-certfile", "admin.pem"
    )
    headers = {"authorization": f"Bearer {token(kept)}"}
    answer = httpx.get(
        f"{url}/api/serve/applications/", headers=headers, verify=authority.client(), timeout=20
    )
    record = find(read_settings().runtime_dir, NAME)

    assert (1, True) == (half.returncode, "give both" in half.stderr)
    assert url.startswith("https://127.0.0.1:")
    assert 200 == answer.status_code
    assert record is not None
    assert "http" == record.scheme, "the applications' own port is as it was"


def test_the_admin_port_can_be_left_out(kept: Path) -> None:
    assert "" == start(kept, env={"TRYGON_ADMIN_PORT": "off"})

    done = run("token", "--instance", NAME, cwd=kept)

    assert 1 == done.returncode
    assert "has no admin port" in done.stderr


def test_a_wrong_setting_starts_nothing_and_says_what_to_do(kept: Path) -> None:
    done = run("start", "--name", NAME, cwd=kept, env={"TRYGON_ADMIN_HOST": "0.0.0.0"})

    assert 1 == done.returncode
    assert "TRYGON_ADMIN_ALLOW_PLAINTEXT=1" in done.stderr


def test_rays_names_of_metrics_come_back_with_the_instance(kept: Path, free_port: int) -> None:
    url = start(kept, "--admin-port", str(free_port), "--metrics-prefix", "ray")
    named = httpx.get(f"{url}/metrics", timeout=20).text
    record = find(read_settings().runtime_dir, NAME)
    assert record is not None
    os.kill(record.supervisor_pid, signal.SIGKILL)

    again = start(kept)

    assert "ray_serve_controller_up 1" in named
    assert "ray_serve_controller_up 1" in httpx.get(f"{again}/metrics", timeout=20).text
