"""Turns a bound application into an ApplicationSpec: deployments named, children first, handles in place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from trygon.errors import ServeError
from trygon.graph.asgi import asgi_ingress_of
from trygon.graph.deployment import Application, Deployment
from trygon.graph.options import announce_inert
from trygon.graph.pickling import dumps_definition
from trygon.spec.application import ApplicationSpec, CodeLocation, DeploymentSpec
from trygon.spec.capacity import external_scaler_problem
from trygon.spec.logging_options import LoggingConfig
from trygon.spec.validation import OptionError, check_name, notices

__all__ = ["HandleFactory", "build_application", "check_application_name", "check_route_prefix"]

#: Makes what stands in for a bound application: called with the deployment's and the application's name.
HandleFactory = Callable[[str, str], object]


def build_application(
    app: Application,
    *,
    name: str = "default",
    route_prefix: str | None = "/",
    code: CodeLocation | None = None,
    handle_factory: HandleFactory,
    logging_config: LoggingConfig | dict[str, Any] | None = None,
    import_path: str = "",
    external_scaler_enabled: bool = False,
) -> ApplicationSpec:
    """Return the specification of `app`.

    Args:
        app: What `Deployment.bind` returned.
        name: Unique in the instance.
        route_prefix: Where HTTP requests reach it; None for nowhere.
        code: How replicas find the modules that the definitions name.
        handle_factory: ``(deployment name, application name)`` to the picklable handle put in the
            place of each bound application.
        logging_config: How all deployments log that do not say it themselves.
        import_path: Where the application came from, for people.
        external_scaler_enabled: Another program sets its numbers of replicas.

    Raises:
        TypeError: `app` is not an Application.
        ServeError: A cycle, a second ASGI ingress, or something that cannot be pickled.
        ValueError: A name or route prefix that cannot be, or two that would set a number of replicas.
    """
    if not isinstance(app, Application):
        raise TypeError(_not_an_application(app))
    check_application_name(name)
    check_route_prefix(route_prefix)
    logging = None if logging_config is None else LoggingConfig.parse(logging_config).to_builtins()
    builder = _Builder(name, handle_factory)
    ingress = builder.add(app)
    _check_one_ingress(builder.deployments, builder.asgi_names)
    for given, wanted in builder.renamed.items():
        notices.once(
            f"name.{name}.{given}",
            f"the application {name!r} binds several deployments called {wanted!r}; one is now called "
            f"{given!r}; name them with .options(name=...), or bind once and use the result twice",
        )
    spec = ApplicationSpec(
        name=name,
        route_prefix=route_prefix,
        ingress=ingress,
        deployments=tuple(builder.deployments),
        code=code or CodeLocation(),
        logging=logging,
        import_path=import_path,
        external_scaler_enabled=external_scaler_enabled,
    )
    problem = external_scaler_problem(spec) if external_scaler_enabled else ""
    if problem:
        raise OptionError(problem)
    for deployment in builder.deployments:
        announce_inert(deployment.options, notices.once)
    return spec


def _not_an_application(found: object) -> str:
    kind = type(found).__name__
    if kind == "Deployment":
        return f"wanted an Application, found the deployment {found!r}; write {getattr(found, 'name', 'it')}.bind()"
    return (
        f"wanted an Application, found {found!r} of type {kind}; "
        "make one with @serve.deployment above a class or function, and .bind()"
    )


def check_application_name(name: object) -> None:
    """Raise OptionError unless `name` can name an application."""
    if not isinstance(name, str) or not name:
        raise OptionError(f"the name of an application is a string that is not empty, found {name!r}")
    check_name("an application", name)


def check_route_prefix(route_prefix: object) -> None:
    """Raise OptionError unless `route_prefix` can be routed to; None is not served over HTTP."""
    if route_prefix is None:
        return
    if not isinstance(route_prefix, str) or not route_prefix.startswith("/"):
        raise OptionError(
            f"route_prefix starts with '/' (or is None, for an application without HTTP), found {route_prefix!r}"
        )
    if route_prefix != "/" and route_prefix.endswith("/"):
        raise OptionError(
            f"route_prefix must not end with '/', found {route_prefix!r}; write {route_prefix.rstrip('/') or '/'!r}"
        )
    if any(part in route_prefix for part in ("//", "/.", "?", "#")) or not route_prefix.isprintable():
        raise OptionError(
            f"route_prefix is a plain path that a client can ask for, without '//', '/.', '?' and '#', "
            f"found {route_prefix!r}"
        )
    if "{" in route_prefix or "}" in route_prefix:
        raise OptionError(
            f"route_prefix is a plain path without '{{' and '}}', found {route_prefix!r}; "
            "path parameters belong to the routes of a serve.ingress application"
        )


class _Builder:
    def __init__(self, app_name: str, handle_factory: HandleFactory) -> None:
        self._app_name = app_name
        self._handle_factory = handle_factory
        #: Children before their parents.
        self.deployments: list[DeploymentSpec] = []
        self.asgi_names: list[str] = []
        #: Names that were given because another deployment had the wanted one.
        self.renamed: dict[str, str] = {}
        self._names: dict[int, str] = {}
        #: Held so that ids stay theirs.
        self._seen: list[Application] = []
        self._path: list[Application] = []

    def add(self, app: Application) -> str:
        """Add the deployment of `app` after its children; return its name in the application."""
        if id(app) in self._names:
            return self._names[id(app)]
        if any(app is outer for outer in self._path):
            circle = [outer.ingress_deployment.name for outer in (*self._path, app)]
            raise ServeError(
                f"the application binds itself in a circle: {' -> '.join(circle)}; "
                "let one of them look the other up when it runs, with serve.get_deployment_handle"
            )
        self._path.append(app)
        children: dict[str, None] = {}

        def handle_of(child: Application) -> object:
            child_name = self.add(child)
            children[child_name] = None
            return self._handle_factory(child_name, self._app_name)

        deployment = app.ingress_deployment
        _check_arguments(deployment.name, deployment.func_or_class, app.bound_args, app.bound_kwargs)
        definition = dumps_definition(
            deployment.func_or_class,
            app.bound_args,
            app.bound_kwargs,
            name=deployment.name,
            replace=handle_of,
        )
        self._path.pop()
        name = self._unique_name(deployment.name)
        self._names[id(app)] = name
        self._seen.append(app)
        asgi = asgi_ingress_of(deployment.func_or_class)
        if asgi is not None:
            self.asgi_names.append(name)
        self.deployments.append(
            DeploymentSpec(
                name=name,
                app_name=self._app_name,
                definition=definition,
                options=deployment.specification,
                children=tuple(children),
                policy=_policy(deployment),
                router=_router(deployment),
                docs_path=None if asgi is None else asgi.docs_path,
            )
        )
        return name

    def _unique_name(self, wanted: str) -> str:
        taken = {deployment.name for deployment in self.deployments}
        if wanted not in taken:
            return wanted
        number = 1
        while f"{wanted}_{number}" in taken:
            number += 1
        name = f"{wanted}_{number}"
        self.renamed[name] = wanted
        return name


def _policy(deployment: Deployment) -> bytes:
    """Return the pickle of an autoscaling policy that is an object; one that has an import path has no pickle."""
    function = deployment.policy_function
    return b"" if function is None else dumps_definition(function, name=deployment.name)


def _router(deployment: Deployment) -> bytes:
    """Return the pickle of a router class that was given as an object."""
    found = deployment.router_class
    return b"" if found is None else dumps_definition(found, name=deployment.name)


def _check_arguments(
    name: str, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Raise ServeError when the constructor cannot take what was bound: here, not in three replicas first."""
    if not inspect.isclass(target):
        return
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ServeError(
            f"deployment {name!r} cannot be constructed with what was given to bind(): {error}; "
            f"its constructor is {target.__name__}{signature}"
        ) from None


def _check_one_ingress(deployments: list[DeploymentSpec], asgi_names: list[str]) -> None:
    if len(asgi_names) > 1:
        raise ServeError(
            f"an application has one deployment with @serve.ingress, found {', '.join(asgi_names)}; "
            "only the outermost one gets HTTP requests, so remove the decorator from the others and call "
            "their methods through handles, or run them as applications of their own"
        )
    if asgi_names and asgi_names[0] != deployments[-1].name:
        notices.once(
            f"ingress.{asgi_names[0]}",
            f"the deployment {asgi_names[0]!r} has @serve.ingress but is not the outermost one, "
            f"{deployments[-1].name!r}; its routes get no HTTP requests",
        )
