"""The supervisor process, put together; exec'ed by the launcher, never forked from a user's process.

``python -P -m trygon.processes.supervisor CONFIG_FD STATUS_FD LIFELINE_FD``

Tells the launcher over STATUS_FD how it went: one LaunchReport in JSON. The sockets exist by then, so
callers may connect while the rest is still being imported; what they send waits in the kernel.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec

import trygon
from trygon.client.admin_token import ensure_token
from trygon.client.rundir import RunDir, check_socket_path, make_private_dir
from trygon.client.startup import save_startup
from trygon.client.statelock import lock_state
from trygon.clock import RealClock
from trygon.config import read_settings
from trygon.engine.child import apply_code, apply_helper_code
from trygon.engine.guardian import split
from trygon.engine.platform import Platform
from trygon.engine.sockets import bind_admin, bind_control, bind_http
from trygon.engine.supervisor import Programs, Supervisor
from trygon.errors import InstanceError, TrygonError
from trygon.observability.log_file import Rotation, use_rotation
from trygon.processes.image import COMMON_MODULES, REPLICA_MODULES, freeze, import_all, load_function
from trygon.processes.tls import admin_has_tls, admin_tls_options, check_tls, has_tls
from trygon.spec.instance import InstanceConfig, InstanceRecord, LaunchReport
from trygon.spec.launch import AdminLaunch, HelperLaunch, IngressLaunch, ReplicaLaunch
from trygon.spec.packages import PackageEnvironment

__all__ = ["main"]

logger = logging.getLogger("trygon.supervisor")


def main(arguments: list[str]) -> None:
    """Run an instance until it ends; the process exits with 0 when that was orderly."""
    # Nothing is thrown away while starting, so looking for garbage is time lost.
    gc.disable()
    config_fd, status_fd, lifeline_fd = (int(argument) for argument in arguments)
    with open(config_fd, "rb") as file:
        config = msgspec.json.decode(file.read(), type=InstanceConfig)
    platform = Platform(portable=config.portable)
    _log_to_stderr()
    report = _Report(status_fd)
    try:
        settings = read_settings()
        check_tls(config.http_options)
        _check_admin(config)
        run_dir = _prepare_directories(config)
        watched = () if lifeline_fd < 0 else (lifeline_fd,)
        guardian_fd = split(platform, (status_fd, *watched), run_dir.remove)
        platform.name_process("trygon-supervisor")
        http_sockets = bind_http(config.host, config.port, config.num_ingress)
        control_socket = bind_control(os.path.join(config.runtime_dir, "controller.sock"))
        admin_socket = _open_admin(config)
        record = _record(config, http_sockets, admin_socket)
        if not config.attached:
            save_startup(config)
    except TrygonError as error:
        report.fail(str(error))
        sys.exit(1)
    except OSError as error:
        report.fail(f"the instance could not be started: {error}")
        sys.exit(1)
    use_rotation(Rotation(settings.rotation_max_bytes, settings.rotation_backup_count))
    supervisor = Supervisor(
        config,
        _programs(config, record),
        platform,
        RealClock(),
        environ=os.environ,
        http_sockets=http_sockets,
        control_socket=control_socket,
        admin_socket=admin_socket,
        watched_fds=(guardian_fd, *watched),
    )
    supervisor.prepare()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    _start(config, supervisor, run_dir, record, report)
    supervisor.run()
    if os.getppid() != record.pid:
        # The guardian, whose work this is, was killed.
        run_dir.remove()


def _start(
    config: InstanceConfig, supervisor: Supervisor, run_dir: RunDir, record: InstanceRecord, report: _Report
) -> None:
    """Fork each kind of process as soon as what all share is imported; the rest is imported side by side."""
    import_all(COMMON_MODULES)
    freeze()
    supervisor.start_controller()
    run_dir.write_record(record)
    report.succeed(record)
    for slot in range(config.num_ingress):
        supervisor.start_ingress(slot)
    supervisor.start_admin()
    import_all((*REPLICA_MODULES, config.replica_main.partition(":")[0]))
    freeze()
    gc.enable()


def _prepare_directories(config: InstanceConfig) -> RunDir:
    runtime_dir, state_dir = Path(config.runtime_dir), Path(config.state_dir)
    check_socket_path(runtime_dir)
    make_private_dir(state_dir)
    make_private_dir(state_dir / "logs")
    run_dir = RunDir.acquire(runtime_dir)
    if run_dir is None:
        raise TrygonError(
            f"an instance called {config.name!r} is running already; join it, shut it down, or choose another name"
        )
    run_dir.clear()
    try:
        # Never closed: the lock goes with this process and its guardian.
        lock_state(state_dir, owner=f"the instance {config.name!r} with the sockets in {config.runtime_dir}")
        _check_store(config)
    except BaseException:
        run_dir.remove()
        raise
    return run_dir


def _check_store(config: InstanceConfig) -> None:
    """An attached instance starts empty; a detached one must be able to read what it restores."""
    from trygon.processes.controller import make_store

    store = make_store(config)
    if config.attached:
        store.clear()
    else:
        store.load()


def _check_admin(config: InstanceConfig) -> None:
    """An admin port that could be misused is no reason to start without it: somebody counts on it."""
    if config.admin is not None:
        problem = config.admin.problem(has_tls=admin_has_tls(config.admin, config.http_options))
        if problem:
            raise InstanceError(problem)
        check_tls(admin_tls_options(config.admin, config.http_options))


def _open_admin(config: InstanceConfig) -> socket.socket | None:
    if config.admin is None:
        return None
    ensure_token(Path(config.state_dir))
    return bind_admin(config.admin.host, config.admin.port)


def _admin_url(config: InstanceConfig, admin_socket: socket.socket | None) -> str:
    if config.admin is None or admin_socket is None:
        return ""
    host, port = config.admin.host, admin_socket.getsockname()[1]
    scheme = "https" if admin_has_tls(config.admin, config.http_options) else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _record(
    config: InstanceConfig, http_sockets: list[socket.socket], admin_socket: socket.socket | None
) -> InstanceRecord:
    return InstanceRecord(
        name=config.name,
        pid=os.getppid(),
        supervisor_pid=os.getpid(),
        host=config.host,
        port=http_sockets[0].getsockname()[1] if http_sockets else 0,
        controller_address=os.path.join(config.runtime_dir, "controller.sock"),
        runtime_dir=config.runtime_dir,
        state_dir=config.state_dir,
        log_dir=os.path.join(config.state_dir, "logs"),
        attached=config.attached,
        started_wall_s=RealClock().wall(),
        scheme="https" if has_tls(config.http_options) else "http",
        admin_url=_admin_url(config, admin_socket),
        version=trygon.__version__,
    )


def _programs(config: InstanceConfig, record: InstanceRecord) -> Programs:
    def run_controller(listen_fd: int, link_fd: int) -> None:
        from trygon.processes import controller

        controller.main(config, record, listen_fd, link_fd)

    def run_ingress(launch: IngressLaunch) -> None:
        load_function(config.ingress_main)(launch)

    def run_admin(launch: AdminLaunch) -> None:
        load_function(config.admin_main)(launch)

    def run_replica(launch: ReplicaLaunch) -> None:
        apply_code(launch, os.environ)
        load_function(config.replica_main)(launch)

    def enter_environment(environment: PackageEnvironment) -> str | None:
        from trygon.client.environments import EnvironmentCache

        return EnvironmentCache.of_user().enter(environment)

    def run_helper(launch: HelperLaunch) -> None:
        from trygon.processes import helper

        apply_helper_code(launch, os.environ)
        helper.main(launch)

    return Programs(
        controller=run_controller,
        ingress=run_ingress,
        admin=run_admin,
        replica=run_replica,
        helper=run_helper,
        replica_command=(sys.executable, "-P", "-m", "trygon.processes.replica_exec", config.replica_main),
        enter_environment=enter_environment,
    )


class _Report:
    """The one answer to the launcher."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def succeed(self, record: InstanceRecord) -> None:
        """Say that callers may come."""
        self._send(LaunchReport(record=record))

    def fail(self, error: str) -> None:
        """Say why not."""
        self._send(LaunchReport(error=error))

    def _send(self, report: LaunchReport) -> None:
        # The launcher may be gone already; the lifeline tells that.
        with contextlib.suppress(OSError), open(self._fd, "wb") as file:
            file.write(msgspec.json.encode(report))


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(asctime)s %(name)s -- %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


if __name__ == "__main__":
    main(sys.argv[1:])
