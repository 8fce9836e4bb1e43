"""What works on running instances: status, logs, delete, shutdown, and runs that join or stay behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.command import Command, run

Start = Callable[..., Command]

BROKEN = """
from trygon import serve


@serve.deployment
class Broken:
    def __init__(self):
        raise TypeError("broken on purpose")


app = Broken.bind()
"""


@pytest.fixture
def left(folder: Path) -> Iterator[Path]:
    """A folder with an instance called `left` that stays behind, serving hello; it is shut down after the test."""
    done = run("run", "hello:app", "--port", "0", "--instance", "left", "--non-blocking", cwd=folder)
    assert done.returncode == 0, done.stderr
    yield folder
    run("shutdown", "-y", "--instance", "left", "--grace", "0", cwd=folder)


def described(folder: Path) -> dict[str, object]:
    """What `trygon status --json` says of the only instance."""
    done = run("status", "--json", cwd=folder)
    (instance,) = json.loads(done.stdout)["instances"]
    assert isinstance(instance, dict)
    return instance


def test_non_blocking_leaves_the_application_running(left: Path) -> None:
    instance = described(left)

    assert httpx.get(str(instance["url"])).text == "hello"
    assert instance["attached"] is False

    done = run("shutdown", "-y", cwd=left)
    assert done.returncode == 0, done.stderr
    assert "the instance 'left' is shut down" in done.stdout
    assert run("status", cwd=left).returncode == 1


def test_a_failed_non_blocking_run_leaves_nothing(folder: Path) -> None:
    (folder / "broken.py").write_text(BROKEN)

    done = run("run", "broken:app", "--port", "0", "--non-blocking", cwd=folder)

    assert done.returncode == 1
    assert "TypeError" in done.stderr
    assert run("status", cwd=folder).returncode == 1


def test_joining_adds_an_application_and_ctrl_c_takes_it_away(left: Path, command: Start) -> None:
    joined = command(
        "run", "hello:build", "greeting=moin", "--name", "b", "--route-prefix", "/b", "--instance", "left"
    )
    url = joined.wait_until_serving()

    assert httpx.get(url).text == "moin"
    assert set(described(left)["applications"]) == {"default", "b"}  # type: ignore[call-overload]
    assert joined.stop()[0] == 0
    assert set(described(left)["applications"]) == {"default"}  # type: ignore[call-overload]
    assert httpx.get(str(described(left)["url"])).text == "hello"


def test_the_environment_names_the_instance_to_join(left: Path, command: Start) -> None:
    joined = command(
        *("run", "hello:app", "--name", "c", "--route-prefix", "/c"), env={"TRYGON_INSTANCE": "left"}
    )
    joined.wait_until_serving()

    assert joined.instance == "left"
    assert joined.stop()[0] == 0


def test_without_a_name_a_run_has_an_instance_of_its_own(left: Path, command: Start) -> None:
    alone = command("run", "hello:app", "--port", "0")
    alone.wait_until_serving()

    assert alone.instance != "left"
    ambiguous = run("logs", cwd=left)
    assert ambiguous.returncode == 1
    assert "2 instances are running" in ambiguous.stderr
    assert run("status", cwd=left).stdout.count("instance ") == 2
    assert alone.stop()[0] == 0


def test_joining_with_another_port_is_refused(left: Path) -> None:
    done = run("run", "hello:app", "--instance", "left", "--port", "1", cwd=left)

    assert done.returncode == 1
    assert "runs already and has --port" in done.stderr


def test_a_route_that_is_taken_is_refused_and_the_other_serves_on(left: Path) -> None:
    done = run("run", "hello:app", "--instance", "left", "--name", "second", cwd=left)

    assert done.returncode == 1
    assert "route_prefix '/'" in done.stderr
    assert "'default'" in done.stderr
    assert httpx.get(str(described(left)["url"])).text == "hello"


def test_a_failed_new_version_leaves_the_old_one_serving(left: Path) -> None:
    (left / "broken.py").write_text(BROKEN)

    done = run("run", "broken:app", "--instance", "left", cwd=left)

    assert done.returncode == 1
    assert "TypeError" in done.stderr
    assert httpx.get(str(described(left)["url"])).text == "hello"


def test_a_failed_application_does_not_stay_in_a_joined_instance(left: Path) -> None:
    (left / "broken.py").write_text(BROKEN)

    done = run("run", "broken:app", "--name", "b", "--route-prefix", "/b", "--instance", "left", cwd=left)

    assert done.returncode == 1
    assert set(described(left)["applications"]) == {"default"}  # type: ignore[call-overload]


def test_status_shows_applications_deployments_and_replicas(left: Path) -> None:
    shown = run("status", cwd=left).stdout

    assert "instance left: http://127.0.0.1:" in shown
    assert "default  RUNNING  /" in shown
    assert "Hello  HEALTHY  1 running" in shown


def test_delete_removes_one_application(left: Path) -> None:
    mistyped = run("delete", "defualt", cwd=left)
    done = run("delete", "default", cwd=left)

    assert mistyped.returncode == 1
    assert "did you mean 'default'" in mistyped.stderr
    assert done.returncode == 0
    assert "no applications" in run("status", cwd=left).stdout


def test_logs_show_the_last_lines_and_follow(left: Path, command: Start) -> None:
    url = str(described(left)["url"])
    httpx.get(f"{url}/first")
    following = command("logs", "--follow", "-n", "50")
    following.wait_for("| printed /first")

    httpx.get(f"{url}/second")

    following.wait_for("| printed /second")
    assert following.stop()[0] == 130
    last = run("logs", "-n", "1", cwd=left).stdout
    assert "printed /first" not in last


def test_shutdown_asks_first(left: Path) -> None:
    done = run("shutdown", cwd=left)

    assert done.returncode == 1
    assert "-y" in done.stderr
    assert described(left)["name"] == "left"


@pytest.mark.parametrize("name", ["status", "logs", "delete x", "shutdown -y"])
def test_nothing_running_is_one_sentence(folder: Path, name: str) -> None:
    done = run(*name.split(), cwd=folder)

    assert done.returncode == 1
    assert done.stderr.startswith("error: no instance is running")
    assert done.stderr.count("\n") == 1


def test_a_shutdown_from_elsewhere_ends_the_run(folder: Path, command: Start) -> None:
    running = command("run", "hello:app", "--port", "0")
    running.wait_until_serving()

    assert run("shutdown", "-y", cwd=folder).returncode == 0

    assert running.wait() == 0
    assert "was shut down by another program" in running.output


def test_help_version_and_completion(folder: Path) -> None:
    assert "trygon run converter:app" in run("--help", cwd=folder).stdout
    assert run("--version", cwd=folder).stdout.startswith("trygon ")
    for name in ("run", "status", "logs", "delete", "shutdown"):
        assert f"trygon {name}" in run(name, "--help", cwd=folder).stdout
    completed = run(
        cwd=folder,
        env={"_TRYGON_COMPLETE": "bash_complete", "COMP_WORDS": "trygon sta", "COMP_CWORD": "1"},
    )
    assert "status" in completed.stdout
