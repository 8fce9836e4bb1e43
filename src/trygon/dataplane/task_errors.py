"""User exceptions across processes: they keep their type and can also be caught as `TaskError`."""

from __future__ import annotations

import contextlib
import pickle
import traceback
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

import cloudpickle

from trygon.errors import TaskError

__all__ = ["dump_error", "load_error"]

#: An exception that carries more (a data frame, a request) travels as text: errors are not a channel for data.
MAX_DUMPED_BYTES = 1024 * 1024
MAX_TEXT_CHARS = 256 * 1024


def dump_error(error: BaseException) -> bytes:
    """Make a user's exception ready to travel; one that does not pickle travels as text."""
    text = "".join(traceback.format_exception(error))[-MAX_TEXT_CHARS:]
    name = type(error).__name__
    message = _message(error)[:MAX_TEXT_CHARS]
    try:
        # A trial load here: an exception whose __init__ wants other arguments fails only when rebuilt.
        dumped = cloudpickle.dumps(_without_traceback(error))
        if len(dumped) > MAX_DUMPED_BYTES:
            dumped = b""
        else:
            pickle.loads(dumped)
    except BaseException:  # noqa: BLE001 - a user's exception class may do anything
        dumped = b""
    return pickle.dumps((dumped, name, message, text), protocol=5)


def load_error(data: bytes) -> TaskError:
    """Return what the caller raises: a TaskError that is also of the user's type, if that can be had."""
    dumped, name, message, text = pickle.loads(data)
    cause: BaseException | None = None
    try:
        cause = pickle.loads(dumped) if dumped else None
        if isinstance(cause, TaskError):
            # Raised by a child and passed on: it keeps its first cause and gets the longer traceback.
            cause.remote_traceback = text
            return cause
        if isinstance(cause, Exception):
            return _complete(_make(cause), cause, text)
    except BaseException:  # noqa: BLE001 - the class may not be importable here, and runs its own code
        cause = None
    return _complete(TaskError(f"{name}: {message}"), cause, text)


def _complete(made: TaskError, cause: BaseException | None, text: str) -> TaskError:
    made.cause = cause
    made.remote_traceback = text
    return made


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a user's __str__ may do anything
        return "(its text could not be made)"


def _without_traceback(error: BaseException) -> BaseException:
    # A cause or context may hold what does not pickle; the text has the whole chain already.
    error.__cause__ = None
    error.__context__ = None
    return error


def _make(cause: Exception) -> TaskError:
    try:
        made: TaskError = _dual_class(type(cause)).__new__(_dual_class(type(cause)), *cause.args)
    except TypeError:
        return TaskError(f"{type(cause).__name__}: {_message(cause)}")
    _fill_builtin_fields(made, cause)
    made.args = cause.args
    made.__dict__.update(getattr(cause, "__dict__", {}))
    return made


def _fill_builtin_fields(made: TaskError, cause: Exception) -> None:
    """Set what built-in exceptions keep outside of their __dict__: errno, filename, start, name, ..."""
    for kind in type(cause).__mro__:
        if kind.__module__ == "builtins":
            for name, field in vars(kind).items():
                if isinstance(field, MemberDescriptorType | GetSetDescriptorType) and not name.startswith(
                    "__"
                ):
                    with contextlib.suppress(AttributeError, TypeError):
                        setattr(made, name, getattr(cause, name))


_dual_classes: dict[type[Exception], type[TaskError]] = {}
#: Classes made in functions are new each time; beyond this many they are not kept.
_MAX_DUAL_CLASSES = 256


def _dual_class(kind: type[Exception]) -> type[TaskError]:
    """Return a class that is both; raises TypeError for a type that cannot be extended."""
    known = _dual_classes.get(kind)
    if known is not None:
        return known
    made = _make_dual_class(kind)
    if len(_dual_classes) < _MAX_DUAL_CLASSES:
        _dual_classes[kind] = made
    return made


def _make_dual_class(kind: type[Exception]) -> type[TaskError]:

    def show(self: TaskError) -> str:
        return f"{_message(self.cause) if self.cause is not None else ''}\n\n{self.remote_traceback}".strip()

    def rebuild(self: TaskError) -> tuple[Any, ...]:
        return _rebuild, (self.cause, self.remote_traceback)

    return type(
        f"TaskError({kind.__name__})",
        (TaskError, kind),
        {
            "__init__": lambda _self, *_args, **_kwargs: None,
            "__str__": show,
            "__reduce__": rebuild,
            "__module__": TaskError.__module__,
        },
    )


def _rebuild(cause: Exception, remote_traceback: str) -> TaskError:
    return _complete(_make(cause), cause, remote_traceback)
