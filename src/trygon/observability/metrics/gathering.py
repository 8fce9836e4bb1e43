"""The pages of an instance together: what runs, what died lately, and the totals of all that ever died.

A dead process's page is folded: its counts are added to the totals, which are kept in one file, and its page is
removed. So counts never go down, and files do not pile up. Readers and folders hold one lock, so nobody sees a
page both in the totals and beside them, or in neither.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from trygon.observability.metrics.content import Content, decode
from trygon.observability.metrics.families import PROCESS_LABELS, FamilySnapshot
from trygon.observability.metrics.merging import merge, shown, without_processes
from trygon.observability.metrics.pages import PAGE_SUFFIX, is_dead, read_page
from trygon.observability.metrics.traffic import Slots, Traffic, traffic_of

__all__ = ["Gathered", "fold_if_many", "gather"]

_LOCK: Final = "metrics-lock"
_TOTALS: Final = "metrics-totals"
#: Series of a dead process are shown for so long, so that the next scrape sees how they ended.
_LINGER_S: Final = 600.0
_MAX_LINGERING: Final = 100
#: Pages before a process that starts looks whether some are of dead ones.
_MANY: Final = 64


@dataclass
class _Totals:
    """What the totals file holds."""

    #: Pages that are in the totals already, though their removal may have failed.
    folded: list[str] = field(default_factory=list)
    families: list[FamilySnapshot] = field(default_factory=list)
    #: Wall-clock second of the fold, series with process labels.
    gone: list[tuple[float, list[FamilySnapshot]]] = field(default_factory=list)
    #: Running processes at the last fold.
    num_running: int = 0
    traffic: dict[tuple[str, str], list[Slots]] = field(default_factory=dict)


@dataclass(frozen=True)
class Gathered:
    """Everything that the processes of an instance published."""

    families: list[FamilySnapshot]
    #: By application and deployment, the deployment empty for an application as a whole.
    slots: dict[tuple[str, str], list[Slots]]
    bounds: tuple[float, ...]

    def traffic(self, now: float) -> dict[tuple[str, str], Traffic]:
        """Return rates and quantiles of the last minute; `now` is monotonic."""
        return {key: traffic_of(parts, self.bounds, now) for key, parts in self.slots.items()}


def gather(folder: Path, wall: float) -> Gathered:
    """Read every page, and fold those of dead processes; blocks for as long as that takes.

    Args:
        folder: The runtime directory of the instance.
        wall: Wall-clock seconds.

    Raises:
        OSError: The folder cannot be read.
    """
    with _locked(folder):
        running, totals = _fold(folder, wall)
    slots: dict[tuple[str, str], list[Slots]] = {key: list(parts) for key, parts in totals.traffic.items()}
    for content in running:
        for key, found in content.traffic.items():
            slots.setdefault(key, []).append(found)
    families = shown(
        (family for content in running for family in content.families),
        (family for _, families in totals.gone for family in families),
        totals.families,
    )
    bounds = next((content.bounds for content in running if content.bounds), ())
    return Gathered(families, slots, bounds)


def fold_if_many(folder: Path, wall: float) -> None:
    """Fold the pages of dead processes when there are many pages; called by a process that adds one.

    An instance that nobody scrapes must not collect the pages of replicas that crash all day.
    """
    num_pages = sum(1 for _ in _pages(folder))
    if num_pages < _MANY or num_pages < 2 * _read_totals(folder).num_running:
        return
    with _locked(folder):
        _fold(folder, wall)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder / f"{_LOCK}{PAGE_SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _pages(folder: Path) -> Iterator[Path]:
    reserved = {f"{_LOCK}{PAGE_SUFFIX}", f"{_TOTALS}{PAGE_SUFFIX}"}
    for entry in sorted(os.listdir(folder)):
        if entry.endswith(PAGE_SUFFIX) and not entry.startswith(".") and entry not in reserved:
            yield folder / entry


def _fold(folder: Path, wall: float) -> tuple[list[Content], _Totals]:
    """Return what running processes published, and the totals with all dead ones; the lock is held."""
    totals = _read_totals(folder)
    running, dead = [], []
    for path in _pages(folder):
        # First, so that what a process published last is read.
        has_died = is_dead(path)
        data = None if path.name in totals.folded else read_page(path)
        if data is not None:
            with contextlib.suppress(ValueError):
                content = decode(data)
                if not has_died:
                    running.append(content)
                else:
                    _add(totals, content, wall)
        if has_died:
            dead.append(path)
    lingering = [entry for entry in totals.gone if wall - entry[0] < _LINGER_S][-_MAX_LINGERING:]
    if dead:
        totals.gone = lingering
        totals.folded = [path.name for path in dead]
        totals.num_running = len(running)
        _write_totals(folder, totals)
        for path in dead:
            path.unlink(missing_ok=True)
    totals.gone = lingering
    return running, totals


def _add(totals: _Totals, content: Content, wall: float) -> None:
    gone = []
    for family in content.families:
        if family.kind == "gauge":
            continue
        names_process = any(label in PROCESS_LABELS for label in family.labels)
        if names_process:
            gone.append(family)
        if family.total or not names_process:
            totals.families = merge([*totals.families, without_processes(family)])
    if gone:
        totals.gone.append((wall, gone))
    for key, slots in content.traffic.items():
        # The dead's last minute counts too; slots that are over are passed by, and dropped with the next fold.
        totals.traffic[key] = [*totals.traffic.get(key, ())[-_MAX_LINGERING:], slots]


def _read_totals(folder: Path) -> _Totals:
    try:
        plain: dict[str, Any] = json.loads((folder / f"{_TOTALS}{PAGE_SUFFIX}").read_bytes())
        return _Totals(
            plain["folded"],
            [FamilySnapshot.of_plain(family) for family in plain["families"]],
            [
                (at, [FamilySnapshot.of_plain(family) for family in families])
                for at, families in plain["gone"]
            ],
            plain["num_running"],
            {(app, name): parts for app, name, parts in plain["traffic"]},
        )
    except (OSError, ValueError, KeyError, TypeError):
        # There is none yet. A damaged one costs the counts of the dead, never the scrape.
        return _Totals()


def _write_totals(folder: Path, totals: _Totals) -> None:
    plain = {
        "folded": totals.folded,
        "families": [family.to_plain() for family in totals.families],
        "gone": [[at, [family.to_plain() for family in families]] for at, families in totals.gone],
        "num_running": totals.num_running,
        "traffic": [[*key, parts] for key, parts in totals.traffic.items()],
    }
    new = folder / f".{_TOTALS}{PAGE_SUFFIX}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(json.dumps(plain, separators=(",", ":")).encode())
    os.replace(new, folder / f"{_TOTALS}{PAGE_SUFFIX}")
