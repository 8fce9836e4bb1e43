"""If-Match and If-None-Match of a change (RFC 9110, 13.1), as the revision that the caller saw. Pure."""

from __future__ import annotations

import re

from trygon.errors import RevisionConflictError

__all__ = ["expected_revision"]

_ETAG = re.compile(r'"([^"]*)"')


def expected_revision(if_match: str | None, if_none_match: str | None, current: int) -> int | None:
    """Return the revision at which the change may be made, or None when any will do.

    The controller compares it once more when it makes the change, so that two callers cannot both be right.

    Args:
        if_match: The header's value: a list of ETags, or "*" for an application that exists.
        if_none_match: The header's value; "*" is for an application that does not exist.
        current: The revision as it is now; 0 without the application.

    Raises:
        RevisionConflictError: It can be told already that the change may not be made.
    """
    if if_match is not None:
        is_any = if_match.strip() == "*"
        if not (current and is_any) and str(current or "") not in _ETAG.findall(if_match):
            raise RevisionConflictError(
                f"If-Match is {if_match!r}, {_found(current)}; read it again, and repeat the change if it is "
                "still right"
            )
        return current
    if if_none_match is not None:
        is_any = if_none_match.strip() == "*"
        if current and (is_any or str(current) in _ETAG.findall(if_none_match)):
            raise RevisionConflictError(f"If-None-Match is {if_none_match!r}, {_found(current)}")
        return current
    return None


def _found(current: int) -> str:
    return f"the application is at revision {current}" if current else "there is no such application"
