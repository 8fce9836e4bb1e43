"""Who may import whom: the one place where the layers of Trygon are written down.

`python -m tests.architecture.layers` prints the table for the page.
`ROWS` is the table of docs/architecture.md, cell by cell; a test compares the two.
Change a row in a commit of its own that says why. In a cell:

* `control` means the package and everything in it, `engine.base` that one module;
* `(lazily)` behind a name allows the import inside a function or under TYPE_CHECKING only;
* `all of the above` means every unit in an earlier row;
* `(one module)` behind an outside package keeps it in a single module of the unit.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table, as people read it."""

    unit: str
    may_import: str
    outside: str


ROWS = (
    Row("errors", "nothing", "none"),
    Row("clock", "nothing", "none"),
    Row("spec", "errors", "msgspec, yaml"),
    Row("config", "errors, spec", "none"),
    Row("observability", "errors", "prometheus_client (one module), opentelemetry (one module)"),
    Row("graph", "errors, spec", "cloudpickle, pydantic (lazily), fastapi (lazily), starlette (lazily)"),
    Row("delivery", "errors, spec", "none"),
    Row("scaling", "errors, spec", "msgspec"),
    Row("simulation", "errors, spec, scaling", "msgspec, matplotlib (one module)"),
    Row("ensembles", "errors, spec", "none"),
    Row("registry", "errors, spec, observability", "mlflow (one module)"),
    Row(
        "dataplane",
        "errors, spec, clock, observability, delivery, ensembles",
        "msgspec, httptools, starlette, cloudpickle, numpy (lazily), pandas (lazily), pydantic (lazily)",
    ),
    Row("protocols", "errors, spec, clock, observability, dataplane", "msgspec, httptools, starlette"),
    Row("engine", "errors, spec, clock, observability", "msgspec, ray (one module)"),
    Row("control", "errors, spec, clock, observability, delivery, scaling, engine.base", "msgspec"),
    Row("client", "errors, spec, clock, config", "msgspec, uvloop (lazily)"),
    Row("dashboard", "errors, spec, client", "none"),
    Row(
        "serve",
        "errors, spec, config, observability, graph, scaling, dataplane, client, processes.inprocess (lazily)",
        "msgspec, uvloop (lazily), pydantic (lazily), fastapi (lazily), starlette (lazily)",
    ),
    Row("processes", "all of the above", "msgspec, uvloop"),
    Row("loadtest", "errors, clock", "msgspec, httptools, uvloop (lazily)"),
    Row(
        "cli",
        "errors, config, spec, clock, graph, simulation, client, loadtest, processes",
        "click, msgspec, yaml (lazily)",
    ),
    Row("testing", "all of the above", "none"),
)

#: Decide, and do nothing: no loop, clock, socket, log or chance in these.
PURE = (
    "spec",
    "graph",
    "delivery",
    "ensembles",
    "scaling",
    "control.reconcile",
    "dataplane.frames",
    "dataplane.batching",
    "dataplane.batch_wait",
    "dataplane.balancing",
    "dataplane.poison",
    "dataplane.models.policy",
    "dataplane.models.placement",
    "dataplane.routing.rules",
    "dataplane.admission",
    "dataplane.concurrency",
    "dataplane.fairness",
    "loadtest.histogram",
    "loadtest.limits",
    "loadtest.result",
    "loadtest.schedule",
)

IMPURE_MODULES = frozenset(
    [
        "asyncio",
        "concurrent",
        "fcntl",
        "http",
        "logging",
        "mmap",
        "multiprocessing",
        "random",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "sched",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib",
        "uuid",
    ]
)

#: Impure modules of which a pure one reads constants only, with what it reads.
READS_CONSTANTS = {
    "spec.logging_options": {"logging"},  # names of levels and of record attributes
}

#: What user code may import; everything else is ours to change.
PUBLIC = ("serve", "errors", "testing", "rollout", "ensembles", "registry")

#: What `import trygon` and `from trygon import serve` must not load.
HEAVY_MODULES = ("fastapi", "grpc", "mlflow", "numpy", "pandas", "pydantic", "ray", "starlette", "rich")


def as_markdown(rows: tuple[Row, ...] = ROWS) -> str:
    """Return the table as docs/architecture.md shows it."""
    lines = ["| unit | may import | outside packages |", "|---|---|---|"]
    lines += [f"| `{row.unit}` | {row.may_import} | {row.outside} |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown())
