"""`serve.batch` in local testing mode, where the replicas of one process share the decorated function."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.serve.batch_apps import Doubler
from trygon import serve

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def local() -> Iterator[None]:
    yield
    serve.shutdown()


@pytest.mark.usefixtures("local")
def test_batches_work_in_local_testing_mode_and_replicas_do_not_share_settings() -> None:
    one = Doubler.options(user_config={"size": 2, "wait_s": 0.5}).bind()
    two = Doubler.options(user_config={"size": 3, "wait_s": 0.5}).bind()
    handles = [
        serve.run(app, name=name, _local_testing_mode=True) for app, name in ((one, "one"), (two, "two"))
    ]

    for handle in handles:
        calls = [handle.double.remote(number) for number in range(6)]
        assert [0, 2, 4, 6, 8, 10] == [call.result(timeout_s=10) for call in calls]

    assert [[2, 2, 2], [3, 3]] == [handle.seen.remote().result(timeout_s=10) for handle in handles]
