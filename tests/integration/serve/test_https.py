"""HTTPS of a whole instance: from `http_options` to a client, with certificates that change under load."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.certificates import Authority
from tests.waiting import wait_until
from trygon import serve
from trygon.client.admin_token import token_of
from trygon.errors import InstanceError
from trygon.serve.session import current_session


@serve.deployment
class Where:
    """Says by which scheme it was asked."""

    def __call__(self, request: object) -> str:
        return str(request.url.scheme)  # type: ignore[attr-defined]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def start() -> Iterator[Callable[..., str]]:
    """Start an instance with HTTP options; it ends with the test."""

    def begin(**options: object) -> str:
        serve.start(http_options={"port": 0, **options})
        serve.run(Where.bind())
        return serve.http_address()

    yield begin
    serve.shutdown()


def options_of(authority: Authority, **more: object) -> dict[str, object]:
    files = authority.write()
    return {"ssl_keyfile": files.keyfile, "ssl_certfile": files.certfile, **more}


def test_an_instance_serves_https(authority: Authority, start: Callable[..., str]) -> None:
    url = start(**options_of(authority))

    answer = httpx.get(url, verify=authority.client(), timeout=20)

    assert url.startswith("https://")
    assert (200, "https") == (answer.status_code, answer.text)
    with pytest.raises(httpx.TransportError):
        httpx.get(url.replace("https", "http"), timeout=20)


def test_a_client_authority_refuses_clients_without_a_certificate(
    authority: Authority, start: Callable[..., str]
) -> None:
    url = start(**options_of(authority, ssl_ca_certs=str(authority.ca_certs)))

    assert "https" == httpx.get(url, verify=authority.client(has_certificate=True), timeout=20).text
    with pytest.raises(httpx.TransportError):
        httpx.get(url, verify=authority.client(), timeout=20)


class Sender(threading.Thread):
    """Sends requests one after the other, each third over a new connection; keeps what failed."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        super().__init__(name="trygon-test-sender")
        self._url = url
        self._context = context
        self._stop_asked = threading.Event()
        self.num_answered = 0
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._stop_asked.is_set():
            with httpx.Client(verify=self._context, timeout=20) as client:
                for _ in range(3):
                    try:
                        status = client.get(self._url).status_code
                    except httpx.HTTPError as error:
                        self.failures.append(repr(error))
                        continue
                    self.num_answered += 1
                    if status != 200:
                        self.failures.append(str(status))

    def stop(self) -> None:
        self._stop_asked.set()
        self.join(30)


def serial(url: str, context: ssl.SSLContext) -> str:
    """Return the serial number of the certificate that a new connection gets."""
    with httpx.stream("GET", url, verify=context, timeout=20) as answer:
        stream = answer.extensions["network_stream"]
        return str(stream.get_extra_info("ssl_object").getpeercert()["serialNumber"])


def test_certificates_change_without_a_lost_request(authority: Authority, start: Callable[..., str]) -> None:
    url = start(**options_of(authority))
    context = authority.client()
    senders = [Sender(url, context) for _ in range(2)]
    for sender in senders:
        sender.start()
    try:
        for _ in range(3):
            before = serial(url, context)
            authority.write()
            wait_until(lambda before=before: serial(url, context) != before, "the new certificate")
        Path(authority.folder / "cert.pem").write_text("broken")
        log = Path(current_session().instance.record.log_dir) / "ingress_0.log"  # type: ignore[union-attr]
        # Told with the first connection that comes a second after the last look.
        wait_until(lambda: "the one before serves on" in log.read_text(), "the broken certificate to be told")
    finally:
        for sender in senders:
            sender.stop()

    assert [] == [failure for sender in senders for failure in sender.failures]
    assert all(sender.num_answered for sender in senders)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"ssl_keyfile": None}, "ssl_certfile without ssl_keyfile"),
        ({"ssl_certfile": None}, "ssl_keyfile without ssl_certfile"),
        ({"ssl_keyfile": None, "ssl_certfile": None, "ssl_ca_certs": "/ca.pem"}, "ssl_ca_certs without"),
        ({"ssl_certfile": "/nowhere/cert.pem"}, "ssl_certfile '/nowhere/cert.pem' cannot be read"),
        ({"ssl_ca_certs": "/nowhere/ca.pem"}, "ssl_ca_certs '/nowhere/ca.pem' cannot be read"),
        ({"ssl_keyfile": "other.pem"}, "does not belong to the certificate"),
    ],
)
def test_a_certificate_that_cannot_be_used_starts_nothing(
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, object],
    told: str,
) -> None:
    monkeypatch.chdir(authority.folder)
    authority.write("other.pem", "other-cert.pem")
    options = {"port": 0, **options_of(authority), **change}

    with pytest.raises((InstanceError, ValueError), match=told):
        serve.start(http_options=options)
    assert current_session() is None


def test_off_loopback_the_admin_port_speaks_tls_and_everything_needs_the_token(
    authority: Authority, start: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRYGON_ADMIN_PORT", "0")
    monkeypatch.setenv("TRYGON_ADMIN_HOST", "0.0.0.0")
    start(**options_of(authority))
    record = current_session().instance.record  # type: ignore[union-attr]
    url = record.admin_url.replace("0.0.0.0", "127.0.0.1")

    with httpx.Client(base_url=url, verify=authority.client(), timeout=20) as client:
        without = [client.get(path).status_code for path in ("/metrics", "/-/healthz")]
        client.headers["authorization"] = f"Bearer {token_of(record)}"
        with_it = [client.get(path).status_code for path in ("/metrics", "/-/healthz")]

    assert record.admin_url.startswith("https://")
    assert [401, 401] == without
    assert [200, 200] == with_it
