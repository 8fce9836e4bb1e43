"""The classes of `trygon.serve.schema`: made, refused, written, and read back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trygon.serve import schema
from trygon.serve.config import AutoscalingConfig, HTTPOptions

CONFIG: dict[str, Any] = {
    "proxy_location": "HeadOnly",
    "http_options": {"port": 8001},
    "logging_config": {"log_level": "DEBUG"},
    "target_capacity": 50,
    "applications": [
        {
            "name": "shop",
            "route_prefix": "/shop",
            "import_path": "shop:app",
            "args": {"size": 3},
            "deployments": [
                {
                    "name": "Till",
                    "num_replicas": 2,
                    "user_config": {"a": 1},
                    "ray_actor_options": {"num_cpus": 0.5, "runtime_env": {"env_vars": {"A": "b"}}},
                },
                {"name": "Shelf", "autoscaling_config": {"max_replicas": 4}},
            ],
        }
    ],
}


def test_a_configuration_is_written_as_it_was_given() -> None:
    made = schema.ServeDeploySchema(**CONFIG)

    assert CONFIG == made.model_dump(exclude_unset=True)
    assert CONFIG == made.dict(exclude_unset=True)
    assert CONFIG == json.loads(made.json(exclude_unset=True))
    assert made == schema.ServeDeploySchema.parse_obj(CONFIG)
    assert made == schema.ServeDeploySchema.model_validate_json(json.dumps(CONFIG))


def test_nested_parts_are_values_with_defaults() -> None:
    made = schema.ServeDeploySchema.model_validate(CONFIG)

    till, shelf = made.applications[0].deployments
    assert isinstance(till, schema.DeploymentSchema)
    assert 0.5 == till.ray_actor_options.num_cpus
    assert till.max_ongoing_requests is None
    assert isinstance(shelf.autoscaling_config, AutoscalingConfig)
    assert ["Till", "Shelf"] == made.applications[0].deployment_names
    assert "127.0.0.1" == made.http_options.host
    assert 9000 == made.grpc_options.port


def test_parts_may_be_given_as_values() -> None:
    made = schema.ServeDeploySchema(
        http_options=HTTPOptions(port=8001),
        applications=[
            schema.ServeApplicationSchema(
                import_path="shop:app",
                deployments=[
                    schema.DeploymentSchema(
                        name="Till", ray_actor_options=schema.RayActorOptionsSchema(num_gpus=1)
                    )
                ],
            )
        ],
    )

    assert {
        "http_options": {"port": 8001},
        "applications": [
            {
                "import_path": "shop:app",
                "deployments": [{"name": "Till", "ray_actor_options": {"num_gpus": 1}}],
            }
        ],
    } == made.model_dump(exclude_unset=True)


def test_a_copy_is_checked_again() -> None:
    made = schema.DeploymentSchema(name="Till", num_replicas=2)

    assert 3 == made.model_copy(update={"num_replicas": 3}).num_replicas
    with pytest.raises(ValueError, match="num_replicas"):
        made.model_copy(update={"num_replicas": 0})
    assert {"name", "num_replicas"} == made.model_fields_set


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: schema.ServeDeploySchema(), "applications"),
        (lambda: schema.ServeDeploySchema(applications={}), "a list"),
        (lambda: schema.ServeDeploySchema(applications=[], target_capacity=101), "target_capacity"),
        (lambda: schema.ServeDeploySchema(applications=[], http_options={"prot": 1}), "did you mean 'port'"),
        (
            lambda: schema.ServeDeploySchema(applications=[{"import_path": "a:b"}, {"import_path": "a:b"}]),
            "the name 'default' is taken by applications",
        ),
        (lambda: schema.ServeApplicationSchema(name="a"), "import_path"),
        (lambda: schema.ServeApplicationSchema(import_path="a:b:c"), "does not name an object"),
        (lambda: schema.ServeApplicationSchema(import_path="a:b", route_prefix="x"), "route_prefix"),
        (lambda: schema.DeploymentSchema(num_replicas=1), "name"),
        (lambda: schema.DeploymentSchema(name="a", num_replicas=-1), "num_replicas"),
        (lambda: schema.DeploymentSchema(name="a", num_replica=1), "did you mean 'num_replicas'"),
        (
            lambda: schema.DeploymentSchema(name="a", num_replicas=1, autoscaling_config={}),
            "remove one of them",
        ),
        (lambda: schema.RayActorOptionsSchema(num_cpus="many"), "num_cpus"),
        (lambda: schema.ScaleDeploymentRequest(target_num_replicas=-1), "target_num_replicas"),
        (lambda: schema.DeploymentSchema.parse_obj(3), "found 3"),
    ],
)
def test_mistakes_are_value_errors_that_name_the_key(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


def test_details_are_made_from_what_the_rest_api_answers() -> None:
    answer = {
        "controller_info": {"pid": 7, "log_file_path": "/x/controller.log"},
        "proxies": {"0": {"status": "HEALTHY"}},
        "applications": {
            "shop": {
                "name": "shop",
                "route_prefix": "/",
                "docs_path": None,
                "status": "RUNNING",
                "message": "",
                "last_deployed_time_s": 1.0,
                "deployments": {
                    "Till": {
                        "name": "Till",
                        "status": "HEALTHY",
                        "status_trigger": "CONFIG_UPDATE_COMPLETED",
                        "replicas": [{"replica_id": "abc", "state": "RUNNING", "pid": 8}],
                    }
                },
            }
        },
        "a field of a later version": 1,
    }

    for made in (
        schema.ServeInstanceDetails.model_validate(answer),
        schema.ServeInstanceDetails.parse_obj(answer),
        schema.ServeInstanceDetails.parse_raw(json.dumps(answer)),
    ):
        till = made.applications["shop"].deployments["Till"]
        assert schema.ApplicationStatus.RUNNING is made.applications["shop"].status
        assert schema.ReplicaState.RUNNING is till.replicas[0].state
        assert schema.ProxyStatus.HEALTHY is made.proxies["0"].status
        assert made == schema.ServeInstanceDetails(**made.model_dump())


def test_empty_details_and_configurations_are_offered_as_dicts() -> None:
    empty = schema.ServeInstanceDetails.get_empty_schema_dict()

    assert {} == empty["applications"]
    assert schema.ServeInstanceDetails() == schema.ServeInstanceDetails(**empty)
    assert [] == schema.ServeDeploySchema(**schema.ServeDeploySchema.get_empty_schema_dict()).applications


def test_fields_can_be_left_out_when_they_are_written() -> None:
    made = schema.ScaleDeploymentRequest(target_num_replicas=2)
    logging = schema.LoggingConfig(encoding="JSON", logs_dir="/x")

    assert '{"target_num_replicas": 2}' == made.model_dump_json()
    assert {"logs_dir": "/x"} == logging.model_dump(include={"logs_dir"})
    assert {"encoding": "JSON"} == logging.dict(exclude={"logs_dir"}, exclude_defaults=True)
    assert "logs_dir" not in schema.LoggingConfig().model_dump(exclude_none=True)
    assert made == made.copy()
