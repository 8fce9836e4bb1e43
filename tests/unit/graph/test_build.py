"""From bound applications to a specification."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI

from trygon.errors import SerializationError, ServeError
from trygon.graph.asgi import ingress
from trygon.graph.build import build_application
from trygon.graph.deployment import Application, deployment
from trygon.graph.pickling import loads_definition
from trygon.spec.application import ApplicationSpec, CodeLocation
from trygon.spec.logging_options import LoggingConfig


class Handle(NamedTuple):
    deployment: str
    app: str


lock = threading.Lock()
Pair = namedtuple("Pair", "a b")


@dataclass
class Settings:
    model: object


@deployment
class Model:
    def __init__(self, *args: object, **kwargs: object) -> None: ...


@deployment
class Top:
    def __init__(self, *args: object, **kwargs: object) -> None: ...


def build(app: Any, **options: Any) -> ApplicationSpec:
    return build_application(app, handle_factory=Handle, **options)


def arguments(spec: ApplicationSpec) -> tuple[tuple[Any, ...], dict[str, Any]]:
    _, args, kwargs = loads_definition(spec.deployment(spec.ingress).definition)
    return args, kwargs


def test_one_deployment_is_an_application() -> None:
    code = CodeLocation(working_dir="/srv")
    spec = build(Model.bind(3), name="a", route_prefix="/a", code=code, import_path="m:app")

    assert ("a", "/a", "Model", code, "m:app") == (
        spec.name,
        spec.route_prefix,
        spec.ingress,
        spec.code,
        spec.import_path,
    )
    assert ("Model", "a", (), None) == (lambda d: (d.name, d.app_name, d.children, d.docs_path))(
        spec.deployments[0]
    )
    assert Model.specification == spec.deployments[0].options


def test_a_function_is_an_application() -> None:
    @deployment(name="f")
    def function(request: object) -> int:
        return 1

    target, args, kwargs = loads_definition(build(function.bind()).deployments[0].definition)

    assert (1, (), {}) == (target(None), args, kwargs)


def test_bound_applications_become_handles_at_any_depth() -> None:
    child, handle = Model.bind(), Handle("Model", "default")
    spec = build(
        Top.bind(
            child,
            [child, {"k": (child, 1)}],
            Pair(child, 2),
            {child},
            OrderedDict(z=child),
            named=defaultdict(list, x=[child]),
            settings=Settings(child),
        )
    )

    args, kwargs = arguments(spec)

    assert (handle, [handle, {"k": (handle, 1)}], Pair(handle, 2), {handle}, OrderedDict(z=handle)) == args
    assert {"x": [handle]} == kwargs["named"]
    assert handle == kwargs["settings"].model
    assert isinstance(args[2], Pair)
    assert isinstance(args[4], OrderedDict)
    assert isinstance(kwargs["named"], defaultdict)


def test_the_user_s_own_containers_are_left_as_they_are() -> None:
    child = Model.bind()
    models = [child]

    build(Top.bind(models))

    assert [child] == models


def test_children_come_first_and_are_named_by_their_parents() -> None:
    leaf = Model.options(name="leaf").bind()
    left, right = Model.options(name="left").bind(leaf), Model.options(name="right").bind(x={"y": leaf})

    spec = build(Top.bind(left, right))

    assert [("leaf", ()), ("left", ("leaf",)), ("right", ("leaf",)), ("Top", ("left", "right"))] == [
        (d.name, d.children) for d in spec.deployments
    ]


def test_the_same_object_twice_is_one_deployment() -> None:
    child = Model.bind()

    assert ["Model", "Top"] == [d.name for d in build(Top.bind(child, [child])).deployments]


def test_two_binds_of_one_name_are_numbered_with_a_warning() -> None:
    app = Top.bind(Model.bind(1), Model.bind(2), Model.bind(3))

    with pytest.warns(UserWarning, match="binds several deployments called 'Model'") as caught:
        spec = build(app)

    assert ["Model", "Model_1", "Model_2", "Top"] == [d.name for d in spec.deployments]
    assert {__file__} == {warning.filename for warning in caught}


def test_a_number_that_is_taken_is_skipped() -> None:
    app = Top.bind(Model.options(name="Model_1").bind(), Model.bind(), Model.bind())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec = build(app)

    assert ["Model_1", "Model", "Model_2", "Top"] == [d.name for d in spec.deployments]


def test_a_circle_is_refused_and_shown() -> None:
    models: list[Application] = []
    app = Top.bind(models)
    models.append(Model.bind(app))

    with pytest.raises(ServeError, match=r"in a circle: Top -> Model -> Top; .*get_deployment_handle"):
        build(app)


def test_a_list_that_holds_itself_is_no_circle_of_deployments() -> None:
    items: list[object] = []
    items.append(items)

    (loaded,), _ = arguments(build(Model.bind(items)))

    assert loaded is loaded[0]


@pytest.mark.parametrize(
    "found, remedy",
    [
        (Model, r"found the deployment Deployment\(name=Model\); write Model.bind\(\)"),
        (int, "make one with @serve.deployment"),
        (None, "make one with @serve.deployment"),
    ],
)
def test_something_else_than_an_application_is_a_type_error(found: object, remedy: str) -> None:
    with pytest.raises(TypeError, match=remedy):
        build(found)


@pytest.mark.parametrize("name", ["", "a#b", 3, None])
def test_a_bad_application_name_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match="the name of an application") as caught:
        build(Model.bind(), name=name)

    assert isinstance(caught.value, ServeError)


@pytest.mark.parametrize("route_prefix", ["", "a", "/a/", "//", "/{x}", "/a}", 3])
def test_a_bad_route_prefix_is_refused(route_prefix: object) -> None:
    with pytest.raises(ValueError, match="route_prefix"):
        build(Model.bind(), route_prefix=route_prefix)


@pytest.mark.parametrize("route_prefix", ["/", "/a", "/a/b", None])
def test_a_good_route_prefix_is_kept(route_prefix: str | None) -> None:
    assert route_prefix == build(Model.bind(), route_prefix=route_prefix).route_prefix


def test_the_logging_of_the_application_is_checked_and_kept() -> None:
    spec = build(Model.bind(), logging_config={"log_level": "DEBUG"})

    assert LoggingConfig(log_level="DEBUG").to_builtins() == spec.logging
    with pytest.raises(ValueError, match="LoggingConfig has no option 'lvl'"):
        build(Model.bind(), logging_config={"lvl": 1})


def test_two_asgi_ingresses_in_an_application_are_refused() -> None:
    class Routed:
        def __init__(self, *args: object) -> None: ...

    outer, inner = (deployment(name=name)(ingress(FastAPI())(Routed)) for name in ("outer", "inner"))

    with pytest.raises(ServeError, match="found inner, outer"):
        build(outer.bind(inner.bind()))


def test_an_asgi_ingress_below_another_deployment_is_announced() -> None:
    inner = deployment(name="inner")(ingress(FastAPI())(type("Routed", (), {})))

    with pytest.warns(UserWarning, match="'inner' has @serve.ingress but is not the outermost one, 'Top'"):
        build(Top.bind(inner.bind()))


def test_the_documentation_page_is_part_of_the_specification() -> None:
    with_docs = deployment(ingress(FastAPI(docs_url="/help"))(type("Routed", (), {})))

    assert "/help" == build(with_docs.bind()).deployments[0].docs_path


def test_options_that_only_tune_are_announced_once_in_a_process() -> None:
    app = Model.options(max_replicas_per_node=2).bind()

    with pytest.warns(UserWarning, match="max_replicas_per_node changes nothing yet") as caught:
        specs = [build(app), build(app)]

    assert (2, 1) == (len(specs), len(caught))


def test_an_argument_that_cannot_travel_is_named_with_its_deployment() -> None:
    child = Model.options(name="child").bind(open)
    broken = Model.options(name="broken").bind(db={"pool": [Settings(lock)]})

    assert 2 == len(build(Top.bind(child)).deployments)
    with pytest.raises(SerializationError) as caught:
        build(Top.bind(broken))

    assert "the deployment 'broken' cannot be sent to its replicas" in str(caught.value)
    assert "argument 'db'['pool'][0].model (of type _thread.lock)" in str(caught.value)
    assert "make it in the constructor" in str(caught.value)
