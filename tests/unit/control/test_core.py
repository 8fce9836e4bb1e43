"""A step that never ends is an error, and not a process that is busy for ever."""

from __future__ import annotations

import pytest

from tests.unit.control.world import application, deployment
from trygon.control.actions import Action
from trygon.control.core import Core, Unsettled
from trygon.control.events import ApplicationDeployed, Woken
from trygon.control.state import Application, Revision


class Deaf:
    """A core of whose actions nothing comes, so that it asks for them again and again."""

    def __init__(self) -> None:
        self.core = Core(self._run, lambda: 1.0)

    def _run(self, application: Application, _: Action) -> None:
        self.core.add(Woken((application.name,)))


@pytest.mark.parametrize("num_replicas", [1, 1000])
def test_step_that_never_ends_is_an_error_that_names_the_application(num_replicas: int) -> None:
    core = Deaf().core
    spec = application(deployment("Main", num_replicas=num_replicas))

    with pytest.raises(Unsettled, match=r"application 'app'.*StartReplica\(app_name='app'"):
        core.tell(ApplicationDeployed("app", Revision(number=1, spec=spec)))

    assert core.num_reconciled <= 30
