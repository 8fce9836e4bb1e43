"""Ten times the load that a replica can take: what it can do is done, the rest hears so at once, and all is well after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench import load
from bench.apps.serve_overload import CAPACITY_RPS, SERVICE_S, app, fair_app
from bench.load import Sample, Target
from tests.faults.open_loop import sending
from tests.waiting import wait_until
from trygon import serve

pytestmark = pytest.mark.timeout(60)

#: Seconds that a busy machine may add to what is promised on a quiet one.
SLACK_S = 0.25


def send(url: str, targets: Sequence[Target], seconds: float, folder: Path) -> list[Sample]:
    """Send for so long, and return everything the sender saw."""
    port = urlsplit(url).port
    assert port is not None
    folder.mkdir()
    return load.finish(load.begin(port, targets, seconds, folder))


def p99(samples: Sequence[Sample]) -> float:
    latencies = sorted(sample.latency_s for sample in samples)
    return latencies[int(len(latencies) * 0.99)]


@pytest.mark.slow
def test_ten_times_the_load_is_answered_as_well_as_can_be(url: str, tmp_path: Path) -> None:
    serve.run(app)
    peak = send(url, [Target("peak", "/", 1.5 * CAPACITY_RPS)], 3, tmp_path / "peak")
    flood = send(url, [Target("flood", "/", 10 * CAPACITY_RPS)], 6, tmp_path / "flood")
    after = send(url, [Target("after", "/", 0.2 * CAPACITY_RPS)], 3, tmp_path / "after")

    assert {"200", "503"} == {sample.outcome for sample in flood}
    admitted = [sample for sample in flood if sample.is_good]
    refused = [sample for sample in flood if not sample.is_good]
    assert rate_between(flood, 1, 6) > 0.9 * rate_between(peak, 1, 3)
    assert p99(admitted) <= 2 * SERVICE_S + 1.0 + SLACK_S
    assert p99(refused) <= 0.02 + SLACK_S
    assert {"1", "2", "3"} == {sample.retry_after for sample in refused}
    begun = min(sample.at for sample in after)
    recovered = [sample for sample in after if sample.at > begun + 2]
    assert {"200"} == {sample.outcome for sample in recovered}
    assert p99(recovered) <= 2 * SERVICE_S + SLACK_S


def rate_between(samples: Sequence[Sample], first_s: float, last_s: float) -> float:
    begun = min(sample.at for sample in samples)
    done = [s for s in samples if s.is_good and first_s <= s.ended_at - begun < last_s]
    return len(done) / (last_s - first_s)


@pytest.mark.slow
def test_a_flooding_tenant_does_not_hurt_a_small_one(url: str, tmp_path: Path) -> None:
    serve.run(fair_app)
    small = Target("small", "/", 20, header="X-Tenant: small")
    flood = Target("flood", "/", 6 * CAPACITY_RPS, header="X-Tenant: big")

    quiet = send(url, [small], 3, tmp_path / "quiet")
    samples = send(url, [small, flood], 5, tmp_path / "flood")

    beside = [sample for sample in samples if sample.target == "small"]
    assert {"200"} == {sample.outcome for sample in beside}
    assert p99(beside) <= 2 * p99(quiet) + SERVICE_S + SLACK_S
    assert any(not sample.is_good for sample in samples if sample.target == "flood")


def test_requests_with_little_time_are_refused_while_others_wait(url: str, tmp_path: Path) -> None:
    serve.run(app)
    hasty = Target("hasty", "/", 50, header="X-Request-Timeout-Seconds: 0.2")
    with sending(url, [Target("flood", "/", 3 * CAPACITY_RPS)], tmp_path):
        port = urlsplit(url).port
        assert port is not None

        def hopeless() -> bool:
            folder = tmp_path / "hasty"
            folder.mkdir(exist_ok=True)
            seen = load.finish(load.begin(port, [hasty], 1, folder))
            refused = [s for s in seen if s.outcome == "503" and "0.2 s that it has" in s.body]
            return bool(refused) and all(s.retry_after for s in refused)

        wait_until(hopeless, "a refusal for want of time", timeout_s=20)
