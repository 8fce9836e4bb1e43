"""Builds applications in processes of their own: the command line never imports user code.

`Builder` forks a template once, before its program has threads. Each build is a fork of the template that
imports the user's module, makes the specification, sends it through a pipe and ends; so every build sees
the files as they are now, and nothing of the user's outlives it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

import msgspec

from trygon.errors import InstanceError, TrygonError
from trygon.spec.application import ApplicationSpec, CodeLocation
from trygon.spec.packages import PackageEnvironment

__all__ = ["Build", "BuildRequest", "BuildResult", "Builder", "run_build"]

_HEAD_BYTES = 4
_SITE_PACKAGES = f"{os.sep}site-packages{os.sep}"
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class BuildRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to build, and where its code is."""

    import_path: str
    #: For an application builder.
    args: dict[str, Any] = {}
    name: str = "default"
    route_prefix: str | None = "/"
    #: Put in front of ``sys.path``.
    sys_path: tuple[str, ...] = ()
    working_dir: str
    env_vars: dict[str, str] = {}
    #: Its environment must be there already.
    packages: PackageEnvironment | None = None
    #: The fields of a LoggingConfig as JSON values.
    logging: dict[str, Any] = {}


class BuildResult(msgspec.Struct, frozen=True, kw_only=True):
    """A specification, or why there is none."""

    spec: ApplicationSpec | None = None
    #: One paragraph for people; empty when all is well.
    error: str = ""
    #: The part of the traceback that is the user's, if user code failed.
    traceback: str = ""
    #: Files that the build imported from outside of the Python installation.
    files: tuple[str, ...] = ()
    #: The process ended without an answer.
    crashed: bool = False


class Build:
    """A build under way."""

    def __init__(self, pid: int, result_fd: int) -> None:
        self._pid = pid
        self._result_fd = result_fd

    def wait(self) -> BuildResult:
        """Return what came out; called once."""
        with open(self._result_fd, "rb") as pipe:
            # Not to the end: what the module started while it was imported may hold the pipe open.
            data = pipe.read(int.from_bytes(pipe.read(_HEAD_BYTES), "little"))
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # A build is over with its result, and so is what it started.
            os.killpg(self._pid, signal.SIGKILL)
        try:
            return msgspec.msgpack.decode(data, type=BuildResult)
        except msgspec.DecodeError:
            return BuildResult(
                crashed=True,
                error="the process that imports the application ended before it was done; "
                "perhaps it was killed, or the module ends its process with os._exit",
            )

    def cancel(self) -> None:
        """End it; `wait` then returns soon. Does nothing when it has ended."""
        try:
            os.killpg(self._pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


class Builder:
    """The template that builds are forked from. Make it before the first thread of the program."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        # What is buffered here would be written by each fork once more.
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            _be_template(theirs, parent)
        theirs.close()
        self._socket = ours

    def begin(self, request: BuildRequest) -> Build:
        """Start a build.

        Raises:
            InstanceError: The template is gone.
        """
        result_read, result_write = os.pipe()
        try:
            data = msgspec.msgpack.encode(request)
            socket.send_fds(self._socket, [len(data).to_bytes(_HEAD_BYTES, "little")], [result_write])
            self._socket.sendall(data)
            pid = int.from_bytes(_receive(self._socket, _HEAD_BYTES), "little")
        except OSError as error:
            os.close(result_read)
            raise InstanceError(f"the application cannot be built: {error.strerror}; start again") from None
        finally:
            os.close(result_write)
        if not pid:
            os.close(result_read)
            raise InstanceError("the process that builds applications is gone; start again")
        return Build(pid, result_read)

    def close(self) -> None:
        """End the template, and with it a build that is still under way."""
        if self._pid:
            self._socket.close()
            os.waitpid(self._pid, 0)
            self._pid = 0


def _receive(sock: socket.socket, count: int) -> bytes:
    """Return `count` bytes, or fewer when the other end closed."""
    data = bytearray()
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)


# ---- in the template


def _be_template(requests: socket.socket, parent: int) -> NoReturn:
    """Fork a build for each request until the other end closes; ends the process."""
    try:
        # The terminal's Ctrl-C reaches the whole group; the program decides what it means.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        # Nobody waits for builds: their pipes tell how they ended.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        from trygon.engine.platform import Platform

        platform = Platform()
        lifeline_read, lifeline_write = os.pipe()
        if platform.linux:
            platform.die_with_parent(parent, -1)
        _import_what_builds_need()
        while True:
            head, fds, _, _ = socket.recv_fds(requests, _HEAD_BYTES, 1)
            if not head:
                break
            data = _receive(requests, int.from_bytes(head, "little"))
            template = os.getpid()
            pid = os.fork()
            if pid == 0:
                requests.close()
                os.close(lifeline_write)
                platform.die_with_parent(template, lifeline_read)
                _be_build(msgspec.msgpack.decode(data, type=BuildRequest), fds[0])
            os.close(fds[0])
            with contextlib.suppress(OSError):
                # Here too: whoever cancels must not be faster than the build's own call.
                os.setpgid(pid, pid)
            requests.sendall(pid.to_bytes(_HEAD_BYTES, "little"))
    except BaseException:  # noqa: BLE001 - the boundary of a process
        traceback.print_exc()
    finally:
        os._exit(0)


def _import_what_builds_need() -> None:
    import trygon.dataplane.handle
    import trygon.graph.build
    import trygon.graph.targets
    import trygon.serve.session  # noqa: F401 - imported once for all builds


def _be_build(request: BuildRequest, result_fd: int) -> NoReturn:
    try:
        os.setpgid(0, 0)
        # A build that is interrupted says nothing: the program that asked for it does.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        # Two saves within a second look the same to the cache of byte code.
        sys.dont_write_bytecode = True
        if request.packages:
            _become_environment(request, request.packages, result_fd)
        run_build(request, result_fd)
    except BaseException:  # noqa: BLE001 - the boundary of a process
        traceback.print_exc()
    finally:
        os._exit(0)


def _become_environment(request: BuildRequest, packages: PackageEnvironment, result_fd: int) -> None:
    """Go on in the interpreter that has the application's packages; the request travels in an unnamed file."""
    import tempfile

    from trygon.client.environments import EnvironmentCache

    python = EnvironmentCache.of_user().enter(packages)
    if python is None:
        # It was there a moment ago: somebody removed it by hand.
        raise InstanceError("the environment of the application is not there any more; try again")
    with tempfile.TemporaryFile() as file:
        file.write(msgspec.msgpack.encode(request))
        file.seek(0)
        for fd in (file.fileno(), result_fd):
            os.set_inheritable(fd, True)
        arguments = ["-P", "-B", "-m", "trygon.processes.build_exec", str(file.fileno()), str(result_fd)]
        os.execv(python, [python, *arguments])


def run_build(request: BuildRequest, result_fd: int) -> NoReturn:
    """Build, write the result to a pipe, and end the process."""
    try:
        _show_warnings_plainly()
        result = _build(request)
        sys.stdout.flush()
        sys.stderr.flush()
        data = msgspec.msgpack.encode(result)
        with open(result_fd, "wb") as pipe:
            pipe.write(len(data).to_bytes(_HEAD_BYTES, "little") + data)
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        pass
    except BaseException:  # noqa: BLE001 - the boundary of a process
        traceback.print_exc()
    finally:
        # Threads and exit handlers of user code must not hold up the answer.
        os._exit(0)


def _build(request: BuildRequest) -> BuildResult:
    from trygon.client.completion import complete_deployments
    from trygon.dataplane.handle import DeploymentHandle
    from trygon.graph.build import build_application
    from trygon.graph.targets import load_application
    from trygon.serve.session import code_location

    spec, error, trace = None, "", ""
    try:
        os.environ.update(request.env_vars)
        os.chdir(request.working_dir)
        scripts = os.path.dirname(os.path.abspath(sys.argv[0]))
        kept = [path for path in sys.path if path and os.path.abspath(path) != scripts]
        sys.path[:] = [*dict.fromkeys((*request.sys_path, *kept))]
        app = load_application(request.import_path, request.args)
        spec = build_application(
            app,
            name=request.name,
            route_prefix=request.route_prefix,
            code=_code(request, code_location()),
            handle_factory=DeploymentHandle,
            logging_config=dict(request.logging) or None,
            import_path=request.import_path,
        )
        spec = complete_deployments(spec, request.working_dir)
    except BaseException as failure:  # noqa: BLE001 - user code raises anything, SystemExit too
        error, trace = _explain(failure, request.import_path)
    files = _files()
    if spec is not None:
        code = msgspec.structs.replace(spec.code, digest=_digest(files))
        spec = msgspec.structs.replace(spec, code=code)
    return BuildResult(spec=spec, error=error, traceback=trace, files=files)


def _code(request: BuildRequest, code: CodeLocation) -> CodeLocation:
    if not request.packages:
        return msgspec.structs.replace(code, env_vars=request.env_vars)
    # The environment brings its own folders; a deployment with other packages must not see these.
    own = sys.prefix + os.sep
    paths = tuple(path for path in code.sys_path if not path.startswith(own))
    return msgspec.structs.replace(code, sys_path=paths, env_vars=request.env_vars, packages=request.packages)


def _digest(files: tuple[str, ...]) -> str:
    """Return a digest of the contents of files, so that an edit of one can be told."""
    whole = hashlib.sha256()
    for path in files:
        whole.update(os.fsencode(path) + b"\0")
        with contextlib.suppress(OSError), open(path, "rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _explain(failure: BaseException, import_path: str) -> tuple[str, str]:
    """Return one paragraph, and the user's part of the traceback where user code is to blame."""
    cause = failure.__cause__ if isinstance(failure, TrygonError) else None
    if cause is not None:
        # That a package is missing is said in one sentence, with its place.
        return str(failure), "" if isinstance(cause, ModuleNotFoundError) else _user_traceback(cause)
    if isinstance(failure, TrygonError | TypeError | ValueError) and _raised_by_us(failure):
        return str(failure), ""
    text = f"{type(failure).__name__}: {failure}" if str(failure) else type(failure).__name__
    return f"building {import_path!r} raised {text}", _user_traceback(failure)


def _raised_by_us(failure: BaseException) -> bool:
    """Whether the exception was raised by our own check, not somewhere in the user's function."""
    return all(_is_plumbing(frame.filename) for frame in traceback.extract_tb(failure.__traceback__))


def _user_traceback(failure: BaseException) -> str:
    """Return a traceback without our frames and the import system's; empty when no user code was in it."""
    summary = traceback.TracebackException.from_exception(failure)
    if isinstance(failure, SyntaxError):
        return "".join(summary.format_exception_only()).rstrip()
    places = {frame.filename for frame in summary.stack}
    if all(_is_plumbing(place) or _SITE_PACKAGES in place for place in places):
        return ""
    chain: traceback.TracebackException | None = summary
    while chain is not None:
        frames = [frame for frame in chain.stack if not _is_plumbing(frame.filename)]
        chain.stack[:] = frames
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return "".join(summary.format()).rstrip()


def _is_plumbing(file_name: str) -> bool:
    return file_name.startswith((_OWN, "<frozen ")) or f"{os.sep}importlib{os.sep}" in file_name


def _files() -> tuple[str, ...]:
    """Return the files that were imported from elsewhere than the Python installation and packages."""
    from trygon.client.snapshot import own_files

    return tuple(sorted(set(own_files().values())))


def _show_warnings_plainly() -> None:
    """Show what our checks warn about as one line, without the source line below it."""
    import warnings

    ordinary = warnings.formatwarning

    def plain(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if category is UserWarning:
            return f"warning: {message} ({filename}, line {lineno})\n"
        return ordinary(message, category, filename, lineno, line)

    warnings.formatwarning = plain
