"""What became of each revision, and which one an undo means."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.control.world import World, application, deployment
from trygon.control.history import History
from trygon.control.state import Application, Revision
from trygon.control.store import PastRevision
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


def revision(number: int, *, scales: int = 0) -> Revision:
    return Revision(number=number, spec=application(deployment("Main", num_replicas=number)), scales=scales)


def past(*revisions: Revision) -> tuple[PastRevision, ...]:
    return tuple(PastRevision(revision=r, outcome=Outcome.COMPLETE) for r in revisions)


def test_what_is_gone_is_remembered_until_it_is_too_old() -> None:
    history = History()
    history.restore("app", past(revision(1), revision(2)))
    history.bury("app", 1000.0)
    gone = Application("app")

    assert 2 == history.earlier(gone, None).number
    assert 1 == history.earlier(gone, 1).number
    assert [1000.0, 1000.0] == [record.deleted_wall_s for record in history.records(gone)]
    assert ["app"] == [entry.name for entry in history.deleted(())]
    assert () == history.deleted({"app"}), "one that came back is not gone"

    history.expire((), 1000.0 + 30 * 86400)
    assert ["app"] == [entry.name for entry in history.deleted(())]
    history.expire((), 1001.0 + 30 * 86400)
    assert () == history.deleted(())
    with pytest.raises(DeployError, match="nothing to go back to"):
        history.earlier(gone, None)


def test_of_many_that_are_gone_the_last_twenty_are_remembered() -> None:
    history = History()
    for number in range(25):
        history.restore(f"app{number}", past(revision(1)))
        history.bury(f"app{number}", float(number))
    history.restore("alive", past(revision(1)))
    history.bury("alive", 0.0)

    history.expire({"alive"}, 100.0)

    assert [f"app{number}" for number in range(5, 25)] == [entry.name for entry in history.deleted({"alive"})]
    assert history.records(Application("alive"))


def test_what_was_saved_of_one_that_is_gone_is_taken_over() -> None:
    history = History()
    history.restore("app", past(revision(1)))
    history.bury("app", 7.0)
    other = History()

    for entry in history.deleted(()):
        other.restore_deleted(entry)

    assert history.deleted(()) == other.deleted(())


def test_another_size_takes_the_place_of_the_one_before() -> None:
    history = History()
    entries = past(revision(1), revision(2), revision(3, scales=2), revision(4, scales=2))
    history.restore("app", entries)
    app = Application("app")
    app.target = app.serving = entries[-1].revision

    assert [4, 1] == [record.number for record in history.records(app)]
    assert 1 == history.earlier(app, None).number, "another size of the same is nothing to go back to"


def test_a_size_that_never_served_takes_nobodys_place() -> None:
    history = History()
    failed = msgspec.structs.replace(past(revision(2, scales=1))[0], outcome=Outcome.FAILED)
    history.restore("app", (*past(revision(1)), failed, *past(revision(3))))
    app = Application("app")
    app.target = app.serving = revision(3)

    assert [3, 2, 1] == [record.number for record in history.records(app)]
    assert 1 == history.earlier(app, None).number
