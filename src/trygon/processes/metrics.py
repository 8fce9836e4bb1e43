"""How much this process counts, as its settings say."""

from __future__ import annotations

from typing import Literal

from trygon.config import SettingsError, read_settings
from trygon.dataplane.process_metrics import set_up_metrics

__all__ = ["metrics_level"]


def metrics_level() -> Literal["on", "basic", "off"]:
    """Return what this process counts, and set what is set once: stamps, and the buckets of latencies."""
    try:
        settings = read_settings()
    except SettingsError:
        # Of a deployment's own variables; the instance's were read when it was started.
        return "on"
    set_up_metrics(has_stages=settings.metrics == "on", latency_buckets_ms=settings.own_latency_buckets_ms)
    return settings.metrics
