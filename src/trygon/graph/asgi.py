"""`serve.ingress`: an ASGI application, FastAPI or any other, answered by a deployment.

The application is copied in structure when the class is decorated, so that routes and
middleware added later do not show. Nothing is pickled for that: a replica imports the module
and meets the same copy; only a class that travels by value takes its copy along.
A replica asks ``cls.__trygon_asgi__`` (an `AsgiIngress`) for the application of its instance.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable
from sys import _getframe
from typing import Any, cast

from trygon.errors import ServeError
from trygon.graph.references import NAMELESS
from trygon.spec.validation import OptionError

__all__ = ["ASGI_HOOK", "AsgiApp", "AsgiIngress", "asgi_ingress_of", "ingress"]

AsgiApp = Callable[..., Any]

#: Class attribute that holds the AsgiIngress of a class decorated with `ingress`.
ASGI_HOOK = "__trygon_asgi__"

#: Method that builds the application when `ingress` got none.
_LATE_BUILDER = "__serve_build_asgi_app__"


class AsgiIngress:
    """Where the ASGI application of a deployment comes from.

    Exactly one of `app` and `builder` is set, or none: then the instance builds it itself.
    """

    __slots__ = ("app", "builder")

    def __init__(self, app: AsgiApp | None = None, builder: Callable[[], Any] | None = None) -> None:
        self.app = app
        self.builder = builder

    async def build(self, instance: object) -> AsgiApp:
        """Return the application that answers for `instance`, after its constructor ran.

        Routes written as methods are bound to `instance`, so that a request pays nothing for it.
        The caller runs the lifespan.

        Raises:
            ServeError: The builder returned something that is not an ASGI application.
        """
        app: Any = self.app
        if app is None:
            build = self.builder or getattr(instance, _LATE_BUILDER)
            app = build()
            if inspect.isawaitable(app):
                app = await app
            if not callable(app):
                raise ServeError(
                    f"{_described(build)} must return an ASGI application, found {app!r} of type {type(app).__name__}"
                )
        if not _is_starlette(app):
            return cast(AsgiApp, app)
        from trygon.graph.asgi_copy import bound_copy

        return bound_copy(app, instance)

    @property
    def docs_path(self) -> str | None:
        """Where FastAPI shows its documentation page, relative to the route prefix."""
        path: str | None = getattr(self.app, "docs_url", None)
        return path

    @property
    def is_late(self) -> bool:
        """Whether the instance builds the application by itself."""
        return self.app is None and self.builder is None


def asgi_ingress_of(target: object) -> AsgiIngress | None:
    """Return the AsgiIngress of a class that `ingress` decorated, or None."""
    return getattr(target, ASGI_HOOK, None) if inspect.isclass(target) else None


def ingress(app: AsgiApp | Callable[[], Any] | None = None) -> Callable[..., type]:
    """Let a deployment class answer HTTP through an ASGI application; stands below ``@serve.deployment``.

    Args:
        app: A FastAPI or other ASGI application; or a function without parameters that builds one
            when a replica starts; or None, then the class builds it in ``__serve_build_asgi_app__``.

    Returns:
        A class decorator. Called without a class it makes one, for an application that needs none.

    Raises:
        ValueError: Something else than a class is decorated, or the class has ``__call__``.
        ServeError: A route is a method without parameters.
    """
    source = _source(app)

    def decorate(cls: type | None = None) -> type:
        if cls is None:
            # The module of the caller is where a replica finds the deployment that is made of it.
            home = _getframe(1).f_globals.get("__name__", __name__)
            cls = type("ASGIIngressDeployment", (), {"__module__": home, "__qualname__": NAMELESS})
        if not inspect.isclass(cls):
            raise OptionError(f"@serve.ingress decorates a class, found {cls!r}; make it a method of a class")
        _check_class(cls, source)
        return _subclass(cls, _frozen(source, cls))

    return decorate


def _source(app: Any) -> AsgiIngress:
    if app is None:
        return AsgiIngress()
    if inspect.isclass(app):
        raise OptionError(
            f"serve.ingress takes an application, found the class {app.__name__}; "
            f"write @serve.ingress(app) above the class, with app = FastAPI() for example"
        )
    if not callable(app):
        raise OptionError(
            f"serve.ingress takes an ASGI application or a function that builds one, found {app!r} "
            f"of type {type(app).__name__}"
        )
    if inspect.isroutine(app) and not _takes_a_scope(app):
        return AsgiIngress(builder=app)
    return AsgiIngress(app)


def _frozen(source: AsgiIngress, cls: type) -> AsgiIngress:
    app: Any = source.app
    if app is None or not _is_starlette(app):
        return source
    from trygon.graph.asgi_copy import frozen_copy

    return AsgiIngress(frozen_copy(app, cls))


def _takes_a_scope(function: Callable[..., Any]) -> bool:
    """Whether a function is an application itself (three parameters) and not a builder (none)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    needed = [
        p for p in parameters if p.default is p.empty and p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}
    ]
    if len(needed) in {1, 2}:
        raise OptionError(
            f"serve.ingress takes an ASGI application (scope, receive, send) or a function without parameters, "
            f"found {_described(function)} with {len(needed)} parameters"
        )
    return bool(needed)


def _check_class(cls: type, source: AsgiIngress) -> None:
    if "__call__" in dir(cls):
        raise OptionError(
            f"{cls.__name__} has __call__ and @serve.ingress: requests go to the application's routes; "
            "remove one of the two"
        )
    if ASGI_HOOK in vars(cls):
        raise OptionError(f"{cls.__name__} has @serve.ingress twice; remove one of them")
    if source.is_late and not hasattr(cls, _LATE_BUILDER):
        raise OptionError(
            f"serve.ingress() without an application needs the method {_LATE_BUILDER} in {cls.__name__}, "
            "which returns one; add it or write serve.ingress(app)"
        )


def _subclass(cls: type, own: AsgiIngress) -> type:
    """Return a class that is `cls` in all but the hook, so that `cls` itself can be used elsewhere."""

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(
            __module__=cls.__module__, __qualname__=cls.__qualname__, __doc__=cls.__doc__, **{ASGI_HOOK: own}
        )

    return types.new_class(cls.__name__, (cls,), exec_body=fill)


def _is_starlette(app: object) -> bool:
    """Whether `app` is a Starlette or FastAPI application, without importing either."""
    module = sys.modules.get("starlette.applications")
    return module is not None and isinstance(app, module.Starlette)


def _described(function: Any) -> str:
    return getattr(function, "__qualname__", repr(function))
