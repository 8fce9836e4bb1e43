"""Kill -9 of every kind of process: what survives, what is replaced, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.control.conftest import (
    ROOT,
    Start,
    alive,
    app,
    deployment,
    make_config,
    pids,
    processes,
    ready_replicas,
    run,
)
from tests.waiting import wait_until
from trygon.client.instance import Instance
from trygon.client.instances import choose, list_running, place
from trygon.client.launch import begin_launch
from trygon.errors import InstanceError
from trygon.spec.routing import RoutingTable
from trygon.spec.status import ApplicationStatus

both_platforms = pytest.mark.parametrize("portable", [False, True], ids=["linux", "twins"])


def kill(members: set[int]) -> None:
    for pid in members:
        os.kill(pid, signal.SIGKILL)


def answer(instance: Instance) -> str:
    with socket.create_connection((instance.record.host, instance.record.port), timeout=5) as client:
        return client.makefile().readline()


@both_platforms
def test_killed_replica_leaves_the_table_and_is_replaced(start: Start, portable: bool) -> None:
    instance = start(portable=portable)
    run(instance, app(deployment("Main", num_replicas=2)))
    before = ready_replicas(instance.link.table)
    tables: list[RoutingTable] = []
    instance.on_table.append(tables.append)
    victim = min(pids(instance, "replica"))
    began = time.monotonic()

    kill({victim})

    wait_until(lambda: len(ready_replicas(tables[-1] if tables else None)) == 2, "a replacement")
    assert time.monotonic() - began < 1.0
    assert 1 == min(len(ready_replicas(table)) for table in tables)
    assert 1 == len(before & ready_replicas(tables[-1]))
    wait_until(
        lambda: instance.status().applications["default"].status is ApplicationStatus.RUNNING, "a good status"
    )


def test_replica_takes_its_grandchildren_along(start: Start) -> None:
    instance = start()
    run(instance, app(deployment("Group", {"spawn": "group"}), deployment("Session", {"spawn": "session"})))
    replicas = pids(instance, "replica")
    grandchildren = {child.pid for pid in replicas for child in psutil.Process(pid).children()}
    assert 2 == len(grandchildren)

    kill(replicas)

    wait_until(lambda: not alive(grandchildren), "the grandchildren to end", timeout_s=2.0)


@both_platforms
def test_killed_controller_is_replaced_and_adopts_what_runs(start: Start, portable: bool) -> None:
    instance = start(portable=portable)
    run(instance, app(deployment("Main", num_replicas=2)))
    replicas, ingress = pids(instance, "replica"), pids(instance, "ingress")
    tables: list[RoutingTable] = []
    instance.on_table.append(tables.append)

    for count in range(1, 6):
        kill(pids(instance, "controller"))
        wait_until(lambda count=count: len(tables) == count, "a new controller's table")

    assert replicas == pids(instance, "replica")
    assert ingress == pids(instance, "ingress")
    assert all(len(ready_replicas(table)) == 2 for table in tables)
    assert [t.version for t in tables] == sorted({t.version for t in tables})
    wait_until(
        lambda: instance.status().applications["default"].status is ApplicationStatus.RUNNING, "a good status"
    )
    assert {"default": 2} == run(instance)


def test_replica_killed_with_the_controller_is_replaced(start: Start) -> None:
    instance = start()
    run(instance, app(deployment("Main", num_replicas=2)))
    replicas = pids(instance, "replica")

    kill(pids(instance, "controller") | {min(replicas)})

    wait_until(lambda: len(pids(instance, "replica") & replicas) == 1, "the kill to be seen")
    wait_until(lambda: len(pids(instance, "replica")) == 2, "a replacement")
    wait_until(lambda: len(ready_replicas(instance.link.table)) == 2, "the replacement to be ready")


def test_upgrade_survives_the_death_of_its_controller(start: Start) -> None:
    instance = start()
    run(instance)
    revisions = instance.deploy((app(),))

    kill(pids(instance, "controller"))
    instance.wait_running(revisions, timeout_s=10)

    assert 2 == instance.status().applications["default"].revision
    wait_until(lambda: len(pids(instance, "replica")) == 1, "the old replica to go")


def test_drain_goes_on_after_the_death_of_the_controller(start: Start) -> None:
    instance = start()
    run(instance, app(deployment("Main", {"stubborn": True}, graceful_shutdown_timeout_s=0.5)))
    (replica,) = pids(instance, "replica")
    instance.delete("default", wait=False)

    kill(pids(instance, "controller"))

    wait_until(lambda: not alive({replica}), "the old replica to be killed at its deadline")
    instance.delete("default")


def test_unhealthy_replica_is_replaced_and_drained(start: Start) -> None:
    instance = start()
    run(instance, app(deployment("Main", {"unhealthy": "check_health raised ValueError"})))
    (sick,) = pids(instance, "replica")

    os.kill(sick, signal.SIGUSR1)

    wait_until(lambda: not alive({sick}), "the sick replica to leave")
    wait_until(lambda: len(ready_replicas(instance.link.table)) == 1, "a replacement")
    assert sick not in pids(instance, "replica")


def test_supervisor_killed_while_it_starts_leaves_nothing(start: Start) -> None:
    launched = begin_launch(place(make_config(), "early"))
    top = psutil.Process(launched.process.pid)
    supervisor = wait_until(lambda: top.children(), "the supervisor")[0]

    supervisor.kill()

    assert launched.wait_ended(5.0)
    assert not os.path.exists(os.path.join(os.environ["TRYGON_RUNTIME_DIR"], "early"))
    launched.let_go()


@both_platforms
def test_killed_ingress_refuses_nobody(start: Start, portable: bool) -> None:
    instance = start(portable=portable)
    run(instance)
    old = answer(instance).split()[1]

    kill(pids(instance, "ingress"))
    new = answer(instance).split()[1]

    assert old != new
    for _ in range(3):
        kill(pids(instance, "ingress"))
        assert answer(instance)


@pytest.mark.parametrize("victim", ["guardian", "supervisor"])
def test_nothing_is_left_after_a_killed_supervisor(start: Start, victim: str) -> None:
    instance = start()
    run(instance, app(deployment("Group", {"spawn": "group"}), deployment("Session", {"spawn": "session"})))
    everything = processes(instance)
    assert 8 == len(everything), everything

    kill({instance.record.pid if victim == "guardian" else instance.record.supervisor_pid})

    wait_until(lambda: not alive(everything.keys()), "everything to end", timeout_s=1.5)
    wait_until(lambda: not os.path.exists(instance.record.runtime_dir), "the sockets to be removed")
    wait_until(lambda: instance.is_gone, "the client to notice")
    with pytest.raises(InstanceError):
        instance.status()


def test_nothing_is_left_after_a_killed_supervisor_with_the_twins(start: Start) -> None:
    instance = start(portable=True)
    run(instance, app(deployment("Main", {"spawn": "group"})))
    everything = processes(instance)

    kill({instance.record.supervisor_pid})

    wait_until(lambda: not alive(everything.keys()), "everything to end", timeout_s=1.5)


def test_attached_instance_ends_with_its_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    program = tmp_path / "launcher.py"
    program.write_text(
        textwrap.dedent("""
            import signal
            from tests.integration.control.conftest import app, deployment, make_config, processes, run
            from trygon.client.instance import connect_or_start
            instance = connect_or_start(make_config(), name="attached")
            run(instance, app(deployment("Main", {"spawn": "session", "stubborn": True})))
            print(*processes(instance), flush=True)
            signal.pause()
        """)
    )
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        everything = {int(pid) for pid in launcher.stdout.readline().split()}
        assert 6 == len(everything)

        launcher.kill()

        wait_until(lambda: not alive(everything), "everything to end", timeout_s=1.5)


def test_detached_instance_outlives_its_launcher_and_restores_after_a_restart(start: Start) -> None:
    first = start("lasting", attached=False)
    run(first, app(deployment("Main", num_replicas=2)))
    everything = processes(first)
    first.close()

    os.kill(first.record.pid, signal.SIGTERM)
    wait_until(lambda: not alive(everything.keys()), "the instance to end")
    again = start("lasting", attached=False)

    wait_until(lambda: len(ready_replicas(again.link.table)) == 2, "the application to be restored")
    assert 1 == again.status().applications["default"].revision
    again.shutdown(grace_s=0.5)
    third = start("lasting", attached=False)
    assert {} == third.status().applications


def test_unreadable_state_is_refused_and_kept(start: Start) -> None:
    first = start("torn", attached=False)
    run(first)
    everything = processes(first)
    first.close()
    os.kill(first.record.pid, signal.SIGTERM)
    wait_until(lambda: not alive(everything.keys()), "the instance to end")
    state = Path(first.record.state_dir) / "state.bin"
    state.write_bytes(state.read_bytes()[:-3])

    with pytest.raises(InstanceError, match=r"state\.corrupt"):
        start("torn", attached=False)
    with pytest.raises(InstanceError, match=r"state\.corrupt"):
        start("torn", attached=False)

    (Path(first.record.state_dir) / "state.corrupt").unlink()
    assert {} == start("torn", attached=False).status().applications


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_everything_in_order(start: Start, number: signal.Signals) -> None:
    instance = start()
    run(instance)
    everything = processes(instance)

    os.kill(instance.record.pid, number)

    wait_until(lambda: not alive(everything.keys()), "everything to end", timeout_s=1.0)
    assert instance.launched is not None
    assert instance.launched.wait_ended(1.0)
    assert 0 == instance.launched.process.returncode


def test_second_signal_forces_the_end(start: Start) -> None:
    instance = start()
    run(instance, app(deployment("Main", {"stubborn": True})))
    everything = processes(instance)

    os.kill(instance.record.pid, signal.SIGTERM)
    wait_until(lambda: not pids(instance, "ingress"), "the front door to close")
    assert pids(instance, "replica")
    os.kill(instance.record.pid, signal.SIGTERM)

    wait_until(lambda: not alive(everything.keys()), "everything to end", timeout_s=1.5)


def test_port_in_use_is_named_with_its_owner(start: Start) -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(
            InstanceError, match=rf"port {port} on 127.0.0.1 is in use by process {os.getpid()} "
        ):
            start("late", port=port)
        with pytest.raises(InstanceError, match=rf"port {port} "):
            start("late", port=port, num_ingress=2)

    assert time.monotonic() - began < 4.0
    assert [] == list_running(Path(os.environ["TRYGON_RUNTIME_DIR"]))


def test_unknown_host_and_long_name_are_refused(start: Start) -> None:
    with pytest.raises(InstanceError, match=r"192\.0\.2\.1"):
        start("far", host="192.0.2.1")
    with pytest.raises(InstanceError, match="cannot name an instance"):
        start("n" * 90)


def test_two_instances_live_side_by_side(start: Start) -> None:
    one, two = start("one"), start("two")
    run(one)

    assert {} == two.status().applications
    assert one.record.port != two.record.port
    root = Path(os.environ["TRYGON_RUNTIME_DIR"])
    assert ["one", "two"] == [record.name for record in list_running(root)]
    with pytest.raises(InstanceError, match="'one', 'two'"):
        choose(root)
    one.shutdown()
    assert "two" == choose(root).name  # type: ignore[union-attr]


def test_second_start_of_a_name_joins_the_first(start: Start) -> None:
    one = start("same")
    run(one)

    again = start("same")

    assert again.launched is None
    assert one.record == again.record
    assert ["default"] == list(again.status().applications)


def test_directory_of_a_dead_instance_is_cleaned_away() -> None:
    root = Path(os.environ["TRYGON_RUNTIME_DIR"])
    dead = root / "dead"
    dead.mkdir(mode=0o700)
    for name in ("lock", "instance.json", "controller.sock"):
        (dead / name).touch()

    assert [] == list_running(root)

    assert not dead.exists()


def test_everything_of_an_instance_is_the_owners_alone(start: Start) -> None:
    instance = start()
    run(instance)

    for folder in (instance.record.runtime_dir, instance.record.state_dir, instance.record.log_dir):
        assert 0o700 == os.stat(folder).st_mode & 0o777
    sockets = list(Path(instance.record.runtime_dir).iterdir())
    logs = list(Path(instance.record.log_dir).iterdir())
    assert len(sockets) >= 4
    for path in (*sockets, *logs, Path(instance.record.state_dir) / "state-attached.bin"):
        assert 0 == path.stat().st_mode & 0o077, path
