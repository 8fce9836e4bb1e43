"""Small programs that stand where a replica and an ingress will be: they speak the control link and nothing else.

What a replica does is written in its definition, a JSON object:
``fail`` (raise with this text), ``exit`` (end with this code before being ready), ``spawn`` (start a grandchild
of this kind), ``sleep`` (never become ready), ``stubborn`` (ignore every order to go), ``unhealthy`` (say so on SIGUSR1), ``touch`` (write a file of facts before being ready).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from trygon.client.link import ControlLink, Notice
from trygon.spec.control import (
    DrainReplica,
    Hello,
    ReplicaFailed,
    ReplicaReady,
    ReplicaUnhealthy,
    TableApplied,
)
from trygon.spec.launch import IngressLaunch, ReplicaLaunch
from trygon.spec.routing import RoutingTable


def replica_main(launch: ReplicaLaunch) -> None:
    asyncio.run(_replica(launch, json.loads(launch.definition or b"{}")))


def ingress_main(launch: IngressLaunch) -> None:
    asyncio.run(_ingress(launch))


async def _replica(launch: ReplicaLaunch, script: dict[str, object]) -> None:
    loop = asyncio.get_running_loop()
    leave = asyncio.Event()
    print(f"replica {launch.replica_id} is here")
    if "exit" in script:
        print("something went badly wrong", file=sys.stderr)
        os._exit(int(str(script["exit"])))
    loop.add_signal_handler(signal.SIGTERM, leave.set)

    def on_notice(notice: Notice) -> None:
        if isinstance(notice, DrainReplica):
            leave.set()

    link = ControlLink(
        launch.controller_address,
        Hello(role="replica", peer_id=launch.replica_id, pid=os.getpid()),
        on_notice=on_notice,
    )
    await link.open()
    if "spawn" in script:
        command = [sys.executable, "-c", "import signal; signal.pause()"]
        subprocess.Popen(command, start_new_session=script["spawn"] == "session")
    if "touch" in script:
        _write_facts(Path(str(script["touch"])), launch)
    if "fail" in script:
        link.send(ReplicaFailed(replica_id=launch.replica_id, error=str(script["fail"])))
        await link.close()
        sys.exit(1)
    if "sleep" in script:
        await leave.wait()
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), launch.address)
    os.chmod(launch.address, 0o600)
    link.announce(ReplicaReady(replica_id=launch.replica_id, pid=os.getpid()))
    if "unhealthy" in script:
        sick = ReplicaUnhealthy(replica_id=launch.replica_id, error=str(script["unhealthy"]))
        loop.add_signal_handler(signal.SIGUSR1, link.announce, sick)
    while True:
        await leave.wait()
        if not script.get("stubborn"):
            break
        leave.clear()
    server.close()
    await link.close()


def _write_facts(path: Path, launch: ReplicaLaunch) -> None:
    facts = {
        "cwd": os.getcwd(),
        "environ": dict(os.environ),
        "sys_path": sys.path,
        "argv": sys.orig_argv,
        "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
        "rank": launch.rank,
        "gpu_ids": launch.gpu_ids,
    }
    new = path.with_suffix(".new")
    new.write_text(json.dumps(facts))
    new.rename(path)


async def _ingress(launch: IngressLaunch) -> None:
    """Answer every connection with the newest table's version and the own pid, then close it."""
    import socket

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    link: ControlLink

    def on_table(table: RoutingTable) -> None:
        link.announce(TableApplied(version=table.version))

    def on_connection(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version = link.table.version if link.table else 0
        writer.write(f"{version} {os.getpid()}\n".encode())
        writer.close()

    link = ControlLink(
        launch.controller_address,
        Hello(role="ingress", peer_id=str(launch.slot), pid=os.getpid()),
        on_table=on_table,
    )
    await link.open()
    server = await asyncio.start_server(on_connection, sock=socket.socket(fileno=launch.listen_fd))
    await stop.wait()
    server.close()
    await link.close()
