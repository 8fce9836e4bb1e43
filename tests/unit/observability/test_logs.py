"""Log lines have Ray Serve's shape, carry the request, and are written once."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from trygon.observability.access_log import AccessLog
from trygon.observability.log_file import Rotation, use_rotation
from trygon.observability.logs import Component, LogContext, LogOptions, log_copy, set_up_logging, write_all

COMPONENT = Component(
    kind="replica",
    name="wine_Taster",
    id="a1b2c3",
    context=LogContext(application="wine", deployment="Taster", replica="a1b2c3"),
)
REQUEST = LogContext("req-7", "/wine", "wine", "Taster", "a1b2c3")


class Output:
    """A file that stands for standard error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    found = Output(tmp_path / "stderr")
    names = ("ray.serve", "trygon")
    before = [
        (logging.getLogger(name), logging.getLogger(name).level, logging.getLogger(name).propagate)
        for name in names
    ]
    yield found
    for logger, level, propagate in before:
        logger.setLevel(level)
        logger.propagate = propagate
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
    os.close(found.fd)


def test_a_text_line_has_level_time_component_id_request_and_message(output: Output) -> None:
    set_up_logging(COMPONENT, LogOptions(), context=lambda: REQUEST, fd=output.fd)

    logging.getLogger("ray.serve").warning("corked %s", 1998)

    (line,) = output.lines()
    assert re.fullmatch(
        r"WARNING \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} wine_Taster a1b2c3 req-7 -- corked 1998", line
    )


def test_a_text_line_outside_of_a_request_has_no_request_id(output: Output) -> None:
    set_up_logging(COMPONENT, LogOptions(), fd=output.fd)

    logging.getLogger("ray.serve").info("ready")

    assert output.lines()[0].endswith(" wine_Taster a1b2c3 -- ready")


def test_a_json_line_has_the_fields_of_the_request_and_of_the_user(output: Output) -> None:
    options = LogOptions.from_layers({"encoding": "json", "additional_log_standard_attrs": ["name"]})
    set_up_logging(COMPONENT, options, context=lambda: REQUEST, fd=output.fd)

    logging.getLogger("ray.serve").error(
        "bad", extra={"ray_serve_extra_fields": {"vintage": 1998, "odd": {1}}}
    )

    (line,) = output.lines()
    fields = json.loads(line)
    fields.pop("asctime")
    assert fields == {
        "levelname": "ERROR",
        "message": "bad",
        "component_name": "wine_Taster",
        "component_id": "a1b2c3",
        "request_id": "req-7",
        "route": "/wine",
        "application": "wine",
        "deployment": "Taster",
        "replica": "a1b2c3",
        "name": "ray.serve",
        "vintage": 1998,
        "odd": "{1}",
    }


@pytest.mark.parametrize("encoding", ["TEXT", "JSON"])
def test_a_traceback_is_part_of_the_line(output: Output, encoding: str) -> None:
    set_up_logging(COMPONENT, LogOptions(encoding=encoding), fd=output.fd)

    try:
        raise ValueError("vinegar")
    except ValueError:
        logging.getLogger("ray.serve").exception("failed")

    assert "ValueError: vinegar" in output.path.read_text()
    assert (1 if encoding == "JSON" else 4) <= len(output.lines())


def test_setting_up_again_replaces_and_nothing_reaches_the_root(
    output: Output, caplog: pytest.LogCaptureFixture
) -> None:
    set_up_logging(COMPONENT, LogOptions(log_level=logging.DEBUG), fd=output.fd)
    set_up_logging(COMPONENT, LogOptions(), fd=output.fd)

    logging.getLogger("ray.serve").info("once")
    logging.getLogger("ray.serve").debug("never")
    logging.getLogger("trygon.control").info("once too")

    assert ["once", "once too"] == [line.split(" -- ")[1] for line in output.lines()]
    assert [] == caplog.messages


def test_the_level_of_the_system_is_its_own(output: Output) -> None:
    set_up_logging(COMPONENT, LogOptions(log_level=logging.ERROR), system_level="debug", fd=output.fd)

    logging.getLogger("ray.serve").warning("user")
    logging.getLogger("trygon").debug("system")

    assert ["system"] == [line.split(" -- ")[1] for line in output.lines()]


def test_lines_also_go_to_a_file_in_logs_dir(output: Output, tmp_path: Path) -> None:
    set_up_logging(COMPONENT, LogOptions(logs_dir=str(tmp_path / "logs")), fd=output.fd)

    logging.getLogger("ray.serve").info("twice")

    assert output.lines() == (tmp_path / "logs" / "replica_wine_Taster_a1b2c3.log").read_text().splitlines()


def test_access_records_are_dropped_when_the_access_log_is_off(output: Output) -> None:
    set_up_logging(COMPONENT, LogOptions(enable_access_log=False), fd=output.fd)

    logging.getLogger("ray.serve").info("GET / 200 1.0ms", extra={"serve_access_log": True})
    logging.getLogger("ray.serve").info("kept")

    assert ["kept"] == [line.split(" -- ")[1] for line in output.lines()]


def test_a_bad_format_string_costs_its_line_only(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(COMPONENT, LogOptions(), fd=output.fd)

    logging.getLogger("ray.serve").info("%d", "not a number")
    logging.getLogger("ray.serve").info("next")

    assert ["next"] == [line.split(" -- ")[1] for line in output.lines()]
    assert "not a number" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_stops_nobody() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        write_all(fd, b"lost\n")
    finally:
        os.close(fd)


def test_later_layers_win() -> None:
    options = LogOptions.from_layers({"log_level": "ERROR", "encoding": "JSON"}, None, {"log_level": 10})

    assert LogOptions(encoding="JSON", log_level=10) == options


@pytest.mark.parametrize("level, number", [("INFO", 20), ("debug", 10), (15, 15), ("Level 15", 15)])
def test_a_level_has_a_name_or_a_number(level: str | int, number: int) -> None:
    assert number == LogOptions.from_layers({"log_level": level}).log_level


@pytest.mark.parametrize(
    "layer",
    [
        {"loglevel": "INFO"},
        {"log_level": "LOUD"},
        {"log_level": None},
        {"encoding": "XML"},
        {"additional_log_standard_attrs": "name"},
    ],
)
def test_a_wrong_layer_is_refused_by_the_name_of_its_key(layer: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(layer))):
        LogOptions.from_layers(layer)


class Loop:
    """Keeps what is to run soon."""

    def __init__(self) -> None:
        self.scheduled: list[object] = []

    def call_soon(self, callback: object) -> None:
        self.scheduled.append(callback)


def access_log(output: Output, loop: Loop, **options: object) -> AccessLog:
    return AccessLog(
        COMPONENT,
        LogOptions.from_layers(options),
        wall=lambda: 1.25,
        schedule=loop.call_soon,
        fd=output.fd,
        max_lines=3,
    )


def test_access_lines_of_one_turn_leave_in_one_write(output: Output) -> None:
    loop = Loop()
    log = access_log(output, loop)

    log.http("GET", 200, 12.34, REQUEST)
    log.call("__call__", "CANCELLED", 0.05, LogContext())

    assert [] == output.lines()
    assert [log.flush] == loop.scheduled
    log.flush()
    first, second = output.lines()
    assert re.fullmatch(r"INFO \S+ \S+,250 wine_Taster a1b2c3 req-7 -- GET /wine 200 12\.3ms", first)
    assert second.endswith(" wine_Taster a1b2c3 -- CALL __call__ CANCELLED 0.1ms")


def test_a_full_buffer_is_written_at_once(output: Output) -> None:
    loop = Loop()
    log = access_log(output, loop, encoding="JSON")

    for _ in range(4):
        log.http("GET", 200, 1.0, REQUEST)

    assert 3 == len(output.lines())
    assert "GET /wine 200 1.0ms" == json.loads(output.lines()[0])["message"]
    assert 2 == len(loop.scheduled)


def test_no_lines_are_wanted_when_switched_off_or_above_info(output: Output) -> None:
    assert access_log(output, Loop()).enabled
    assert not access_log(output, Loop(), enable_access_log=False).enabled
    assert not access_log(output, Loop(), log_level="WARNING").enabled


def test_the_copy_takes_lines_that_are_no_records_and_is_rotated(output: Output, tmp_path: Path) -> None:
    use_rotation(Rotation(max_bytes=100, kept=2))
    try:
        set_up_logging(COMPONENT, LogOptions(logs_dir=str(tmp_path / "new")), fd=output.fd)
        copy = log_copy()
        assert copy is not None
        logging.getLogger("ray.serve").info("a record")
        for number in range(3):
            copy.write_lines(f"line {number} {'x' * 80}\n")
    finally:
        use_rotation(Rotation())
        set_up_logging(COMPONENT, LogOptions(), fd=output.fd)

    path = tmp_path / "new" / COMPONENT.file_name
    assert log_copy() is None
    assert "line 2" in path.read_text()
    assert "line 1" in Path(f"{path}.1").read_text()
    assert "line 0" in Path(f"{path}.2").read_text()
    assert not Path(f"{path}.3").exists()


def test_a_copy_that_cannot_be_written_loses_lines_and_nothing_else(output: Output, tmp_path: Path) -> None:
    set_up_logging(COMPONENT, LogOptions(logs_dir=str(tmp_path / "gone")), fd=output.fd)
    copy = log_copy()
    assert copy is not None
    (tmp_path / "gone").rmdir()

    copy.write_lines("lost\n")

    set_up_logging(COMPONENT, LogOptions(), fd=output.fd)
    assert not (tmp_path / "gone").exists()
