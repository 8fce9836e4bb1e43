"""Instances whose replicas and ingress processes are the stand-ins of this folder."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from trygon.client.instance import Instance, connect_or_start
from trygon.spec.application import ApplicationSpec, DeploymentOptions, DeploymentSpec, ResourceRequest
from trygon.spec.instance import InstanceConfig
from trygon.spec.routing import RoutingTable

ROOT = Path(__file__).resolve().parents[3]
STAND_INS = "tests.integration.control.stand_ins"

Start = Callable[..., Instance]


def make_config(**changes: Any) -> InstanceConfig:
    """Return how an instance with stand-ins is started, below the test run's own roots."""
    given: dict[str, Any] = {
        "name": "",
        "runtime_dir": os.environ["TRYGON_RUNTIME_DIR"],
        "state_dir": os.environ["TRYGON_HOME"],
        "port": 0,
        "replica_main": f"{STAND_INS}:replica_main",
        "ingress_main": f"{STAND_INS}:ingress_main",
    }
    return InstanceConfig(**{**given, **changes})


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Give a function that starts an instance; all are shut down, and looked after, at the end."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    started: list[Instance] = []

    def make(name: str | None = None, **changes: Any) -> Instance:
        name = name or f"t-{secrets.token_hex(4)}"
        instance = connect_or_start(make_config(**changes), name=name)
        started.append(instance)
        return instance

    yield make

    for instance in started:
        instance.shutdown(grace_s=0.2, timeout_s=5.0)


def app(
    *deployments: DeploymentSpec, name: str = "default", route_prefix: str | None = "/", **fields: Any
) -> ApplicationSpec:
    """Return an application; the first deployment is its ingress."""
    chosen = deployments or (deployment("Main"),)
    return ApplicationSpec(
        name=name, route_prefix=route_prefix, ingress=chosen[0].name, deployments=chosen, **fields
    )


def deployment(
    name: str,
    script: dict[str, Any] | None = None,
    *,
    children: tuple[str, ...] = (),
    resources: ResourceRequest | None = None,
    **options: Any,
) -> DeploymentSpec:
    """Return a deployment whose replicas do what `script` says."""
    return DeploymentSpec(
        name=name,
        app_name="default",
        definition=json.dumps(script or {}).encode(),
        options=DeploymentOptions(resources=resources or ResourceRequest(), **options),
        children=children,
    )


def run(instance: Instance, *applications: ApplicationSpec, timeout_s: float = 10.0) -> dict[str, int]:
    """Deploy and wait until it serves."""
    revisions = instance.deploy(applications or (app(),))
    instance.wait_running(revisions, timeout_s=timeout_s)
    return revisions


def processes(instance: Instance) -> dict[int, str]:
    """Return the instance's processes by pid, from the guardian down."""
    found = {}
    top = psutil.Process(instance.record.pid)
    for process in (top, *top.children(recursive=True)):
        try:
            found[process.pid] = process.name()
        except psutil.NoSuchProcess:
            continue
    return found


def pids(instance: Instance, kind: str) -> set[int]:
    """Return the pids of one kind: controller, ingress, replica."""
    name = f"trygon-{kind}"[:15]
    return {pid for pid, found in processes(instance).items() if found == name}


def alive(members: dict[int, str] | set[int]) -> set[int]:
    """Return which of these processes still run; a zombie does not."""
    found = set()
    for pid in members:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.add(pid)
        except psutil.NoSuchProcess:
            continue
    return found


def ready_replicas(table: RoutingTable | None, app_name: str = "default") -> set[str]:
    """Return the replicas of the serving revision's ingress deployment."""
    if table is None:
        return set()
    for route in table.applications:
        if route.app_name == app_name:
            for targets in table.deployments:
                if (targets.app_name, targets.name, targets.revision) == (
                    app_name,
                    route.ingress,
                    route.revision,
                ):
                    return {target.replica_id for target in targets.replicas}
    return set()
