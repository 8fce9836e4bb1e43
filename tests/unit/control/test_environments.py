"""Packages and modules of replicas in the controller: what rolls, what is told, what is kept."""

from __future__ import annotations

import pytest

from tests.unit.control.world import World, application, deployment
from trygon.control.blobs import detach_code
from trygon.control.events import ReplicaDelayed
from trygon.control.explaining import explain
from trygon.control.reconcile.status import application_status
from trygon.spec.application import ApplicationSpec, CodeLocation, DeploymentSpec, ModuleSource
from trygon.spec.packages import PackageEnvironment

ONE, OTHER = (PackageEnvironment().completed([name], {}) for name in ("a", "b"))


def with_modules(source: bytes) -> DeploymentSpec:
    plain = deployment("Main", module_path=("/lib",))
    module = ModuleSource(name="lamps", path="/lib/lamps.py", is_package=False, source=source)
    return DeploymentSpec(
        name="Main", app_name="app", definition=b"", options=plain.options, modules=(module,)
    )


def detached(source: bytes) -> ApplicationSpec:
    return detach_code(application(with_modules(source)))[0]


def test_a_replica_that_waits_for_its_environment_is_told_until_it_is_ready() -> None:
    world = World()
    world.deploy(application())
    (replica,) = world.starting()

    world.tell(ReplicaDelayed(replica, "building environment (1 package)"))
    before = application_status(world.state.applications["app"])
    world.ready(replica)
    after = application_status(world.state.applications["app"])

    assert "building environment (1 package)" in before.deployments["Main"].message
    assert "building" not in after.deployments["Main"].message
    assert "building environment (1 package)" in str(explain(world.state, "app", world.now))


@pytest.mark.parametrize(
    "first, second, rolls",
    [
        (application(deployment("Main", packages=ONE)), application(deployment("Main", packages=ONE)), False),
        (
            application(deployment("Main", packages=ONE)),
            application(deployment("Main", packages=OTHER)),
            True,
        ),
        (application(deployment("Main", packages=ONE)), application(), True),
        (detached(b"1"), detached(b"1"), False),
        (detached(b"1"), detached(b"2"), True),
    ],
)
def test_other_packages_and_other_modules_roll_and_the_same_ones_do_not(
    first: ApplicationSpec, second: ApplicationSpec, *, rolls: bool
) -> None:
    world = World()
    world.apply(first)
    world.ready(*world.starting())
    world.served()

    world.apply(second)

    assert rolls == bool(world.starting())


def test_modules_of_deployments_and_of_the_application_are_kept_apart() -> None:
    module = ModuleSource(name="shop", path="/shop.py", is_package=False, source=b"")
    given = ApplicationSpec(
        ingress="Main", deployments=(with_modules(b"1"),), code=CodeLocation(modules=(module,))
    )

    spec, blobs = detach_code(given)

    assert {spec.code.snapshot, spec.deployments[0].snapshot} == set(blobs)
    assert ((), ()) == (spec.code.modules, spec.deployments[0].modules)
    assert (application(), {}) == detach_code(application())


def test_a_deployment_takes_its_own_packages_the_application_s_or_none() -> None:
    own, same, none = (
        deployment(name, packages=packages)
        for name, packages in (("Own", OTHER), ("Same", None), ("None", PackageEnvironment()))
    )
    spec = ApplicationSpec(ingress="Own", deployments=(own, same, none), code=CodeLocation(packages=ONE))

    assert [OTHER, ONE, None] == [spec.packages_of(one) for one in spec.deployments]
