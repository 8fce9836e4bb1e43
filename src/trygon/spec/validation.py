"""Checks of values that users give, and the immutable option classes made of them.

An option class declares each field once, with its default and its check.
It needs no pydantic: this module is on the path of every ``@serve.deployment``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from sys import _getframe
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

from trygon.errors import ServeError
from trygon.spec.model import ModelMethods

__all__ = [
    "REQUIRED",
    "Check",
    "OptionError",
    "Options",
    "any_value",
    "boolean",
    "check_name",
    "check_value",
    "enum_member",
    "integer",
    "json_value",
    "list_of",
    "mapping",
    "near_names",
    "notices",
    "number",
    "one_of",
    "option",
    "optional",
    "options_of",
    "string",
]


class OptionError(ServeError, ValueError):
    """An option has a value that cannot be used; the text says what was wanted, found, and what to do."""


class Check:
    """What a value must be, in words, and the function that accepts it.

    Args:
        wanted: Ends the sentence "wanted ...".
        convert: Returns the value to keep; raises ValueError or TypeError for a bad one.
    """

    __slots__ = ("convert", "wanted")

    def __init__(self, wanted: str, convert: Callable[[Any], Any]) -> None:
        self.wanted = wanted
        self.convert = convert


def check_value(owner: str, name: str, value: object, check: Check) -> Any:
    """Return `value` as `check` accepts it; an empty owner is left out of the error.

    Raises:
        OptionError: Naming the owner, the option, what was wanted and what was found.
    """
    place = f"{owner}, {name}" if owner else name
    try:
        return check.convert(value)
    except OptionError as error:
        raise OptionError(f"{place}: {error}") from None
    except (TypeError, ValueError, OverflowError) as error:
        detail = f" ({error})" if str(error) else ""
        found = f"{value!r} of type {type(value).__name__}"
        raise OptionError(f"{place}: wanted {check.wanted}, found {found}{detail}") from None


# ---- checks


def _refuse(detail: str = "") -> Any:
    raise ValueError(detail)


def _as_integer(value: Any) -> int:
    # Numeric text is accepted, as in Ray Serve, because options often come from the environment.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return _as_index(value)
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    try:
        return int(value)
    except ValueError:
        raise ValueError from None


def _as_index(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError
    return int(value.__index__())


def _as_float(value: Any) -> float:
    if isinstance(value, bool) or value is None:
        raise ValueError
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise ValueError from None
    return result if math.isfinite(result) else _refuse("not a finite number")


def integer(minimum: int, maximum: int | None = None, *, also: int | None = None) -> Check:
    """A whole number in a range; `also` is one more allowed value."""
    wanted = (
        f"an integer of {minimum} or more" if maximum is None else f"an integer of {minimum} to {maximum}"
    )
    if also is not None:
        wanted += f", or {also}"

    def convert(value: Any) -> int:
        result = _as_integer(value)
        in_range = result >= minimum and (maximum is None or result <= maximum)
        return result if in_range or result == also else _refuse()

    return Check(wanted, convert)


def number(minimum: float = 0.0, maximum: float | None = None, *, above: bool = False) -> Check:
    """A finite number in a range; with `above`, the minimum itself is not allowed."""
    wanted = f"a number above {minimum:g}" if above else f"a number of {minimum:g} or more"
    if maximum is not None:
        wanted += f" and at most {maximum:g}"

    def convert(value: Any) -> float:
        result = _as_float(value)
        low_enough = maximum is None or result <= maximum
        return result if low_enough and (result > minimum if above else result >= minimum) else _refuse()

    return Check(wanted, convert)


boolean = Check("True or False", lambda value: value if isinstance(value, bool) else _refuse())
string = Check("a string", lambda value: value if isinstance(value, str) else _refuse())
any_value = Check("any value", lambda value: value)
mapping = Check("a dict", lambda value: dict(value) if isinstance(value, Mapping) else _refuse())


def optional(check: Check) -> Check:
    """None, or what `check` accepts."""
    return Check(f"None or {check.wanted}", lambda value: None if value is None else check.convert(value))


def one_of(*values: object) -> Check:
    """One of a few values."""
    listed = " or ".join(repr(value) for value in values)
    return Check(listed, lambda value: value if value in values else _refuse())


def list_of(check: Check) -> Check:
    """A list or tuple of what `check` accepts; kept as a list."""

    def convert(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise ValueError
        return [check.convert(item) for item in value]

    return Check(f"a list, each item {check.wanted}", convert)


def enum_member(kind: type[Enum]) -> Check:
    """A member of an enum, or its value."""
    listed = ", ".join(repr(member.value) for member in kind)
    return Check(f"one of {listed}", kind)


def _as_json(value: Any) -> Any:
    import json

    json.dumps(value)
    return value


json_value = Check("a value that json.dumps can write", _as_json)


# ---- notices


class _Notices:
    """Warnings that are worth saying once in a process."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def once(self, key: str, text: str) -> None:
        """Warn with `text` unless `key` was warned about before; point at the first caller outside Trygon."""
        if key in self._said:
            return
        self._said.add(key)
        level, frame = 1, _getframe(0)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("trygon."):
            frame = frame.f_back
            level += 1
        warnings.warn(text, UserWarning, stacklevel=level)

    def clear(self) -> None:
        """Say everything again."""
        self._said.clear()


notices = _Notices()


def near_names(name: str, names: Mapping[str, object] | frozenset[str] | list[str]) -> str:
    """Return "; did you mean 'x'?" with the nearest of `names`, or an empty string."""
    from difflib import get_close_matches

    found = get_close_matches(name, list(names), n=3)
    return f"; did you mean {' or '.join(repr(near) for near in found)}?" if found else ""


# ---- option classes


class _Required(Enum):
    REQUIRED = "required"


#: Default of a field that must be given.
REQUIRED = _Required.REQUIRED


class _Field:
    __slots__ = ("check", "default")

    def __init__(self, default: Any, check: Check) -> None:
        self.default = default
        self.check = check


def option(*, default: Any = REQUIRED, check: Check) -> Any:
    """Declare a field of an option class."""
    return _Field(default, check)


_Kind = TypeVar("_Kind", bound="Options")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option,))
class Options(ModelMethods):
    """Base of the option classes: keyword-only, checked when made, never changed after.

    Sub-classes declare fields with `option` and may check fields against each other in `_check`.
    """

    _fields: ClassVar[dict[str, _Field]] = {}
    __slots__ = ("__dict__", "_given")

    #: Names that were given, defaults or not.
    _given: frozenset[str]
    #: Ray Serve ignores unknown names in some classes; there we warn, elsewhere we refuse.
    _refuse_unknown: ClassVar[bool] = True

    def __init_subclass__(cls, *, refuse_unknown: bool = True) -> None:
        declared = {name: value for name, value in vars(cls).items() if isinstance(value, _Field)}
        cls._fields = {**cls._fields, **declared}
        cls._refuse_unknown = refuse_unknown
        for name in declared:
            delattr(cls, name)

    def __init__(self, **given: Any) -> None:
        kind = type(self).__name__
        object.__setattr__(self, "_given", frozenset(given))
        values = self.__dict__
        for name, field in self._fields.items():
            if name in given:
                values[name] = check_value(kind, name, given.pop(name), field.check)
            elif field.default is REQUIRED:
                raise OptionError(f"{kind} needs {name!r}: wanted {field.check.wanted}, found nothing")
            else:
                default = field.default
                values[name] = default.copy() if isinstance(default, list | dict) else default
        for name in given:
            self._unknown(name)
        self._check()

    def _check(self) -> None:
        """Check fields against each other; raise OptionError."""

    def _unknown(self, name: str) -> None:
        kind = type(self).__name__
        text = f"{kind} has no option {name!r}{near_names(name, self._fields)}"
        if self._refuse_unknown:
            raise OptionError(f"{text}; it takes {', '.join(self._fields)}")
        notices.once(f"{kind}.{name}", f"{text}; it is ignored")

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the names of the options, in the order of their declaration."""
        return tuple(cls._fields)

    @classmethod
    def check_option(cls, name: str, value: object) -> Any:
        """Return one option's value as its check accepts it, without looking at the others.

        Raises:
            OptionError: The value cannot be.
        """
        return check_value("", name, value, cls._fields[name].check)

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return `value` if it is one of these, or make one from a dict."""
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
            return cls(**value)
        raise OptionError(
            f"wanted {_a(cls)} or a dict of its options, found {value!r} of type {type(value).__name__}"
        )

    def given(self) -> dict[str, Any]:
        """Return only the options that were given, not those left to their defaults."""
        return {name: value for name, value in self.__dict__.items() if name in self._given}

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some options changed."""
        return type(self)(**{**self.given(), **changes})

    def to_builtins(self) -> dict[str, Any]:
        """Return the options as JSON values."""
        return self.model_dump(mode="json")

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """As `parse`; the name that users of pydantic models know."""
        return cls.parse(obj)

    def model_items(self) -> Iterator[tuple[str, Any, Any]]:
        """Yield name, value and default of each option."""
        for name, value in self.__dict__.items():
            yield name, value, self._fields[name].default

    def model_given(self) -> frozenset[str]:
        """Return the names that were given."""
        return self._given

    def __setattr__(self, name: str, value: object) -> None:
        kind = type(self).__name__
        raise AttributeError(f"{kind} cannot be changed; make another with {kind}.replace({name}={value!r})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.given())

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), repr(self)))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({fields})"


def _a(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


def _rebuild(kind: type[_Kind], given: dict[str, Any]) -> _Kind:
    return kind(**given)


def options_of(kind: type[_Kind]) -> Check:
    """An option object, or a dict of its fields."""
    return Check(f"{_a(kind)} or a dict of its options", kind.parse)


_LONGEST_NAME = 100


def check_name(owner: str, name: str) -> None:
    """Raise OptionError unless `name` can be shown in a table, a log line and a file name."""
    if "#" in name:
        raise OptionError(f"the name of {owner} must not contain '#', found {name!r}; choose another")
    if len(name) > _LONGEST_NAME or name != name.strip() or not name.isprintable():
        raise OptionError(
            f"the name of {owner} is at most {_LONGEST_NAME} printable characters without spaces around them, "
            f"found {name[:_LONGEST_NAME]!r}"
        )
