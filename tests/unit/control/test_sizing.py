"""What an external scaler may give another size."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.control.world import application, deployment
from trygon.control.sizing import scaled_base
from trygon.control.state import Application, Revision
from trygon.errors import DeployError
from trygon.spec.control import ScaleDeployment

CALL = ScaleDeployment(application="app", deployment="Main", num_replicas=3)


def running(*, external: bool = True) -> Application:
    spec = msgspec.structs.replace(application(deployment("Main")), external_scaler_enabled=external)
    found = Application("app")
    found.target = found.serving = Revision(number=1, spec=spec)
    return found


def test_the_newest_revision_is_scaled_or_the_one_that_serves_where_it_failed() -> None:
    found = running()
    serving = found.serving
    assert serving is not None
    assert serving is scaled_base(found, CALL)

    found.target = msgspec.structs.replace(serving, number=2)
    assert 2 == scaled_base(found, CALL).number
    found.failure = "boom"
    assert 1 == scaled_base(found, CALL).number


def test_what_cannot_be_scaled_is_refused() -> None:
    deleting = running()
    deleting.deleting = True

    for found, call, text in (
        (None, CALL, "no application"),
        (deleting, CALL, "no application"),
        (running(), msgspec.structs.replace(CALL, deployment="Other"), "no deployment"),
        (running(external=False), CALL, "external_scaler_enabled"),
    ):
        with pytest.raises(DeployError, match=text):
            scaled_base(found, call)
