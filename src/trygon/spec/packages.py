"""Packages that replicas need beside those of the environment that starts Trygon: `pip` in a `runtime_env`. Pure.

`check_pip` reads what a user wrote; `trygon.client.requirements` completes it with what its files hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from trygon.spec.validation import OptionError, near_names

__all__ = ["PackageEnvironment", "check_pip", "describe_packages", "is_option", "logical_lines"]

_KEYS = ("packages", "pip_check", "pip_version", "pip_install_options")
_WANTED = (
    "wanted a list of requirements such as ['torch==2.5.1'], the path of a requirements file, "
    "or a dict with 'packages'"
)


class PackageEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """Packages to install; without requirements, none."""

    #: Lines of a requirements file. Once complete: in order, absolute, without other requirements files.
    requirements: tuple[str, ...] = ()
    #: A requirements file that is still to be read.
    file: str | None = None
    #: Run `pip check` when all is installed.
    pip_check: bool = False
    #: Of pip itself, such as "==24.0"; empty takes the one that is there.
    pip_version: str = ""
    #: Further options of `pip install`.
    pip_install_options: tuple[str, ...] = ()
    #: SHA-256 of the local files and folders that the requirements name, by path.
    digests: dict[str, str] = {}
    #: Of all of the above; empty until it is complete. Two environments with one id are the same.
    id: str = ""

    def __bool__(self) -> bool:
        """Whether there is anything to install."""
        return bool(self.requirements or self.file)

    @property
    def num_packages(self) -> int:
        """How many requirements there are."""
        return sum(1 for line in self.requirements if not is_option(line))

    def completed(self, requirements: Iterable[str], digests: dict[str, str]) -> PackageEnvironment:
        """Return the environment with all its files read."""
        lines = tuple(dict.fromkeys(requirements))
        options = [line for line in lines if is_option(line)]
        packages = sorted(line for line in lines if not is_option(line))
        complete = msgspec.structs.replace(
            self, requirements=(*options, *packages), file=None, digests=digests, id=""
        )
        digest = hashlib.sha256(msgspec.msgpack.encode(complete, order="sorted")).hexdigest()
        return msgspec.structs.replace(complete, id=digest[:24])


def is_option(line: str) -> bool:
    """Whether a line of a requirements file is an option of pip; an editable project is a requirement."""
    return line.startswith("-") and not line.startswith(("-e", "--editable"))


def describe_packages(environment: PackageEnvironment) -> str:
    """Return how many packages there are, for people."""
    count = environment.num_packages
    return "1 package" if count == 1 else f"{count} packages"


def logical_lines(text: str) -> list[str]:
    """Return the lines of a requirements file that say something: joined where continued, without comments."""
    joined = text.replace("\\\r\n", " ").replace("\\\n", " ")
    return [line for raw in joined.splitlines() if (line := _without_comment(raw))]


def _without_comment(line: str) -> str:
    # As pip reads it: a number sign begins a comment at the start of a line, or after a space.
    before = "" if line.lstrip().startswith("#") else line.split(" #", 1)[0].split("\t#", 1)[0]
    return " ".join(before.split())


def check_pip(value: Any) -> PackageEnvironment | None:
    """Return what `pip` of a runtime_env asks for; None when it was not given.

    Raises:
        OptionError: It is of another form, or of a wrong type.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        return _packages(value, PackageEnvironment())
    for name in value:
        if name not in _KEYS:
            hint = near_names(str(name), list(_KEYS)) or f"; it takes {', '.join(_KEYS)}"
            raise OptionError(f"there is no key {name!r}{hint}")
    if value.get("packages") is None:
        raise OptionError(f"'packages' is missing; {_WANTED}, found {value!r}")
    check, version = value.get("pip_check", False), value.get("pip_version") or ""
    if not isinstance(check, bool):
        raise OptionError(f"pip_check: wanted True or False, found {check!r}")
    if not isinstance(version, str) or (version and version[0] not in "=<>!~"):
        raise OptionError(f"pip_version: wanted a version such as '==24.0', found {version!r}")
    options = _strings("pip_install_options", value.get("pip_install_options") or [])
    environment = PackageEnvironment(pip_check=check, pip_version=version, pip_install_options=options)
    return _packages(value["packages"], environment)


def _packages(value: Any, environment: PackageEnvironment) -> PackageEnvironment:
    if isinstance(value, str):
        if not value.strip():
            raise OptionError(f"{_WANTED}, found {value!r}")
        if "://" in value:
            raise OptionError(f"{value!r} is not a local file; fetch it first and give its path")
        return msgspec.structs.replace(environment, file=value)
    if not isinstance(value, list | tuple):
        raise OptionError(f"{_WANTED}, found {value!r} of type {type(value).__name__}")
    lines = [line for item in _strings("pip", value) for line in logical_lines(item)]
    return msgspec.structs.replace(environment, requirements=tuple(lines))


def _strings(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise OptionError(f"{name}: wanted a list of strings, found {value!r}")
    for item in value:
        if not isinstance(item, str):
            raise OptionError(
                f"wanted a string for each item of {name}, found {item!r} of type {type(item).__name__}; "
                "put it in quotes, as in 'torch==2.5.1'"
            )
    return tuple(value)
