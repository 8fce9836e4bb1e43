"""User exceptions keep their type, arguments and attributes, whatever they do in their constructors."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest

from trygon.dataplane.task_errors import dump_error, load_error
from trygon.errors import BackPressureError, RequestCancelledError, TaskError


def travel(error: BaseException) -> TaskError:
    try:
        raise error
    except BaseException as raised:
        return load_error(dump_error(raised))


class WithKeyword(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(code)
        self.code = code


class WithSlots(ValueError):
    __slots__ = ("extra",)


class Hostile(Exception):
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit(1)",)


class HoldsLock(OSError):
    def __init__(self) -> None:
        super().__init__(5, "io")
        self.lock = threading.Lock()


class Slashes(KeyError):
    def __str__(self) -> str:
        return "own text"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 1),
        KeyError("k"),
        Slashes("k"),
        OSError(2, "no", "file"),
        ConnectionResetError(104, "reset"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopAsyncIteration(3),
        ImportError("no", name="m", path="p"),
        SyntaxError("bad", ("f.py", 1, 2, "text")),
        ExceptionGroup("g", [ValueError(1), OSError(1, "x")]),
        BackPressureError(1, 2, 429, 3.0),
        RequestCancelledError("r1"),
    ],
)
def test_exceptions_keep_their_type_and_fields(error: Exception) -> None:
    got = travel(error)

    assert isinstance(got, type(error))
    assert isinstance(got, TaskError)
    assert repr(error.args) == repr(got.args)
    for name in (
        "errno",
        "strerror",
        "filename",
        "object",
        "end",
        "name",
        "path",
        "lineno",
        "text",
        "message",
    ):
        if hasattr(error, name):
            assert repr(getattr(error, name)) == repr(getattr(got, name))
    assert str(error) in str(got)
    assert "Traceback" in got.remote_traceback
    again = pickle.loads(pickle.dumps(got))
    assert isinstance(again, type(error))
    assert got.remote_traceback == again.remote_traceback


@pytest.mark.parametrize(
    "error",
    [WithKeyword(code=3), Hostile("h"), HoldsLock(), SystemExit(2), KeyboardInterrupt(), GeneratorExit()],
)
def test_exceptions_that_cannot_be_rebuilt_come_as_text(error: BaseException) -> None:
    got = travel(error)

    assert type(got) is TaskError
    assert type(error).__name__ in str(got)
    assert type(error).__name__ in got.remote_traceback


def test_a_task_error_that_passes_through_keeps_its_first_cause() -> None:
    first = travel(ValueError("deep"))

    second = travel(first)

    assert isinstance(second, ValueError)
    assert isinstance(second.cause, ValueError)
    assert not isinstance(second.cause, TaskError)
    assert second.remote_traceback.count("deep") >= first.remote_traceback.count("deep")


def test_an_exception_that_carries_much_travels_as_text() -> None:
    got = travel(ValueError("x" * 3_000_000))

    assert isinstance(got, TaskError)
    assert len(str(got)) < 1_000_000


def test_many_local_exception_classes_are_not_kept() -> None:
    for number in range(600):
        kind = type(f"Local{number}", (Exception,), {"__module__": __name__})
        assert isinstance(travel(kind("x")), TaskError)
