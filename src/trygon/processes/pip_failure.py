"""Says in a few lines why pip failed: its own last words, and what to do. Pure."""

from __future__ import annotations

import re

__all__ = ["explain_failure"]

_MOST_LINES = 12
_MOST_CHARACTERS = 400
#: Where pip cannot reach its index it says so many times, and then that it found nothing.
_UNREACHABLE = re.compile(
    r"NewConnectionError|Name or service not known|name resolution|ConnectTimeout|Max retries|Network is unreachable"
    r"|ConnectionError|ProxyError|SSLError"
)
_ADVICE = (
    (
        _UNREACHABLE,
        "the package index cannot be reached: check the network and PIP_INDEX_URL, or name a folder of wheels with "
        "'--no-index' and '--find-links FOLDER' among the requirements",
    ),
    (
        re.compile(r"ResolutionImpossible|conflicting dependencies|has requirement .* but you"),
        "these requirements exclude one another: loosen or remove one of them",
    ),
    (
        re.compile(r"No matching distribution found|Could not find a version"),
        "check the spelling of the name, and that this version is there for this Python",
    ),
    (re.compile(r"Invalid requirement"), "write it as pip wants it, such as 'torch==2.5.1'"),
    (re.compile(r"No module named ['\"]?(pip|ensurepip)"), "install pip: python -m ensurepip"),
    (re.compile(r"No space left on device"), "make room, or set TRYGON_HOME to another disk"),
    (re.compile(r"metadata-generation-failed|Failed building wheel|subprocess-exited-with-error"),
     "the package has to be compiled and cannot be: take a version with a wheel, or install what its build needs"),
)  # fmt: skip


def explain_failure(output: str) -> str:
    """Return pip's errors, or else its last lines, and what to do about them."""
    lines = [line.rstrip()[:_MOST_CHARACTERS] for line in output.splitlines() if line.strip()]
    told = _errors(lines) or lines[-_MOST_LINES:]
    if any(line.startswith("Traceback ") for line in told):
        # Of whichever program failed: where in it is of no use, what it said is.
        told = told[-1:]
    advice = next((text for pattern, text in _ADVICE if pattern.search(output)), "")
    return "\n".join([*(f"  {line}" for line in told[-_MOST_LINES:]), *([advice] if advice else [])])


def _errors(lines: list[str]) -> list[str]:
    """Return the lines from the first error on, without warnings, repetitions and advertisements."""
    first = next((i for i, line in enumerate(lines) if line.lstrip().startswith(("ERROR:", "error:"))), None)
    if first is None:
        return []
    unwanted = ("WARNING:", "[notice]", "note:", "hint:")
    return list(dict.fromkeys(line for line in lines[first:] if not line.startswith(unwanted)))
