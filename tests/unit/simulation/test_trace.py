"""Traces: from files as they are found, and from seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from trygon.simulation.trace import SHAPES, ServiceTime, TraceError, generate, read_trace, write_trace


def file(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_azure_traces_are_read_as_they_are(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4808,10\n"
        "2023-11-16 18:17:04.0319600,110,27\n",
    )

    trace = read_trace(path, ServiceTime.parse("20ms/token"))

    assert list(trace.arrivals) == pytest.approx([0.0, 0.052], abs=1e-6)
    assert list(trace.services) == pytest.approx([0.2, 0.54])


def test_plain_times_may_stand_in_any_order_and_bring_their_own_service_time(tmp_path: Path) -> None:
    path = file(tmp_path, "service_s,timestamp\n0.5,12\n\n0.25,10\n")

    trace = read_trace(path, ServiceTime(9.0))

    assert [0.0, 2.0] == list(trace.arrivals)
    assert [0.25, 0.5] == list(trace.services)
    assert trace.duration_s == 2.0


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "column 'timestamp'"),
        ("when\n1\n", "column 'timestamp'"),
        ("timestamp\n", "no requests"),
        ("timestamp\n1\nsoon\n", "line 3"),
        ("timestamp,service_s\n1,-1\n", "line 2"),
        ("timestamp,service_s\n1\n", "line 2"),
        ("timestamp\nnan\n", "line 2"),
    ],
)
def test_a_bad_trace_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TraceError, match=said):
        read_trace(file(tmp_path, text), ServiceTime())


def test_a_time_per_token_needs_tokens(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="GeneratedTokens"):
        read_trace(file(tmp_path, "timestamp\n1\n"), ServiceTime.parse("1/token"))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot read"):
        read_trace(tmp_path / "none.csv", ServiceTime())


@pytest.mark.parametrize(
    "text, expected",
    [
        ("0.1", ServiceTime(0.1)),
        ("2s", ServiceTime(2.0)),
        ("100ms", ServiceTime(0.1)),
        ("20ms/token", ServiceTime(0.02, per_token=True)),
    ],
)
def test_service_times_are_written_as_people_write_them(text: str, expected: ServiceTime) -> None:
    assert expected == ServiceTime.parse(text)


@pytest.mark.parametrize("text", ["", "fast", "1/byte", "-1", "0", "inf"])
def test_nonsense_is_no_service_time(text: str) -> None:
    with pytest.raises(ValueError):
        ServiceTime.parse(text)


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_seed_decides_everything(shape: str) -> None:
    trace = generate(shape, seed=3, duration_s=1800.0, rate=5.0)

    assert trace == generate(shape, seed=3, duration_s=1800.0, rate=5.0)
    assert trace.arrivals != generate(shape, seed=4, duration_s=1800.0, rate=5.0).arrivals
    assert list(trace.arrivals) == sorted(trace.arrivals)
    assert 1000 < len(trace) < 40_000
    assert 0.4 < sum(trace.services) / len(trace) < 0.6


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(TraceError, match="diurnal"):
        generate("zigzag")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    trace = generate("steps", duration_s=60.0)
    path = tmp_path / "steps.csv"

    write_trace(path, trace)
    again = read_trace(path, ServiceTime())

    first = trace.arrivals[0]
    assert [at - first for at in trace.arrivals] == pytest.approx(list(again.arrivals), abs=2e-6)
    with pytest.raises(TraceError, match="cannot write"):
        write_trace(tmp_path / "none" / "steps.csv", trace)
