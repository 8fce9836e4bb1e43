"""The methods of pydantic models that users of Ray Serve's classes call, for values that are none. Pure.

pydantic costs a tenth of a second to import, and these values check themselves; so they only answer to its names,
those of both its versions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Self

__all__ = ["ModelMethods", "plain_value"]

_Fields = dict[str, Any]


class ModelMethods:
    """Mixed into a value; it says what its fields are, and how it is made from a mapping.

    The options of the methods that write it are those of pydantic: ``exclude_unset`` leaves out what was not given,
    ``exclude_defaults`` what has its default, ``exclude_none`` what is None; ``include`` and ``exclude`` name
    fields; ``mode="json"`` writes enums and callables as JSON has them. Others are accepted and change nothing.
    """

    __slots__ = ()

    def model_items(self) -> Iterator[tuple[str, Any, Any]]:
        """Yield name, value and default of each field."""
        raise NotImplementedError

    def model_given(self) -> frozenset[str] | None:
        """Return the names that were given; None where nobody remembers, and all count as given."""
        return None

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """Return `obj` if it is one of these, or make one from a mapping.

        Raises:
            ValueError: It cannot be, with what is wrong.
        """
        if isinstance(obj, cls):
            return obj
        if not isinstance(obj, Mapping):
            raise ValueError(
                f"wanted a {cls.__name__} or a mapping, found {obj!r} of type {type(obj).__name__}"
            )
        return cls(**obj)

    @classmethod
    def parse_obj(cls, obj: Any) -> Self:
        """As `model_validate`."""
        return cls.model_validate(obj)

    @classmethod
    def model_validate_json(cls, text: str | bytes) -> Self:
        """Make one from JSON.

        Raises:
            ValueError: It is no JSON, or cannot be.
        """
        return cls.model_validate(json.loads(text))

    @classmethod
    def parse_raw(cls, text: str | bytes) -> Self:
        """As `model_validate_json`."""
        return cls.model_validate_json(text)

    @property
    def model_fields_set(self) -> set[str]:
        """Names of the fields that were given."""
        given = self.model_given()
        return {name for name, _, _ in self.model_items() if given is None or name in given}

    def model_dump(self, *, mode: str = "python", **options: Any) -> _Fields:
        """Return the fields as a dict, with dicts for what is nested."""
        return _dumped(self, as_json=mode == "json", options=options)

    def model_dump_json(self, *, indent: int | None = None, **options: Any) -> str:
        """Return the fields as JSON."""
        return json.dumps(_dumped(self, as_json=True, options=options), indent=indent)

    def json(self, **options: Any) -> str:
        """As `model_dump_json`."""
        return self.model_dump_json(**options)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed, which are checked; nothing in it can change, so none is deep."""
        given = self.model_fields_set
        kept = {name: value for name, value, _ in self.model_items() if name in given}
        return type(self)(**{**kept, **(update or {})})

    def copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As `model_copy`."""
        return self.model_copy(update=update, deep=deep)

    # Last, because its name is that of a type in the annotations above it.
    def dict(self, **options: Any) -> _Fields:
        """As `model_dump`."""
        return self.model_dump(**options)


def plain_value(value: Any, write: Callable[[ModelMethods], Any], *, as_json: bool) -> Any:
    """Return a value with `write` applied to what is nested in it."""
    if isinstance(value, ModelMethods):
        return write(value)
    if isinstance(value, Mapping):
        return {
            plain_value(key, write, as_json=as_json): plain_value(item, write, as_json=as_json)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        items = [plain_value(item, write, as_json=as_json) for item in value]
        return tuple(items) if isinstance(value, tuple) and not as_json else items
    if as_json and isinstance(value, Enum):
        return value.value
    if as_json and callable(value):
        return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', type(value).__name__)}"
    return value


def _dumped(model: ModelMethods, *, as_json: bool, options: Mapping[str, Any]) -> _Fields:
    given = model.model_given() if options.get("exclude_unset") else None
    include, exclude = options.get("include"), options.get("exclude")
    nested = {name: value for name, value in options.items() if name not in {"include", "exclude"}}
    found: _Fields = {}
    for name, value, default in model.model_items():
        if (
            (given is not None and name not in given)
            or (include is not None and name not in include)
            or (exclude is not None and name in exclude)
            or (options.get("exclude_none") and value is None)
            or (options.get("exclude_defaults") and value == default)
        ):
            continue
        found[name] = plain_value(
            value, lambda inner: _dumped(inner, as_json=as_json, options=nested), as_json=as_json
        )
    return found
