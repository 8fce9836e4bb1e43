"""One instance with an admin port for all tests of a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import psutil
import pytest

from trygon import serve
from trygon.client.admin_token import token_of
from trygon.serve.session import current_session
from trygon.spec.instance import InstanceRecord


@dataclass(frozen=True)
class Admin:
    """An instance as somebody with its token sees it."""

    record: InstanceRecord
    client: httpx.Client

    @property
    def token(self) -> str:
        """What its requests carry."""
        return token_of(self.record)

    @property
    def stranger(self) -> httpx.Client:
        """A client without the token; close it."""
        return httpx.Client(base_url=self.record.admin_url, timeout=20)

    def processes(self) -> list[psutil.Process]:
        """Return the instance's processes, from the guardian down."""
        top = psutil.Process(self.record.pid)
        return [top, *top.children(recursive=True)]

    def pid(self, name: str) -> int:
        """Return the process of a name, such as "trygon-admin"; 0 without one."""
        for process in self.processes():
            try:
                # The kernel keeps 15 characters.
                if process.name() == name[:15] and process.status() != psutil.STATUS_ZOMBIE:
                    return process.pid
            except psutil.NoSuchProcess:
                continue
        return 0


@contextlib.contextmanager
def _started() -> Iterator[Admin]:
    os.environ["TRYGON_ADMIN_PORT"] = "0"
    try:
        serve.start(http_options={"port": 0})
    finally:
        del os.environ["TRYGON_ADMIN_PORT"]
    session = current_session()
    assert session is not None
    record = session.instance.record
    headers = {"authorization": f"Bearer {token_of(record)}"}
    with httpx.Client(base_url=record.admin_url, timeout=20, headers=headers) as client:
        # The admin process starts last: here, so that no test is blamed for leaving it behind.
        assert client.get("/-/healthz").is_success
        yield Admin(record, client)
    serve.shutdown()


@pytest.fixture(scope="module")
def admin(isolated_home: object) -> Iterator[Admin]:
    """Start an instance with free ports, and end it after the file's last test."""
    with _started() as started:
        yield started


@pytest.fixture
def own_admin(isolated_home: object) -> Iterator[Admin]:
    """Start an instance with free ports for one test, which may kill what it likes."""
    with _started() as started:
        yield started


@pytest.fixture
def own_admin_with_ray_names(isolated_home: object) -> Iterator[Admin]:
    """Start an instance whose metrics have Ray Serve's names, for one test."""
    os.environ["TRYGON_METRICS_PREFIX"] = "ray"
    try:
        with _started() as started:
            yield started
    finally:
        del os.environ["TRYGON_METRICS_PREFIX"]
