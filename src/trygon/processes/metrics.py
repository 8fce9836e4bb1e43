"""How much this process counts, as its settings say."""

from __future__ import annotations

from typing import Literal

from trygon.config import LATENCY_BUCKETS_MS, SettingsError, read_settings
from trygon.dataplane.stamps import set_stamping
from trygon.observability.metrics import REGISTRY

__all__ = ["metrics_level"]


def metrics_level() -> Literal["on", "basic", "off"]:
    """Return what this process counts, and set what is set once: stamps, and the buckets of latencies."""
    try:
        settings = read_settings()
    except SettingsError:
        # Of a deployment's own variables; the instance's were read when it was started.
        return "on"
    set_stamping(is_on=settings.metrics == "on")
    if settings.request_latency_buckets_ms != LATENCY_BUCKETS_MS:
        REGISTRY.use_latency_bounds(settings.request_latency_buckets_ms)
    return settings.metrics
