"""What is asked of a user-code helper: a process that runs user code for those who may not run any.

On the wire, over the helper's own Unix socket: a 4-byte little-endian length, then one msgpack value.
Any number of callers may be connected, and every `Ask` is answered by one `Answer` with the same `seq`.
A service is a kind of question, such as "autoscaling"; it says what `body` holds.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

__all__ = [
    "AUTOSCALING",
    "ROUTING",
    "ROUTING_STATS",
    "Answer",
    "Ask",
    "RoutingAnswer",
    "RoutingBatch",
    "RoutingQuestion",
    "RoutingReplica",
    "RoutingStats",
    "UserFunction",
    "helper_address",
    "helper_key",
]

#: The body maps the names of deployments to the fields of their AutoscalingContext; the answer is a list of
#: what each shall have, by name, and the policy's state.
AUTOSCALING = "autoscaling"
#: Asked by callers, not by the controller, and answered request by request: see RoutingBatch.
ROUTING = "routing"
#: Told by replicas; it has no answer.
ROUTING_STATS = "routing_stats"


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
    #: Unused where the helper has the function already.
    function: UserFunction = UserFunction()
    #: The whole application's, or one deployment's; a class is made once for each.
    owner: str = ""
    body: Any = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    seq: int
    body: Any = None
    #: Why there is no body; the user's traceback where user code raised.
    error: str = ""


# ---- routing


class RoutingReplica(msgspec.Struct, frozen=True, array_like=True):
    """A replica that may be chosen, as the caller sees it."""

    replica_id: str
    #: Requests that it has in work, of all callers as far as this one knows.
    ongoing: int
    max_ongoing_requests: int


class RoutingQuestion(msgspec.Struct, frozen=True, array_like=True):
    """One request that needs a replica; an Answer with its number follows, whose body is a RoutingAnswer."""

    seq: int
    #: Whether `head` is an HttpMeta, and not a CallMeta.
    is_http: bool
    head: bytes
    body: bytes
    #: False when the body was too large to be sent along.
    is_whole: bool = True


class RoutingBatch(msgspec.Struct, frozen=True, array_like=True):
    """The body of an Ask of ROUTING: questions of one turn of the loop. The owner is the deployment."""

    replicas: tuple[RoutingReplica, ...]
    questions: tuple[RoutingQuestion, ...] = ()
    #: Where earlier requests of this connection went, by the number of their question; for routers that want to know.
    routed: dict[int, str] = {}


class RoutingAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Ids of replicas in ranks, best first."""

    ranks: list[list[str]]
    #: Whether the router wants to know where the request went.
    wants_routed: bool = False


class RoutingStats(msgspec.Struct, frozen=True, array_like=True):
    """The body of an Ask of ROUTING_STATS: what a replica tells the router of itself."""

    replica_id: str
    stats: dict[str, Any] = {}
    model_ids: list[str] = []


def helper_key(app_name: str, revision: int) -> str:
    """Return the name of the helper of one revision of an application."""
    return f"{app_name}#{revision}"


def helper_address(runtime_dir: str, key: str) -> str:
    """Return the Unix socket on which a helper is asked."""
    return f"{runtime_dir}/helper-{hashlib.sha256(key.encode()).hexdigest()[:8]}.sock"
