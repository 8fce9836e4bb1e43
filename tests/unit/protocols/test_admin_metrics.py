"""The text that Prometheus reads."""

from __future__ import annotations

from trygon.observability.metrics.exposition import render
from trygon.protocols.admin.metrics import state_families
from trygon.spec.details import ApplicationDetails, DeploymentDetails, InstanceDetails, ReplicaDetails
from trygon.spec.status import ApplicationStatus, DeploymentStatus, DeploymentStatusTrigger, ReplicaState


def test_statuses_and_replicas_are_gauges_with_escaped_labels() -> None:
    deployment = DeploymentDetails(
        name='a"b\\\n',
        status=DeploymentStatus.HEALTHY,
        status_trigger=DeploymentStatusTrigger.CONFIG_UPDATE_COMPLETED,
        target_num_replicas=2,
        replicas=[
            ReplicaDetails(replica_id="r1", state=ReplicaState.RUNNING),
            ReplicaDetails(replica_id="r2", state=ReplicaState.STARTING),
        ],
    )
    application = ApplicationDetails(
        name="shop",
        route_prefix="/",
        docs_path=None,
        status=ApplicationStatus.UNHEALTHY,
        message="",
        last_deployed_time_s=0.0,
        deployments={deployment.name: deployment},
        revision=7,
    )

    text = render(state_families(InstanceDetails(applications={"shop": application})))

    label = r'deployment="a\"b\\\n"'
    lines = text.splitlines()
    assert 'trygon_application_status{application="shop"} 2' in lines
    assert 'trygon_application_revision{application="shop"} 7' in lines
    assert f'trygon_deployment_status{{application="shop",{label}}} 6' in lines
    assert f'trygon_deployment_target_replicas{{application="shop",{label}}} 2' in lines
    assert f'trygon_deployment_replicas{{application="shop",{label},state="RUNNING"}} 1' in lines
    assert f'trygon_deployment_replicas{{application="shop",{label},state="STOPPING"}} 0' in lines
    assert f'trygon_deployment_replica_healthy{{application="shop",{label},replica="r2"}} 0' in lines
    assert text.endswith("\n")
    assert len([line for line in lines if line.startswith("# TYPE")]) == 8


def test_an_empty_instance_has_families_and_no_samples() -> None:
    lines = render(state_families(InstanceDetails())).splitlines()

    assert [line for line in lines if not line.startswith("# ")] == ["trygon_controller_up 1"]


def test_without_an_answer_of_the_controller_only_that_is_told() -> None:
    assert render(state_families(None)).splitlines()[-1] == "trygon_controller_up 0"
