"""The stages of a request, as one family of histograms."""

from __future__ import annotations

from typing import Final, cast

from trygon.observability.metrics.families import HistogramCell
from trygon.observability.metrics.registry import REGISTRY, STAGE_BUCKETS_MS

__all__ = ["STAGES", "stage_cell"]

#: In the order of a request.
STAGES: Final = {
    "accept": "reading and parsing at the ingress",
    "queue": "waiting in the caller for a replica with room",
    "transfer": "from the caller's send to the beginning of work in the replica",
    "batch_wait": "waiting in the replica for the batch to fill",
    "compute": "in user code",
    "serialise": "turning the result into bytes and handing them on",
}

_FAMILY = REGISTRY.histogram(
    "stage_latency_ms",
    "Time of requests by stage: " + "; ".join(f"{name}, {text}" for name, text in STAGES.items()) + ".",
    ("stage", "application", "deployment"),
    bounds=STAGE_BUCKETS_MS,
    scale=1000.0,
)


def stage_cell(stage: str, application: str, deployment: str) -> HistogramCell:
    """Return where the seconds of a stage are observed."""
    if stage not in STAGES:
        raise ValueError(f"a stage is one of {', '.join(STAGES)}, found {stage!r}")
    return cast(HistogramCell, _FAMILY.cell(stage, application, deployment))
