"""What facts about a machine mean, and that every fault has a remedy."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trygon.cli.diagnosis import Finding, Verdict, diagnose
from trygon.processes.machine import MachineFacts, look_at_machine

GOOD = MachineFacts(
    python=(3, 11, 7),
    platform="linux",
    wall_s=1_790_000_000.0,
    cpus=2,
    max_open_files=65_536,
    has_proc=True,
    memfd_error="",
    home="/home/ada/.trygon",
    home_free_bytes=50 << 30,
    runtime_dir="/run/user/1000/trygon",
    longest_socket_bytes=70,
    port=8000,
)


def findings(**changes: Any) -> dict[str, Finding]:
    return {found.check: found for found in diagnose(msgspec.structs.replace(GOOD, **changes))}


def test_a_good_machine_has_nothing_to_remedy() -> None:
    found = findings()

    assert {Verdict.OK} == {one.verdict for one in found.values()}
    assert {""} == {one.remedy for one in found.values()}


@pytest.mark.parametrize(
    "changes, check, verdict, text",
    [
        ({"python": (3, 10, 1)}, "Python", "broken", "3.11 or newer"),
        ({"platform": "win32"}, "Python", "broken", "use Linux"),
        ({"platform": "darwin"}, "Python", "note", "untested"),
        ({"max_open_files": 128}, "open files", "broken", "LimitNOFILE"),
        ({"max_open_files": 1024}, "open files", "note", "fewer connections"),
        ({"has_proc": False}, "/proc", "broken", "mount"),
        ({"memfd_error": "Operation not permitted"}, "memfd", "note", "temporary files"),
        ({"wall_s": 3600.0}, "clock", "note", "1970"),
        ({"settings_error": "TRYGON_HOME is 'x'"}, "settings", "broken", "TRYGON_HOME is 'x'"),
        ({"unknown_settings": ("TRYGON_HMOE",)}, "settings", "note", "TRYGON_HMOE"),
        ({"home_error": "'/' cannot be written to"}, "state directory", "broken", "TRYGON_HOME"),
        ({"home_free_bytes": 1000}, "state directory", "broken", "make room"),
        ({"home_free_bytes": 500 << 20}, "state directory", "note", "0.5 GiB free"),
        ({"runtime_dir_error": "it is a link"}, "runtime directory", "broken", "TRYGON_RUNTIME_DIR"),
        ({"longest_socket_bytes": 104}, "socket paths", "note", "short names"),
        ({"port_error": "Address already in use"}, "port", "broken", "--port"),
        ({"port_error": "Address already in use", "port_instance": "shop"}, "port", "note", "'shop'"),
        ({"stale": ("old",)}, "instances", "note", "old"),
        ({"leftovers": (7, 8)}, "instances", "broken", "kill -9 7 8"),
        ({"corrupt": ("/x/state.corrupt",)}, "state files", "broken", "/x/state.corrupt"),
        (
            {"memory_limit_bytes": 1 << 30, "memory_used_bytes": 1000 << 20},
            "memory",
            "note",
            "fewer replicas",
        ),
        ({"gpu_devices": 2}, "GPUs", "note", "unset it"),
    ],
)
def test_each_fault_is_told_with_its_remedy(
    changes: dict[str, Any], check: str, verdict: str, text: str
) -> None:
    one = findings(**changes)[check]

    assert verdict == one.verdict
    assert text in one.found + one.remedy
    assert one.remedy


def test_this_machine_can_be_looked_at() -> None:
    facts = look_at_machine(0)

    assert facts.home
    assert 0 < facts.longest_socket_bytes
    assert facts.has_proc or facts.platform != "linux"
