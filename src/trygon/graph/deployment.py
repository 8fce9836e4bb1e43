"""What a user writes down: deployments, and applications made by binding them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Unpack, overload

from trygon.graph.options import DeploymentArguments, checked_options, option_names, specification
from trygon.graph.retired import retired_attribute
from trygon.spec.application import DeploymentOptions
from trygon.spec.autoscaling import AutoscalingConfig
from trygon.spec.logging_options import LoggingConfig
from trygon.spec.options import BackpressureConfig, RequestRouterConfig
from trygon.spec.routers import CUSTOM
from trygon.spec.validation import OptionError, check_name

__all__ = ["Application", "Deployment", "RunTarget", "deployment"]


class Application:
    """Deployments bound together; `Deployment.bind` makes it and `serve.run` runs it.

    Bound into another deployment's arguments, it becomes a handle there.
    """

    _deployment: Deployment
    _args: tuple[Any, ...]
    _kwargs: dict[str, Any]

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise RuntimeError("an Application is made by Deployment.bind(...), not directly")

    @classmethod
    def _make(cls, deployment: Deployment, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Application:
        self = object.__new__(cls)
        self._deployment, self._args, self._kwargs = deployment, args, kwargs
        return self

    @property
    def ingress_deployment(self) -> Deployment:
        """The deployment that takes the application's requests."""
        return self._deployment

    @property
    def bound_args(self) -> tuple[Any, ...]:
        """Positional arguments for the constructor, as they were bound."""
        return self._args

    @property
    def bound_kwargs(self) -> dict[str, Any]:
        """Keyword arguments for the constructor, as they were bound."""
        return self._kwargs

    def __getattr__(self, name: str) -> Any:
        if name == "remote" or not name.startswith("_"):
            raise AttributeError(
                f"an Application has no {name!r}; it is called through the handle that serve.run(app) returns"
            )
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"Application({self._deployment.name})"


class Deployment:
    """A class or function and the options it is served with; never changed, only copied."""

    _func_or_class: Callable[..., Any]
    _name: str
    _options: dict[str, Any]

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise RuntimeError("a Deployment is made by @serve.deployment, not directly")

    @classmethod
    def _make(cls, func_or_class: Callable[..., Any], name: str, options: dict[str, Any]) -> Deployment:
        self = object.__new__(cls)
        self._func_or_class, self._name, self._options = func_or_class, name, options
        for attribute in ("__doc__", "__module__"):
            setattr(self, attribute, getattr(func_or_class, attribute, None))
        return self

    def bind(self, *args: Any, **kwargs: Any) -> Application:
        """Return an application of this deployment with these constructor arguments.

        Applications among the arguments, at any depth, become handles in the replica.

        Raises:
            ValueError: The deployment is a function, which takes no constructor arguments.
        """
        if (args or kwargs) and inspect.isfunction(self._func_or_class):
            raise OptionError(
                f"{self._name} is a function deployment and takes no bound arguments, found "
                f"{len(args) + len(kwargs)}; use a class to give it some"
            )
        return Application._make(self, args, kwargs)

    def options(
        self,
        func_or_class: Callable[..., Any] | None = None,
        **options: Unpack[DeploymentArguments],
    ) -> Deployment:
        """Return a copy with the given options changed; see `deployment` for their meaning.

        Raises:
            ValueError: A value that cannot be.
            TypeError: An unknown name.
        """
        if "rolling_update_percentage" in options:
            # As in Ray Serve: the decorator and configuration files take it.
            raise TypeError(
                "options() has no option 'rolling_update_percentage'; give it to @serve.deployment"
            )
        target = self._func_or_class if func_or_class is None else _checked_callable(func_or_class)
        return _new(target, dict(options), name=self._name, before=self._options)

    @property
    def name(self) -> str:
        """Unique in its application."""
        return self._name

    @property
    def func_or_class(self) -> Callable[..., Any]:
        """What is served."""
        return self._func_or_class

    @property
    def version(self) -> None:
        """Always None; deployments have numbered revisions."""

    @property
    def num_replicas(self) -> int:
        """Replicas asked for; with autoscaling, the number that counts is in its configuration."""
        count: int = self._options.get("num_replicas", 1)
        return count

    @property
    def user_config(self) -> Any:
        """What `reconfigure` gets."""
        return self._options.get("user_config")

    @property
    def max_ongoing_requests(self) -> int:
        """Requests a replica works on at a time; with "auto", the most that may be."""
        return self.specification.max_ongoing_requests

    @property
    def max_queued_requests(self) -> int:
        """Requests that may wait in each caller; -1 is unbounded."""
        return self.specification.max_queued_requests

    @property
    def backpressure_config(self) -> BackpressureConfig:
        """How a refused HTTP request is answered."""
        return self._options.get("backpressure_config") or BackpressureConfig()

    @property
    def ray_actor_options(self) -> dict[str, Any]:
        """What a replica needs."""
        return dict(self._options["ray_actor_options"])

    @property
    def logging_config(self) -> LoggingConfig | None:
        """How the replicas log, or None for the application's way."""
        return self._options.get("logging_config")

    @property
    def policy_function(self) -> Callable[..., Any] | None:
        """The autoscaling policy, where it was given as an object and not by its import path."""
        scaling: AutoscalingConfig | None = self._options.get("autoscaling_config")
        function = scaling.policy.policy_function if scaling is not None else None
        return function if callable(function) else None

    @property
    def router_class(self) -> Callable[..., Any] | None:
        """The router of the user's, where it was given as an object and not by its import path."""
        config: RequestRouterConfig | None = self._options.get("request_router_config")
        if config is None or isinstance(config.request_router_class, str):
            return None
        return config.request_router_class if config.rule().name == CUSTOM else None

    @property
    def init_args(self) -> tuple[Any, ...]:
        """Always empty; constructor arguments are given to `bind`."""
        return ()

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """Always empty; constructor arguments are given to `bind`."""
        return {}

    @property
    def specification(self) -> DeploymentOptions:
        """The options as the rest of Trygon reads them."""
        return specification(self._options)

    def __call__(self, *args: object, **kwargs: object) -> None:
        """Fail: a deployment is neither constructed nor called directly."""
        raise RuntimeError(
            f"the deployment {self._name!r} cannot be called or constructed directly; "
            f"write {self._name}.bind(...), run it with serve.run, and call the handle that it returns"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        error = retired_attribute(self._name, name)
        raise error if error is not None else AttributeError(f"a Deployment has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"Deployment(name={self._name})"


@dataclass(frozen=True)
class RunTarget:
    """One application for `serve.run_many`."""

    target: Application
    name: str = "default"
    route_prefix: str | None = "/"
    logging_config: dict[str, Any] | LoggingConfig | None = None
    external_scaler_enabled: bool = False


@overload
def deployment(_func_or_class: Callable[..., Any], /) -> Deployment: ...


@overload
def deployment(
    _func_or_class: None = None, /, **options: Unpack[DeploymentArguments]
) -> Callable[[Callable[..., Any]], Deployment]: ...


def deployment(
    _func_or_class: Callable[..., Any] | None = None, **options: Unpack[DeploymentArguments]
) -> Deployment | Callable[[Callable[..., Any]], Deployment]:
    """Make a class or function a deployment; used bare or with options.

    Args:
        name: Unique in the application; the class's or function's own name by default.
        num_replicas: How many copies run (1), or "auto".
        ray_actor_options: What a replica needs: ``num_cpus``, ``num_gpus``, ``memory``, ``resources``,
            ``accelerator_type``, ``runtime_env`` (``env_vars``, ``working_dir``, ``py_modules`` and ``pip``).
        user_config: A JSON value for the ``reconfigure`` method.
        max_ongoing_requests: Requests a replica works on at a time (5), or "auto": it learns how many.
        max_queued_requests: Requests that may wait in each caller (-1: no limit in handles, about a second of
            waiting at the HTTP ingress).
        backpressure_config: Status code and Retry-After of a refused HTTP request.
        autoscaling_config: Turns autoscaling on.
        health_check_period_s: Seconds between two calls of ``check_health`` (10).
        health_check_timeout_s: Seconds such a call may take (30).
        graceful_shutdown_timeout_s: Seconds a leaving replica may finish its requests (20).
        logging_config: How the replicas log.
        max_constructor_retry_count: Failed starts that are tolerated (20).
        max_surge_percent: Extra replicas during an update; by default the new ones start first.
        request_queue_config: How long requests from outside may wait, and whether tenants take turns.

    Returns:
        A Deployment, or a decorator that makes one.

    Raises:
        ValueError: A value that cannot be, or an option that Trygon cannot honour yet.
        TypeError: An unknown option, or something that is neither a class nor a function.
    """

    def decorate(func_or_class: Callable[..., Any]) -> Deployment:
        return _new(_checked_callable(func_or_class), dict(options), name=None, before={})

    return decorate if _func_or_class is None else decorate(_func_or_class)


class _NotGiven(Enum):
    NOT_GIVEN = "not given"


# What editors and `inspect` show: the options by name, though one table declares them.
deployment.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("_func_or_class", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None),
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_NotGiven.NOT_GIVEN)
            for name in option_names()
        ),
    ]
)


def _checked_callable(target: Any) -> Callable[..., Any]:
    if isinstance(target, Deployment):
        raise TypeError(
            f"{target.name} is a deployment already; write {target.name}.options(...) for a changed copy"
        )
    if inspect.isclass(target) or inspect.isfunction(target):
        return target
    raise TypeError(
        f"@serve.deployment takes a class or a function, found {target!r} of type {type(target).__name__}; "
        "options are given by name, as in @serve.deployment(num_replicas=2)"
    )


def _new(
    target: Callable[..., Any], options: dict[str, Any], *, name: str | None, before: dict[str, Any]
) -> Deployment:
    chosen = options.pop("name", None) or name or target.__name__
    if not isinstance(chosen, str):
        raise TypeError(
            f"the name of a deployment is a string, found {chosen!r} of type {type(chosen).__name__}"
        )
    check_name("a deployment", chosen)
    owner = f"deployment {chosen!r}"
    is_function = inspect.isfunction(target)
    return Deployment._make(
        target, chosen, checked_options(options, before, owner=owner, is_function=is_function)
    )
