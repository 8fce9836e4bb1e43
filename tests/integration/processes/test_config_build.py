"""Building the applications of a file: in processes of their own, all or none, with the place of each failure."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from trygon.errors import ConfigError
from trygon.processes.builder import Builder
from trygon.processes.config_build import (
    BuiltConfig,
    ConfigBuild,
    build_config,
    build_elsewhere,
    read_config,
    read_config_file,
)

SHOP = """
import lamps
from trygon import serve


@serve.deployment(num_replicas=2)
class Hello:
    def __init__(self, *args):
        pass


print("printed while it is imported")
app = Hello.bind()


def build(args):
    return Hello.bind(lamps.COLOUR, args["x"])
"""
CONFIG = """\
applications:
- name: a
  import_path: shop:app
  runtime_env: {working_dir: code, py_modules: [lib/lamps]}
  deployments:
  - {name: Hello, max_ongoing_requests: 7, ray_actor_options: {runtime_env: {working_dir: data}}}
- name: b
  route_prefix: /b
  import_path: shop:build
  args: {x: [1]}
  runtime_env: {working_dir: code, py_modules: [lib/lamps]}
  logging_config: {log_level: DEBUG}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a configuration file, with code, data and a package of its own below it."""
    for name in ("code", "data", "lib/lamps"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "code" / "shop.py").write_text(SHOP)
    (tmp_path / "lib" / "lamps" / "__init__.py").write_text("COLOUR = 'red'\n")
    return tmp_path


@pytest.fixture
def builder() -> Iterator[Builder]:
    """A builder that ends with the test."""
    one = Builder()
    yield one
    one.close()


def build(builder: Builder, text: str, folder: Path) -> BuiltConfig:
    return build_config(builder, read_config(text, source="serve.yaml"), folder=str(folder))


def test_a_file_becomes_specifications_with_its_options_laid_over(builder: Builder, folder: Path) -> None:
    a, b = build(builder, CONFIG, folder).specs

    options = a.deployment("Hello").options
    assert (2, 7, str(folder / "data")) == (
        options.num_replicas,
        options.max_ongoing_requests,
        options.working_dir,
    )
    assert str(folder / "code") == a.code.working_dir
    assert [str(folder / "lib"), str(folder / "code")] == list(a.code.sys_path[:2])
    assert ("/b", "shop:build") == (b.route_prefix, b.import_path)
    assert b.logging is not None
    assert "DEBUG" == b.logging["log_level"]
    assert b.config is not None
    assert {"x": [1]} == b.config["args"]


def test_building_twice_gives_the_same_and_an_edited_file_another(builder: Builder, folder: Path) -> None:
    first = build(builder, CONFIG, folder)
    again = build(builder, CONFIG, folder)
    (folder / "lib" / "lamps" / "__init__.py").write_text("COLOUR = 'blue'\n")
    edited = build(builder, CONFIG, folder)

    assert first.specs == again.specs
    assert first.specs[0].code.digest != edited.specs[0].code.digest
    assert str(folder / "lib" / "lamps" / "__init__.py") in first.files


@pytest.mark.parametrize(
    "before, after, told",
    [
        ("shop:app", "shop:ap", "serve.yaml:3: applications[0].import_path: 'shop' has no 'ap'"),
        ("shop:build", "nowhere:app", "serve.yaml:9: applications[1].import_path: there is no module 'nowhere'"),
        ("name: Hello", "name: Helo", "serve.yaml:6: applications[0].deployments[0].name: the application has no"),
        ("{working_dir: code,", "{working_dir: cod,", "serve.yaml:4: applications[0].runtime_env.working_dir: "),
        ("lib/lamps", "lib/lamp", "serve.yaml:4: applications[0].runtime_env.py_modules[0]: "),
        ("x: [1]", "y: 1", "KeyError"),
        ("{working_dir: data}", "{working_dir: dat}", "serve.yaml:6: applications[0].deployments[0].ray_actor_options"),
    ],
)  # fmt: skip
def test_one_failure_fails_all_and_names_its_place(
    before: str, after: str, told: str, builder: Builder, folder: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(builder, CONFIG.replace(before, after, 1), folder)

    assert told in str(caught.value)


def test_every_application_that_fails_is_told(builder: Builder, folder: Path) -> None:
    text = CONFIG.replace("shop:app", "shop:ap").replace("x: [1]", "y: 1")

    with pytest.raises(ConfigError) as caught:
        build(builder, text, folder)

    assert 2 == len(caught.value.mistakes)
    assert 'Hello.bind(lamps.COLOUR, args["x"])' in caught.value.mistakes[1]


def test_a_build_that_never_ends_is_ended(builder: Builder, folder: Path) -> None:
    (folder / "code" / "shop.py").write_text("import signal\nsignal.pause()\n")

    config = read_config(CONFIG, source="serve.yaml")
    built = ConfigBuild(builder, config, folder=str(folder), timeout_s=0.3).wait()

    assert "took more than 0.3 s" in built.mistakes[0]
    assert () == built.specs


def test_a_cancelled_build_returns(builder: Builder, folder: Path) -> None:
    (folder / "code" / "shop.py").write_text("import signal\nsignal.pause()\n")
    build = ConfigBuild(builder, read_config(CONFIG, source="serve.yaml"), folder=str(folder))
    threading.Timer(0.2, build.cancel).start()

    built = build.wait()

    assert 2 == len(built.mistakes)


def test_a_program_with_threads_builds_elsewhere(folder: Path) -> None:
    built = build_elsewhere(CONFIG, source="serve.yaml", folder=str(folder))

    assert ["a", "b"] == [spec.name for spec in built.specs]
    with pytest.raises(ConfigError, match=r"serve.yaml:1: applicatons: unknown key"):
        build_elsewhere("applicatons: []", source="serve.yaml", folder=str(folder))


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"applications: []\n# \xe4\n")

    with pytest.raises(ConfigError, match=r"none\.yaml: the file cannot be read: No such file"):
        read_config_file(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: the byte 0xe4 is not UTF-8"):
        read_config_file(str(latin))
