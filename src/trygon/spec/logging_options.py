"""Options of logs and traces."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from trygon.spec.validation import Check, Options, boolean, list_of, number, option, optional, string

__all__ = ["EncodingType", "LoggingConfig", "TracingConfig"]

#: Names of the levels of the logging module, and their numbers.
_LEVELS = {
    "CRITICAL": 50,
    "FATAL": 50,
    "ERROR": 40,
    "WARNING": 30,
    "WARN": 30,
    "INFO": 20,
    "DEBUG": 10,
    "NOTSET": 0,
}
#: Attributes of every logging.LogRecord.
_RECORD_ATTRIBUTES = frozenset(
    """args asctime created exc_info exc_text filename funcName levelname levelno lineno message module msecs msg
    name pathname process processName relativeCreated stack_info taskName thread threadName""".split()  # noqa: SIM905
)


class EncodingType(StrEnum):
    """How a log record is written."""

    TEXT = "TEXT"
    JSON = "JSON"


def _level(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return next((name for name, number in _LEVELS.items() if number == value), f"Level {value}")
    if isinstance(value, str) and value in _LEVELS:
        return value
    near = value.upper() if isinstance(value, str) and value.upper() in _LEVELS else None
    raise ValueError(f"write {near!r}" if near else "")


def _record_attribute(value: Any) -> str:
    if value not in _RECORD_ATTRIBUTES:
        raise ValueError(f"{value!r} is none of them")
    return str(value)


class LoggingConfig(Options):
    """How an instance, an application or a deployment logs; the most specific one wins."""

    encoding: EncodingType = option(default=EncodingType.TEXT, check=Check("'TEXT' or 'JSON'", EncodingType))
    log_level: str = option(
        default="INFO", check=Check("the name or number of a logging level, such as 'INFO' or 20", _level)
    )
    logs_dir: str | None = option(default=None, check=optional(string))
    enable_access_log: bool = option(default=True, check=boolean)
    additional_log_standard_attrs: list[str] = option(
        default=[],
        check=list_of(Check("the name of a standard attribute of logging.LogRecord", _record_attribute)),
    )


class TracingConfig(Options):
    """OpenTelemetry traces: whether, where to, and for which share of requests."""

    enabled: bool = option(default=False, check=boolean)
    exporter_import_path: str = option(default="", check=string)
    sampling_ratio: float = option(default=0.01, check=number(0, 1))
