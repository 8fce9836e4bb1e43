"""What is written on a page: families, and the traffic of the last minute. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from trygon.observability.metrics.families import FamilySnapshot
from trygon.observability.metrics.traffic import Slots

__all__ = ["Content", "decode", "encode"]


@dataclass(frozen=True)
class Content:
    """One publication of one process."""

    families: list[FamilySnapshot] = field(default_factory=list)
    #: By application and deployment; the deployment is empty for what an ingress saw of an application.
    traffic: dict[tuple[str, str], Slots] = field(default_factory=dict)
    #: Upper bounds of the traffic's buckets, in milliseconds.
    bounds: tuple[float, ...] = ()


def encode(content: Content) -> bytes:
    """Return a content as bytes."""
    plain = {
        "families": [family.to_plain() for family in content.families],
        "traffic": [[*key, slots] for key, slots in content.traffic.items()],
        "bounds": content.bounds,
    }
    return json.dumps(plain, separators=(",", ":")).encode()


def decode(data: bytes) -> Content:
    """Return what `encode` wrote.

    Raises:
        ValueError: It is something else.
    """
    try:
        plain: dict[str, Any] = json.loads(data)
        return Content(
            [FamilySnapshot.of_plain(family) for family in plain["families"]],
            {(app, name): slots for app, name, slots in plain["traffic"]},
            tuple(plain["bounds"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no content of a page: {error}") from None
