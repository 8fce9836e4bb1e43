"""The supervisor: starts, reaps and restarts processes, and holds the sockets that outlive them.

Single-threaded, without user code and without an event loop, so that forking is safe at any time.
It decides nothing about applications; the controller does, and may die.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from trygon.clock import Clock
from trygon.engine.base import ReplicaExited, ReplicaStarted, RunningReplica, ShutdownBegun
from trygon.engine.child import ChildPlan, run_child
from trygon.engine.controller_link import ControllerLink
from trygon.engine.environment import changes_for, needs_exec
from trygon.engine.family import describe_exit, end_family, end_group, end_strays, send_signal
from trygon.engine.memory import OomCounter, find_counter, tell_exit
from trygon.engine.messages import (
    BeginShutdown,
    EndInstance,
    ListReplicas,
    MarkReplica,
    ReplicaList,
    StartHelper,
    StartReplica,
    StopHelper,
    StopReplica,
    ToSupervisor,
)
from trygon.engine.platform import Platform
from trygon.engine.sockets import bind_control
from trygon.engine.vitals import read_vitals
from trygon.spec.admin import TOKEN_FILE
from trygon.spec.instance import InstanceConfig
from trygon.spec.launch import AdminLaunch, HelperLaunch, IngressLaunch, ReplicaLaunch
from trygon.spec.packages import PackageEnvironment

__all__ = ["Programs", "Supervisor"]

#: Ctrl-C and the death of the process that an instance is attached to: gone within a second.
QUICK_GRACE_S = 0.5
#: After this an orderly end becomes a forced one even if every deployment's own timeout were longer.
_LONGEST_SHUTDOWN_S = 120.0
#: Time between SIGTERM and SIGKILL for processes that have nothing left to do.
_LAST_WORDS_S = 0.3
#: A process that lived longer than this had begun its work, and is restarted at once: who kills one every few
#: seconds must not make the pauses grow. One that cannot start at all dies within a moment.
_STABLE_S = 1.5
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0
#: Between two looks at what no signal tells: kills for memory, and processes that are stopped.
_LOOK_S = 1.0
#: A controller or an ingress that is stopped for longer is killed, and so started again.
_STOPPED_AFTER_S = 5.0
#: Unit of rusage.ru_maxrss.
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024

logger = logging.getLogger("trygon.supervisor")


class Programs(msgspec.Struct, frozen=True, kw_only=True):
    """What the children run; handed in, so that this module knows none of it."""

    #: Gets the descriptors of its listening socket and of its link to the supervisor.
    controller: Callable[[int, int], None]
    ingress: Callable[[IngressLaunch], None]
    admin: Callable[[AdminLaunch], None]
    replica: Callable[[ReplicaLaunch], None]
    helper: Callable[[HelperLaunch], None]
    #: Command line that runs one replica from a fresh interpreter; the descriptor of the launch is appended.
    replica_command: tuple[str, ...]
    #: Holds a package environment and returns its interpreter; None when it has to be built first.
    enter_environment: Callable[[PackageEnvironment], str | None]


class _Child:
    """One process of ours: what it is, and since when."""

    def __init__(self, kind: str, key: str, started_at: float, launch: ReplicaLaunch | None = None) -> None:
        self.kind = kind
        #: Replica id, ingress slot, or "".
        self.key = key
        self.started_at = started_at
        self.launch = launch
        self.mark = ""
        #: True once it was told to end at once; then its SIGKILL is ours.
        self.is_forced = False
        #: Since when it was seen stopped, look after look; None while it is not.
        self.stopped_since: float | None = None


class Supervisor:
    """The family of processes of one instance.

    Args:
        config: The instance.
        programs: What children run.
        platform: The kernel's services.
        clock: Tells the time.
        environ: This process's environment; replicas get it with their own changes.
        http_sockets: One bound, listening socket for each ingress slot.
        control_socket: The controller's listening Unix socket.
        admin_socket: The admin port's bound, listening socket; None without one.
        watched_fds: Pipes whose EOF ends the instance: the launcher's lifeline, the guardian's.
    """

    def __init__(  # noqa: PLR0913 - a composition of parts that only the root knows
        self,
        config: InstanceConfig,
        programs: Programs,
        platform: Platform,
        clock: Clock,
        *,
        environ: MutableMapping[str, str],
        http_sockets: list[socket.socket],
        control_socket: socket.socket,
        admin_socket: socket.socket | None = None,
        watched_fds: tuple[int, ...],
    ) -> None:
        self._config = config
        self._programs = programs
        self._platform = platform
        self._clock = clock
        self._environ = environ
        self._log_dir = os.path.join(config.state_dir, "logs")
        self._http_sockets = http_sockets
        self._control_socket = control_socket
        self._admin_socket = admin_socket
        #: What is open to others than this instance's own processes; closed when the instance begins to end.
        self._doors = [*http_sockets, *([admin_socket] if admin_socket is not None else [])]
        self._watched_fds = watched_fds
        self._pid = os.getpid()
        self._lifeline_read, self._lifeline_write = os.pipe()

        self._selector = selectors.DefaultSelector()
        self._signal_read, self._signal_write = socket.socketpair()
        #: Every child that has not been reaped, by pid.
        self._children: dict[int, _Child] = {}
        #: pid of each replica in `_children`.
        self._replica_pids: dict[str, int] = {}
        #: The user-code helpers that are needed, by key, and the sockets they are asked on.
        self._helpers: dict[str, tuple[HelperLaunch, socket.socket]] = {}
        #: (when, what), unordered: there are never more than a handful.
        self._timers: list[tuple[float, Callable[[], None]]] = []
        #: Deaths in a row of each (kind, key) that lived shorter than `_STABLE_S`.
        self._quick_deaths: dict[tuple[str, str], int] = {}

        self._link = ControllerLink(
            self._selector, self._obey, lambda: self._signal_kind("controller", signal.SIGKILL)
        )

        self._oom = OomCounter(find_counter(_own_cgroup()))
        self._shutdown: ShutdownBegun | None = None
        self._ending = False

    # ---- life

    def prepare(self) -> None:
        """Take over signals and orphans; before the first child."""
        self._platform.become_subreaper()
        for end in (self._signal_read, self._signal_write):
            end.setblocking(False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _wake)
        signal.set_wakeup_fd(self._signal_write.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._signal_read, selectors.EVENT_READ, self._take_signals)
        for fd in self._watched_fds:
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ, lambda fd=fd: self._take_eof(fd))
        self._look()

    def start_controller(self) -> None:
        """Fork a controller with a fresh link to it."""
        theirs = self._link.open()
        listen_fd, link_fd = self._control_socket.fileno(), theirs.fileno()
        try:
            self._fork(
                _Child("controller", "", self._clock.monotonic()),
                log_path=os.path.join(self._log_dir, "controller.log"),
                keep_fds=(listen_fd, link_fd),
                main=lambda: self._programs.controller(listen_fd, link_fd),
            )
        except OSError as error:
            logger.error("the controller could not be forked: %s", error)
            self._link.close()
            self._later(_LONGEST_PAUSE_S, self.start_controller)
            return
        finally:
            theirs.close()
        if self._shutdown is not None:
            self._link.send(self._shutdown)

    def start_ingress(self, slot: int) -> None:
        """Fork the ingress of a slot, on the slot's socket."""
        if self._shutdown is not None:
            return
        listener = self._http_sockets[slot]
        launch = IngressLaunch(
            slot=slot,
            listen_fd=listener.fileno(),
            controller_address=os.path.join(self._config.runtime_dir, "controller.sock"),
            host=self._config.host,
            port=listener.getsockname()[1],
            http_options=self._config.http_options,
            log_dir=self._log_dir,
            runtime_dir=self._config.runtime_dir,
        )
        try:
            self._fork(
                _Child("ingress", str(slot), self._clock.monotonic()),
                log_path=os.path.join(self._log_dir, f"ingress_{slot}.log"),
                keep_fds=(launch.listen_fd,),
                main=lambda: self._programs.ingress(launch),
            )
        except OSError as error:
            logger.error("ingress %d could not be forked: %s", slot, error)
            self._later(_LONGEST_PAUSE_S, lambda: self.start_ingress(slot))

    def start_admin(self) -> None:
        """Fork the admin process, on the socket that is held for it; does nothing without one."""
        if self._shutdown is not None or self._admin_socket is None or self._config.admin is None:
            return
        launch = AdminLaunch(
            listen_fd=self._admin_socket.fileno(),
            controller_address=os.path.join(self._config.runtime_dir, "controller.sock"),
            options=self._config.admin,
            token_path=os.path.join(self._config.state_dir, TOKEN_FILE),
            http_options=self._config.http_options,
        )
        try:
            self._fork(
                _Child("admin", "", self._clock.monotonic()),
                log_path=os.path.join(self._log_dir, "admin.log"),
                keep_fds=(launch.listen_fd,),
                main=lambda: self._programs.admin(launch),
            )
        except OSError as error:
            logger.error("the admin process could not be forked: %s", error)
            self._later(_LONGEST_PAUSE_S, self.start_admin)

    def _start_helper(self, launch: HelperLaunch) -> None:
        if self._shutdown is None and launch.key not in self._helpers:
            with contextlib.suppress(OSError):
                os.unlink(launch.address)
            self._helpers[launch.key] = launch, bind_control(launch.address)
            self._fork_helper(launch.key)

    def _fork_helper(self, key: str) -> None:
        if key not in self._helpers or self._shutdown is not None:
            return
        launch, listener = self._helpers[key]
        launch = msgspec.structs.replace(launch, listen_fd=listener.fileno())
        try:
            self._fork(
                _Child("helper", key, self._clock.monotonic()),
                log_path=launch.log_path,
                keep_fds=(launch.listen_fd,),
                main=lambda: self._programs.helper(launch),
            )
        except OSError as error:
            logger.error("helper %s could not be forked: %s", key, error)
            self._later(_LONGEST_PAUSE_S, lambda: self._fork_helper(key))

    def _stop_helper(self, key: str, *, forget: bool) -> None:
        if forget and key in self._helpers:
            launch, listener = self._helpers.pop(key)
            listener.close()
            with contextlib.suppress(OSError):
                os.unlink(launch.address)
        for pid, child in self._children.items():
            if (child.kind, child.key) == ("helper", key):
                end_group(pid)
                send_signal(pid, signal.SIGKILL)

    def run(self) -> None:
        """Serve until the instance has ended and no child is left."""
        while not (self._ending and not self._children):
            try:
                for key, _ in self._selector.select(self._run_timers()):
                    key.data()
            except Exception:
                # This process holds the sockets and its death ends the instance: nothing that goes wrong
                # with one event may do that.
                logger.exception("an event could not be handled")
        end_strays(self._platform)

    # ---- children

    def _fork(
        self,
        child: _Child,
        *,
        log_path: str,
        keep_fds: tuple[int, ...],
        main: Callable[[], None],
    ) -> int:
        plan = ChildPlan(
            name=f"trygon-{child.kind}",
            log_path=log_path,
            keep_fds=keep_fds,
            parent_pid=self._pid,
            lifeline_fd=self._lifeline_read,
            dies_first=child.kind == "replica",
        )
        # A signal between the fork and the child's own handlers would be written to our wake-up socket.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                self._become_child(plan, main)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._children[pid] = child
        return pid

    def _become_child(self, plan: ChildPlan, main: Callable[[], None]) -> NoReturn:
        # The descriptors are closed by number; objects that still know a number would close it
        # a second time, when something else has it.
        helpers = [listener for _, listener in self._helpers.values()]
        for owner in (*self._doors, *helpers, self._control_socket, self._signal_read, self._signal_write):
            owner.detach()
        self._link.detach()
        with contextlib.suppress(OSError):
            self._selector.close()
        run_child(plan, self._platform, main)

    def _start_replica(self, launch: ReplicaLaunch) -> None:
        if self._ending:
            return
        child = _Child("replica", launch.replica_id, self._clock.monotonic(), launch)
        fresh = launch.packages is not None or needs_exec(changes_for(launch, self._environ), self._environ)
        try:
            pid = self._fork(
                child,
                log_path=launch.log_path,
                keep_fds=(),
                main=(lambda: self._exec_replica(launch))
                if fresh
                else (lambda: self._programs.replica(launch)),
            )
        except OSError as error:
            self._link.send(
                ReplicaExited(
                    replica_id=launch.replica_id, reason=f"the process could not be started: {error}"
                )
            )
            return
        # What a restarted controller needs is the identity; a model in the definition need not stay here.
        child.launch = msgspec.structs.replace(launch, definition=b"")
        self._replica_pids[launch.replica_id] = pid
        self._link.send(ReplicaStarted(launch.replica_id, pid, launch.gpu_ids))

    def _exec_replica(self, launch: ReplicaLaunch) -> None:
        """Become a fresh interpreter, in the child; the launch travels in an unlinked file."""
        environ = {**self._environ, **changes_for(launch, self._environ)}
        path = f"{launch.address}.launch"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(path)
        with open(fd, "wb", closefd=False) as file:
            file.write(msgspec.msgpack.encode(launch))
        os.lseek(fd, 0, os.SEEK_SET)
        os.set_inheritable(fd, True)
        # Linux's parent-death signal outlives the exec; the twin's thread is started again.
        lifeline_fd = -1 if self._platform.linux else self._lifeline_read
        if lifeline_fd >= 0:
            os.set_inheritable(lifeline_fd, True)
        command = [*self._programs.replica_command, str(fd), str(lifeline_fd)]
        if launch.packages is not None:
            # One that is not there is built by the program itself, never by the supervisor.
            command[0] = self._programs.enter_environment(launch.packages) or command[0]
        os.execve(command[0], command, environ)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            # An unknown pid is an orphan that the kernel gave us; reaping it was all there is to do.
            if child is not None:
                self._exited(pid, child, status, usage.ru_maxrss * _MAXRSS_BYTES)

    def _exited(self, pid: int, child: _Child, status: int, peak_bytes: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        if child.kind != "replica":
            end_group(pid)
            if self._shutdown is None:
                logger.warning("%s ended: %s", f"{child.kind} {child.key}".strip(), describe_exit(code))
            self._restart(child)
            return
        if self._ending:
            # Whatever is left is ended together at the end.
            end_group(pid)
        else:
            end_family(self._platform, pid, child.key, self._children)
        del self._replica_pids[child.key]
        assert child.launch is not None
        with contextlib.suppress(OSError):
            os.unlink(child.launch.address)
        oom: bool | None = False
        if code == -signal.SIGKILL and not child.is_forced:
            oom = self._oom.claim(self._clock.monotonic()) if self._oom.is_known else None
        self._link.send(
            tell_exit(child.key, pid, code, peak_bytes=peak_bytes, oom=oom, reason=describe_exit(code))
        )

    def _look(self) -> None:
        """Look at what no signal tells, and again in a while."""
        now = self._clock.monotonic()
        self._oom.look(now)
        for pid, child in self._children.items():
            # Replicas are the controller's business.
            if child.kind == "replica" or not self._is_stopped(pid):
                child.stopped_since = None
            elif child.stopped_since is None:
                child.stopped_since = now
            elif now - child.stopped_since >= _STOPPED_AFTER_S - _LOOK_S:
                logger.warning(
                    "%s has been stopped for %d s and is replaced",
                    f"{child.kind} {child.key}".strip(),
                    _STOPPED_AFTER_S,
                )
                child.stopped_since = None
                send_signal(pid, signal.SIGKILL)
        self._later(_LOOK_S, self._look)

    def _is_stopped(self, pid: int) -> bool:
        vitals = read_vitals(pid)
        return vitals is not None and vitals.stopped

    def _restart(self, child: _Child) -> None:
        if child.kind == "controller":
            self._link.close()
            # The next one asks for those that it needs.
            for key in list(self._helpers):
                self._stop_helper(key, forget=True)
            if self._shutdown is not None:
                # Nobody is left to drain what runs.
                self.end()
                return
            start: Callable[[], None] = self.start_controller
        elif self._shutdown is not None:
            return
        elif child.kind == "admin":
            start = self.start_admin
        elif child.kind == "helper":
            if child.key not in self._helpers:
                return
            start = lambda: self._fork_helper(child.key)  # noqa: E731 - as below
        else:
            start = lambda: self.start_ingress(int(child.key))  # noqa: E731 - one word for both kinds
        name = (child.kind, child.key)
        if self._clock.monotonic() - child.started_at > _STABLE_S:
            self._quick_deaths.pop(name, None)
        deaths = self._quick_deaths.get(name, 0)
        self._quick_deaths[name] = deaths + 1
        self._later(min(_FIRST_PAUSE_S * 2 ** (deaths - 1), _LONGEST_PAUSE_S) if deaths else 0.0, start)

    # ---- the controller's wishes

    def _obey(self, message: ToSupervisor) -> None:
        match message:
            case StartReplica():
                self._start_replica(message.launch)
            case StopReplica():
                self._stop_replica(message.replica_id, force=message.force)
            case MarkReplica():
                pid = self._replica_pids.get(message.replica_id)
                if pid is not None:
                    self._children[pid].mark = message.mark
            case StartHelper():
                self._start_helper(message.launch)
            case StopHelper():
                self._stop_helper(message.key, forget=message.forget)
            case ListReplicas():
                self._link.send(ReplicaList(tuple(self._running())))
            case BeginShutdown():
                self.begin_shutdown(message.grace_s)
            case EndInstance():
                self.end()

    def _stop_replica(self, replica_id: str, *, force: bool) -> None:
        pid = self._replica_pids.get(replica_id)
        if pid is None:
            return
        if force:
            self._children[pid].is_forced = True
            end_group(pid)
        # A replica that was forked a moment ago has no group of its own yet.
        send_signal(pid, signal.SIGKILL if force else signal.SIGTERM)

    def _running(self) -> list[RunningReplica]:
        return [
            RunningReplica(launch=child.launch, pid=pid, mark=child.mark)
            for pid, child in self._children.items()
            if child.launch is not None
        ]

    # ---- the end

    def begin_shutdown(self, grace_s: float | None) -> None:
        """Close the front door and let the controller drain; a second call forces the end."""
        if self._shutdown is not None:
            self.end()
            return
        logger.info("shutting down")
        self._shutdown = ShutdownBegun(grace_s)
        for door in self._doors:
            door.close()
        for kind in ("ingress", "admin", "helper"):
            self._signal_kind(kind, signal.SIGTERM)
        self._link.send(self._shutdown)
        if not any(child.kind == "controller" for child in self._children.values()):
            self.end()
            return
        self._later(_LONGEST_SHUTDOWN_S if grace_s is None else grace_s + _LAST_WORDS_S, self.end)

    def end(self) -> None:
        """End every child: replicas at once, the others after a moment for their last words."""
        if self._ending:
            self._signal_kind("", signal.SIGKILL)
            return
        self._ending = True
        self._shutdown = self._shutdown or ShutdownBegun(0.0)
        for door in self._doors:
            door.close()
        for pid in list(self._replica_pids.values()):
            end_group(pid)
            send_signal(pid, signal.SIGKILL)
        for kind in ("ingress", "admin", "helper"):
            self._signal_kind(kind, signal.SIGTERM)
        self._signal_kind("controller", signal.SIGTERM)
        self._later(_LAST_WORDS_S, lambda: self._signal_kind("", signal.SIGKILL))

    def _signal_kind(self, kind: str, number: signal.Signals) -> None:
        for pid, child in self._children.items():
            if kind in ("", child.kind):
                send_signal(pid, number)

    # ---- wake-ups

    def _take_signals(self) -> None:
        try:
            numbers = set(self._signal_read.recv(4096))
        except BlockingIOError:
            return
        if signal.SIGCHLD in numbers:
            self._reap()
        if signal.SIGTERM in numbers:
            self.begin_shutdown(None)
        if signal.SIGINT in numbers:
            self.begin_shutdown(QUICK_GRACE_S)

    def _take_eof(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            if os.read(fd, 4096):
                return
            self._selector.unregister(fd)
            if self._shutdown is None:
                self.begin_shutdown(QUICK_GRACE_S)

    def _later(self, delay_s: float, what: Callable[[], None]) -> None:
        self._timers.append((self._clock.monotonic() + delay_s, what))

    def _run_timers(self) -> float | None:
        """Run what is due; return the seconds until the next, or None."""
        while True:
            now = self._clock.monotonic()
            due = [timer for timer in self._timers if timer[0] <= now]
            if not due:
                break
            self._timers = [timer for timer in self._timers if timer[0] > now]
            for _, what in due:
                what()
        if not self._timers:
            return None
        return min(when for when, _ in self._timers) - now


def _own_cgroup() -> str:
    try:
        return Path("/proc/self/cgroup").read_text()
    except OSError:
        return ""


def _wake(*_: Any) -> None:
    """Do nothing: the wake-up descriptor has been written, which is what the loop waits for."""
