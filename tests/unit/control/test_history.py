"""What became of each revision, and which one an undo means."""

from __future__ import annotations

import pytest

from tests.unit.control.world import World, application, deployment
from trygon.control.history import History
from trygon.errors import DeployError
from trygon.spec.history import Outcome


class Kept(World):
    """A world whose revisions are kept, as the keeper does."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History()

    def deploy_and_keep(self) -> None:
        self.deploy(application(deployment("Main", num_replicas=1)))
        target = self.app().target
        assert target is not None
        self.history.add("app", target)
        self.history.settled(self.app())

    def complete(self) -> None:
        self.ready(*self.starting())
        self.served()
        self.history.settled(self.app())

    def fail(self) -> None:
        for _ in range(3):
            self.broken(self.starting()[0], "boom")
            self.advance(20)
        self.history.settled(self.app())

    def outcomes(self) -> list[tuple[int, Outcome, bool]]:
        return [(r.number, r.outcome, r.is_serving) for r in self.history.records(self.app())]


@pytest.fixture
def world() -> Kept:
    return Kept()


def test_each_revision_shows_what_became_of_it(world: Kept) -> None:
    world.deploy_and_keep()
    world.complete()
    world.deploy_and_keep()
    world.fail()
    world.deploy_and_keep()
    world.deploy_and_keep()

    assert [
        (4, Outcome.DEPLOYING, False),
        (3, Outcome.REPLACED, False),
        (2, Outcome.FAILED, False),
        (1, Outcome.COMPLETE, True),
    ] == world.outcomes()
    assert "boom" == world.history.records(world.app())[2].error


def test_undo_means_the_last_complete_revision_that_is_not_wanted_already(world: Kept) -> None:
    world.deploy_and_keep()
    world.complete()
    with pytest.raises(DeployError, match="nothing to go back to"):
        world.history.earlier(world.app(), None)

    world.deploy_and_keep()
    world.fail()
    assert 1 == world.history.earlier(world.app(), None).number

    world.deploy_and_keep()
    world.complete()
    assert 1 == world.history.earlier(world.app(), None).number
    assert 2 == world.history.earlier(world.app(), 2).number
    with pytest.raises(DeployError, match="there are: 1, 2, 3"):
        world.history.earlier(world.app(), 4)


def test_ten_are_kept_and_the_one_that_serves_beyond_that(world: Kept) -> None:
    world.deploy_and_keep()
    world.complete()
    for _ in range(12):
        world.deploy_and_keep()
        world.fail()

    assert [*range(13, 3, -1), 1] == [number for number, _, _ in world.outcomes()]


def test_a_replacement_that_could_not_be_saved_was_never_there(world: Kept) -> None:
    world.deploy_and_keep()
    application_now = world.app()
    refused = world.app().target
    assert refused is not None
    world.history.settled(application_now, None)

    world.history.remove("app", refused.number)

    assert [] == world.outcomes()
