"""Configuration files: what is read, and that every mistake is named with file, line, key and remedy."""

from __future__ import annotations

import json
import pickle

import pytest

from tests.unit.spec.broken_configs import BROKEN, Broken
from trygon.errors import ConfigError
from trygon.graph.overrides import CONFIG_CHECKS
from trygon.spec.config_file import DeployConfig, parse_config
from trygon.spec.document import MAX_BYTES, decode_text, read_document

WHOLE = """\
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: 9000
logging_config:
  log_level: DEBUG
defaults: &defaults
applications: []
"""
APPLICATIONS = """\
applications:
- name: wine
  route_prefix: /wine
  import_path: shop.wine:build
  args: {model: forest, trees: 100}
  runtime_env:
    env_vars: {X: "1"}
    working_dir: ../code
    py_modules: [lib]
  logging_config: {enable_access_log: false}
  deployments:
  - name: Model
    num_replicas: 3
    user_config: {threshold: 0.5}
    ray_actor_options: {num_cpus: 2}
- import_path: shop:app
"""


def read(text: str, source: str = "serve.yaml") -> DeployConfig:
    return parse_config(text, source=source, checks=CONFIG_CHECKS)


@pytest.mark.parametrize("broken", BROKEN, ids=[broken.title for broken in BROKEN])
def test_a_mistake_is_named_with_file_line_key_and_remedy(broken: Broken) -> None:
    with pytest.raises(ConfigError) as caught:
        read(broken.text)

    told = [mistake for mistake in caught.value.mistakes if broken.remedy in mistake]
    assert told, str(caught.value)
    place = f"serve.yaml:{broken.line}: {broken.path}:" if broken.path else f"serve.yaml:{broken.line}: "
    assert any(mistake.startswith(place) for mistake in told), told


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = "applications:\n- name: a\n  import_path: 3\n  deployments:\n  - name: D\n    num_replica: 1\nhttp_options: {port: -1}\n"

    with pytest.raises(ConfigError) as caught:
        read(text)

    assert ["3", "6", "7"] == [mistake.split(":")[1] for mistake in caught.value.mistakes]
    assert str(caught.value).count("\n") == 2


def test_an_error_with_several_mistakes_can_be_pickled() -> None:
    error = ConfigError("a: 1", "b: 2")

    assert error.mistakes == pickle.loads(pickle.dumps(error)).mistakes


def test_applications_are_read_with_all_their_options() -> None:
    config = read(APPLICATIONS)

    wine, other = config.applications
    assert ("wine", "/wine", "shop.wine:build") == (wine.name, wine.route_prefix, wine.import_path)
    assert {"model": "forest", "trees": 100} == wine.args
    assert {"X": "1"} == wine.runtime_env.env_vars
    assert "../code" == wine.runtime_env.working_dir
    assert ("lib",) == wine.runtime_env.py_modules
    assert {"enable_access_log": False} == wine.logging
    (model,) = wine.deployments
    assert "Model" == model.name
    assert {
        "num_replicas": 3,
        "user_config": {"threshold": 0.5},
        "ray_actor_options": {"num_cpus": 2},
    } == model.options
    assert ("default", "/", {}) == (other.name, other.route_prefix, other.args)
    assert {"import_path": "shop:app"} == other.given


def test_options_of_the_instance_are_read() -> None:
    config = read(WHOLE.replace("defaults: &defaults\n", ""))

    assert "EveryNode" == config.proxy_location
    assert {"host": "0.0.0.0", "port": 9000} == config.http_options
    assert {"log_level": "DEBUG"} == config.logging
    assert () == config.applications


def test_what_changes_nothing_yet_is_warned_about() -> None:
    text = (
        "applications: []\ngrpc_options: {port: 9001}\ntracing_config: {enabled: true}\n"
        "controller_options: {runtime_env: {env_vars: {X: '1'}}}\n"
    )

    warnings = read(text).warnings

    assert ["line 2: grpc", "line 3: trac", "line 4: cont"] == [warning[:12] for warning in warnings]


def test_json_is_read_with_tabs_and_escaped_characters() -> None:
    text = '{\n\t"applications": [\n\t\t{"import_path": "shop:app", "args": {"x": "\\ud83d\\ude00 \\/", "y": 1e5}}\n\t]\n}'

    (application,) = read(text, "serve.json").applications

    assert json.loads(text)["applications"][0]["args"] == application.args


def test_a_json_file_is_held_to_json() -> None:
    with pytest.raises(ConfigError, match=r"serve.json:2: the file is not JSON: expecting"):
        read('{"applications":\n [x]}', "serve.json")


def test_anchors_and_merges_are_expanded() -> None:
    text = (
        "applications:\n- name: a\n  import_path: &path shop:app\n  args: &args {x: 1, y: 2}\n"
        "- name: b\n  route_prefix: /b\n  import_path: *path\n  args:\n    <<: *args\n    y: 3\n"
    )

    a, b = read(text).applications

    assert a.import_path == b.import_path
    assert {"x": 1, "y": 3} == b.args


def test_an_error_found_later_names_the_nearest_line() -> None:
    config = read(APPLICATIONS)

    assert "serve.yaml:12: applications[0].deployments[0].name: gone" == str(
        config.error("applications[0].deployments[0].name", "gone")
    )
    assert 16 == config.line_of("applications[1].runtime_env.working_dir")


def test_bytes_that_are_not_utf_8_are_named_with_their_line() -> None:
    mistake = decode_text(b"applications:\n- name: \xe4\n")

    assert not isinstance(mistake, str)
    assert (2, True) == (mistake.line, "0xe4 is not UTF-8" in mistake.text)


def test_a_byte_order_mark_is_no_mistake() -> None:
    assert "applications: []" == decode_text("\ufeffapplications: []".encode())


def test_a_file_without_end_is_not_read() -> None:
    mistake = decode_text(b"x" * (MAX_BYTES + 1))

    assert not isinstance(mistake, str)
    assert "at most" in mistake.text


def test_a_control_character_is_named() -> None:
    document = read_document("a: 1\nb: \x00\n")

    assert "remove it" in document.mistakes[0].text


@pytest.mark.parametrize(
    "text", ["\x00", "{", "[[", "a: !!binary x", "&a [*a]", "? [a]\n: b", "<<: 3", "a: 1e999", "%YAML 9"]
)
def test_nothing_else_than_a_config_error_comes_out(text: str) -> None:
    with pytest.raises(ConfigError):
        read(text)


def test_without_checks_notation_keys_and_types_are_still_checked() -> None:
    config = parse_config(APPLICATIONS, source="x.yaml")

    assert 2 == len(config.applications)
    with pytest.raises(ConfigError, match="unknown key"):
        parse_config("aplications: []", source="x.yaml")
