"""A supervisor for the contract of the local engine: its "controller" carries bytes to and from the test.

``python -m tests.contract.engine_host FOLDER PORTABLE``; ends at EOF of stdin.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import threading
from pathlib import Path

from trygon.clock import RealClock
from trygon.engine.child import apply_code
from trygon.engine.platform import Platform
from trygon.engine.sockets import bind_control
from trygon.engine.supervisor import Programs, Supervisor
from trygon.spec.instance import InstanceConfig
from trygon.spec.launch import ReplicaLaunch


def main(folder: str, portable: str) -> None:
    config = InstanceConfig(name="contract", runtime_dir=folder, state_dir=folder, num_ingress=0)
    os.mkdir(f"{folder}/logs")
    supervisor = Supervisor(
        config,
        Programs(
            controller=carry,
            admin=lambda launch: None,
            ingress=lambda _: None,
            replica=run_replica,
            enter_environment=lambda _: None,
            helper=lambda _: None,
            replica_command=(
                sys.executable,
                "-P",
                "-m",
                "trygon.processes.replica_exec",
                "tests.contract.engine_host:run_script",
            ),
        ),
        Platform(portable=portable == "True"),
        RealClock(),
        environ=os.environ,
        http_sockets=[],
        control_socket=bind_control(f"{folder}/controller.sock"),
        watched_fds=(0,),
    )
    supervisor.prepare()
    supervisor.start_controller()
    print("up", flush=True)
    supervisor.run()


def carry(listen_fd: int, link_fd: int) -> None:
    """Be a controller that says what the test says."""
    listener, link = socket.socket(fileno=listen_fd), socket.socket(fileno=link_fd)
    listener.setblocking(True)
    test, _ = listener.accept()
    with selectors.DefaultSelector() as selector:
        selector.register(test, selectors.EVENT_READ, link)
        selector.register(link, selectors.EVENT_READ, test)
        while True:
            for key, _ in selector.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                data = source.recv(65536)
                if not data:
                    return
                key.data.sendall(data)


def run_replica(launch: ReplicaLaunch) -> None:
    apply_code(launch, os.environ)
    run_script(launch)


def run_script(launch: ReplicaLaunch) -> None:
    """Do what the definition says, in a process."""
    script = launch.definition.decode()
    if script == "raise":
        raise ValueError("the replica is broken")
    if script == "return":
        return
    if script.startswith("facts "):
        names = ("FLAVOUR", "PYTHONHASHSEED", "CUDA_VISIBLE_DEVICES", "TRYGON_REPLICA_ID")
        facts = {name: os.environ.get(name) for name in names} | {"cwd": os.getcwd(), "argv": sys.orig_argv}
        path = Path(script[6:])
        path.with_suffix(".new").write_text(json.dumps(facts))
        path.with_suffix(".new").rename(path)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if script == "stubborn" else lambda *_: stop.set())
    Path(launch.address).touch()
    while not stop.is_set():
        signal.pause()


def run_thread(launch: ReplicaLaunch, stop: threading.Event) -> None:
    """Do what the definition says, in a thread."""
    script = launch.definition.decode()
    if script == "raise":
        raise ValueError("the replica is broken")
    if script == "return":
        return
    Path(launch.address).touch()
    stop.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
