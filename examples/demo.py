"""Trygon end to end: train the wine models, serve their consensus, ask it over HTTP, check every answer.

Run ``scripts/demo`` on a fresh clone, or ``python -m examples.demo`` where Trygon is installed
(``--data winequality-red.csv`` for real wines). It ends with 0 only if all answers were right.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import joblib
import numpy as np
from rich.console import Console
from rich.table import Table

from examples.wine import consensus
from examples.wine.data import Wines, load_wines, sample_wines
from examples.wine.routes import saved_models
from examples.wine.train import save_best, score_table, split, train
from trygon import serve


class Demo:
    """The steps of the demonstration, each timed and shown as it runs."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.durations_s: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show the step's name and remember how long it took."""
        self.console.rule(f"[bold]{name}", align="left")
        started = time.perf_counter()
        yield
        self.durations_s[name] = time.perf_counter() - started

    def show_wines(self, client: httpx.Client, wines: Wines, expected: list[str], rows: list[int]) -> int:
        """Ask about some wines, show the answers beside the true labels, and count the wrong answers."""
        table = Table(title='Is it a good wine? "1" is yes; the true label is 1 for quality 7 or more')
        for column in ("alcohol", "quality", "label", "answer", "agreed"):
            table.add_column(column)
        num_wrong = 0
        for row in rows:
            answer = client.post("/", json=wines.as_json(row)).raise_for_status().json()
            is_right = answer["answer"] == expected[row]
            num_wrong += not is_right
            table.add_row(
                f"{wines.as_json(row)['alcohol']:.1f} %",
                str(wines.quality[row]),
                str(wines.good[row]),
                answer["answer"] if is_right else f"[red]{answer['answer']}, not {expected[row]}",
                ", ".join(answer["agreed"]) if answer["disagreed"] else "all",
            )
        self.console.print(table)
        return num_wrong

    def measure(self, client: httpx.Client, wines: Wines, expected: list[str], num_calls: int) -> int:
        """Ask about one wine after the other, show the latency, and count the wrong answers."""
        latencies_ms = []
        num_wrong = 0
        for call in range(num_calls):
            row = call % len(expected)
            started = time.perf_counter()
            answer = client.post("/", json=wines.as_json(row)).raise_for_status().json()
            latencies_ms.append((time.perf_counter() - started) * 1000)
            num_wrong += answer["answer"] != expected[row]
        num_true = sum(int(answer) == label for answer, label in zip(expected, wines.good, strict=True))
        self.console.print(
            f"the vote is right about {num_true} of {len(expected)} wines that the models had not seen"
        )
        cuts = statistics.quantiles(latencies_ms, n=100)
        self.console.print(
            f"{num_calls} calls, one after the other, each asks three models:\n"
            f"p50 {cuts[49]:.1f} ms, p95 {cuts[94]:.1f} ms, p99 {cuts[98]:.1f} ms"
        )
        return num_wrong

    def show_durations(self) -> None:
        """Say how long each step took."""
        table = Table(title="Time of each step")
        table.add_column("step")
        table.add_column("seconds", justify="right")
        for name, duration_s in self.durations_s.items():
            table.add_row(name, f"{duration_s:.2f}")
        self.console.print(table)


def consensus_of_files(folder: Path, wines: Wines) -> list[str]:
    """Compute the answers without serving anything: the majority of the saved models."""
    votes = [joblib.load(path).predict(wines.measurements) for path in saved_models(folder).values()]
    return [str(int(vote)) for vote in np.sum(votes, axis=0) * 2 > len(votes)]


def choose_rows(wines: Wines, num_good: int = 4, num_other: int = 4) -> list[int]:
    """Pick some good wines and some others, spread over all of them."""
    good, other = np.flatnonzero(wines.good == 1), np.flatnonzero(wines.good == 0)
    picked = [
        pool[:: max(1, len(pool) // count)][:count] for pool, count in ((good, num_good), (other, num_other))
    ]
    return [int(row) for row in np.concatenate(picked)]


def free_port(wanted: int) -> int:
    """Return the wanted port if nobody listens there, else one that is free."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no port is free on 127.0.0.1")


def run(demo: Demo, wines: Wines, args: argparse.Namespace, models: Path) -> int:
    """Run all steps and return the number of wrong answers."""
    with demo.step("train"):
        learn, held_out = split(wines, args.seed)
        demo.console.print(f"{len(learn.good)} wines to learn from, {len(held_out.good)} held out")
        trained = train(learn, held_out, seed=args.seed, trees=args.trees)
        demo.console.print(score_table(trained))
        save_best(trained, models)
        expected = consensus_of_files(models, held_out)

    with demo.step("start"):
        port = free_port(args.port)
        serve.start(http_options=serve.HTTPOptions(host="127.0.0.1", port=port))
        serve.run(consensus.build({"models": str(models)}), name="wine")
        url = f"http://127.0.0.1:{port}"
        demo.console.print(f"application wine   {url}/")
        demo.console.print(f"routes             {url}/-/routes")
        demo.console.print(f"health             {url}/-/healthz")

    with httpx.Client(base_url=url, timeout=30) as client:
        with demo.step("ask"):
            num_wrong = demo.show_wines(client, held_out, expected, choose_rows(held_out))
        with demo.step("measure"):
            num_wrong += demo.measure(client, held_out, expected, args.calls)

    with demo.step("stop"):
        serve.shutdown()
    return num_wrong


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Train wine models, serve their consensus, and check the answers."
    )
    parser.add_argument("--data", type=Path, help="CSV of wines (default: a made-up sample)")
    parser.add_argument("--port", type=int, default=8000, help="another one is taken if it is in use")
    parser.add_argument("--calls", type=int, default=400, help="calls to measure")
    parser.add_argument("--seed", type=int, default=7, help="of the sample, the split and the models")
    parser.add_argument("--trees", type=int, default=100, help="trees in each ensemble")
    args: Any = parser.parse_args(argv)
    if args.calls < 2:
        parser.error("--calls must be 2 or more")
    try:
        args.wines = load_wines(args.data) if args.data else sample_wines(seed=args.seed)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return args  # type: ignore[no-any-return]


def main() -> int:
    """Run the demonstration; return 0 if all answers were right, 130 after Ctrl-C."""
    args = parse_args()
    demo = Demo(Console())
    try:
        with tempfile.TemporaryDirectory(prefix="wine-models-") as models:
            num_wrong = run(demo, args.wines, args, Path(models))
    except KeyboardInterrupt:
        demo.console.print("\nstopped by Ctrl-C")
        serve.shutdown()
        return 130
    demo.show_durations()
    if num_wrong:
        demo.console.print(f"[red]{num_wrong} answers were not what the models say")
        return 1
    demo.console.print("[green]all answers were right: served and computed here, they are the same")
    return 0


if __name__ == "__main__":
    sys.exit(main())
