"""Packages, modules and working directories of replicas, as a person asks for them in files and on command lines."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.command import Command, run
from tests.e2e.test_config_commands import Instance
from tests.waiting import wait_until
from tests.wheels import make_wheel

SHOP = """
import os, sys

from trygon import serve

try:
    import colours
except ModuleNotFoundError:
    colours = None


@serve.deployment
class Shop:
    def __call__(self, request) -> dict:
        try:
            import lamps
            light = lamps.COLOUR
        except ModuleNotFoundError:
            light = None
        return {
            "colours": colours and colours.version, "lamps": light, "cwd": os.getcwd(),
            "A": os.environ.get("A"), "B": os.environ.get("B"), "pid": os.getpid(), "PATH": os.environ["PATH"],
        }


app = Shop.bind()
"""
CONFIG = """\
applications:
- name: a
  import_path: shop:app
  runtime_env:
    env_vars: {A: app, B: app}
    pip: ["--no-index", "--find-links wheels", colours==1.0]
"""
OWN = """\
  deployments:
  - name: Shop
    ray_actor_options:
      runtime_env:
        env_vars: {B: own}
        pip: ["--no-index", "--find-links wheels", colours==2.0]
        py_modules: [lib/lamps]
        working_dir: data
"""


@pytest.fixture
def kept(folder: Path) -> Iterator[Instance]:
    """A detached instance, and an application with packages and modules of its own beside it."""
    (folder / "shop.py").write_text(SHOP)
    for version in ("1.0", "2.0"):
        make_wheel(folder / "wheels", "colours", version)
    (folder / "lib" / "lamps").mkdir(parents=True)
    (folder / "lib" / "lamps" / "__init__.py").write_text("COLOUR = 'red'\n")
    (folder / "data").mkdir()
    done = run("start", "--name", "kept", "--http-port", "0", cwd=folder)
    assert done.returncode == 0, done.stderr
    yield Instance(folder)
    run("shutdown", "-y", "--instance", "kept", "--grace", "0", cwd=folder)


def answer(kept: Instance) -> dict[str, object]:
    found = json.loads(kept.get("/"))
    assert isinstance(found, dict)
    return found


def deployed(kept: Instance, text: str) -> str:
    done = kept.type("deploy", kept.write(text))
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_an_application_gets_its_packages_and_a_deployment_others(kept: Instance) -> None:
    told = deployed(kept, CONFIG)
    of_application = answer(kept)
    deployed(kept, CONFIG + OWN)
    own = answer(kept)

    assert "building environment (1 package) ..." in told
    assert ("1.0", None, "app", "app") == tuple(of_application[k] for k in ("colours", "lamps", "A", "B"))
    assert ("2.0", "red", "app", "own") == tuple(own[k] for k in ("colours", "lamps", "A", "B"))
    assert str(kept.folder / "data") == own["cwd"]
    assert "environments" in str(own["PATH"]).split(":")[0]


def test_the_same_packages_restart_nothing_others_roll_and_undo_brings_the_old_back(
    kept: Instance, isolated_home: Path
) -> None:
    deployed(kept, CONFIG)
    first = answer(kept)
    again = deployed(kept, CONFIG)
    same = answer(kept)
    file = kept.write(CONFIG.replace("1.0", "2.0"))
    planned = kept.type("plan", file)
    deployed(kept, CONFIG.replace("1.0", "2.0"))
    changed = answer(kept)
    # As if it had been collected: the environment is made again.
    for path in Path(isolated_home).rglob("environments"):
        shutil.rmtree(path)
    undone = kept.type("undo", "a", "--instance", "kept")
    old = answer(kept)

    assert first["pid"] == same["pid"]
    assert "building" not in again
    assert "packages changed (-colours==1.0, +colours==2.0)" in planned.stdout
    assert "2.0" == changed["colours"]
    assert 0 == undone.returncode, undone.stderr
    assert "1.0" == old["colours"]


def test_an_edited_module_of_a_deployment_s_own_rolls_and_undo_brings_it_back(kept: Instance) -> None:
    text = CONFIG.partition("    pip:")[0] + OWN.replace(
        '        pip: ["--no-index", "--find-links wheels", colours==2.0]\n', ""
    )
    deployed(kept, text)
    first = answer(kept)
    deployed(kept, text)
    same = answer(kept)
    (kept.folder / "lib" / "lamps" / "__init__.py").write_text("COLOUR = 'blue'\n")
    planned = kept.type("plan", "serve.yaml")
    deployed(kept, text)
    edited = answer(kept)
    kept.type("undo", "a", "--instance", "kept")
    undone = answer(kept)

    assert ("red", "blue", "red") == (first["lamps"], edited["lamps"], undone["lamps"])
    assert first["pid"] == same["pid"]
    assert "files of its own modules changed" in planned.stdout


@pytest.mark.parametrize(
    "pip, told",
    [
        ('["--no-index", colors]', "No matching distribution found for colors"),
        ('["--no-index", "--find-links wheels", colours==1.0, colours==2.0]', "exclude one another"),
        ("[./nowhere.whl]", "nowhere.whl', which the requirements name, cannot be read: No such file"),
        ("requirements.txt", "requirements.txt' cannot be read: No such file"),
        ("3", "pip: wanted a list of requirements such as ['torch==2.5.1']"),
        ('["--index-url http://127.0.0.1:9/", colours]', "the package index cannot be reached"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_runs_is_untouched(
    pip: str, told: str, kept: Instance
) -> None:
    deployed(kept, CONFIG)
    before = answer(kept)

    file = kept.write(CONFIG.replace('["--no-index", "--find-links wheels", colours==1.0]', pip))
    done = kept.type("deploy", file)

    assert 1 == done.returncode
    assert "serve.yaml:6: applications[0].runtime_env.pip: " in done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert before["pid"] == answer(kept)["pid"]


def test_an_import_path_is_deployed_with_packages_from_the_command_line(kept: Instance) -> None:
    (kept.folder / "requirements.txt").write_text("--no-index\n--find-links wheels\ncolours<2\n")

    done = kept.type("deploy", "shop:app", "--runtime-env-json", '{"pip": "requirements.txt"}')

    assert 0 == done.returncode, done.stderr
    assert "1.0" == answer(kept)["colours"]


def test_run_says_that_it_builds_and_ctrl_c_meanwhile_leaves_nothing(
    folder: Path, command: Callable[..., Command]
) -> None:
    (folder / "shop.py").write_text(SHOP)
    make_wheel(folder / "wheels", "colours", "1.0")
    project = folder / "hanging"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (project / "backend.py").write_text(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(folder / 'begun')!r}).write_text(str(os.getpid()))\ntime.sleep(3600)\n"
    )

    hanging = command(
        *("run", "shop:app", "--port", "0", "--runtime-env-json", '{"pip": ["./hanging"]}'), at_terminal=True
    )
    hanging.wait_for("building environment (1 package) ...")
    wait_until(lambda: (folder / "begun").exists(), "the build begins", timeout_s=20)
    code, _ = hanging.stop()
    pip = '["--no-index", "--find-links wheels", "colours"]'
    serving = command("run", "shop:app", "--port", "0", "--runtime-env-json", f'{{"pip": {pip}}}')
    url = serving.wait_until_serving()

    assert 130 == code
    assert "Traceback" not in hanging.output
    assert "the environment (1 package) is ready after" in serving.output
    assert "1.0" == httpx.get(url).json()["colours"]


def test_an_environment_that_cannot_be_made_again_fails_the_undo_in_pip_s_words(
    kept: Instance, isolated_home: Path
) -> None:
    impatient = "  deployments:\n  - {name: Shop, max_constructor_retry_count: 1}\n"
    deployed(kept, CONFIG + impatient)
    deployed(kept, CONFIG.replace("1.0", "2.0") + impatient)
    for path in Path(isolated_home).rglob("environments"):
        shutil.rmtree(path)
    (kept.folder / "wheels" / "colours-1.0-py3-none-any.whl").unlink()

    undone = kept.type("undo", "a", "--instance", "kept")

    assert 1 == undone.returncode
    assert "No matching distribution found for colours==1.0" in undone.stderr
    assert "Traceback" not in undone.stderr
    assert "2.0" == answer(kept)["colours"]


#: A build backend without needs: it waits for the gate, then hands out a wheel that was made before.
GATED = """
import pathlib, shutil

def get_requires_for_build_wheel(config_settings=None):
    return []

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    pathlib.Path({gate!r}).read_text()
    wheel = pathlib.Path({wheel!r})
    shutil.copy(wheel, wheel_directory)
    return wheel.name
"""


def test_status_and_explain_say_that_a_replica_waits_for_its_environment(
    kept: Instance, isolated_home: Path, command: Callable[..., Command]
) -> None:
    gate, project = kept.folder / "gate", kept.folder / "gated"
    gate.touch()
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    wheel = make_wheel(kept.folder / "made", "colours", "3.0")
    (project / "backend.py").write_text(GATED.format(gate=str(gate), wheel=str(wheel)))
    deployed(kept, CONFIG.replace('["--no-index", "--find-links wheels", colours==1.0]', "[./gated]"))
    deployed(kept, CONFIG)
    for path in Path(isolated_home).rglob("environments"):
        shutil.rmtree(path)
    gate.unlink()
    os.mkfifo(gate)

    undo = command("undo", "a", "--instance", "kept")
    wait_until(
        lambda: "building environment (1 package)" in kept.type("status").stdout,
        "the status tells what the replica waits for",
        timeout_s=30,
    )
    explained = kept.type("explain", "a/Shop").stdout
    during = answer(kept)
    gate.write_text("open")

    assert "building environment (1 package)" in explained
    assert "1.0" == during["colours"]
    assert 0 == undo.wait(), undo.output
    assert "3.0" == answer(kept)["colours"]
