"""Families as Prometheus reads them: text format 0.0.4. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from trygon.observability.metrics.families import FamilySnapshot, Value

__all__ = ["CONTENT_TYPE", "PREFIXES", "full_name", "render"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: By setting: what stands before our own names, and before those of user code.
PREFIXES: Final = {"trygon": ("trygon_", "trygon_"), "ray": ("ray_serve_", "ray_")}


def full_name(name: str, kind: str, *, is_user: bool = False, prefix: str = "trygon") -> str:
    """Return the name that a metric is scraped under."""
    own, users = PREFIXES[prefix]
    full = (users if is_user else own) + name
    return full + "_total" if kind == "counter" and not full.endswith("_total") else full


def render(families: Iterable[FamilySnapshot], *, prefix: str = "trygon") -> str:
    """Return the text of all families; one whose name was there already is left out.

    Args:
        families: Our own come first, so that user code cannot take their names.
        prefix: A key of `PREFIXES`.
    """
    known: set[str] = set()
    parts: list[str] = []
    for family in sorted(families, key=lambda family: (family.is_user, family.name)):
        name = full_name(family.name, family.kind, is_user=family.is_user, prefix=prefix)
        names = {name, *(f"{name}_{suffix}" for suffix in ("bucket", "sum", "count"))}
        if known.isdisjoint(names if family.kind == "histogram" else {name}):
            known |= names if family.kind == "histogram" else {name}
            parts += _family(name, family)
    return "".join(parts)


def _family(name: str, family: FamilySnapshot) -> list[str]:
    text = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    lines = [f"# HELP {name} {text}\n", f"# TYPE {name} {family.kind}\n"]
    for values, value in sorted(family.samples.items()):
        labels = [
            f'{label}="{_escape(found)}"' for label, found in zip(family.labels, values, strict=True) if found
        ]
        if isinstance(value, list):
            lines += _histogram(name, labels, family.bounds, value)
        else:
            lines.append(f"{name}{_braces(labels)} {_number(value)}\n")
    return lines


def _histogram(name: str, labels: list[str], bounds: tuple[float, ...], value: list[float]) -> list[str]:
    lines = []
    passed = 0.0
    for bound, count in zip((*bounds, math.inf), value, strict=False):
        passed += count
        braces = _braces([*labels, f'le="{_number(bound)}"'])
        lines.append(f"{name}_bucket{braces} {_number(passed)}\n")
    lines.append(f"{name}_sum{_braces(labels)} {_number(value[-1])}\n")
    lines.append(f"{name}_count{_braces(labels)} {_number(passed)}\n")
    return lines


def _braces(labels: list[str]) -> str:
    return "{" + ",".join(labels) + "}" if labels else ""


def _number(value: Value) -> str:
    assert not isinstance(value, list)
    if value in (math.inf, -math.inf):
        return "+Inf" if value > 0 else "-Inf"
    if value != value:
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
