"""What is refused at deploy, with which words, and what is accepted with a note."""

from __future__ import annotations

import pytest

from tests.unit.control.world import World, application, deployment
from trygon.control.admission import admit, check_revision, notes_for
from trygon.control.state import Application
from trygon.engine.base import Capabilities, Resources
from trygon.errors import DeployError, RevisionConflictError
from trygon.spec.application import ApplicationSpec, ResourceRequest

LOCAL = Capabilities(kill=True, environment=True, gpus=True)
SMALL = Resources(cpus=2, gpus=1, custom={"press": 2})


def check(*specs: ApplicationSpec, world: World | None = None, resources: Resources = SMALL) -> None:
    admit(specs, (world or World()).state.applications, resources, LOCAL)


def gpu(name: str, amount: float, **fields: object) -> ApplicationSpec:
    spec = deployment("Main", resources=ResourceRequest(num_gpus=amount), **fields)  # type: ignore[arg-type]
    return application(spec, name=name, route_prefix=f"/{name}")


@pytest.mark.parametrize(
    "specs, words",
    [
        ((), "no application"),
        ((application(), application()), "application name 'app' is used twice"),
        ((application(name="a#b"),), "name 'a#b' is not allowed"),
        ((application(name=""),), "name '' is not allowed"),
        (
            (application(name="a"), application(name="b")),
            "'/' of application 'b' is taken by application 'a'",
        ),
        ((application(route_prefix="api"),), "must start with '/'"),
        ((application(route_prefix="/api/"),), "not end with '/'"),
        ((application(deployment("A"), deployment("A")),), "two deployments called 'A'"),
        ((application(deployment("A", children=("B",))),), "'A' of application 'app' calls 'B'"),
        (
            (application(deployment("A", children=("B",)), deployment("B", children=("A",))),),
            r"\['A', 'B'\] of application 'app' call each other in a circle",
        ),
        ((application(deployment("A", num_replicas=0)),), "wants 0 replicas"),
        ((gpu("a", 1.5),), "1.5 GPUs; more than one GPU must be a whole number"),
        ((gpu("a", 2),), r"wanted 2 \(a/Main: 1 x 2 = 2\), the machine has 1, in use 0 \(nobody\)"),
        ((gpu("a", 0.5, num_replicas=3),), "wanted 1.5"),
        (
            (application(deployment("A", resources=ResourceRequest(resources={"laser": 1}))),),
            "not enough 'laser': wanted 1 .* the machine has 0",
        ),
    ],
)
def test_refused(specs: tuple[ApplicationSpec, ...], words: str) -> None:
    with pytest.raises(DeployError, match=words):
        check(*specs)


def test_ingress_must_be_a_deployment() -> None:
    spec = ApplicationSpec(name="app", ingress="Gone", deployments=(deployment("A"),))

    with pytest.raises(DeployError, match="no deployment called 'Gone'"):
        check(spec)


def test_what_others_hold_counts() -> None:
    world = World()
    world.deploy(gpu("a", 0.6))

    check(gpu("b", 0.4), world=world)
    with pytest.raises(DeployError, match=r"in use 0.6 \(a/Main: 1 x 0.6 = 0.6\)"):
        check(gpu("b", 0.5), world=world)


def test_own_old_revision_does_not_count() -> None:
    world = World()
    world.deploy(gpu("a", 1))

    check(gpu("a", 1), world=world)


def test_route_of_an_application_that_is_deleted_or_replaced_is_free() -> None:
    world = World()
    world.deploy(application(name="a"))
    with pytest.raises(DeployError):
        check(application(name="b"), world=world)

    check(application(name="a"), world=world)
    check(application(name="a", route_prefix="/new"), application(name="b"), world=world)
    world.delete("a")
    check(application(name="b"), world=world)


def test_five_one_cpu_deployments_fit_on_two_cpus() -> None:
    spec = application(*(deployment(f"D{n}", resources=ResourceRequest(num_cpus=1)) for n in range(5)))

    check(spec)

    assert {} == notes_for(spec, SMALL)


def test_more_cpus_than_there_are_make_a_note() -> None:
    spec = application(deployment("Main", resources=ResourceRequest(num_cpus=8)))

    check(spec)

    assert "wants 8 CPUs, the machine has 2" in notes_for(spec, SMALL)["Main"]


def test_a_revision_that_was_seen_is_compared_with_the_newest() -> None:
    found = Application("shop")
    found.last_revision = 3

    check_revision(found, "shop", 3)
    check_revision(None, "shop", 0)
    with pytest.raises(RevisionConflictError, match=r"wanted revision 2, it is now revision 3"):
        check_revision(found, "shop", 2)
    with pytest.raises(RevisionConflictError, match=r"wanted no such application, it is now revision 3"):
        check_revision(found, "shop", 0)
    with pytest.raises(RevisionConflictError, match=r"it is now deleted"):
        check_revision(None, "shop", 3)


def test_an_application_that_is_being_deleted_counts_as_none() -> None:
    found = Application("shop")
    found.last_revision = 3
    found.deleting = True

    check_revision(found, "shop", 0)
    with pytest.raises(RevisionConflictError):
        check_revision(found, "shop", 3)
