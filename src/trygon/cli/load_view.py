"""What a load test looks like to a person. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from trygon.loadtest.limits import Limit
from trygon.loadtest.plan import LoadPlan
from trygon.loadtest.result import QUANTILES, Result

__all__ = ["as_text", "progress_line", "shown_bytes", "shown_time"]

_KINDS = 10
_SPARK = "▁▂▃▄▅▆▇█"
_WIDTH = 60


def progress_line(plan: LoadPlan, result: Result) -> str:
    """Return the line that is rewritten while a test runs."""
    elapsed = f"{result.elapsed_s:.0f} s"
    if plan.duration_s is not None:
        elapsed += f" of {plan.duration_s:.0f} s"
    if not result.elapsed_s:
        elapsed = "warming up"
    latencies = result.latencies
    return " · ".join(
        (
            elapsed,
            f"{result.rps:,.0f}/s",
            f"p50 {shown_time(latencies.quantile(0.5))}",
            f"p99 {shown_time(latencies.quantile(0.99))}",
            f"{result.num_failed:,} failed",
            f"{result.in_flight:,} in flight",
        )
    )


def as_text(plan: LoadPlan, result: Result, processes: int, broken: Sequence[Limit]) -> str:
    """Return the result as paragraphs."""
    lines = [f"{plan.target.url}   {_loop(plan)}, {_many(processes, 'process', 'processes')}", ""]
    lines.append(
        f"  requests    {result.num_requests:,} in {result.elapsed_s:.1f} s, "
        f"{result.num_failed:,} failed ({result.error_share:.2%})"
    )
    lines.append(f"  answers     {result.rps:,.1f}/s, {shown_bytes(result.received_bytes)} received")
    lines.append(f"  connections {result.connections:,} opened")
    if result.latencies.total:
        shown = [f"p{share * 100:g} {shown_time(result.latencies.quantile(share))}" for share in QUANTILES]
        lines.append(f"  latency     {'   '.join(shown)}   max {shown_time(result.latencies.highest_s)}")
    lines += _per_second(result)
    if result.failures:
        lines += ["", "failures"]
        ranked = sorted(result.failures.items(), key=lambda each: -each[1])
        for kind, count in ranked[:_KINDS]:
            example = " ".join(result.examples.get(kind, "").split())
            lines.append(f"  {count:>9,}  {kind}" + (f"  {example[:120]!r}" if example else ""))
        if len(ranked) > _KINDS:
            lines.append(f"  and {len(ranked) - _KINDS} more kinds; --json has all")
    if result.is_own_limit:
        lines += ["", f"The sender itself was the limit ({_own_limit(result)}): use more --processes,"]
        lines.append("or another machine; the service may be faster than this.")
    for limit in broken:
        lines += ["", f"failed: {limit.text}, measured {_measured(limit, result)}"]
    return "\n".join(lines)


def _loop(plan: LoadPlan) -> str:
    if not plan.phases:
        return f"closed loop, {_many(plan.connections, 'client', 'clients')}"
    arrivals = "random" if plan.is_poisson else "even"
    rates = ", then ".join(
        f"{phase.start_rps:g}/s"
        if phase.start_rps == phase.end_rps
        else f"{phase.start_rps:g} to {phase.end_rps:g}/s in {phase.length_s:g} s"
        for phase in plan.phases
    )
    return f"open loop, {rates}, {arrivals} arrivals"


def _per_second(result: Result) -> list[str]:
    """Return the answers of each second as a line of bars; a dip is seen at once."""
    if len(result.seconds) < 3:
        return []
    # The last one is not whole.
    last = max(result.seconds)
    counts = [result.seconds[n].completed if n in result.seconds else 0 for n in range(last)]
    each = -(-len(counts) // _WIDTH)
    groups = [sum(counts[at : at + each]) / len(counts[at : at + each]) for at in range(0, len(counts), each)]
    highest = max(groups) or 1
    bars = "".join(
        _SPARK[min(len(_SPARK) - 1, int(value / highest * (len(_SPARK) - 1) + 0.5))] for value in groups
    )
    return [f"  over time   {bars}  lowest {min(groups):,.0f}/s, highest {max(groups):,.0f}/s"]


def _own_limit(result: Result) -> str:
    if result.late_share > 0:
        return f"{result.late_share:.1%} of the requests left late, processor {result.busy_share:.0%} busy"
    return f"its processor was {result.busy_share:.0%} busy"


def _measured(limit: Limit, result: Result) -> str:
    value = limit.value(result)
    if limit.measure == "rate":
        return f"{value:,.1f}/s"
    if limit.measure == "errors":
        return f"{value:.3%}" if limit.is_share else f"{value:,.0f}"
    return shown_time(value)


def shown_time(seconds: float) -> str:
    """Return a duration for people, three digits and a unit."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s"


def shown_bytes(count: float) -> str:
    """Return a size for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _many(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"
