"""The admin port while processes of its instance are killed."""

from __future__ import annotations

import psutil

from tests.integration.admin.conftest import Admin
from tests.waiting import wait_until


def test_a_killed_admin_process_refuses_nobody(own_admin: Admin) -> None:
    before = own_admin.pid("trygon-admin")
    psutil.Process(before).kill()

    with own_admin.stranger as stranger:
        assert stranger.get("/metrics").is_success
    assert before != wait_until(lambda: own_admin.pid("trygon-admin"), "a new admin process")


def test_a_killed_controller_is_waited_for(own_admin: Admin) -> None:
    psutil.Process(own_admin.pid("trygon-controller")).kill()

    assert own_admin.client.get("/api/serve/applications/").is_success
