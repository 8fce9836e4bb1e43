"""Many models in one replica: `ModelCache`, which `serve.multiplexed` is built on, for use on its own."""

from __future__ import annotations

from trygon.dataplane.models.cache import CacheStatistics, ModelCache
from trygon.dataplane.models.durations import Durations

__all__ = ["CacheStatistics", "Durations", "ModelCache"]
