"""Command line: ``python -m bench [SCENARIO ...]``; ``scripts/bench`` calls it."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.processes import end_everything, use_as_subreaper
from bench.scenarios.base import Settings
from bench.table import Report, show, write

#: Name -> (module, function, what it answers). Imported when run: a missing package stops one scenario only.
SCENARIOS = {
    "echo": ("echo", "run_echo", "JSON echo against bare web servers, access log off"),
    "echo-log": ("echo", "run_echo_log", "the same with the access log on"),
    "metrics": ("metrics", "run_metrics", "the echo with metrics on, without stages, and off"),
    "chain": ("echo", "run_chain", "two deployments, one calling the other through a handle"),
    "handle": ("handle", "run_handle", "handle call from a script against a pipe ping-pong"),
    "startup": ("startup", "run_startup", "time to the first answer, memory, import time"),
    "payload": ("payload", "run_payload", "100 MB array through a handle"),
    "upload": ("streams", "run_upload", "1 GB upload read as a stream"),
    "stream": ("streams", "run_stream", "10,000-chunk stream, and a reader that stops reading"),
    "blocking": ("blocking", "run_blocking", "what a blocking handler does to everybody else"),
    "kill": ("kill", "run_kill", "kill -9 of a replica and of the ingress under load"),
    "rolling": ("rolling", "run_rolling", "rolling updates under load: lost requests, worst second"),
    "controller-kill": ("controller_kill", "run_controller_kill", "kill -9 of the controller every 3 s"),
    "replica-kill": ("replica_kill", "run_replica_kill", "replicas killed, frozen and blocked under load"),
    "ingress-kill": ("family_kill", "run_ingress_kill", "kill -9 of the ingress, again and again"),
    "supervisor-kill": ("family_kill", "run_supervisor_kill", "kill -9 of the supervisor: nothing is left"),
    "overload": ("overload", "run_overload", "ten times the capacity, and tenants that flood"),
    "scale": ("scale", "run_scale", "1 to 20 to 1 replicas under load"),
    "autoscale": ("autoscale", "run_autoscale", "steps of load on a deployment that scales with it"),
    "poison": ("poison", "run_poison", "requests that kill their replica, beside healthy ones"),
    "clock": ("machine_faults", "run_machine_faults", "clock jumps, no descriptors left, a full disk"),
    "soak": ("soak", "run_soak", "10 minutes of load and updates: memory, descriptors, processes"),
    "control": ("control", "run_control", "the controller's decisions for 10,000 replicas, in virtual time"),
    "cancel": ("cancel", "run_cancel", "1,000 clients that leave in the middle of a graph three deep"),
    "batching": ("batching", "run_batching", "a random forest behind serve.batch, MOSEC and LitServe"),
    "simulate": ("simulate", "run_simulate", "autoscaling policies on traces, in virtual time (and --live)"),
    "multiplex": ("multiplex", "run_multiplex", "10,000 models in a pool with room for 100"),
    "slow-clients": ("slow_clients", "run_slow_clients", "10,000 slow clients"),
}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    listing = "\n".join(f"  {name:<15} {about}" for name, (_, _, about) in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure Trygon against other servers on this machine.",
        epilog=f"scenarios (all of them when none is named):\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", nargs="*", help="what to run")
    parser.add_argument(
        "--duration", type=float, metavar="S", help="seconds for each measurement (default 8)"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="interleaved rounds, medians are shown (default 3)"
    )
    parser.add_argument("--only", default="", metavar="NAMES", help="systems to run, separated by commas")
    parser.add_argument(
        "--peers", action="store_true", help="also Ray Serve, MOSEC, LitServe, BentoML from PyPI"
    )
    parser.add_argument(
        "--live", action="store_true", help="simulate: run a trace against a real instance too (5 minutes)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round, nothing written: does it all work?"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the pages go (default bench/results)")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.scenario if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario called {unknown[0]!r}; choose from: {', '.join(SCENARIOS)}")
    if (chosen.duration is not None and chosen.duration <= 0) or (
        chosen.rounds is not None and chosen.rounds < 1
    ):
        parser.error("--duration must be above 0 and --rounds at least 1")
    return chosen


def _settings(chosen: argparse.Namespace) -> Settings:
    return Settings(
        duration_s=chosen.duration or (2.0 if chosen.quick else 8.0),
        rounds=chosen.rounds or (1 if chosen.quick else 3),
        with_peers=chosen.peers,
        only=frozenset(name.strip() for name in chosen.only.split(",") if name.strip()),
        is_quick=chosen.quick,
        asked_s=chosen.duration,
        with_live=chosen.live,
    )


def _run(name: str, settings: Settings) -> Report:
    module, function, _ = SCENARIOS[name]
    report: Any = getattr(importlib.import_module(f"bench.scenarios.{module}"), function)(settings)
    if not isinstance(report, Report):
        raise BenchError(f"scenario {name!r} gave no report")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen scenarios; 0 when each gave a table, 1 when one could not run."""
    chosen = _parse(sys.argv[1:] if arguments is None else arguments)
    if sys.platform != "linux":
        print("bench: needs Linux (it reads /proc)", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    use_as_subreaper()
    settings = _settings(chosen)
    folder = chosen.out or (None if chosen.quick else Path(__file__).resolve().parent / "results")
    failed = 0
    try:
        for name in chosen.scenario or SCENARIOS:
            try:
                report = _run(name, settings)
            except BenchError as error:
                print(f"bench: {name}: {error}", file=sys.stderr)
                failed = 1
                continue
            show(report)
            if folder is not None:
                print(f"written: {write(report, folder, settings=report.facts or settings.lines())}")
    except KeyboardInterrupt:
        print("bench: interrupted, ending what was started", file=sys.stderr)
        return 130
    finally:
        end_everything()
    return failed


if __name__ == "__main__":
    sys.exit(main())
