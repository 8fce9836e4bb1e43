"""Numbers of the whole instance: counted in each process, published off the request path, read at a scrape.

A part that counts does three things:

1. At module level it declares its families, which costs nothing until a cell is made::

       BATCHES = REGISTRY.counter("batches_processed", "Batches run.", ("deployment", "application"))
       WAIT = REGISTRY.histogram("batch_wait_time_ms", "...", ("deployment", "application"), scale=1000.0)

   Names are Ray Serve's without their `serve_`; the exposition puts `trygon_` (or `ray_serve_`) before and
   `_total` behind counters. With `scale=1000.0` seconds are observed and milliseconds are shown.
2. Where it begins (never for each request) it makes its cells, `cell = WAIT.cell("model", "default")`, and on
   the request path it adds to them: `cell.observe(seconds)`, `counter.value += 1`. No lock: a cell belongs to one
   thread.
3. After a change it says so: `if REGISTRY.is_quiet: REGISTRY.wake()`. That starts the timer that publishes, at
   most once a second, and which does not run while nothing changes.

A part that keeps `statistics()` of its own instead gives `REGISTRY.add_collector(function)`: it is called before
each publication, and sets cells (`cell.value = found`) from what it finds. Stages of a request are observed with
`stage_cell(stage, application, deployment)`.

Labels named in `PROCESS_LABELS` name one process: such series end ten minutes after it. A counter or histogram
family that has one gives `total="name"` for the series that adds up all processes, the dead ones too.
"""

from trygon.observability.metrics.families import (
    MAX_SERIES,
    PROCESS_LABELS,
    Cell,
    Family,
    FamilySnapshot,
    HistogramCell,
)
from trygon.observability.metrics.registry import REGISTRY, Registry
from trygon.observability.metrics.stages import STAGES, stage_cell

__all__ = [
    "MAX_SERIES",
    "PROCESS_LABELS",
    "REGISTRY",
    "STAGES",
    "Cell",
    "Family",
    "FamilySnapshot",
    "HistogramCell",
    "Registry",
    "stage_cell",
]
