"""Log lines of a replica, an ingress or the controller: two loggers, one handler, text or JSON.

Users log to "ray.serve", the system to "trygon". A process calls `set_up_logging` once it knows
what it is; lines go to standard error, which is the process's log file, and to `logs_dir` when set.
Nothing here reads a context by itself: the request's fields come from a callable.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, NamedTuple

from trygon.observability.log_file import note_written, rotation_or

__all__ = [
    "Component",
    "ContextProvider",
    "JsonFormatter",
    "LogContext",
    "LogCopy",
    "LogOptions",
    "Stamp",
    "TextFormatter",
    "json_fields",
    "log_copy",
    "parse_level",
    "set_up_logging",
    "write_all",
]

LOGGER_NAMES = ("ray.serve", "trygon")

#: Extra of a record that reports one finished request; `enable_access_log=False` drops such records.
ACCESS_LOG_EXTRA = "serve_access_log"

#: Extra of a record whose dict becomes fields of its own in a JSON line.
FIELDS_EXTRA = "ray_serve_extra_fields"

_MAX_FILE_BYTES = 512 * 1024 * 1024
_KEPT_FILES = 5


class LogContext(NamedTuple):
    """The request that is being worked on; empty strings stand for "not known"."""

    request_id: str = ""
    route: str = ""
    application: str = ""
    deployment: str = ""
    replica: str = ""


NO_REQUEST = LogContext()

#: Called for every line, on the thread that logs; returns None outside of requests.
ContextProvider = Callable[[], LogContext | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """Which process speaks.

    Args:
        kind: "replica", "proxy" or "controller": the start of its file's name.
        name: For people: "app_deployment" of a replica, the address of an ingress.
        id: The replica's tag, or the process id.
        context: Fields of a line that is logged outside of requests.
    """

    kind: str
    name: str
    id: str
    context: LogContext = NO_REQUEST

    @property
    def file_name(self) -> str:
        """The name of its file in `logs_dir`."""
        return f"{self.kind}_{self.name}_{self.id}.log".replace(os.sep, "-").replace("\0", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """The fields of a LoggingConfig, checked."""

    encoding: str = "TEXT"
    log_level: int = logging.INFO
    logs_dir: str | None = None
    enable_access_log: bool = True
    additional_log_standard_attrs: tuple[str, ...] = ()

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any] | None) -> LogOptions:
        """Lay the settings of instance, application and deployment over one another; the last wins.

        Raises:
            ValueError: A layer has an unknown key or a value that the key cannot have.
        """
        merged: dict[str, Any] = {}
        for layer in layers:
            merged.update(layer or {})
        unknown = sorted(merged.keys() - set(cls.__slots__))
        if unknown:
            raise ValueError(f"unknown logging option {unknown[0]!r}; known are {', '.join(cls.__slots__)}")
        if "encoding" in merged:
            merged["encoding"] = _encoding(merged["encoding"])
        if "log_level" in merged:
            merged["log_level"] = parse_level(merged["log_level"])
        attributes = merged.get("additional_log_standard_attrs") or ()
        if isinstance(attributes, str) or not all(isinstance(name, str) for name in attributes):
            raise ValueError(
                f"additional_log_standard_attrs is {attributes!r}; want a list of attribute names"
            )
        merged["additional_log_standard_attrs"] = tuple(attributes)
        return cls(**merged)

    @property
    def writes_access_log(self) -> bool:
        """Whether a finished request is worth a line."""
        return self.enable_access_log and self.log_level <= logging.INFO


def parse_level(level: str | int) -> int:
    """Return the number of a level given by name or number.

    Raises:
        ValueError: There is no such level.
    """
    if isinstance(level, int) and not isinstance(level, bool):
        return level
    known = logging.getLevelNamesMapping()
    if isinstance(level, str) and re.fullmatch(r"Level [0-9]+", level):
        # What the standard library calls a level that has no name.
        return int(level[6:])
    if not isinstance(level, str) or level.upper() not in known:
        raise ValueError(f"log_level is {level!r}; want one of {', '.join(known)}, or a number")
    return known[level.upper()]


def set_up_logging(
    component: Component,
    options: LogOptions,
    *,
    context: ContextProvider = lambda: None,
    system_level: str | int = logging.INFO,
    fd: int = 2,
) -> None:
    """Send the lines of "ray.serve" and "trygon" to standard error, and to `logs_dir` when given.

    A second call replaces what the first one set up. The two loggers hand nothing to the root
    logger, so that a `logging.basicConfig` of user code does not print lines twice.

    Args:
        component: Which process speaks.
        options: The user's wishes.
        context: Gives the request that the logging thread or task works on.
        system_level: The level of "trygon"; "ray.serve" has `options.log_level`.
        fd: Where standard error is.
    """
    formatter: logging.Formatter
    if options.encoding == "JSON":
        formatter = JsonFormatter(component, context, options.additional_log_standard_attrs)
    else:
        formatter = TextFormatter(component, context, options.additional_log_standard_attrs)
    handlers: list[logging.Handler] = [_DescriptorHandler(fd)]
    if options.logs_dir:
        handlers.append(LogCopy(Path(options.logs_dir) / component.file_name))
    for handler in handlers:
        handler.setFormatter(formatter)
        if not options.enable_access_log:
            handler.addFilter(_is_no_access_line)
    for name, level in zip(LOGGER_NAMES, (options.log_level, parse_level(system_level)), strict=True):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(level)
        _replace_handlers(logger, handlers)


def log_copy() -> LogCopy | None:
    """Return the file in `logs_dir` of this process, for lines that are no records; None without one."""
    handlers = logging.getLogger(LOGGER_NAMES[0]).handlers
    return next((handler for handler in handlers if isinstance(handler, LogCopy)), None)


def write_all(fd: int, data: bytes) -> None:
    """Write everything, or give up silently: a full disk or a closed file must not stop a request."""
    view = memoryview(data)
    while view:
        try:
            written = os.write(fd, view)
        except OSError:
            return
        view = view[written:]
    note_written(fd, len(data))


class TextFormatter(logging.Formatter):
    """`LEVEL time component id request_id -- message`; the request id only inside of a request."""

    def __init__(
        self, component: Component, context: ContextProvider = lambda: None, attributes: Iterable[str] = ()
    ) -> None:
        super().__init__()
        self._context = context
        self._speaker = f"{component.name} {component.id}"
        self._attributes = tuple(attributes)
        self._stamp = Stamp()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, with its traceback below."""
        context = self._context()
        request_id = f" {context.request_id}" if context is not None and context.request_id else ""
        extra = "".join(f" {getattr(record, name, '')}" for name in self._attributes)
        line = (
            f"{record.levelname} {self._stamp(record.created)} {self._speaker}{request_id}{extra}"
            f" -- {record.getMessage()}"
        )
        trace = _trace(self, record)
        return f"{line}\n{trace}" if trace else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(
        self, component: Component, context: ContextProvider = lambda: None, attributes: Iterable[str] = ()
    ) -> None:
        super().__init__()
        self._context = context
        self._component = component
        self._attributes = tuple(attributes)
        self._stamp = Stamp()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; a traceback is its field `exc_text`."""
        context = self._context() or self._component.context
        fields = json_fields(
            self._component, context, record.levelname, self._stamp(record.created), record.getMessage()
        )
        for name in self._attributes:
            fields[name] = getattr(record, name, None)
        extra = getattr(record, FIELDS_EXTRA, None)
        if isinstance(extra, Mapping):
            fields.update((str(key), value) for key, value in extra.items())
        trace = _trace(self, record)
        if trace:
            fields["exc_text"] = trace
        return json.dumps(fields, default=repr)


class Stamp:
    """Shows wall-clock seconds as `2025-01-31 13:05:59,123`, in local time.

    The part above the second is kept for the next line: making it takes longer than the rest of a line.
    """

    def __init__(self) -> None:
        self._shown: tuple[int, str] = (-1, "")

    def __call__(self, wall_s: float) -> str:
        """Return the text for a time."""
        second = int(wall_s)
        shown = self._shown
        if shown[0] != second:
            # One assignment of a pair: two threads may both make it, none sees half of it.
            shown = self._shown = (second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second)))
        return f"{shown[1]},{int((wall_s - second) * 1000):03d}"


def json_fields(
    component: Component, context: LogContext, level: str, stamp: str, message: str
) -> dict[str, Any]:
    """Return the fields that every JSON line has, and those of the request that are known."""
    fields: dict[str, Any] = {
        "levelname": level,
        "asctime": stamp,
        "message": message,
        "component_name": component.name,
        "component_id": component.id,
    }
    fields.update((name, value) for name, value in zip(context._fields, context, strict=True) if value)
    return fields


class _DescriptorHandler(logging.Handler):
    """Writes each line whole to a descriptor: `sys.stderr` may be replaced by user code, fd 2 stays."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a bad format string in user code costs its line, not the request
            self.handleError(record)
            return
        write_all(self._fd, line.encode("utf-8", "backslashreplace") + b"\n")


class LogCopy(RotatingFileHandler):
    """The second copy of a process's lines, in the folder that a user named.

    Args:
        path: Its name; the folder is made.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        max_bytes, kept = rotation_or(_MAX_FILE_BYTES, _KEPT_FILES)
        super().__init__(path, maxBytes=max_bytes, backupCount=kept, encoding="utf-8", delay=True)

    def write_lines(self, text: str) -> None:
        """Append lines that are written already; what cannot be written is lost, never the request."""
        with self.lock or contextlib.nullcontext(), contextlib.suppress(OSError):
            if self.stream is None:
                self.stream = self._open()
            self.stream.seek(0, os.SEEK_END)
            if self.maxBytes > 0 and 0 < self.stream.tell() > self.maxBytes - len(text):
                self.doRollover()
                if self.stream is None:
                    self.stream = self._open()
            self.stream.write(text)
            self.flush()


def _replace_handlers(logger: logging.Logger, handlers: list[logging.Handler]) -> None:
    old = [
        handler
        for handler in logger.handlers
        if isinstance(handler, _DescriptorHandler | RotatingFileHandler)
    ]
    for handler in handlers:
        logger.addHandler(handler)
    for handler in old:
        logger.removeHandler(handler)
        handler.close()


def _is_no_access_line(record: logging.LogRecord) -> bool:
    return not getattr(record, ACCESS_LOG_EXTRA, False)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and not record.exc_text:
        record.exc_text = formatter.formatException(record.exc_info)
    if record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _encoding(value: object) -> str:
    if not isinstance(value, str) or value.upper() not in {"TEXT", "JSON"}:
        raise ValueError(f"encoding is {value!r}; want 'TEXT' or 'JSON'")
    return value.upper()
