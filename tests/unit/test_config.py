"""Settings read the environment once, typed, and say what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trygon.config import LATENCY_BUCKETS_MS, Settings, SettingsError, admin_options, make_private_dir
from trygon.errors import InstanceError
from trygon.spec.admin import AdminOptions


def settings(**environ: str) -> Settings:
    return Settings.from_environ({"HOME": "/home/ada", **environ})


def test_an_empty_environment_gives_the_defaults() -> None:
    found = settings()

    assert Path("/home/ada/.trygon") == found.home
    assert Path(f"/tmp/trygon-{os.geteuid()}") == found.runtime_dir
    assert None is found.instance
    assert 1 == found.num_ingress
    assert "127.0.0.1" == found.default_http_host
    assert found.run_sync_in_threadpool
    assert not found.force_local_testing_mode
    assert LATENCY_BUCKETS_MS == found.request_latency_buckets_ms
    assert () == found.without_effect


def test_only_buckets_that_somebody_chose_replace_ours() -> None:
    assert settings().own_latency_buckets_ms is None
    assert (1.0, 5.0) == settings(RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS="1,5").own_latency_buckets_ms


def test_other_levels_and_prefixes_of_metrics_may_be_named_too() -> None:
    found = settings(TRYGON_METRICS="off", TRYGON_METRICS_PREFIX="trygon")

    assert ("off", "trygon") == (found.metrics, found.metrics_prefix)
    assert "on" == settings(TRYGON_METRICS="on").metrics


def test_an_empty_variable_is_an_unset_one() -> None:
    assert settings() == settings(TRYGON_NUM_INGRESS="", TRYGON_HOME="", RAY_SERVE_DEFAULT_HTTP_HOST="")


def test_every_variable_is_read() -> None:
    found = settings(
        TRYGON_HOME="/srv/trygon",
        TRYGON_RUNTIME_DIR="/run/t",
        TRYGON_INSTANCE="blue-1",
        TRYGON_NUM_INGRESS="4",
        TRYGON_METRICS_PREFIX="ray",
        TRYGON_METRICS="basic",
        TRYGON_LOG_LEVEL="debug",
        RAY_SERVE_DEFAULT_HTTP_HOST="0.0.0.0",
        RAY_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S="7.5",
        RAY_SERVE_FORCE_LOCAL_TESTING_MODE="1",
        RAY_SERVE_RUN_SYNC_IN_THREADPOOL="0",
        RAY_SERVE_FREEZE_GC_ON_STARTUP="0",
        RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS="1",
        RAY_SERVE_SESSION_ID_HEADER_KEY="X-Session",
        RAY_SERVE_LOG_TO_STDERR="0",
        RAY_SERVE_LOG_CLIENT_ADDRESS="1",
        RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE="1000",
        RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS="1, 2.5,10",
        RAY_SERVE_MODEL_LOAD_LATENCY_BUCKETS_MS="100",
    )

    assert found == Settings(
        home=Path("/srv/trygon"),
        runtime_dir=Path("/run/t"),
        instance="blue-1",
        num_ingress=4,
        metrics_prefix="ray",
        metrics="basic",
        log_level="DEBUG",
        default_http_host="0.0.0.0",
        http_keep_alive_timeout_s=7.5,
        force_local_testing_mode=True,
        run_sync_in_threadpool=False,
        freeze_gc_on_startup=False,
        force_stop_unhealthy_replicas=True,
        session_id_header="x-session",
        log_to_stderr=False,
        log_client_address=True,
        request_path_log_buffer_size=1000,
        request_latency_buckets_ms=(1.0, 2.5, 10.0),
        model_load_latency_buckets_ms=(100.0,),
    )


@pytest.mark.parametrize(
    "name, text",
    [
        ("TRYGON_HOME", "relative/path"),
        ("TRYGON_RUNTIME_DIR", "/" + "x" * 60),
        ("TRYGON_INSTANCE", "../other"),
        ("TRYGON_INSTANCE", "a" * 25),
        ("TRYGON_NUM_INGRESS", "0"),
        ("TRYGON_NUM_INGRESS", "two"),
        ("TRYGON_NUM_INGRESS", "1_0"),
        ("TRYGON_METRICS_PREFIX", "serve"),
        ("TRYGON_METRICS", "1"),
        ("TRYGON_LOG_LEVEL", "LOUD"),
        ("RAY_SERVE_DEFAULT_HTTP_HOST", "http://host/"),
        ("RAY_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S", "-1"),
        ("RAY_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S", "nan"),
        ("RAY_SERVE_RUN_SYNC_IN_THREADPOOL", "yes"),
        ("RAY_SERVE_SESSION_ID_HEADER_KEY", "x session"),
        ("RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS", "5,1"),
        ("RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS", "0,1"),
        ("RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS", "1,,2"),
    ],
)
def test_a_malformed_variable_is_refused_by_name_with_its_value(name: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(**{name: text})

    assert name in str(caught.value)
    assert repr(text) in str(caught.value)
    assert "; want " in str(caught.value)


@pytest.mark.parametrize(
    "text, attached, port, expected",
    [
        ("", True, None, None),
        ("", False, None, AdminOptions()),
        ("off", False, None, None),
        ("off", True, 9000, AdminOptions(port=9000)),
        ("0", True, None, AdminOptions(port=0)),
        ("9001", False, 9000, AdminOptions(port=9000)),
    ],
)
def test_the_admin_port_is_for_detached_instances_and_those_that_ask(
    text: str, attached: bool, port: int | None, expected: AdminOptions | None
) -> None:
    found = settings(TRYGON_ADMIN_PORT=text)

    assert expected == admin_options(found, attached=attached, port=port)


def test_where_the_admin_port_listens_is_read_too() -> None:
    found = settings(
        TRYGON_ADMIN_HOST="0.0.0.0",
        TRYGON_ADMIN_ALLOWED_HOSTS="a.example, b.example,",
        TRYGON_ADMIN_ALLOW_PLAINTEXT="1",
    )

    expected = AdminOptions(host="0.0.0.0", allowed_hosts=("a.example", "b.example"), allow_plaintext=True)
    assert expected == admin_options(found, attached=False)


@pytest.mark.parametrize("text", ["on", "-1", "65536", "8265 "])
def test_an_admin_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"TRYGON_ADMIN_PORT.*or 'off'"):
        settings(TRYGON_ADMIN_PORT=text)


def test_variables_that_change_nothing_are_named() -> None:
    found = settings(TRYGON_NUM_INGRES="2", RAY_SERVE_CONTROL_LOOP_INTERVAL_S="0.1", RAY_ADDRESS="auto")

    assert ("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "TRYGON_NUM_INGRES") == found.without_effect


def test_the_session_folder_of_the_user_is_preferred_for_sockets(isolated_home: Path) -> None:
    assert isolated_home / "trygon" == settings(XDG_RUNTIME_DIR=str(isolated_home)).runtime_dir


@pytest.mark.parametrize("folder", ["/nowhere", "relative", "/proc/1"])
def test_a_session_folder_that_cannot_be_used_is_passed_over(folder: str) -> None:
    assert Path(f"/tmp/trygon-{os.geteuid()}") == settings(XDG_RUNTIME_DIR=folder).runtime_dir


def test_a_private_directory_is_made_for_the_owner_only(tmp_path: Path) -> None:
    made = make_private_dir(tmp_path / "a" / "b", what="TRYGON_HOME")

    assert 0o700 == made.stat().st_mode & 0o777
    assert 0o700 == made.parent.stat().st_mode & 0o777
    assert made == make_private_dir(made, what="TRYGON_HOME")


def test_a_directory_that_others_may_enter_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)

    with pytest.raises(InstanceError, match="chmod 700"):
        make_private_dir(tmp_path / "open", what="TRYGON_RUNTIME_DIR")


def test_a_link_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")

    with pytest.raises(InstanceError, match="symbolic link"):
        make_private_dir(tmp_path / "link", what="TRYGON_RUNTIME_DIR")


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(InstanceError, match="found a file"):
        make_private_dir(tmp_path / "file", what="TRYGON_HOME")
    with pytest.raises(InstanceError, match="cannot make"):
        make_private_dir(tmp_path / "file" / "below", what="TRYGON_HOME")


@pytest.mark.root
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 65534, 65534)

    with pytest.raises(InstanceError, match="belongs to user 65534"):
        make_private_dir(tmp_path / "theirs", what="TRYGON_RUNTIME_DIR")


def test_a_certificate_of_the_admin_port_needs_its_key() -> None:
    both = {"TRYGON_ADMIN_SSL_KEYFILE": "/k.pem", "TRYGON_ADMIN_SSL_CERTFILE": "/c.pem"}

    found = admin_options(Settings.from_environ(both), attached=False)

    assert found is not None
    assert {"ssl_keyfile": "/k.pem", "ssl_certfile": "/c.pem"} == found.tls
    for name, path in both.items():
        with pytest.raises(SettingsError, match="give both"):
            admin_options(Settings.from_environ({name: path}), attached=False)


def test_sizes_and_numbers_of_log_files_are_read() -> None:
    found = Settings.from_environ(
        {"TRYGON_ROTATION_MAX_BYTES": "1000000", "TRYGON_ROTATION_BACKUP_COUNT": "7"}
    )

    assert (1_000_000, 7) == (found.rotation_max_bytes, found.rotation_backup_count)
    with pytest.raises(SettingsError, match="TRYGON_ROTATION_MAX_BYTES"):
        Settings.from_environ({"TRYGON_ROTATION_MAX_BYTES": "64M"})
