"""Reads YAML and JSON text into plain values and remembers the line of each: what configuration files are made of.

Only what JSON can say is accepted, so that a value means the same in both notations and after a round trip.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from typing import Any, NamedTuple

import yaml

__all__ = ["MAX_BYTES", "Document", "Mistake", "decode_text", "read_document"]

#: A configuration file is written by people; a longer text is another file.
MAX_BYTES = 4 << 20
#: Values after anchors are expanded: a few lines of nested aliases would else become gigabytes.
_MAX_VALUES = 100_000
#: Deeper than any configuration; the parser would run out of stack.
_MAX_DEPTH = 64

_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
_MERGE = "tag:yaml.org,2002:merge"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
#: Any escape of JSON; the group is one character written as two.
_ESCAPES = re.compile(r"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\.")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Mistake(NamedTuple):
    """Something that cannot be, and where: a line (0 if it has none) and a key path (empty for the whole)."""

    line: int
    path: str
    text: str


class Document(NamedTuple):
    """A text that was read.

    Attributes:
        value: Dicts with string keys, lists, strings, numbers, booleans and None.
        lines: The line of every value by its path, such as ``applications[0].name``; "" is the whole.
        mistakes: What is wrong with the notation; `value` is then not complete.
    """

    value: Any
    lines: dict[str, int]
    mistakes: tuple[Mistake, ...]


def decode_text(data: bytes) -> str | Mistake:
    """Return the text of a file, or what is wrong with it."""
    if len(data) > MAX_BYTES:
        return Mistake(
            0, "", f"the file has {len(data)} bytes, at most {MAX_BYTES} are read; is it another one?"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Mistake(
            line, "", f"the byte 0x{data[error.start]:02x} is not UTF-8; save the file in that encoding"
        )


def read_document(text: str, *, is_json: bool = False) -> Document:
    """Read YAML, or JSON, which is YAML but for tabs.

    Args:
        text: What was written.
        is_json: Hold the text to the stricter notation, as the name of its file promises.
    """
    as_json = None
    try:
        as_json = json.loads(text)
    except ValueError as error:
        if is_json and isinstance(error, json.JSONDecodeError) and text.strip():
            return _failed(
                error.lineno, f"the file is not JSON: {error.msg[:1].lower()}{error.msg[1:]}; correct it"
            )
    except RecursionError:
        return _failed(0, f"the values are nested more than {_MAX_DEPTH} deep; write it flatter")
    else:
        # Tabs are between values only: inside of strings JSON allows none.
        text = _ESCAPES.sub(_as_characters, text.replace("\t", " "))
    try:
        node = _compose(text)
    except yaml.MarkedYAMLError as error:
        return _failed(_line_of(error), _explain(error, text))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 0
        return _failed(line, f"the character {chr(_code(error))!r} cannot be in a file of text; remove it")
    except RecursionError:
        return _failed(0, f"the values are nested more than {_MAX_DEPTH} deep; write it flatter")
    if node is None:
        return _failed(1, "the file is empty; it needs 'applications:' and a list of them")
    reader = _Reader()
    value = reader.read(node, "", 0)
    if as_json is not None and not reader.mistakes:
        # YAML takes 1e5 for a word.
        value = as_json
    return Document(value, reader.lines, tuple(reader.mistakes))


def _as_characters(found: re.Match[str]) -> str:
    """Write a character that JSON has as two escapes as itself; YAML knows it by one escape only."""
    pair = found[1]
    return found[0] if pair is None else str(json.loads(f'"{pair}"'))


def _compose(text: str) -> Any:
    loader = _LOADER(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _failed(line: int, text: str) -> Document:
    return Document(None, {}, (Mistake(line, "", text),))


def _code(error: yaml.reader.ReaderError) -> int:
    character: Any = error.character
    return character if isinstance(character, int) else ord(character)


def _line_of(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark is not None else 0


def _explain(error: yaml.MarkedYAMLError, text: str) -> str:
    problem = error.problem or "it cannot be read"
    line = "".join(text.split("\n")[_line_of(error) - 1 : _line_of(error)])
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab is no indentation in YAML; indent with spaces"
    if "expected a single document" in (error.context or ""):
        return "a second document begins here with '---'; put each into a file of its own"
    context = f"{error.context}: " if error.context else ""
    return f"the file is not YAML: {context}{problem}; correct the line or the one before it"


class _Reader:
    """Makes plain values of YAML nodes."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.mistakes: list[Mistake] = []
        self._constructor = yaml.SafeLoader("")
        self._num_values = 0
        #: The nodes around the one that is being read; an anchor inside of itself would never end.
        self._around: list[Any] = []

    def read(self, node: Any, path: str, depth: int) -> Any:
        """Return the value of a node; mistakes are noted, and None stands in for what cannot be read."""
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self._num_values += 1
        if self._num_values > _MAX_VALUES:
            if self._num_values == _MAX_VALUES + 1:
                self._note(
                    line,
                    path,
                    f"the anchors of this file expand to more than {_MAX_VALUES} values; use fewer",
                )
            return None
        if any(node is outer for outer in self._around):
            return self._note(line, path, "the anchor is used inside of itself; write the value out")
        if depth > _MAX_DEPTH:
            return self._note(
                line, path, f"the values are nested more than {_MAX_DEPTH} deep; write it flatter"
            )
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, line)
        self._around.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [
                    self.read(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value)
                ]
            return self._mapping(node, path, depth)
        finally:
            self._around.pop()

    def _scalar(self, node: Any, path: str, line: int) -> Any:
        if node.tag == _TIMESTAMP:
            return self._note(
                line, path, f"{node.value!r} is a date in YAML; put it in quotes to make it a string"
            )
        if node.tag not in _SCALARS:
            return self._note(
                line, path, f"the tag {_short(node.tag)!r} is not known here; write a plain value"
            )
        try:
            value = self._constructor.construct_object(node)
        except (ValueError, yaml.YAMLError):
            return self._note(line, path, f"{_clipped(node.value)!r} is not a number; put it in quotes")
        if isinstance(value, str) and not value.isprintable():
            return self._sendable(value, path, line)
        return value

    def _sendable(self, value: str, path: str, line: int) -> Any:
        try:
            value.encode()
        except UnicodeEncodeError:
            return self._note(line, path, f"{_clipped(value)!r} has half of a character; write the whole one")
        return value

    def _mapping(self, node: Any, path: str, depth: int) -> dict[Hashable, Any]:
        value: dict[Hashable, Any] = {}
        first: dict[Hashable, int] = {}
        merged: list[Any] = []
        for key_node, item in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE:
                merged.append(item)
                continue
            key = self._key(key_node, path, line)
            if key is None:
                continue
            inner = f"{path}.{key}" if path else str(key)
            if key in first:
                self._note(
                    line, inner, f"the key is here twice, first in line {first[key]}; remove one of them"
                )
                continue
            first[key] = line
            self.lines.setdefault(inner, line)
            value[key] = self.read(item, inner, depth + 1)
        # After what stands here itself, whose lines count.
        for item in merged:
            for other in self._merged(item, path, depth):
                value = {**other, **value}
        return value

    def _key(self, node: Any, path: str, line: int) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._note(line, path, "a key is a word, found a list or a mapping; put it in quotes")
            return None
        if node.tag != "tag:yaml.org,2002:str":
            self._note(line, path, f"the key {node.value!r} is not a string; put it in quotes")
            return None
        return str(node.value)

    def _merged(self, node: Any, path: str, depth: int) -> list[dict[Hashable, Any]]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found = []
        for one in nodes:
            if not isinstance(one, yaml.MappingNode):
                self._note(
                    one.start_mark.line + 1, path, "'<<' takes in a mapping, such as *name of an anchor"
                )
                continue
            value = self.read(one, path, depth + 1)
            if isinstance(value, dict):
                found.append(value)
        # The first one wins, as between any two sources of a default.
        return found

    def _note(self, line: int, path: str, text: str) -> None:
        self.mistakes.append(Mistake(line, path, text))


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _clipped(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
