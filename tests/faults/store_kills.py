"""Kills a program that saves the state again and again, and looks at what is left each time.

`python -m tests.faults.store_kills 500` runs that many rounds and says how it went; a test runs a few.
"""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from trygon.control.blobs import detach_definitions
from trygon.control.state import Revision
from trygon.control.store import FileStore, PastRevision, WantedApplication, WantedState
from trygon.spec.application import ApplicationSpec, DeploymentSpec

#: Large enough to be a blob of its own.
DEFINITION_BYTES = 100_000
ROOT = Path(__file__).resolve().parents[2]


def definition(number: int) -> bytes:
    """Return the definition that the revision of this number has."""
    return random.Random(number).randbytes(DEFINITION_BYTES)


def revision(number: int) -> tuple[Revision, dict[str, bytes]]:
    """Return a revision and its blobs."""
    main = DeploymentSpec(name="Main", app_name="app", definition=definition(number))
    spec, blobs = detach_definitions(ApplicationSpec(name="app", ingress="Main", deployments=(main,)))
    return Revision(number=number, spec=spec), blobs


def state(number: int) -> tuple[WantedState, dict[str, bytes]]:
    """Return the state after the deploy of this number, with the one before it in its history."""
    newest, blobs = revision(number)
    before, _ = revision(number - 1)
    past = (PastRevision(revision=before), PastRevision(revision=newest))
    application = WantedApplication(name="app", target=newest, last_revision=number, history=past)
    return WantedState(applications=(application,)), blobs


def write_for_ever(path: Path, number: int) -> None:
    """Save one state after the other, and acknowledge each on standard output."""
    store = FileStore(path)
    while True:
        store.save(*state(number))
        sys.stdout.buffer.write(f"{number}\n".encode())
        sys.stdout.buffer.flush()
        number += 1


def look(path: Path) -> int:
    """Return the number of the state that is kept, after checking that it is whole."""
    store = FileStore(path)
    kept = store.load()
    if not kept.applications:
        return 0
    (application,) = kept.applications
    assert application.target is not None
    number = application.last_revision
    for past in application.history[-1:]:
        (deployment,) = past.revision.spec.deployments
        assert hashlib.sha256(definition(number)).hexdigest() == deployment.definition_blob
        assert definition(number) == store.read_blob(deployment.definition_blob)
    return number


def run_rounds(folder: Path, rounds: int, *, seed: int = 1) -> int:
    """Kill the writer `rounds` times; return how many states were saved in all.

    Raises:
        AssertionError: What was kept is not what was acknowledged last, or the one that was being written.
    """
    path = folder / "state.bin"
    chance = random.Random(seed)
    pause = threading.Event()
    kept = 0
    for number in range(rounds):
        command = [sys.executable, "-m", "tests.faults.store_kills", "--write", str(path), str(kept + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            # Somewhere in one of the saves that follow.
            pause.wait(chance.uniform(0, 0.02))
            writer.send_signal(signal.SIGKILL)
            acknowledged = int((first + writer.stdout.read()).split(b"\n")[-2])
        kept = look(path)
        assert acknowledged <= kept <= acknowledged + 1, (number, acknowledged, kept)
    return kept


def main(arguments: list[str]) -> None:
    """Write for ever, or kill who does."""
    if arguments[0] == "--write":
        write_for_ever(Path(arguments[1]), int(arguments[2]))
    with tempfile.TemporaryDirectory() as folder:
        saved = run_rounds(Path(folder), int(arguments[0]))
    sys.stdout.write(f"{arguments[0]} kills, {saved} states saved: none was lost, none was torn\n")


if __name__ == "__main__":
    main(sys.argv[1:])
