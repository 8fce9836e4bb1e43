"""`trygon simulate` as it is typed: a trace made, replayed, shown, and mistakes answered in one line."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.command import TRYGON

pytestmark = pytest.mark.timeout(90)


def simulate(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(TRYGON), "simulate", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traces")
    made = simulate(
        "generate", "bursts", "--seed", "5", "--duration", "900", "--out", "bursts.csv", cwd=folder
    )
    assert made.returncode == 0, made.stderr
    return folder


def test_a_trace_is_made_and_replayed_against_all_policies(folder: Path) -> None:
    done = simulate("--trace", "bursts.csv", "--html", "page.html", cwd=folder)

    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert ["POLICY", "adaptive", "ray", "knative", "static"] == names
    assert (folder / "page.html").read_text(encoding="utf-8").count("<svg") == 4


def test_json_is_the_same_each_time(folder: Path) -> None:
    first, second = (
        simulate("--trace", "bursts.csv", "--policy", "adaptive", "--json", cwd=folder) for _ in range(2)
    )

    assert first.stdout == second.stdout
    assert ["adaptive"] == [policy["policy"] for policy in json.loads(first.stdout)["policies"]]


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((), "--trace FILE"),
        (("--trace", "none.csv"), "none.csv"),
        (("--trace", "bursts.csv", "--policy", "best"), "adaptive, ray, knative, static"),
        (("--trace", "bursts.csv", "--service-time", "long"), "20ms/token"),
        (("--trace", "bursts.csv", "--min-replicas", "5", "--max-replicas", "2"), "--max-replicas"),
        (("--trace", "bursts.csv", "--policy", "static", "--html", "none/page.html"), "none/page.html"),
    ],
)
def test_a_mistake_is_answered_in_one_line(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    done = simulate(*arguments, cwd=folder)

    assert done.returncode != 0
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_trace_shorter_than_the_warm_up_is_said(folder: Path) -> None:
    done = simulate("--trace", "bursts.csv", "--policy", "ray", "--warm-up", "1000", cwd=folder)

    assert done.returncode == 0
    assert "--warm-up" in done.stderr


def test_ctrl_c_ends_it_without_a_trace_of_calls(folder: Path) -> None:
    simulate("generate", "steps", "--duration", "20000", "--rate", "100", "--out", "long.csv", cwd=folder)
    command = [str(TRYGON), "simulate", "--trace", "long.csv"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2.0)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)

    assert process.returncode == 130
    assert b"Traceback" not in output + errors
