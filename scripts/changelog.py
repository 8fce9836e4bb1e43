"""News fragments: `changelog.py check` says which are badly named, `changelog.py draft` shows the next section.

A fragment is `changelog.d/<issue>.<feature|fix|change|removal>.md`, or `<issue>.<type>.<n>.md` for
a second one of the same type: one sentence or short paragraph for users.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "changelog.d"
TITLES = {"feature": "Added", "change": "Changed", "fix": "Fixed", "removal": "Removed"}
NAME = re.compile(rf"(?P<issue>[1-9][0-9]*)\.(?P<type>{'|'.join(TITLES)})(\.[1-9][0-9]*)?\.md")


def fragments(folder: Path = FOLDER) -> list[Path]:
    """Return the fragments of a folder, well named or not."""
    return sorted(path for path in folder.iterdir() if path.name != "README.md")


def complaints(folder: Path = FOLDER) -> list[str]:
    """Return one line for each fragment that is badly named or has nothing to say."""
    found = []
    for path in fragments(folder):
        if not path.is_file() or not NAME.fullmatch(path.name):
            found.append(f"{path.name}: want <issue>.<{'|'.join(TITLES)}>[.<n>].md")
            continue
        text = path.read_text(encoding="utf-8").strip()
        if not text:
            found.append(f"{path.name}: empty; write one sentence for users")
        elif text.startswith("#"):
            found.append(f"{path.name}: starts with a heading; the release puts it under one")
    return found


def draft(folder: Path = FOLDER) -> str:
    """Return the fragments as a section of CHANGELOG.md."""
    lines = ["## Unreleased"]
    for kind, title in TITLES.items():
        texts = [
            (int(match["issue"]), path.read_text(encoding="utf-8").strip())
            for path in fragments(folder)
            if (match := NAME.fullmatch(path.name)) and match["type"] == kind
        ]
        if texts:
            lines += ["", f"### {title}", ""]
            lines += ["- " + text.replace("\n", "\n  ") + f" (#{issue})" for issue, text in sorted(texts)]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Run one command; return the exit status."""
    if arguments == ["check"]:
        found = complaints()
        print("\n".join(found), end="\n" if found else "", file=sys.stderr)
        return 1 if found else 0
    if arguments == ["draft"]:
        print(draft(), end="")
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
