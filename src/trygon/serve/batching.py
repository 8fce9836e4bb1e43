"""Dynamic batching, as `ray.serve.batching` names it."""

from __future__ import annotations

from trygon.dataplane.batch_function import batch
from trygon.dataplane.batch_statistics import BatchStatistics

__all__ = ["BatchStatistics", "batch"]
