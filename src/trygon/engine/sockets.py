"""Listening sockets that outlive the processes that accept on them."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from trygon.errors import InstanceError
from trygon.spec.admin import DEFAULT_ADMIN_PORT

__all__ = ["bind_admin", "bind_control", "bind_http"]

#: Connections that wait while an ingress is being replaced; the kernel may lower it (somaxconn).
_BACKLOG = 4096


def bind_http(host: str, port: int, count: int) -> list[socket.socket]:
    """Return `count` listening TCP sockets on one port, which share its connections.

    Raises:
        InstanceError: The port is taken, forbidden, or the host is not of this machine.
    """
    if count == 0:
        return []
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise InstanceError(
            f"host {host!r} is not known ({error.strerror}); use an address of this machine"
        ) from None
    try:
        # Alone first: with SO_REUSEPORT the kernel would let two instances share a port unnoticed.
        first = _bind(family, address, shared=False)
        if count == 1:
            return [_listen(first)]
        address = first.getsockname()
        first.close()
        return [_listen(_bind(family, address, shared=True)) for _ in range(count)]
    except OSError as error:
        raise InstanceError(_explain(host, port, error)) from None


def bind_admin(host: str, port: int | None) -> socket.socket:
    """Return the admin port's listening socket; a port that nobody asked for gives way to a free one.

    Raises:
        InstanceError: The port is taken, forbidden, or the host is not of this machine.
    """
    try:
        return bind_http(host, DEFAULT_ADMIN_PORT if port is None else port, 1)[0]
    except InstanceError as error:
        if port is not None:
            raise InstanceError(f"the admin port cannot be opened: {error}") from None
    # Several instances stand side by side, and only one can have the default.
    return bind_http(host, 0, 1)[0]


def bind_control(path: str) -> socket.socket:
    """Return the controller's listening Unix socket, for the owner only."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _bind(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and address[0] == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _listen(listener: socket.socket) -> socket.socket:
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _explain(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        owner = _owner(port)
        by = f" by {owner}" if owner else ""
        return f"port {port} on {host} is in use{by}; stop that program, or choose another port (0 takes a free one)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} on {host} may not be used by this user; choose a port above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host!r} is not an address of this machine; use '127.0.0.1' or '0.0.0.0'"
    return f"port {port} on {host} cannot be used: {error.strerror or error}"


def _owner(port: int) -> str:
    """Name the process that listens on a port, as far as /proc tells; empty when it does not."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            # Field 1 is the local address, 3 the state (0A listens), 9 the inode.
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return ""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and _holds(entry.path, inodes):
            return f"process {entry.name} ({_command(entry.path)})"
    return "a process of another user"


def _holds(process: str, inodes: set[str]) -> bool:
    try:
        fds = os.listdir(f"{process}/fd")
    except OSError:
        return False
    for fd in fds:
        try:
            if os.readlink(f"{process}/fd/{fd}") in inodes:
                return True
        except OSError:
            continue
    return False


def _command(process: str) -> str:
    try:
        return (
            Path(f"{process}/cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode(errors="replace")
            .strip()[:120]
        )
    except OSError:
        return "unknown"
