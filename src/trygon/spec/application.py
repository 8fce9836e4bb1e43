"""What a user wants: applications, their deployments, and the code they run."""

from __future__ import annotations

from typing import Any

import msgspec

from trygon.spec.packages import PackageEnvironment
from trygon.spec.queueing import QueuePolicy
from trygon.spec.routers import RouterRule

__all__ = [
    "ApplicationSpec",
    "CodeLocation",
    "DeploymentOptions",
    "DeploymentSpec",
    "ModuleSource",
    "PolicyConfig",
    "ResourceRequest",
]


class ResourceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica needs; CPUs are a hint, GPUs and custom resources are held exclusively."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory_bytes: float = 0.0
    accelerator_type: str | None = None
    resources: dict[str, float] = {}


class DeploymentOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The validated options of a deployment; `graph` makes it, everyone else trusts it.

    ``None`` stands for "not given" where Ray Serve makes that difference visible.
    """

    num_replicas: int = 1
    max_ongoing_requests: int = 5
    #: Whether each replica learns how many it should work on; `max_ongoing_requests` is the most then.
    tunes_ongoing_requests: bool = False
    #: Requests that may wait in each caller; -1 is unbounded.
    max_queued_requests: int = -1
    #: Status (503 or 429) and Retry-After seconds of a refusal at the HTTP ingress.
    backpressure_status_code: int = 503
    backpressure_retry_after_s: float | None = None
    #: How long requests from outside may wait, and in which order.
    queue: QueuePolicy = QueuePolicy()
    #: Which replica takes a request.
    router: RouterRule = RouterRule()
    #: Any JSON value; given to ``reconfigure`` after the constructor.
    user_config: Any = None
    health_check_period_s: float = 10.0
    health_check_timeout_s: float = 30.0
    graceful_shutdown_timeout_s: float = 20.0
    graceful_shutdown_wait_loop_s: float = 2.0
    max_constructor_retry_count: int = 20
    resources: ResourceRequest = ResourceRequest()
    env_vars: dict[str, str] = {}
    #: This deployment's own working directory (``runtime_env``); None takes the application's.
    working_dir: str | None = None
    #: Local packages, modules and folders of modules that it looks in first (``runtime_env``).
    py_modules: tuple[str, ...] = ()
    #: The folders to look in for them and for those of `working_dir`; empty until it is complete.
    module_path: tuple[str, ...] = ()
    #: Packages of its own (``runtime_env``), instead of the application's; None takes the application's.
    packages: PackageEnvironment | None = None
    #: None, or the fields of an AutoscalingConfig as JSON values.
    autoscaling: dict[str, Any] | None = None
    #: None, or the fields of a LoggingConfig as JSON values.
    logging: dict[str, Any] | None = None
    #: None is our default (start first); 0 is Ray Serve's stop-first.
    max_surge_percent: int | None = None
    rolling_update_percentage: float = 0.2
    #: Options that are stored and shown but change nothing yet on one machine, as JSON values.
    inert: dict[str, Any] = {}


class ModuleSource(msgspec.Struct, frozen=True, kw_only=True):
    """The source of one module as it was when the application was built."""

    name: str
    #: Of its file, which may hold something else by now.
    path: str
    is_package: bool
    source: bytes


class DeploymentSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One callable of an application, scaled on its own."""

    name: str
    app_name: str
    #: Pickle of ``(callable, init_args, init_kwargs)``. Opaque: loaded in replicas only.
    definition: bytes
    #: Digest of the definition where it is kept elsewhere, and left out here.
    definition_blob: str = ""
    #: Pickle of the autoscaling policy where it cannot be imported by name; and its digest, as above.
    policy: bytes = b""
    policy_blob: str = ""
    #: Pickle of the router class where it was given as an object; and its digest, as above.
    router: bytes = b""
    router_blob: str = ""
    options: DeploymentOptions = DeploymentOptions()
    #: Names of the deployments of this application that the definition holds handles of.
    children: tuple[str, ...] = ()
    #: The modules in its own `module_path`, on their way to the controller, which keeps them apart.
    modules: tuple[ModuleSource, ...] = ()
    #: Digest of what the controller made of `modules`; empty without.
    snapshot: str = ""
    #: Where the FastAPI documentation page is, relative to the route prefix, or None.
    docs_path: str | None = None

    def with_options(self, **changes: Any) -> DeploymentSpec:
        """Return a copy with some options changed."""
        return msgspec.structs.replace(self, options=msgspec.structs.replace(self.options, **changes))

    def without_policy(self) -> DeploymentSpec:
        """Return a copy whose autoscaling policy, if any, is the one that its options name."""
        return msgspec.structs.replace(self, policy=b"", policy_blob="")

    def without_router(self) -> DeploymentSpec:
        """Return a copy whose router is the one that its options name."""
        return msgspec.structs.replace(self, router=b"", router_blob="")


class CodeLocation(msgspec.Struct, frozen=True, kw_only=True):
    """How a replica finds the modules that the definitions name."""

    #: Put in front of ``sys.path``, in this order.
    sys_path: tuple[str, ...] = ()
    working_dir: str | None = None
    env_vars: dict[str, str] = {}
    #: Packages beside those of the environment that starts Trygon; None for none.
    packages: PackageEnvironment | None = None
    #: The application's own modules, on their way to the controller, which keeps them apart.
    modules: tuple[ModuleSource, ...] = ()
    #: Digest of what the controller made of `modules`; empty without a snapshot.
    snapshot: str = ""
    #: Of the application's own files as they were when it was built; empty when nobody looked.
    digest: str = ""


class PolicyConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that says how many replicas each deployment of an application shall have."""

    #: Of a function or a class, as "module:name".
    import_path: str
    #: Given to a class when it is made, and to a function with each call.
    kwargs: dict[str, Any] = {}


class ApplicationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Deployments that are deployed together and answer behind one route."""

    name: str = "default"
    #: Starts with "/" and does not end with it (but "/" itself); None is not served over HTTP.
    route_prefix: str | None = "/"
    #: Name of the deployment that takes the application's requests.
    ingress: str
    deployments: tuple[DeploymentSpec, ...]
    code: CodeLocation = CodeLocation()
    logging: dict[str, Any] | None = None
    #: Import path the application was built from, for people; empty for objects.
    import_path: str = ""
    #: Its section of the configuration file it came from, as it was written; None for `serve.run`.
    config: dict[str, Any] | None = None
    #: Scales its deployments together; None leaves each to its own autoscaling.
    autoscaling_policy: PolicyConfig | None = None
    #: Another program sets the numbers of replicas.
    external_scaler_enabled: bool = False
    #: Percentage that the numbers of replicas are scaled by already; None is all of them.
    target_capacity: float | None = None
    #: What those that it changed are at 100 %, by deployment.
    full_replicas: dict[str, int] = {}

    def deployment(self, name: str) -> DeploymentSpec:
        """Return the deployment called `name`; KeyError if there is none."""
        for deployment in self.deployments:
            if deployment.name == name:
                return deployment
        raise KeyError(name)

    def packages_of(self, deployment: DeploymentSpec) -> PackageEnvironment | None:
        """Return the packages that the replicas of a deployment run with; None for those that Trygon runs with."""
        own = deployment.options.packages
        return (self.code.packages if own is None else own) or None

    def with_deployments(self, deployments: tuple[DeploymentSpec, ...]) -> ApplicationSpec:
        """Return a copy with other deployments."""
        return msgspec.structs.replace(self, deployments=deployments)
