"""The admin port against those who may not use it: no token, forged names, pages, pickles, large bodies."""

from __future__ import annotations

import os
import pickle
import socket
import stat
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.admin.conftest import Admin
from trygon import serve
from trygon.client.admin_token import read_token
from trygon.client.instance import connect_or_start
from trygon.config import admin_options, read_settings
from trygon.errors import InstanceError
from trygon.protocols.admin import ROUTES
from trygon.protocols.admin.gateway import MAX_BODY_BYTES
from trygon.spec.admin import TOKEN_FILE, AdminOptions
from trygon.spec.instance import InstanceConfig

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW")
PATHS = [route.path.replace("{name}", "default").replace("{deployment}", "d") for route in ROUTES] + [
    "/",
    "/-/routes",
    "/nowhere",
]


@serve.deployment
def hello(request: object) -> str:
    """Answer."""
    return "hello"


def test_every_route_and_method_without_a_token_is_401_but_for_health_and_metrics(admin: Admin) -> None:
    open_paths = {route.path for route in ROUTES if route.open_on_loopback}
    found = {}
    with admin.stranger as stranger:
        for path in PATHS:
            for method in METHODS:
                answer = stranger.request(method, path)
                found[method, path] = answer.status_code
                if answer.status_code == 401:
                    assert answer.headers["www-authenticate"].startswith("Bearer")

    expected = {
        (method, path): 200 if path in open_paths and method in ("GET", "HEAD") else 401
        for method, path in found
    }
    assert expected == found
    assert {"/metrics", "/-/healthz"} == open_paths


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "line, status",
    [
        (("host", "evil.example"), 421),
        (("host", "rebound.evil.example:8265"), 421),
        (("origin", "http://evil.example"), 403),
        (("origin", "null"), 403),
        (("sec-fetch-site", "cross-site"), 403),
        (("sec-fetch-site", "same-site"), 403),
    ],
)
def test_forged_host_or_origin_is_refused_even_with_the_token(
    admin: Admin, method: str, line: tuple[str, str], status: int
) -> None:
    for path in PATHS:
        answer = admin.client.request(method, path, headers=dict([line]))

        assert status == answer.status_code, path
        if method != "HEAD":
            assert "error" in answer.json()


def test_an_absolute_target_counts_as_the_host(admin: Admin) -> None:
    url = httpx.URL(admin.record.admin_url)
    with socket.create_connection((url.host, url.port or 0), timeout=10) as sock:
        sock.sendall(
            f"GET http://evil.example/metrics HTTP/1.1\r\nHost: {url.host}\r\nConnection: close\r\n\r\n".encode()
        )

        assert sock.recv(65536).startswith(b"HTTP/1.1 421 ")


def test_answers_keep_browsers_from_doing_anything_with_them(admin: Admin) -> None:
    with admin.stranger as stranger:
        answers = [
            stranger.get("/metrics"),
            stranger.get("/api/serve/applications/"),
            admin.client.get("/api/serve/applications/"),
            admin.client.options(
                "/api/serve/applications/", headers={"access-control-request-method": "PUT"}
            ),
        ]

    for answer in answers:
        assert "nosniff" == answer.headers["x-content-type-options"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "no-store" == answer.headers["cache-control"]
        assert not [name for name in answer.headers if name.startswith(("access-control", "set-cookie"))]


def test_the_token_is_owner_only_and_in_no_log(admin: Admin) -> None:
    admin.client.get("/api/serve/applications/")
    path = Path(admin.record.state_dir) / TOKEN_FILE

    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert admin.token == read_token(path)
    for log in Path(admin.record.log_dir).iterdir():
        assert admin.token not in log.read_text(errors="replace"), log
    for process in admin.processes():
        assert admin.token not in " ".join(process.cmdline())
        assert admin.token not in " ".join(process.environ().values())


def test_a_body_over_the_limit_is_413_and_the_port_serves_on(admin: Admin) -> None:
    announced = admin.client.put("/api/serve/applications/", content=b" " * (MAX_BODY_BYTES + 1))
    streamed = admin.client.put("/api/serve/applications/", content=(b" " * (1 << 20) for _ in range(18)))

    assert [413, 413] == [announced.status_code, streamed.status_code]
    assert "larger than" in announced.json()["error"]
    assert admin.client.get("/-/healthz").is_success


def test_a_stranger_cannot_make_it_hold_a_body(admin: Admin) -> None:
    url = httpx.URL(admin.record.admin_url)
    with socket.create_connection((url.host, url.port or 0), timeout=10) as sock:
        head = (
            f"PUT /api/serve/applications/ HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: 16000000\r\n\r\n"
        )
        sock.sendall(head.encode() + b"a" * 300_000)

        assert sock.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_websockets_are_refused(admin: Admin) -> None:
    headers = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    with admin.stranger as stranger:
        without = stranger.get("/api/serve/applications/", headers=headers)

    assert 401 == without.status_code
    assert 400 == admin.client.get("/api/serve/applications/", headers=headers).status_code


class _Exploit:
    """Unpickles to a file that was made."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def _open_ports(admin: Admin) -> set[int]:
    """Return the TCP ports on which the instance's processes listen."""
    ports = set()
    for process in admin.processes():
        for connection in process.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN:
                ports.add(connection.laddr.port)
    return ports


def test_hostile_pickles_to_every_open_port_leave_the_canary_alone(admin: Admin, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickles = [pickle.dumps(_Exploit(canary), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    serve.run(hello.bind(), name="canary", route_prefix="/")
    ports = _open_ports(admin)
    assert {admin.record.port, httpx.URL(admin.record.admin_url).port} <= ports
    auth = {"authorization": f"Bearer {admin.token}"}

    for port in ports:
        for data in pickles:
            _send_raw(port, data)
            # As a frame of the transport and as a message of the control link would begin.
            _send_raw(port, len(data).to_bytes(4, "little") + data)
            _send_raw(port, len(data).to_bytes(4, "little") + b"\1\0\0\0\2\0\0\0" + bytes(8) + data)
            for kind in ("application/x-pickle", "application/json", "application/octet-stream"):
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                    for path in ("/", "/api/serve/applications/", "/api/serve/applications/canary"):
                        client.put(path, content=data, headers={**auth, "content-type": kind})

    assert not canary.exists()
    pickle.loads(pickles[0])
    assert canary.exists(), "the canary must be one that a pickle can hurt"
    assert "hello" == httpx.get(f"http://127.0.0.1:{admin.record.port}/").text
    assert admin.client.get("/-/healthz").is_success
    serve.delete("canary")


def _send_raw(port: int, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(data + b"\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        try:
            while sock.recv(65536):
                pass
        except ConnectionResetError:
            pass


def test_off_loopback_without_tls_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRYGON_ADMIN_HOST", "0.0.0.0")
    settings = read_settings()
    config = InstanceConfig(
        name="",
        runtime_dir=str(settings.runtime_dir),
        state_dir=str(settings.home / "instances"),
        port=0,
        admin=admin_options(settings, attached=True, port=0),
    )

    with pytest.raises(InstanceError, match="admin_allow_plaintext"):
        connect_or_start(config, name="open")


def test_a_taken_admin_port_is_told_with_its_owner(admin: Admin) -> None:
    settings = read_settings()
    port = httpx.URL(admin.record.admin_url).port
    config = InstanceConfig(
        name="",
        runtime_dir=str(settings.runtime_dir),
        state_dir=str(settings.home / "instances"),
        port=0,
        admin=AdminOptions(port=port),
    )

    with pytest.raises(
        InstanceError, match=rf"the admin port cannot be opened: port {port} .* in use by process"
    ):
        connect_or_start(config, name="second")
