"""The runtime environment of a command line."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from trygon.cli.runtime_env import RuntimeEnv, read_runtime_env


def test_nothing_given_changes_nothing() -> None:
    assert read_runtime_env(None, None, None) == RuntimeEnv({}, None)


def test_json_and_file_mean_the_same(tmp_path: Path) -> None:
    file = tmp_path / "env.yaml"
    file.write_text(f"env_vars:\n  A: b\nworking_dir: {tmp_path}\n")

    from_file = read_runtime_env(str(file), None, None)
    from_text = read_runtime_env(None, f'{{"env_vars": {{"A": "b"}}, "working_dir": "{tmp_path}"}}', None)

    assert from_file == from_text == RuntimeEnv({"A": "b"}, str(tmp_path))


def test_the_working_dir_option_wins(tmp_path: Path) -> None:
    found = read_runtime_env(None, '{"working_dir": "/"}', str(tmp_path))

    assert found.working_dir == str(tmp_path)


def test_an_empty_file_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "env.yaml"
    file.write_text("")

    assert read_runtime_env(str(file), None, None) == RuntimeEnv({}, None)


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("[]", "wants a mapping"),
        ("{", "is not JSON"),
        ('{"env_vars": {"A": 1}}', "dict of strings"),
        ('{"conda": "x"}', "'conda' cannot be provided"),
        ('{"working_dir": "/not/there"}', "is not there"),
    ],
)
def test_what_cannot_be_is_refused(text: str, wanted: str) -> None:
    with pytest.raises(click.UsageError, match=wanted):
        read_runtime_env(None, text, None)


def test_both_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="not both"):
        read_runtime_env("env.yaml", "{}", None)


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "env.yaml"
    file.write_text("a: [")

    with pytest.raises(click.UsageError, match="is not YAML"):
        read_runtime_env(str(file), None, None)
