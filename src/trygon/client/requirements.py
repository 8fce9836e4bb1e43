"""Completes the packages of a runtime environment: requirements files are read, local paths made absolute."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from trygon.errors import DeployError
from trygon.spec.packages import PackageEnvironment, logical_lines

__all__ = ["complete_packages", "digest_of"]

_INCLUDE = re.compile(r"(?:-r|--requirement)[ =]?(.+)")
#: Options whose value may be a local path.
_WITH_PATH = re.compile(r"(-c|--constraint|-f|--find-links|-e|--editable)[ =]?(.+)")
_EXTRAS = re.compile(r"(.*?)(\[[A-Za-z0-9 ,._-]+\])?$")
#: Of which a changed content is a changed environment; a folder that is searched is like an index.
_DIGESTED = ("-c", "--constraint", "-e", "--editable")
#: What tools leave in a project's folder without changing it.
_LEFT_OUT = frozenset({"build", "dist", "node_modules", "__pycache__"})
_MAX_DEPTH = 10
_MAX_BYTES = 256 << 20
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def complete_packages(environment: PackageEnvironment, folder: str) -> PackageEnvironment:
    """Return the environment with what its requirements files say, and digests of the local files it names.

    Args:
        environment: As `check_pip` returned it; one that is complete is returned as it is.
        folder: What relative paths start from.

    Raises:
        DeployError: A file is not there.
    """
    if environment.id or not environment:
        return environment
    reader = _Reader()
    if environment.file is not None:
        reader.include(environment.file, folder, 0)
    for line in environment.requirements:
        reader.add(line, folder, 0)
    return environment.completed(reader.lines, reader.digests)


def digest_of(path: str) -> str:
    """Return the SHA-256 of a file, or of the files of a folder.

    Raises:
        DeployError: It is not there, or too large to be a project.
    """
    try:
        if not os.path.isdir(path):
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        return _digest_of_folder(path)
    except OSError as error:
        raise DeployError(
            f"{path!r}, which the requirements name, cannot be read: {error.strerror}; correct the path"
        ) from None


def _digest_of_folder(path: str) -> str:
    whole = hashlib.sha256()
    size = 0
    for folder, inner, names in os.walk(path):
        inner[:] = sorted(
            n for n in inner if not n.startswith(".") and n not in _LEFT_OUT and ".egg" not in n
        )
        for name in sorted(names):
            file_path = os.path.join(folder, name)
            size += os.path.getsize(file_path)
            if size > _MAX_BYTES:
                raise DeployError(
                    f"the folder {path!r}, which the requirements name, holds more than {_MAX_BYTES >> 20} MiB; "
                    "build a wheel of it and name that"
                )
            whole.update(os.fsencode(os.path.relpath(file_path, path)) + b"\0")
            with open(file_path, "rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


class _Reader:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.digests: dict[str, str] = {}

    def include(self, path: str, folder: str, depth: int) -> None:
        found = _absolute(path, folder)
        if depth > _MAX_DEPTH:
            raise DeployError(
                f"the requirements file {found!r} includes itself; remove one of its '-r' lines"
            )
        try:
            text = Path(found).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise DeployError(
                f"the requirements file {found!r} cannot be read: {why}; correct the path, "
                "or write a list such as ['torch==2.5.1']"
            ) from None
        for line in logical_lines(text):
            self.add(line, os.path.dirname(found), depth)

    def add(self, line: str, folder: str, depth: int) -> None:
        included = _INCLUDE.fullmatch(line)
        if included is not None:
            self.include(included[1].strip(), folder, depth + 1)
            return
        option = _WITH_PATH.fullmatch(line)
        if option is not None:
            self._add_option(option[1], option[2].strip(), folder)
        elif not line.startswith("-") and _is_path(line):
            self.lines.append(self._local(line, folder))
        else:
            self.lines.append(line)

    def _add_option(self, name: str, value: str, folder: str) -> None:
        if "://" in value:
            self.lines.append(f"{name} {value}")
        elif name in _DIGESTED:
            self.lines.append(f"{name} {self._local(value, folder)}")
        else:
            self.lines.append(f"{name} {_absolute(value, folder)}")

    def _local(self, line: str, folder: str) -> str:
        """Make a path absolute and remember what is there; markers and extras stay behind it."""
        path, separator, marker = line.partition(" ;")
        parts = _EXTRAS.fullmatch(path.strip())
        assert parts is not None
        found = _absolute(parts[1], folder)
        self.digests[found] = digest_of(found)
        return f"{found}{parts[2] or ''}{separator}{marker}"


def _absolute(path: str, folder: str) -> str:
    return os.path.abspath(os.path.join(folder, os.path.expanduser(path)))


def _is_path(line: str) -> bool:
    """Whether a requirement is a path, as pip tells it from a name."""
    path = line.partition(" ;")[0].strip()
    if "://" in path or " @ " in path:
        return False
    return path.startswith((".", "~", os.sep)) or os.sep in path.partition("[")[0] or path.endswith(_ARCHIVES)
