"""Rates and quantiles of an instance that runs on this machine, read from its pages."""

from __future__ import annotations

from pathlib import Path

from trygon.observability.metrics.gathering import gather
from trygon.observability.metrics.traffic import Traffic

__all__ = ["read_traffic"]


def read_traffic(runtime_dir: Path, *, monotonic: float, wall: float) -> dict[tuple[str, str], Traffic]:
    """Return the last minute by application and deployment; the deployment is empty for HTTP of all of it.

    Empty when nothing was published, or the instance has gone.
    """
    try:
        return gather(runtime_dir, wall).traffic(monotonic)
    except OSError:
        return {}
