"""What an operator does with a running instance: status in scripts, explain, history, undo, code that stays."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.command import Command, run
from tests.e2e.test_other_commands import BROKEN
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(90)

SHOP = """
import os
from pathlib import Path

from prices import price
from trygon import serve


@serve.deployment
class Shop:
    def __call__(self, request):
        beside = Path(__file__).with_name("currency.txt").read_text()
        return f"{price()} {beside} {os.getpid()}"


app = Shop.bind()
"""
PRICES = "def price():\n    return {price!r}\n"


@pytest.fixture
def shop(folder: Path) -> Iterator[Path]:
    """A folder with an instance called `shop` that serves a module and what that imports."""
    (folder / "shop.py").write_text(SHOP)
    (folder / "currency.txt").write_text("EUR")
    (folder / "prices.py").write_text(PRICES.format(price=1))
    done = run("run", "shop:app", "--port", "0", "--instance", "shop", "--non-blocking", cwd=folder)
    assert done.returncode == 0, done.stderr
    yield folder
    run("shutdown", "-y", "--instance", "shop", "--grace", "0", cwd=folder)


def deploy_again(folder: Path, module: str = "shop") -> int:
    return run("run", f"{module}:app", "--instance", "shop", "--non-blocking", cwd=folder).returncode


def asked(*arguments: str, cwd: Path) -> Any:
    """The JSON that a command writes."""
    return json.loads(run(*arguments, "--json", cwd=cwd).stdout)


def url(folder: Path) -> str:
    return str(asked("status", cwd=folder)["instances"][0]["url"])


def answer(folder: Path) -> list[str]:
    """Price, currency and process id, as the application answers them."""
    found = httpx.get(url(folder), timeout=20)
    assert found.status_code == 200, found.text
    return found.text.split()


def test_a_crash_replacement_runs_the_code_that_was_deployed_not_the_edited_file(shop: Path) -> None:
    _, currency, pid = answer(shop)
    (shop / "prices.py").write_text(PRICES.format(price=2))
    (shop / "shop.py").write_text("raise RuntimeError('half saved')")
    (shop / "currency.txt").write_text("SEK")

    os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: run("status", "default", cwd=shop).returncode == 0, "the replacement", timeout_s=20)

    price, currency, new_pid = answer(shop)
    assert pid != new_pid
    assert ("1", "SEK") == (price, currency), "code of the revision, data of the folder"


def test_undo_brings_the_code_back_and_history_shows_what_happened(shop: Path) -> None:
    (shop / "prices.py").write_text(PRICES.format(price=2))
    assert deploy_again(shop) == 0
    assert "2" == answer(shop)[0]

    done = run("undo", "default", cwd=shop)

    assert (0, "revision 3 of application 'default' serves\n") == (done.returncode, done.stdout)
    assert "1" == answer(shop)[0]
    revisions = asked("history", "default", cwd=shop)["revisions"]
    assert [3, 2, 1] == [entry["number"] for entry in revisions]
    assert [True, False, False] == [entry["is_serving"] for entry in revisions]
    assert {"COMPLETE"} == {entry["outcome"] for entry in revisions}
    assert revisions[0]["snapshot"] == revisions[2]["snapshot"] != revisions[1]["snapshot"]
    assert "undo: revision 1 again" == revisions[0]["origin"]
    assert "trygon run shop:app" in run("history", "default", cwd=shop).stdout

    assert run("undo", "default", "--to", "2", "--no-wait", cwd=shop).returncode == 0
    wait_until(lambda: answer(shop)[0] == "2", "revision 2 again", timeout_s=20)


def test_undo_without_an_earlier_revision_is_one_sentence(shop: Path) -> None:
    first = run("undo", "default", cwd=shop)
    unknown = run("undo", "default", "--to", "9", cwd=shop)
    nobody = run("undo", "defualt", cwd=shop)

    assert (1, 1, 1) == (first.returncode, unknown.returncode, nobody.returncode)
    assert "no other revision that was complete" in first.stderr
    assert "no revision 9 in its history; there are: 1" in unknown.stderr
    assert "did you mean 'default'" in nobody.stderr


def test_undo_after_a_failed_deploy_makes_the_old_revision_the_wanted_one(shop: Path) -> None:
    (shop / "broken.py").write_text(BROKEN)
    assert deploy_again(shop, "broken") == 1
    failed = run("status", "default", cwd=shop)
    assert (3, True) == (failed.returncode, "DEPLOY_FAILED" in failed.stdout)

    assert run("undo", "default", cwd=shop).returncode == 0

    assert run("status", "default", cwd=shop).returncode == 0
    assert ["COMPLETE", "FAILED", "COMPLETE"] == [
        entry["outcome"] for entry in asked("history", "default", cwd=shop)["revisions"]
    ]


def test_undo_brings_a_deleted_application_back_also_after_the_instance_was_killed(shop: Path) -> None:
    assert run("delete", "default", cwd=shop).returncode == 0
    shown = run("history", "default", cwd=shop).stdout
    assert "trygon undo default brings it back" in shown
    (record,) = asked("status", cwd=shop)["instances"]
    os.kill(record["supervisor_pid"], signal.SIGKILL)
    wait_until(lambda: run("status", cwd=shop).returncode == 1, "the end of the instance")
    assert run("start", "--name", "shop", cwd=shop).returncode == 0

    back = run("undo", "default", cwd=shop)

    assert (0, "revision 2 of application 'default' serves\n") == (back.returncode, back.stdout)
    assert "1" == answer(shop)[0]
    assert [0.0, 0.0] == [r["deleted_wall_s"] for r in asked("history", "default", cwd=shop)["revisions"]]


def test_history_and_code_survive_the_instance(shop: Path, command: Any) -> None:
    (shop / "prices.py").write_text(PRICES.format(price=2))
    assert deploy_again(shop) == 0
    (record,) = asked("status", cwd=shop)["instances"]
    (shop / "prices.py").write_text(PRICES.format(price=3))
    # The machine dies: nobody says goodbye.
    os.kill(record["supervisor_pid"], signal.SIGKILL)
    wait_until(lambda: run("status", cwd=shop).returncode == 1, "the end of the instance")

    again = run(
        *("run", "hello:app", "--name", "hello", "--route-prefix", "/hello", "--port", "0"),
        *("--instance", "shop", "--non-blocking"),
        cwd=shop,
    )

    assert again.returncode == 0, again.stderr
    wait_until(lambda: run("status", "default", cwd=shop).returncode == 0, "its restoration", timeout_s=20)
    assert "2" == answer(shop)[0]
    assert run("undo", "default", cwd=shop).returncode == 0
    assert "1" == answer(shop)[0]


def test_explain_says_what_a_failing_deployment_waits_for(shop: Path) -> None:
    (shop / "broken.py").write_text(BROKEN)
    assert deploy_again(shop, "broken") == 1

    text = run("explain", "default/Broken", cwd=shop).stdout
    found = asked("explain", "default", cwd=shop)

    assert "application 'default' is DEPLOY_FAILED: revision 2, revision 1 serves" in text
    assert "waits for: a new deploy: this revision was given up" in text
    assert "TypeError: broken on purpose" in text
    assert "revision 2 is wanted" in text
    assert (2, 1) == (found["revision"], found["serving"])
    names = {deployment["name"]: deployment for deployment in found["deployments"]}
    assert "broken on purpose" in names["Broken"]["last_error"]
    (replica,) = names["Shop"]["replicas"]
    assert "READY" == replica["phase"]
    one = run("explain", replica["replica_id"].rpartition("#")[2], cwd=shop).stdout
    assert f"replica {replica['replica_id']}: READY for" in one
    assert "STARTING -> READY" in one
    unknown = run("explain", "defualt", cwd=shop)
    assert (1, True) == (unknown.returncode, "did you mean 'default'" in unknown.stderr)


FLAKY = """
import logging
from trygon import serve

logger = logging.getLogger("ray.serve")


@serve.deployment
class Flaky:
    def __call__(self, request):
        logger.warning("asked for %s", request.url.path)
        if not request.url.path.endswith("/fine"):
            raise LookupError(f"nothing at {request.url.path}")
        return "fine"


app = Flaky.bind()
"""


def test_logs_are_narrowed_to_what_was_asked_for(shop: Path) -> None:
    (shop / "flaky.py").write_text(FLAKY)
    options = ("--name", "flaky", "--route-prefix", "/flaky", "--instance", "shop", "--non-blocking")
    assert run("run", "flaky:app", *options, cwd=shop).returncode == 0
    for path in ("/flaky/gone", "/flaky/gone", "/flaky/lost", "/flaky/fine"):
        httpx.get(url(shop) + path)
    wait_until(lambda: "/flaky/lost" in run("logs", cwd=shop).stdout, "the last lines")

    own = run("logs", "flaky/Flaky", "--level", "warning", cwd=shop).stdout
    assert own.count("-- asked for") == 4
    assert {"WARNING", "ERROR"} >= {line.split()[0] for line in own.splitlines() if " flaky_Flaky " in line}
    assert "ingress" not in own
    assert "" == run("logs", "flaky", "--replica", "nobody12", cwd=shop).stdout
    system = run("logs", "--system", cwd=shop).stdout
    assert "is complete" in system
    assert "asked for" not in system
    assert "asked for" in run("logs", "flaky", "--since", "10m", cwd=shop).stdout
    wrong = run("logs", "--since", "soon", cwd=shop)
    assert (2, True) == (wrong.returncode, "wanted a time span such as 90s" in wrong.stderr)

    failures = asked("logs", "--errors", "flaky", cwd=shop)["failures"]
    assert [(2, True), (1, True)] == [
        (f["count"], "LookupError: nothing at" in f["traceback"]) for f in failures
    ]
    shown = run("logs", "--errors", cwd=shop).stdout
    assert "2 times, first 20" in shown
    assert shown.index("/flaky/gone") < shown.index("/flaky/lost")


def test_following_goes_on_when_the_instance_is_killed_and_started_again(shop: Path, command: Any) -> None:
    (shop / "chatty.py").write_text(
        SHOP.replace("beside =", "print('asked by', request.query_params['who']); beside =")
    )
    assert deploy_again(shop, "chatty") == 0
    following: Command = command("logs", "default", "--follow", "-n", "0")
    address = url(shop)

    def is_followed() -> bool:
        # Commands and requests share the processors with whatever else runs: neither may be hurried.
        assert httpx.get(address, params={"who": "one"}, timeout=20).status_code == 200
        return "asked by one" in following.output

    wait_until(is_followed, "a line", timeout_s=20)
    (record,) = asked("status", cwd=shop)["instances"]
    os.kill(record["supervisor_pid"], signal.SIGKILL)
    wait_until(lambda: run("status", cwd=shop).returncode == 1, "the end of the instance", timeout_s=20)

    assert deploy_again(shop, "chatty") == 0
    assert httpx.get(url(shop), params={"who": "two"}, timeout=20).status_code == 200

    following.wait_for("asked by two")
    assert run("shutdown", "-y", cwd=shop).returncode == 0
    assert following.wait() == 0


def test_watching_the_status_shows_changes_and_ends_with_ctrl_c(shop: Path, command: Any) -> None:
    watching: Command = command("status", "--watch", "--json", at_terminal=True)
    watching.wait_for('"status":"RUNNING"')

    assert run("delete", "default", cwd=shop).returncode == 0

    watching.wait_for('"applications":{}')
    code, _ = watching.stop()
    assert 130 == code
    assert "Traceback" not in watching.output


def test_doctor_finds_what_is_wrong_and_exits_with_1(shop: Path) -> None:
    port = url(shop).rpartition(":")[2]
    fine = asked("doctor", "--port", "0", cwd=shop)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = run("doctor", "--port", str(other.getsockname()[1]), cwd=shop)
    ours = run("doctor", "--port", port, cwd=shop, env={"TRYGON_HMOE": "x"})
    malformed = run("doctor", cwd=shop, env={"TRYGON_NUM_INGRESS": "many"})

    # What else runs on this machine is not this test's: only what it made is looked at.
    verdicts = {found["check"]: found["verdict"] for found in fine["findings"]}
    assert {"ok"} == {verdicts[check] for check in ("Python", "settings", "port", "state files")}
    assert fine["is_broken"] is ("broken" in verdicts.values())
    assert (1, True) == (taken.returncode, "end the program that has it" in taken.stdout)
    assert "is served by instance 'shop'" in ours.stdout
    assert "TRYGON_HMOE" in ours.stdout
    assert ours.returncode == int(ours.stdout.count("broken  ") > 0)
    assert (1, True) == (malformed.returncode, "TRYGON_NUM_INGRESS is 'many'" in malformed.stdout)


def test_names_of_applications_and_instances_are_completed(shop: Path) -> None:
    def complete(words: str) -> str:
        env = {"_TRYGON_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        return run(cwd=shop, env=env).stdout

    assert "plain,default" == complete("trygon undo def").strip()
    assert "plain,shop" == complete("trygon status --instance s").strip()
    assert "" == complete("trygon undo nobody").strip()
    for shell in ("bash", "zsh", "fish"):
        assert "_TRYGON_COMPLETE" in run("completion", shell, cwd=shop).stdout
