"""Names of the old Ray Serve 1.x face: each fails with one line that names the modern call."""

from __future__ import annotations

from typing import Any, NoReturn

from trygon.errors import ServeError

__all__ = [
    "RETIRED_OPTIONS",
    "RetiredNameError",
    "get_deployment",
    "list_deployments",
    "retired_attribute",
]


class RetiredNameError(ServeError, AttributeError):
    """A name of an earlier Ray Serve, with what to write instead."""


#: Options of the decorator that are no more, and what to write.
RETIRED_OPTIONS = {
    "version": "every deploy is a new revision, and `trygon status` shows its number",
    "prev_version": "every deploy is a new revision, and `trygon status` shows its number",
    "route_prefix": "write serve.run(app, route_prefix=...)",
    "init_args": "write deployment.bind(*args)",
    "init_kwargs": "write deployment.bind(**kwargs)",
    "max_concurrent_queries": "write max_ongoing_requests=...",
    "is_driver_deployment": "bind the driver as an ordinary deployment",
}

_ATTRIBUTES = {
    "deploy": "write serve.run({name}.bind(...))",
    "delete": "write serve.delete(application_name)",
    "get_handle": "write serve.get_deployment_handle({name!r}, app_name) or keep what serve.run returns",
    "set_options": "write {name}.options(...), which returns a changed copy",
    "route_prefix": "it belongs to the application: serve.run(app, route_prefix=...)",
    "url": "the application's URL is the address of the instance and its route prefix",
    "remote": "a deployment is called through its handle: serve.run({name}.bind(...)).remote(...)",
}


def retired_attribute(deployment_name: str, attribute: str) -> RetiredNameError | None:
    """Return the error for an attribute that deployments no longer have, or None."""
    instead = _ATTRIBUTES.get(attribute)
    if instead is None:
        return None
    return RetiredNameError(
        f"Deployment.{attribute} is not part of Serve: {instead.format(name=deployment_name)}"
    )


def get_deployment(name: str = "", *args: Any, **kwargs: Any) -> NoReturn:
    """Fail: deployments are no longer looked up one by one."""
    raise ServeError(
        "serve.get_deployment was removed: write serve.get_app_handle(application_name) "
        f"or serve.get_deployment_handle({name or 'deployment_name'!r}, application_name)"
    )


def list_deployments(*args: Any, **kwargs: Any) -> NoReturn:
    """Fail: applications are listed, with their deployments."""
    raise ServeError("serve.list_deployments was removed: write serve.status().applications")
