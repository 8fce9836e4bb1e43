"""Configuration files and detached instances as a person uses them: start, deploy, plan, config, build, restart."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import httpx
import pytest
import yaml

from tests.e2e.command import Command, run
from tests.unit.spec.broken_configs import BROKEN

Start = Callable[..., Command]

CONFIG = """\
http_options:
  port: 0
applications:
- name: a
  route_prefix: /a
  import_path: hello:app
- name: b
  route_prefix: /b
  import_path: hello:build
  args: {greeting: moin}
"""


class Instance:
    """A detached instance called `kept`, driven by commands typed in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def type(self, *arguments: str, env: dict[str, str] | None = None) -> CompletedProcess[str]:
        return run(*arguments, cwd=self.folder, env=env)

    def write(self, text: str, name: str = "serve.yaml") -> str:
        (self.folder / name).write_text(text)
        return name

    def described(self) -> dict[str, object]:
        (instance,) = json.loads(self.type("status", "--json").stdout)["instances"]
        assert isinstance(instance, dict)
        return instance

    def get(self, path: str) -> str:
        return httpx.get(f"{self.described()['url']}{path}").text

    def applications(self) -> set[str]:
        found = self.described()["applications"]
        assert isinstance(found, dict)
        return set(found)


@pytest.fixture
def kept(folder: Path) -> Iterator[Instance]:
    """A detached instance; it is shut down after the test."""
    done = run("start", "--name", "kept", "--http-port", "0", cwd=folder)
    assert done.returncode == 0, done.stderr
    yield Instance(folder)
    run("shutdown", "-y", "--instance", "kept", "--grace", "0", cwd=folder)


def test_a_started_instance_stays_and_starting_it_again_says_so(kept: Instance) -> None:
    again = kept.type("start", "--name", "kept")
    elsewhere = kept.type("start", "--name", "kept", "--http-port", "1")

    assert 0 == again.returncode
    assert "the instance 'kept' runs already and listens on http://127.0.0.1:" in again.stdout
    assert 1 == elsewhere.returncode
    assert "has --http-port" in elsewhere.stderr
    assert kept.described()["attached"] is False


def test_a_file_is_deployed_and_shown_as_it_was_given(kept: Instance) -> None:
    done = kept.type("deploy", kept.write(CONFIG))

    assert 0 == done.returncode, done.stderr
    assert "application a  RUNNING  http://127.0.0.1:" in done.stdout
    assert ("hello", "moin") == (kept.get("/a"), kept.get("/b"))
    assert (
        yaml.safe_load(CONFIG)["applications"] == yaml.safe_load(kept.type("config").stdout)["applications"]
    )
    assert yaml.safe_load(CONFIG)["applications"][1] == yaml.safe_load(kept.type("config", "-n", "b").stdout)
    assert "did you mean" in kept.type("config", "-n", "bb").stderr


def test_a_later_file_deletes_what_it_has_no_more_and_leaves_what_programs_run(
    kept: Instance, command: Start
) -> None:
    beside = command("run", "hello:app", "--instance", "kept", "--name", "mine", "--route-prefix", "/mine")
    beside.wait_until_serving()
    kept.type("deploy", kept.write(CONFIG))
    # The new one takes the route of the one that goes.
    moved = CONFIG.replace("name: b", "name: c")

    done = kept.type("deploy", kept.write(moved))

    assert 0 == done.returncode, done.stderr
    assert "application 'b' is being deleted" in done.stdout
    assert "moin" == kept.get("/b")
    assert {"a", "c", "mine"} == kept.applications() - {"b"}
    assert 0 == kept.type("deploy", kept.write("applications: []")).returncode
    assert "hello" == kept.get("/mine")
    assert beside.stop()[0] == 0


def test_nothing_is_deployed_when_one_application_cannot_be_built(kept: Instance) -> None:
    kept.type("deploy", kept.write(CONFIG))

    broken = CONFIG.replace("{greeting: moin}", "{greeting: servus}").replace("hello:app", "hello:ap")
    done = kept.type("deploy", kept.write(broken))

    assert 1 == done.returncode
    assert "serve.yaml:6: applications[0].import_path: 'hello' has no 'ap'" in done.stderr
    assert ("hello", "moin") == (kept.get("/a"), kept.get("/b"))


def test_broken_files_are_refused_and_the_running_application_is_untouched(kept: Instance) -> None:
    kept.type("deploy", kept.write(CONFIG))
    before = kept.described()["applications"]

    for number, broken in enumerate(BROKEN[::6]):
        done = kept.type("deploy", kept.write(broken.text, f"broken{number}.yaml"))

        assert 1 == done.returncode, broken.title
        assert f"broken{number}.yaml:{broken.line}: {broken.path}" in done.stderr
        assert broken.remedy in done.stderr
        assert "Traceback" not in done.stderr
    assert before == kept.described()["applications"]
    assert "hello" == kept.get("/a")


def test_an_import_path_is_deployed_beside_the_others(kept: Instance) -> None:
    kept.type("deploy", kept.write(CONFIG))

    done = kept.type("deploy", "hello:build", "greeting=tach", "--name", "d", "--route-prefix", "/d")
    wrong = kept.type("deploy", "hello:nothing")
    mixed = kept.type("deploy", "serve.yaml", "greeting=tach")

    assert 0 == done.returncode, done.stderr
    assert ("hello", "tach") == (kept.get("/a"), kept.get("/d"))
    assert "trygon deploy hello:build" in kept.type("history", "d").stdout
    assert 1 == wrong.returncode
    assert "'hello' has no 'nothing'" in wrong.stderr
    assert 2 == mixed.returncode
    assert "write it into 'args' of the file" in mixed.stderr


def test_a_plan_says_what_a_deploy_would_do_and_does_nothing(kept: Instance) -> None:
    kept.type("deploy", kept.write(CONFIG))
    same = kept.type("plan", "serve.yaml")
    bigger = CONFIG.replace("hello:app\n", "hello:app\n  deployments: [{name: Hello, num_replicas: 2}]\n")
    changed = kept.type("plan", kept.write(bigger.replace("name: b", "name: c")))
    as_json = kept.type("plan", "serve.yaml", "--json")
    (kept.folder / "hello.py").write_text((kept.folder / "hello.py").read_text() + "\nNEW = 1\n")
    edited = kept.type("plan", kept.write(CONFIG))

    assert (0, True) == (same.returncode, "nothing to do" in same.stdout)
    assert 2 == changed.returncode
    for line in (
        "~ application a: resized",
        "+ application c: added",
        "- application b: deleted",
        "needs 3 CPU",
    ):
        assert line in changed.stdout
    assert {"a": "RESIZED", "b": "DELETED", "c": "ADDED"} == {
        one["name"]: one["change"] for one in json.loads(as_json.stdout)["applications"]
    }
    assert (2, True) == (edited.returncode, "files of the code changed" in edited.stdout)
    assert 1 == kept.type("plan", "hello:app").returncode
    assert 1 == kept.type("plan").returncode
    assert {"a", "b"} == kept.applications()


@pytest.mark.parametrize("whom", ["supervisor_pid", "pid"])
def test_an_instance_that_was_killed_comes_back_with_its_applications(kept: Instance, whom: str) -> None:
    kept.type("deploy", kept.write(CONFIG))
    kept.type("deploy", "hello:build", "greeting=tach", "--name", "d", "--route-prefix", "/d")
    pid = kept.described()[whom]
    assert isinstance(pid, int)
    (kept.folder / "deeper").mkdir()

    os.kill(pid, signal.SIGKILL)
    done = run("start", "--name", "kept", cwd=kept.folder / "deeper")

    assert 0 == done.returncode, done.stderr
    assert "the instance 'kept' is started" in done.stdout
    assert "application d  RUNNING" in done.stdout
    assert ("hello", "moin", "tach") == (kept.get("/a"), kept.get("/b"), kept.get("/d"))


def test_a_restart_keeps_the_port_and_a_shutdown_forgets_it(kept: Instance) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        unused_port = taken.getsockname()[1]
    wanted = ("start", "--name", "other", "--http-port", str(unused_port))
    assert kept.type(*wanted).returncode == 0
    found = json.loads(kept.type("status", "--instance", "other", "--json").stdout)["instances"][0]

    os.kill(found["supervisor_pid"], signal.SIGKILL)
    again = kept.type("start", "--name", "other")
    ended = kept.type("shutdown", "-y", "--instance", "other")

    assert f"listens on http://127.0.0.1:{unused_port}" in again.stdout
    assert 0 == ended.returncode
    assert not list((Path(found["state_dir"])).glob("start.json"))


def test_an_instance_that_a_run_left_behind_comes_back_too(folder: Path) -> None:
    instance = Instance(folder)
    done = instance.type("run", "hello:app", "--port", "0", "--instance", "kept", "--non-blocking")
    assert 0 == done.returncode, done.stderr
    pid = instance.described()["supervisor_pid"]
    assert isinstance(pid, int)

    os.kill(pid, signal.SIGKILL)

    try:
        assert 0 == instance.type("start", "--name", "kept").returncode
        assert "hello" == instance.get("/")
    finally:
        instance.type("shutdown", "-y", "--instance", "kept")


def test_a_second_instance_on_the_same_state_is_refused(kept: Instance, isolated_home: Path) -> None:
    elsewhere = {"TRYGON_RUNTIME_DIR": str(isolated_home / "run-2")}

    done = kept.type("start", "--name", "kept", env=elsewhere)

    assert 1 == done.returncode
    assert "is in use by the instance 'kept'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_starts_an_instance_where_it_says(folder: Path) -> None:
    instance = Instance(folder)
    done = instance.type("start", "--name", "kept", "--config", instance.write(CONFIG))
    broken = instance.type("start", "--name", "other", "--config", instance.write("applications:", "b.yaml"))

    try:
        assert 0 == done.returncode, done.stderr
        assert "moin" == instance.get("/b")
        assert 1 == broken.returncode
        assert "b.yaml:1: applications: 'applications' is missing" in broken.stderr
    finally:
        instance.type("shutdown", "-y", "--instance", "kept")


def test_a_file_is_run_and_reloaded_when_it_is_saved(folder: Path, command: Start) -> None:
    (folder / "serve.yaml").write_text(CONFIG)
    running = command("run", "serve.yaml", "--reload", at_terminal=True)
    url = running.wait_until_serving().removesuffix("/a")
    first = httpx.get(f"{url}/b").text

    (folder / "serve.yaml").write_text(CONFIG.replace("moin", "servus").replace("name: a", "name: z"))
    running.wait_for("the new code serves")

    assert ("moin", "servus") == (first, httpx.get(f"{url}/b").text)
    (folder / "serve.yaml").write_text("applications: 3\n")
    running.wait_for("wanted a list of applications, found 3")
    assert "servus" == httpx.get(f"{url}/b").text
    assert running.stop()[0] == 0


def test_options_of_one_application_do_not_go_with_a_file(folder: Path) -> None:
    (folder / "serve.yaml").write_text(CONFIG)

    done = run("run", "serve.yaml", "--name", "x", cwd=folder)
    missing = run("run", "other.yaml", cwd=folder)

    assert 2 == done.returncode
    assert "--name is for one application" in done.stderr
    assert 1 == missing.returncode
    assert "other.yaml: the file cannot be read: No such file" in missing.stderr


def test_a_written_file_serves_what_the_code_says(kept: Instance) -> None:
    (kept.folder / "sub").mkdir()
    done = kept.type("build", "hello:app", "second=hello:app", "-o", "sub/serve.yaml")

    assert 0 == done.returncode, done.stderr
    assert 0 == kept.type("deploy", "sub/serve.yaml").returncode
    assert ("hello", "hello") == (kept.get("/app1"), kept.get("/second"))
    assert 0 == kept.type("plan", "sub/serve.yaml").returncode
    assert "has no 'x'" in kept.type("build", "hello:x").stderr


def test_ctrl_c_during_a_deploy_leaves_no_build_and_changes_nothing(kept: Instance, command: Start) -> None:
    (kept.folder / "endless.py").write_text("print('importing', flush=True)\nimport signal\nsignal.pause()\n")
    deploying = command("deploy", "endless:app", at_terminal=True)
    deploying.wait_for("importing")

    code, _ = deploying.stop()

    assert 130 == code
    assert "Traceback" not in deploying.output
    assert set() == kept.applications()


def test_help_shows_each_example_on_a_line_of_its_own(folder: Path) -> None:
    for arguments, example in (((), "  trygon start "), (("plan",), "  trygon plan serve.yaml")):
        lines = run(*arguments, "--help", cwd=folder).stdout.splitlines()

        assert any(line.lstrip().startswith(example.strip()) for line in lines)
        assert not any("\\b" in line for line in lines)


def test_target_capacity_scales_what_a_file_says_and_is_shown(kept: Instance) -> None:
    text = CONFIG.replace(
        "  import_path: hello:app",
        "  import_path: hello:app\n  deployments: [{name: Hello, num_replicas: 4}]",
    )
    kept.write("target_capacity: 50\n" + text)

    assert 0 == kept.type("deploy", "serve.yaml").returncode
    half = kept.described()
    again = kept.type("plan", "serve.yaml")
    kept.write(text)
    plan = kept.type("plan", "serve.yaml")
    shown = (kept.type("status").stdout, yaml.safe_load(kept.type("config").stdout)["target_capacity"])
    assert 0 == kept.type("deploy", "serve.yaml").returncode

    replicas = half["applications"]["a"]["deployments"]["Hello"]["replica_states"]  # type: ignore[index]
    assert ({"RUNNING": 2}, 50) == (replicas, half["target_capacity"])
    assert "nothing to do" in again.stdout
    assert "Hello: resized (2 -> 4 replicas)" in plan.stdout
    assert "target_capacity 50 %" in shown[0]
    assert 50 == shown[1]
    assert kept.described()["target_capacity"] is None
