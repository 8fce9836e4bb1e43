"""Metrics for user code, as `ray.serve.metrics` names them."""

from __future__ import annotations

from trygon.observability.user_metrics import Counter, Gauge, Histogram

__all__ = ["Counter", "Gauge", "Histogram"]
