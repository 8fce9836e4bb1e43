"""docs/metrics.md names every metric, with its kind, labels and text as the code has them."""

from __future__ import annotations

from pathlib import Path

import trygon.dataplane.caller_metrics
import trygon.dataplane.replica_metrics
import trygon.protocols.http.metrics  # noqa: F401 - they declare their families
from trygon.observability.metrics import PROCESS_LABELS, REGISTRY
from trygon.observability.metrics.exposition import full_name
from trygon.protocols.admin.metrics import state_families
from trygon.spec.details import InstanceDetails

_PAGE = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


def declared() -> dict[str, tuple[str, str, str]]:
    """Return what the table has to say, by name."""
    rows = {}
    for family in (*state_families(InstanceDetails()), *REGISTRY.families):
        name = full_name(family.name, family.kind)
        rows[name] = (family.kind, ", ".join(family.labels), family.help)
        if family.total:
            kept = [label for label in family.labels if label not in PROCESS_LABELS]
            text = "The same, of all replicas that there ever were."
            rows[full_name(family.total, family.kind)] = (family.kind, ", ".join(kept), text)
    return rows


def test_the_table_of_all_metrics_is_complete_and_true() -> None:
    section = _PAGE.read_text(encoding="utf-8").split("## All metrics", 1)[1]
    found = {}
    for line in section.splitlines():
        if line.startswith("| `"):
            name, kind, labels, text = (cell.strip() for cell in line.strip("| ").split("|"))
            found[name.strip("`")] = (kind, labels, text)

    assert declared() == found
