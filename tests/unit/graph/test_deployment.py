"""Decorating, binding and copying deployments."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from trygon.graph.deployment import Application, Deployment, RunTarget, deployment
from trygon.graph.retired import get_deployment, list_deployments
from trygon.spec.application import DeploymentOptions
from trygon.spec.autoscaling import AutoscalingConfig
from trygon.spec.options import BackpressureConfig
from trygon.spec.validation import OptionError


class Model:
    """Predict."""

    def __init__(self, weight: int = 1) -> None:
        self.weight = weight

    def predict(self, x: int) -> int:
        return x * self.weight


def function(request: object) -> str:
    return "hello"


def test_the_bare_decorator_gives_every_default() -> None:
    made = deployment(Model)

    assert isinstance(made, Deployment)
    assert (Model, "Model", 1, 5, -1) == (
        made.func_or_class,
        made.name,
        made.num_replicas,
        made.max_ongoing_requests,
        made.max_queued_requests,
    )
    assert {"num_cpus": 1} == made.ray_actor_options
    assert (None, None, None, (), {}) == (
        made.user_config,
        made.logging_config,
        made.version,
        made.init_args,
        made.init_kwargs,
    )
    assert BackpressureConfig() == made.backpressure_config
    assert DeploymentOptions() == made.specification
    assert "Deployment(name=Model)" == repr(made)


def test_the_decorator_takes_options_for_classes_and_functions() -> None:
    made = deployment(name="f", num_replicas=3, max_ongoing_requests=9)(function)

    assert ("f", 3, 9, function) == (
        made.name,
        made.num_replicas,
        made.max_ongoing_requests,
        made.func_or_class,
    )


def test_a_class_without_call_is_not_refused() -> None:
    assert "Model" == deployment(Model).bind().ingress_deployment.name


def test_a_copy_changes_only_what_is_given() -> None:
    made = deployment(name="a", num_replicas=2, max_ongoing_requests=7)(Model)

    changed = made.options(num_replicas=4)

    assert ("a", 4, 7) == (changed.name, changed.num_replicas, changed.max_ongoing_requests)
    assert 2 == made.num_replicas
    assert 2 == made.options(num_replicas=None).num_replicas
    assert "b" == made.options(name="b").name


def test_a_copy_may_serve_something_else() -> None:
    assert (function, "Model") == (lambda d: (d.func_or_class, d.name))(deployment(Model).options(function))


def test_autoscaling_can_be_turned_on_and_off_in_copies() -> None:
    made = deployment(num_replicas="auto")(Model)

    assert 100 == AutoscalingConfig.parse(made.specification.autoscaling).max_replicas
    assert made.options(autoscaling_config=None).specification.autoscaling is None


def test_binding_keeps_the_arguments_as_they_are() -> None:
    app = deployment(Model).bind(2, weight=3)

    assert isinstance(app, Application)
    assert ((2,), {"weight": 3}) == (app.bound_args, app.bound_kwargs)
    assert "Application(Model)" == repr(app)


def test_a_function_takes_no_bound_arguments() -> None:
    with pytest.raises(ValueError, match="function is a function deployment and takes no bound arguments"):
        deployment(function).bind(1)

    assert deployment(function).bind() is not None


def test_a_function_takes_no_user_config() -> None:
    with pytest.raises(OptionError, match="remove user_config or use a class"):
        deployment(user_config={"a": 1})(function)


def test_a_deployment_is_not_called_directly() -> None:
    with pytest.raises(RuntimeError, match=r"Model.bind\(...\)"):
        deployment(Model)(3)


@pytest.mark.parametrize("kind", [Deployment, Application])
def test_neither_is_made_by_its_constructor(kind: type) -> None:
    with pytest.raises(RuntimeError, match="not directly"):
        kind(Model)


@pytest.mark.parametrize("target", ["Model", 3, Model(), [Model]])
def test_only_classes_and_functions_are_deployed(target: object) -> None:
    with pytest.raises(TypeError, match="takes a class or a function, found"):
        deployment(target)


def test_a_deployment_is_not_deployed_again() -> None:
    with pytest.raises(TypeError, match="is a deployment already"):
        deployment(deployment(Model))


@pytest.mark.parametrize("name, kind", [(3, TypeError), ("a#b", ValueError)])
def test_a_name_is_a_string_without_a_hash(name: object, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="the name of a deployment"):
        deployment(name=name)(Model)


def test_an_empty_name_is_no_name() -> None:
    assert "Model" == deployment(name="")(Model).name


def test_an_application_says_that_it_is_called_through_its_handle() -> None:
    with pytest.raises(AttributeError, match=r"serve.run\(app\) returns"):
        deployment(Model).bind().remote(1)


def test_deployments_and_applications_can_be_copied_and_pickled() -> None:
    made = deployment(name="a", max_ongoing_requests=3)(Model)

    assert 3 == pickle.loads(pickle.dumps(made)).max_ongoing_requests
    assert made is copy.copy(made.bind()).ingress_deployment


def test_editors_see_every_option_by_name() -> None:
    names = list(inspect.signature(deployment).parameters)

    assert ["_func_or_class", "name", "version", "num_replicas", "ray_actor_options"] == names[:5]
    assert 26 == len(names)


def test_run_targets_have_the_defaults_of_ray_serve() -> None:
    app = deployment(Model).bind()

    assert RunTarget(app, "default", "/", None, external_scaler_enabled=False) == RunTarget(app)


@pytest.mark.parametrize(
    "use, modern",
    [
        (lambda d: d.deploy(), "serve.run(Model.bind(...))"),
        (lambda d: d.get_handle(sync=True), "serve.get_deployment_handle('Model', app_name)"),
        (lambda d: d.delete(), "serve.delete(application_name)"),
        (lambda d: d.set_options(num_replicas=2), "Model.options(...)"),
        (lambda d: d.remote(1), "serve.run(Model.bind(...)).remote(...)"),
        (lambda d: get_deployment("Model"), "serve.get_deployment_handle('Model', application_name)"),
        (lambda d: list_deployments(), "serve.status().applications"),
        (lambda d: deployment(version="1")(Model), "every deploy is a new revision"),
        (lambda d: deployment(version=None)(Model), "every deploy is a new revision"),
        (lambda d: deployment(route_prefix="/a")(Model), "serve.run(app, route_prefix=...)"),
        (lambda d: d.options(route_prefix="/a"), "serve.run(app, route_prefix=...)"),
        (lambda d: deployment(max_concurrent_queries=3)(Model), "max_ongoing_requests"),
    ],
)
def test_a_retired_name_fails_with_one_line_that_names_the_modern_call(use, modern: str) -> None:
    with pytest.raises(Exception, match=r"removed|not part of Serve") as caught:
        use(deployment(Model))

    assert modern in str(caught.value)
    assert 1 == len(str(caught.value).splitlines())
