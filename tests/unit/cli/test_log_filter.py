"""Lines and tracebacks that somebody asked for."""

from __future__ import annotations

from datetime import datetime

import pytest

from trygon.cli.log_errors import Failures
from trygon.cli.log_filter import LogFilter, Selection, parse_since
from trygon.client.log_tail import LogSource

SHOP = LogSource("replica", "shop_Main", "abcd1234")
TEST = LogSource("replica", "shop_test_Main", "efgh5678")
INGRESS = LogSource("ingress", "ingress", "0")
CONTROLLER = LogSource("controller", "controller", "")
STAMP = "2025-01-31 13:05:59,123"
LATER = "2025-01-31 13:06:59,123"
TRACE = ["Traceback (most recent call last):", '  File "a.py", line 1, in <module>', "ValueError: no"]


def selection(**changes: object) -> Selection:
    return Selection(**{"others": ["shop", "shop_test"], **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wanted, found",
    [
        ({}, [SHOP, TEST, INGRESS, CONTROLLER]),
        ({"target": "shop"}, [SHOP]),
        ({"target": "shop_test"}, [TEST]),
        ({"target": "shop/Main"}, [SHOP]),
        ({"target": "shop/Other"}, []),
        ({"replica": "efgh5678"}, [TEST]),
        ({"replica": "shop#Main#abcd1234"}, [SHOP]),
        ({"system": True}, [INGRESS, CONTROLLER]),
    ],
)
def test_a_target_names_the_files_that_are_meant(wanted: dict[str, object], found: list[LogSource]) -> None:
    chosen = selection(**wanted)

    assert found == [source for source in (SHOP, TEST, INGRESS, CONTROLLER) if chosen.has(source)]


def filtered(lines: list[str], level: str | None = None, since: str | None = None) -> list[str]:
    kept: list[str] = []
    since_wall_s = datetime.fromisoformat(since.replace(",", ".")).timestamp() if since else None
    one = LogFilter(lambda _, found: kept.extend(found), selection(), level=level, since_wall_s=since_wall_s)
    # In two pieces, as they may be read.
    one.take(SHOP, lines[:2])
    one.take(SHOP, lines[2:])
    return kept


def test_what_follows_a_line_goes_with_it() -> None:
    error = [f"ERROR {LATER} shop_Main abcd1234 -- it failed", *TRACE]
    lines = ["printed", f"INFO {STAMP} shop_Main abcd1234 -- fine", "printed too", *error]

    assert lines == filtered(lines)
    assert lines == filtered(lines, level="INFO")
    assert error == filtered(lines, level="WARNING")
    assert error == filtered(lines, since=LATER)


def test_json_lines_have_levels_and_times_too() -> None:
    lines = [
        f'{{"levelname": "INFO", "asctime": "{LATER}", "message": "fine"}}',
        f'{{"levelname": "ERROR", "asctime": "{STAMP}", "message": "bad"}}',
    ]

    assert lines[1:] == filtered(lines, level="ERROR")
    assert lines[:1] == filtered(lines, since=LATER)


@pytest.mark.parametrize(
    "text, seconds", [("90", 90), ("1.5s", 1.5), ("10m", 600), ("2h", 7200), ("1d", 86400)]
)
def test_spans_are_read(text: str, seconds: float) -> None:
    assert seconds == parse_since(text)


def test_each_distinct_traceback_is_found_once_with_its_count() -> None:
    chain = [
        *TRACE,
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        *TRACE[:2],
        "KeyError: 'x'",
    ]
    failures = Failures()

    failures.read(
        SHOP,
        [
            "printed",
            *TRACE,
            "printed",
            "",
            f"ERROR {LATER} shop_Main abcd1234 -- <object at 0x7fa3f9896110>",
            *chain,
            f"ERROR {STAMP} shop_Main abcd1234 -- again",
            *chain,
            f"INFO {STAMP} shop_Main abcd1234 -- no failure",
        ],
    )
    exc_text = "\\n".join(TRACE).replace('"', '\\"')
    failures.read(
        TEST, [f'{{"levelname": "ERROR", "asctime": "{STAMP}", "message": "m", "exc_text": "{exc_text}"}}']
    )

    plain, chained = failures.in_order()
    assert ("\n".join(TRACE), 2) == (plain.traceback, plain.count)
    assert ["shop_Main abcd1234", "shop_test_Main efgh5678"] == plain.processes
    assert ("\n".join(chain), 2, STAMP, LATER) == (
        chained.traceback,
        chained.count,
        chained.first_seen,
        chained.last_seen,
    )
