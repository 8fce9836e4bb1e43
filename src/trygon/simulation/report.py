"""What policies made of a trace, as a table, as JSON values, and as pages and pictures."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trygon.errors import TrygonError
from trygon.simulation.fleet import Outcome, Setup
from trygon.simulation.trace import Trace

__all__ = ["as_json", "as_page", "as_table", "draw"]

_HEADER = (
    *("POLICY", "LATE", "WORST MINUTE", "P99 WAIT", "REPLICA-S", "CHANGES", "COLD WAITS", "PEAK"),
    "OBJECTIVE",
)
#: A chart has no more points than pixels.
_WIDTH, _HEIGHT = 860, 200


def as_table(outcomes: Sequence[Outcome], setup: Setup) -> list[str]:
    """Return lines for a terminal."""
    rows = [_HEADER, *(_row(outcome, setup) for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    return [
        "  ".join(
            f"{cell:{'<' if column in (0, len(row) - 1) else '>'}{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _row(outcome: Outcome, setup: Setup) -> tuple[str, ...]:
    is_met = outcome.miss_rate <= 1.0 - setup.quantile
    return (
        outcome.policy,
        f"{outcome.miss_rate:.2%}",
        f"{outcome.worst_minute:.0%}",
        f"{outcome.wait_p99_s:.2f} s",
        f"{outcome.replica_seconds:.0f}",
        str(outcome.scale_changes),
        str(outcome.cold_waits),
        str(outcome.peak),
        "met" if is_met else "not met",
    )


def as_json(trace: Trace, outcomes: Sequence[Outcome], setup: Setup) -> dict[str, Any]:
    """Return all of it as JSON values; times and waits in seconds, shares from 0 to 1."""
    return {
        "trace": {"name": trace.name, "requests": len(trace), "duration_s": trace.duration_s},
        "setup": {name: getattr(setup, name) for name in setup.__struct_fields__},
        "policies": [
            {
                "policy": outcome.policy,
                "scored_requests": outcome.requests,
                "misses": outcome.misses,
                "miss_rate": outcome.miss_rate,
                "worst_minute": outcome.worst_minute,
                # A request that was never served has no wait that JSON can say.
                "wait_p99_s": outcome.wait_p99_s if outcome.wait_p99_s != float("inf") else None,
                "replica_seconds": outcome.replica_seconds,
                "scale_changes": outcome.scale_changes,
                "cold_waits": outcome.cold_waits,
                "peak_replicas": outcome.peak,
                "meets_objective": outcome.miss_rate <= 1.0 - setup.quantile,
            }
            for outcome in outcomes
        ],
    }


# ---- a page that needs no network


def as_page(trace: Trace, outcomes: Sequence[Outcome], setup: Setup) -> str:
    """Return an HTML page with the table and a chart of each policy."""
    head, *rows = [_HEADER, *(_row(outcome, setup) for outcome in outcomes)]
    cells = "".join(f"<th>{html.escape(cell.capitalize())}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    title = html.escape(
        f"{trace.name}: {len(trace)} requests in {trace.duration_s:.0f} s, cold start {setup.cold_start_s:g} s"
    )
    objective = f"{setup.quantile:.2%} of requests wait no longer than {setup.wait_s:g} s"
    charts = "".join(
        f"<h2>{html.escape(outcome.policy)}</h2>{_chart(outcome, setup.slots)}" for outcome in outcomes
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>'
        "body{font:15px system-ui,sans-serif;margin:2em auto;max-width:900px;color:#222}"
        "table{border-collapse:collapse}td,th{padding:.3em .8em;text-align:right;border-bottom:1px solid #ddd}"
        "td:first-child,th:first-child{text-align:left}svg{background:#fafafa;width:100%}h2{font-size:1.1em}"
        f"</style><h1>{title}</h1><p>Objective: {objective}. Charts: "
        '<span style="color:#c60">demand</span> in replicas (requests that wait or are in work), '
        '<span style="color:#06c">replicas that work</span>.</p>'
        f"<table><tr>{cells}</tr>{body}</table>{charts}</html>\n"
    )


def _chart(outcome: Outcome, slots: int) -> str:
    points = _thinned(outcome)
    last = points[-1][0] if points else 1.0
    top = max(1.0, *(float(ready) for _, _, ready in points)) * 1.25 if points else 1.0
    demand = _polyline([(at, min(top, total / slots)) for at, total, _ in points], last, top, "#c60")
    ready = _polyline([(at, float(count)) for at, _, count in points], last, top, "#06c")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><text x="4" y="14" font-size="12">{top:.0f}</text>'
        f"{demand}{ready}</svg>"
    )


def _thinned(outcome: Outcome) -> list[tuple[float, float, int]]:
    step = max(1, len(outcome.series) // _WIDTH)
    found = []
    for begin in range(0, len(outcome.series), step):
        part = outcome.series[begin : begin + step]
        found.append((part[-1][0], max(total for _, total, _, _ in part), part[-1][2]))
    return found


def _polyline(points: list[tuple[float, float]], last: float, top: float, colour: str) -> str:
    text = " ".join(f"{at / last * _WIDTH:.1f},{_HEIGHT - value / top * _HEIGHT:.1f}" for at, value in points)
    return f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="1.2"/>'


def draw(path: Path, trace: Trace, outcomes: Sequence[Outcome], setup: Setup) -> None:
    """Write a PNG picture with a chart of each policy.

    Raises:
        TrygonError: matplotlib is not installed; the text says how to install it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise TrygonError(
            "a PNG picture needs matplotlib, which is not installed; "
            "run: pip install 'trygon[plots]', or write a page with --html"
        ) from None
    figure = Figure(figsize=(10, 2.5 * len(outcomes)), layout="constrained")
    figure.suptitle(f"{trace.name}, cold start {setup.cold_start_s:g} s")
    for axes, outcome in zip(figure.subplots(len(outcomes), squeeze=False)[:, 0], outcomes, strict=True):
        points = _thinned(outcome)
        top = max([1, *(ready for _, _, ready in points)]) * 1.25
        axes.plot(
            [at for at, _, _ in points],
            [min(top, total / setup.slots) for _, total, _ in points],
            "C1",
            lw=0.7,
        )
        axes.step([at for at, _, _ in points], [ready for _, _, ready in points], "C0", where="post")
        axes.set_title(
            f"{outcome.policy}: {outcome.miss_rate:.2%} late, {outcome.replica_seconds:.0f} replica-s"
        )
        axes.set_ylabel("replicas")
    figure.savefig(path, dpi=110)
