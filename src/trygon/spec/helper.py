"""What is asked of a user-code helper: a process that runs user code for those who may not run any.

On the wire, over the helper's own Unix socket: a 4-byte little-endian length, then one msgpack value.
Any number of callers may be connected, and every `Ask` is answered by one `Answer` with the same `seq`.
A service is a kind of question, such as "autoscaling"; it says what `body` holds.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["AUTOSCALING", "Answer", "Ask", "UserFunction"]

#: The body maps the names of deployments to the fields of their AutoscalingContext; the answer is a list of
#: what each shall have, by name, and the policy's state.
AUTOSCALING = "autoscaling"


class UserFunction(msgspec.Struct, frozen=True, kw_only=True):
    """A function or class of the user's: where it is imported from, or its pickle."""

    #: "module:name"; empty where it is pickled.
    import_path: str = ""
    #: Pickle of ``(callable, (), {})``, made when the application was built. Opaque: loaded in helpers only.
    definition: bytes = b""
    #: What it is called where it is pickled; for people.
    name: str = ""
    #: Given to a class when it is made, and to a function with each call.
    kwargs: dict[str, Any] = {}

    @property
    def title(self) -> str:
        """What to call it when talking to people."""
        return self.import_path or self.name or "a function"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A question."""

    seq: int
    service: str
    function: UserFunction
    #: The whole application's, or one deployment's; a class is made once for each.
    owner: str = ""
    body: Any = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    seq: int
    body: Any = None
    #: Why there is no body; the user's traceback where user code raised.
    error: str = ""
