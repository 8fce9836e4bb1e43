"""Copies of Starlette and FastAPI applications: frozen ones, and ones bound to an instance.

Copied are the application, its routers, mounts and routes; handlers, dependencies, models and
whatever the user hung on them are shared. FastAPI is met only if the user's application is one.
"""

from __future__ import annotations

import inspect
import math
import types
import weakref
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from trygon.errors import BackPressureError, DeploymentUnavailableError, PoisonRequestError, ServeError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["bound_copy", "frozen_copy"]

#: Route functions that are methods of some ingress class; another class must not answer with them.
_methods: weakref.WeakSet[Any] = weakref.WeakSet()

#: FastAPI's own parts that point from one router or application to another.
_LINKS = frozenset({"_DefaultLifespan", "_IncludedRouter", "_RouterIncludeContext"})


class _Kinds(NamedTuple):
    """Classes of Starlette, which is loaded only for users who have an application of it."""

    application: Any
    state: Any
    http_route: type
    #: Routes that call a function or class of the user's.
    endpoints: tuple[type, ...]
    #: Everything that can stand in a list of routes.
    any_route: type
    #: What points to routes, and is copied for that.
    structures: tuple[type, ...]


@cache
def _kinds() -> _Kinds:
    from starlette import applications, datastructures, routing

    return _Kinds(
        application=applications.Starlette,
        state=datastructures.State,
        http_route=routing.Route,
        endpoints=(routing.Route, routing.WebSocketRoute),
        any_route=routing.BaseRoute,
        structures=(applications.Starlette, routing.Router, routing.Mount, routing.Host),
    )


def frozen_copy(app: Starlette, cls: type) -> Starlette:
    """Return a copy of `app` that later routes, middleware and handlers do not reach.

    Raises:
        ServeError: A route of `cls` is a method without parameters.
    """
    return _Copier(cls, None).copy(app)  # type: ignore[no-any-return]


def bound_copy(app: Starlette, instance: object) -> Starlette:
    """Return a copy of `app` whose routes that are methods run on `instance`."""
    return _Copier(type(instance), instance).copy(app)  # type: ignore[no-any-return]


class _Copier:
    def __init__(self, cls: type, instance: object | None) -> None:
        self._cls = cls
        self._instance = instance
        #: Original and copy by the original's id; the original is held so that the id stays its own.
        self._done: dict[int, tuple[object, Any]] = {}

    def copy(self, value: Any) -> Any:
        """Return the copy of a part, or the part itself where it is shared."""
        if id(value) in self._done:
            return self._done[id(value)][1]
        if isinstance(value, _kinds().endpoints):
            return self._note(value, self._route(value))
        if isinstance(value, types.MethodType) and _is_structure(value.__self__):
            return types.MethodType(value.__func__, self.copy(value.__self__))
        if _is_structure(value):
            return self._structure(value)
        return value

    def _note(self, value: object, copied: Any) -> Any:
        self._done[id(value)] = (value, copied)
        return copied

    def _structure(self, value: Any) -> Any:
        copied = self._note(value, object.__new__(type(value)))
        for name, part in vars(value).items():
            copied.__dict__[name] = self._attribute(name, part)
        if isinstance(value, _kinds().application):
            # Built on first use from the routes and middleware, which may have been used before.
            copied.middleware_stack = None
            if hasattr(copied, "openapi_schema"):
                copied.openapi_schema = None
            if self._instance is not None:
                _add_handlers(copied)
        return copied

    def _attribute(self, name: str, part: Any) -> Any:
        if name in {"_effective_candidates", "_effective_low_priority_routes"}:
            return []
        if name in {"_effective_candidates_version", "_effective_low_priority_routes_version"}:
            return None
        if name == "middleware_stack":
            return self._stack(part)
        if name == "dependencies" and self._instance is None:
            for dependency in part:
                _resolve_annotations(getattr(dependency, "dependency", None), None)
        if isinstance(part, list):
            return [self.copy(item) for item in part if not self._is_foreign(item)]
        if isinstance(part, _kinds().state):
            return type(part)(dict(part._state))  # noqa: SLF001 - State has no other way to be copied
        if isinstance(part, dict):
            return dict(part)
        return self.copy(part)

    def _stack(self, layer: Any) -> Any:
        """Copy a router's own middleware, which wraps the router's bound method."""
        inner = getattr(layer, "app", None)
        if isinstance(layer, types.MethodType) or inner is None:
            return self.copy(layer)
        copied = object.__new__(type(layer))
        copied.__dict__.update(vars(layer))
        copied.app = self._stack(inner)
        return copied

    # ---- routes

    def _is_foreign(self, route: object) -> bool:
        """Whether a route is a method of another ingress class that used the same application."""
        endpoint = getattr(route, "endpoint", None)
        return (
            isinstance(route, _kinds().any_route) and endpoint in _methods and self._owner(endpoint) is None
        )

    def _owner(self, endpoint: Any) -> type | None:
        """Return the class, of those the deployment is made of, that defines `endpoint`."""
        place, _, _ = getattr(endpoint, "__qualname__", "").rpartition(".")
        module = getattr(endpoint, "__module__", None)
        for cls in self._cls.__mro__:
            if cls.__qualname__ == place and cls.__module__ == module:
                return cls
        return None

    def _route(self, route: Any) -> Any:
        endpoint = route.endpoint
        if self._instance is None:
            _resolve_annotations(endpoint, getattr(route, "dependant", None))
        owner = self._owner(endpoint)
        if owner is None:
            return self._plain_route(route)
        member = vars(owner).get(endpoint.__name__)
        if isinstance(endpoint, staticmethod) or isinstance(member, staticmethod):
            return route
        if self._instance is None:
            _check_method(endpoint)
            _methods.add(endpoint)
            return route
        if isinstance(endpoint, classmethod) or isinstance(member, classmethod):
            function = getattr(endpoint, "__func__", endpoint)
            return self._rebuilt(route, types.MethodType(function, type(self._instance)))
        return self._rebuilt(route, types.MethodType(endpoint, self._instance))

    def _plain_route(self, route: Any) -> Any:
        """Share a route, but give FastAPI's documentation pages, which are closures, the copied application."""
        endpoint = route.endpoint
        if (
            type(route) is not _kinds().http_route
            or not isinstance(endpoint, types.FunctionType)
            or not endpoint.__closure__
        ):
            return route
        contents = [cell.cell_contents for cell in endpoint.__closure__ if _is_filled(cell)]
        if len(contents) != len(endpoint.__closure__) or not any(map(_is_structure, contents)):
            return route
        cells = tuple(types.CellType(self.copy(content)) for content in contents)
        function = types.FunctionType(
            endpoint.__code__, endpoint.__globals__, endpoint.__name__, endpoint.__defaults__, cells
        )
        function.__kwdefaults__ = endpoint.__kwdefaults__
        function.__qualname__, function.__module__ = endpoint.__qualname__, endpoint.__module__
        return self._rebuilt(route, function)

    def _rebuilt(self, route: Any, endpoint: Callable[..., Any]) -> Any:
        """Return `route` made anew for another endpoint, with all else as it was."""
        kind = _library_class(route)
        options = {
            name: getattr(route, name)
            for name in inspect.signature(kind.__init__).parameters
            if name not in {"self", "endpoint", "middleware"} and hasattr(route, name)
        }
        if getattr(route, "stream_item_type", None) is not None:
            # Found in the return annotation, where FastAPI finds it again if no model is named.
            options.pop("response_model", None)
        if "dependency_overrides_provider" in inspect.signature(kind.__init__).parameters:
            provider = getattr(route, "dependency_overrides_provider", None)
            options["dependency_overrides_provider"] = self.copy(provider)
        rebuilt = object.__new__(type(route))
        rebuilt.__dict__.update(vars(route))
        kind.__init__(rebuilt, endpoint=endpoint, **options)
        return rebuilt


def _library_class(route: Any) -> Any:
    """Return the class of Starlette or FastAPI behind a route, whose constructor is known."""
    for cls in type(route).__mro__:
        if cls.__module__ in {"fastapi.routing", "starlette.routing"}:
            return cls
    raise TypeError(f"unknown kind of route: {route!r}")


def _is_structure(value: object) -> bool:
    if isinstance(value, _kinds().structures):
        return True
    kind = type(value)
    return kind.__name__ in _LINKS and kind.__module__ in {"fastapi.routing", "starlette.routing"}


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None or True
    except ValueError:
        return False


def _resolve_annotations(call: Any, dependant: Any) -> None:
    """Replace annotations written as text by what they name, for a route's function and its dependencies.

    FastAPI reads signatures again in the replica. A function that travels by value takes only those
    globals along that its code uses, not those that only its annotations name.
    """
    if isinstance(call, types.FunctionType | type):
        try:
            signature = inspect.signature(call)
            annotations = [p.annotation for p in signature.parameters.values()]
            if any(isinstance(annotation, str) for annotation in [*annotations, signature.return_annotation]):
                call.__signature__ = inspect.signature(call, eval_str=True)  # type: ignore[union-attr]
        except (NameError, TypeError, ValueError, AttributeError, SyntaxError):
            # FastAPI could not resolve it either, or there is no signature.
            pass
    for dependency in getattr(dependant, "dependencies", ()):
        _resolve_annotations(dependency.call, dependency)


def _check_method(endpoint: Any) -> None:
    if not inspect.signature(endpoint).parameters:
        raise ServeError(
            f"the route method {endpoint.__qualname__} has no parameters; "
            "give it `self` first, or define the route outside the class"
        )


# ---- errors of handles inside routes


async def _answer_backpressure(request: Request, error: Exception) -> Response:
    from starlette.responses import JSONResponse

    del request
    refused = error if isinstance(error, BackPressureError) else BackPressureError()
    headers = {} if refused.retry_after_s is None else {"Retry-After": str(math.ceil(refused.retry_after_s))}
    return JSONResponse({"detail": refused.message}, status_code=refused.status_code, headers=headers)


async def _answer_unavailable(request: Request, error: Exception) -> Response:
    from starlette.responses import JSONResponse

    del request
    after_s = math.ceil(error.retry_after_s) if isinstance(error, PoisonRequestError) else 1
    return JSONResponse(
        {"detail": str(error)}, status_code=503, headers={"Retry-After": str(max(1, after_s))}
    )


def _add_handlers(app: Starlette) -> None:
    """Answer what a child deployment refuses as the ingress would, unless the user has handlers of their own."""
    app.exception_handlers.setdefault(BackPressureError, _answer_backpressure)
    app.exception_handlers.setdefault(DeploymentUnavailableError, _answer_unavailable)
