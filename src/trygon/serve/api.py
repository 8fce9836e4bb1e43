"""Starting, deploying, asking and stopping: the functions of `trygon.serve`."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Sequence
from typing import Any

from trygon.client.completion import complete_deployments
from trygon.client.environments import environments_of, prepare
from trygon.config import read_settings
from trygon.dataplane.handle import DeploymentHandle
from trygon.dataplane.replica_context import ReplicaContext, current_replica_context
from trygon.dataplane.runtime import Runtime, current_runtime
from trygon.dataplane.traffic import with_traffic
from trygon.errors import InstanceError, ServeError
from trygon.graph.build import build_application
from trygon.graph.deployment import Application, RunTarget
from trygon.graph.targets import is_loading
from trygon.serve.schema import ServeStatus
from trygon.serve.session import (
    Session,
    code_location,
    connect,
    connect_or_start,
    current_session,
    forget_session,
)
from trygon.spec.application import ApplicationSpec
from trygon.spec.http_options import ControllerOptions, HTTPOptions, ProxyLocation, gRPCOptions
from trygon.spec.instance import InstanceConfig
from trygon.spec.logging_options import LoggingConfig, TracingConfig
from trygon.spec.validation import notices

__all__ = [
    "delete",
    "get_app_handle",
    "get_deployment_handle",
    "get_replica_context",
    "http_address",
    "run",
    "run_many",
    "shutdown",
    "shutdown_async",
    "start",
    "status",
]

logger = logging.getLogger("ray.serve")


# ---- the instance


def start(
    proxy_location: str | ProxyLocation | None = None,
    http_options: dict[str, Any] | HTTPOptions | None = None,
    grpc_options: dict[str, Any] | gRPCOptions | None = None,
    logging_config: dict[str, Any] | LoggingConfig | None = None,
    tracing_config: dict[str, Any] | TracingConfig | None = None,
    controller_options: dict[str, Any] | ControllerOptions | None = None,
    **kwargs: Any,
) -> None:
    """Start an instance without an application; `run` does it by itself when none runs.

    Args:
        proxy_location: "Disabled" serves no HTTP; on one machine every other value means the same.
        http_options: Host, port (0 takes a free one), root_path, timeouts.
        grpc_options: Accepted; gRPC is not served yet, so a servicer function is refused.
        logging_config: How ingress and replicas log, unless they say it themselves.
        tracing_config: Accepted with a warning.
        controller_options: Accepted; its environment variables reach the controller only.

    Raises:
        InstanceError: It cannot be started, for example because the port is in use.
        ValueError: An option that cannot be.
    """
    _refuse_while_loading("serve.start")
    config = _instance_config(proxy_location, http_options, logging_config, kwargs)
    if grpc_options is not None and gRPCOptions.parse(grpc_options).grpc_servicer_functions:
        raise ServeError(
            "gRPC is not served yet; remove grpc_servicer_functions and call over HTTP or a handle"
        )
    if tracing_config is not None:
        TracingConfig.parse(tracing_config)
        notices.once("start.tracing", "tracing_config is accepted and has no effect yet")
    if controller_options is not None:
        ControllerOptions.parse(controller_options)
    _, _, is_new = connect_or_start(config)
    if not is_new and (http_options or logging_config or kwargs):
        logger.warning(
            "an instance is running already, so the options given to serve.start are ignored; "
            "call serve.shutdown() first to start with others"
        )


def _refuse_while_loading(name: str) -> None:
    """Refuse to deploy from a module that is only imported: each replica, importing it, would deploy again."""
    context = current_replica_context()
    if is_loading() or (context is not None and context.servable_object is None):
        raise ServeError(
            f"{name} is called while the module is imported to be served; "
            'put the call below `if __name__ == "__main__":`'
        )


def _instance_config(
    proxy_location: str | ProxyLocation | None,
    http_options: dict[str, Any] | HTTPOptions | None,
    logging_config: dict[str, Any] | LoggingConfig | None,
    kwargs: dict[str, Any],
) -> InstanceConfig:
    settings = read_settings()
    given = dict(kwargs)
    if isinstance(http_options, dict):
        given.update(http_options)
    http = http_options if isinstance(http_options, HTTPOptions) else HTTPOptions.parse(given)
    host = http.host
    if not isinstance(http_options, HTTPOptions) and "host" not in given:
        host = settings.default_http_host
    location = ProxyLocation(proxy_location) if proxy_location is not None else http.location
    if location is not None and location is not ProxyLocation.Disabled:
        notices.once(
            "start.location",
            f"proxy_location={str(location)!r} changes nothing on one machine: one host serves HTTP",
        )
    options: dict[str, Any] = {
        "root_path": http.root_path,
        "request_timeout_s": http.request_timeout_s,
        "keep_alive_timeout_s": settings.http_keep_alive_timeout_s or http.keep_alive_timeout_s,
        "session_id_header": settings.session_id_header,
        **http.tls_options(),
    }
    if logging_config is not None:
        options["logging"] = LoggingConfig.parse(logging_config).to_builtins()
    return InstanceConfig(
        name="",
        runtime_dir="",
        state_dir="",
        host=host or "127.0.0.1",
        port=http.port,
        num_ingress=0 if host is None or location is ProxyLocation.Disabled else 1,
        http_options=options,
    )


def shutdown() -> None:
    """Delete every application and end the instance; does nothing when none runs."""
    from trygon.serve.testing_mode import shutdown_local

    shutdown_local()
    session = connect()
    if session is None:
        logger.info("nothing to shut down: no instance runs")
        return
    try:
        session.shutdown()
    finally:
        forget_session()


async def shutdown_async() -> None:
    """As `shutdown`, without blocking the running event loop."""
    await asyncio.to_thread(shutdown)


def status() -> ServeStatus:
    """Return the status of every application; empty when no instance runs.

    Beyond Ray Serve's fields, applications and deployments have `traffic`: requests and errors a second, and
    latencies, of the last minute.
    """
    session = connect()
    if session is None:
        return ServeStatus()
    instance = session.instance
    return ServeStatus.of_instance(with_traffic(instance.status(), instance.record.runtime_dir))


# ---- applications


def run(
    target: Application,
    blocking: bool = False,
    name: str = "default",
    route_prefix: str | None = "/",
    logging_config: dict[str, Any] | LoggingConfig | None = None,
    _local_testing_mode: bool = False,
    external_scaler_enabled: bool = False,
    controller_options: dict[str, Any] | ControllerOptions | None = None,
) -> DeploymentHandle:
    """Deploy an application and wait until it serves; starts an instance if none runs.

    A name that runs already gets a new revision: it is started beside the old one, takes over when it is
    ready, and only then does the old one drain. Other applications are untouched.

    Args:
        target: What `Deployment.bind` returned.
        blocking: Stay in the call until Ctrl-C, then shut down what this call started.
        name: Unique in the instance.
        route_prefix: Where HTTP requests reach it; None for nowhere.
        logging_config: How all deployments log that do not say it themselves.
        external_scaler_enabled: Another program sets the numbers of replicas, over the admin API; no
            deployment may then have an autoscaling_config.
        controller_options: As for `start`; only used when an instance is started.

    Returns:
        A handle of the application's ingress deployment. HTTP works in the next statement.

    Raises:
        TypeError: `target` is not an Application.
        DeployError: It cannot be deployed; its text has the user's traceback. What ran before runs on.
        InstanceError: No instance could be started.
    """
    run_target = RunTarget(
        target=target,
        name=name,
        route_prefix=route_prefix,
        logging_config=logging_config,
        external_scaler_enabled=external_scaler_enabled,
    )
    if controller_options is not None:
        ControllerOptions.parse(controller_options)
    return run_many([run_target], blocking=blocking, _local_testing_mode=_local_testing_mode)[0]


def run_many(
    targets: Sequence[RunTarget],
    blocking: bool = False,
    wait_for_ingress_deployment_creation: bool = True,
    wait_for_applications_running: bool = True,
    _local_testing_mode: bool = False,
) -> list[DeploymentHandle]:
    """Deploy several applications together; all are checked before any is changed.

    Args:
        targets: What to deploy, under which names and routes.
        blocking: As for `run`.
        wait_for_ingress_deployment_creation: Accepted; a deployment exists when this returns, either way.
        wait_for_applications_running: Whether to wait until all serve.

    Returns:
        A handle for each, in order.

    Raises:
        ValueError: No targets, or two with one name or one route prefix.
        DeployError: One of them cannot be deployed.
    """
    _refuse_while_loading("serve.run")
    if not targets:
        raise ValueError("run_many needs at least one RunTarget")
    names = [target.name for target in targets]
    if len(set(names)) < len(names):
        raise ValueError(f"application names must be unique, found {names!r}")

    def build() -> tuple[ApplicationSpec, ...]:
        code = code_location()
        return tuple(
            complete_deployments(
                build_application(
                    target.target,
                    name=target.name,
                    route_prefix=target.route_prefix,
                    code=code,
                    handle_factory=DeploymentHandle,
                    logging_config=target.logging_config,
                    external_scaler_enabled=target.external_scaler_enabled,
                ),
                code.working_dir or "",
            )
            for target in targets
        )

    if _local_testing_mode or read_settings().force_local_testing_mode:
        from trygon.serve.testing_mode import run_local

        return run_local(build())
    session, specs, is_new = _deployable(lambda: _with_packages(build()))
    instance = session.instance
    revisions = instance.deploy(specs, origin="serve.run")
    if wait_for_applications_running:
        instance.wait_running(revisions)
    if is_new and wait_for_applications_running:
        _announce(specs)
    handles = [DeploymentHandle(spec.ingress, spec.name, runtime=session.runtime) for spec in specs]
    if blocking:
        _stay(session, is_new=is_new)
    return handles


def _with_packages(specs: tuple[ApplicationSpec, ...]) -> tuple[ApplicationSpec, ...]:
    """Build the environments that deployments ask for: a mistake in them must cost nothing that runs."""
    environments = environments_of(specs)
    if environments:
        prepare(environments)
    return specs


def _announce(specs: tuple[ApplicationSpec, ...]) -> None:
    """Say where the applications of a new instance are served."""
    if not read_settings().log_to_stderr:
        return
    try:
        address = http_address()
    except ServeError:
        return
    for spec in specs:
        if spec.route_prefix is not None:
            sys.stderr.write(f"application {spec.name!r} serves at {address}{spec.route_prefix}\n")


def _deployable(build: Any) -> tuple[Session, tuple[ApplicationSpec, ...], bool]:
    session = connect()
    if session is not None:
        return session, build(), False
    session, specs, is_new = connect_or_start(None, build)
    assert specs is not None
    return session, specs, is_new


def _stay(session: Session, *, is_new: bool) -> None:
    """Wait for Ctrl-C or the end of the instance."""
    try:
        pause = threading.Event()
        while not session.instance.is_gone:
            pause.wait(0.2)
    except KeyboardInterrupt:
        logger.warning("interrupted, shutting down")
        if is_new:
            shutdown()


def delete(name: str, _blocking: bool = True) -> None:
    """Delete an application and wait until nothing is left of it; an unknown name is accepted.

    Raises:
        TimeoutError: Its replicas were still finishing after 60 s; the deletion goes on.
    """
    from trygon.serve.testing_mode import delete_local

    if delete_local(name):
        return
    session = connect()
    if session is not None:
        session.instance.delete(name, wait=_blocking)


# ---- handles and contexts


def get_app_handle(name: str) -> DeploymentHandle:
    """Return a handle of an application's ingress deployment.

    Raises:
        ServeError: There is no such application.
    """
    runtime = _runtime()
    route = runtime.router.application(name)
    if route is not None:
        return DeploymentHandle(route.ingress, name, runtime=runtime)
    raise ServeError(_unknown_application(name, runtime))


def get_deployment_handle(
    deployment_name: str,
    app_name: str | None = None,
    _check_exists: bool = True,
    _record_telemetry: bool = True,
) -> DeploymentHandle:
    """Return a handle of a deployment.

    Args:
        deployment_name: The deployment.
        app_name: Its application; inside a replica the replica's own when not given.

    Raises:
        ServeError: No application was given outside of a replica, or there is no such deployment.
    """
    runtime = _runtime()
    if app_name is None:
        context = current_replica_context()
        if context is None:
            raise ServeError(
                f"which application does {deployment_name!r} belong to? Outside of a replica write "
                f"serve.get_deployment_handle({deployment_name!r}, app_name=...)"
            )
        app_name = context.app_name
    elif _check_exists and current_replica_context() is None:
        runtime.router.pool(app_name, deployment_name)
    return DeploymentHandle(deployment_name, app_name, runtime=runtime)


def _runtime() -> Runtime:
    try:
        return current_runtime()
    except InstanceError:
        session = connect()
        if session is None:
            raise ServeError("no instance is running: call serve.run(app) first") from None
        return session.runtime


def _unknown_application(name: str, runtime: Runtime) -> str:
    known = ", ".join(repr(app.app_name) for app in runtime.router.table.applications)
    return f"there is no application {name!r}; running are: {known or 'none'}"


def get_replica_context() -> ReplicaContext:
    """Return what is known of the replica that the calling code runs in.

    Raises:
        ServeError: Called outside of a replica.
    """
    context = current_replica_context()
    if context is None:
        raise ServeError("serve.get_replica_context() works inside of a deployment only")
    return context


def http_address() -> str:
    """Return the URL that this process's instance serves HTTP at, without a trailing slash.

    Raises:
        ServeError: No instance runs, or it serves no HTTP.
    """
    session = current_session() or connect()
    if session is None or not session.instance.record.port:
        raise ServeError("no instance that serves HTTP is running: call serve.run(app) first")
    record = session.instance.record
    host = "127.0.0.1" if record.host in {"0.0.0.0", ""} else record.host
    return f"{record.scheme}://{f'[{host}]' if ':' in host else host}:{record.port}"
