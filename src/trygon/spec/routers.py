"""Which replica takes a request: the rule of a deployment, as its callers get it."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = [
    "BUILT_IN_ROUTERS",
    "CONSISTENT_HASH",
    "CUSTOM",
    "LEAST_LOADED",
    "POWER_OF_TWO",
    "ROUND_ROBIN",
    "RouterRule",
    "rule_of",
]

#: The rule of everyone who asks for nothing.
POWER_OF_TWO = ""
ROUND_ROBIN = "round_robin"
LEAST_LOADED = "least_loaded"
CONSISTENT_HASH = "consistent_hash"
#: A class of the user's, which runs in the helper process of its application.
CUSTOM = "custom"

#: Short names and names of classes, here and in Ray Serve. All replicas are on one host, so that locality, which
#: prefers those of the caller's host and takes the less busy of two, is power of two choices.
BUILT_IN_ROUTERS = {
    "power_of_two": POWER_OF_TWO,
    "pow2": POWER_OF_TWO,
    "PowerOfTwoChoicesRequestRouter": POWER_OF_TWO,
    "locality": POWER_OF_TWO,
    "LocalityRouter": POWER_OF_TWO,
    "round_robin": ROUND_ROBIN,
    "RoundRobinRouter": ROUND_ROBIN,
    "least_loaded": LEAST_LOADED,
    "LeastLoadedRouter": LEAST_LOADED,
    "consistent_hash": CONSISTENT_HASH,
    "ConsistentHashRouter": CONSISTENT_HASH,
}
_HOMES = ("trygon.serve.", "trygon.dataplane.routing.", "ray.serve.")


class RouterRule(msgspec.Struct, frozen=True, kw_only=True):
    """The rule of one deployment. Times are in seconds."""

    #: One of the names above.
    name: str = POWER_OF_TWO
    #: Of consistent hashing: points of each replica on the ring, and replicas beside the first that may take a key.
    num_virtual_nodes: int = 100
    num_fallback_replicas: int = 2
    #: Of a custom router: where its class is imported from, or what it is called; and what `initialize_state` gets.
    router_class: str = ""
    kwargs: dict[str, Any] = {}
    stats_period_s: float = 10.0
    stats_timeout_s: float = 30.0
    #: How soon a request that no replica took is routed again, and how that time grows.
    initial_backoff_s: float = 0.025
    backoff_multiplier: float = 2.0
    max_backoff_s: float = 0.5
    #: In routing tables: the Unix socket of the helper that runs the class.
    address: str = ""


def rule_of(router_class: str) -> str | None:
    """Return the built-in rule that a short name or an import path stands for; None for a class of the user's."""
    if ":" not in router_class and "." not in router_class:
        return BUILT_IN_ROUTERS.get(router_class)
    path = router_class.replace(":", ".")
    return BUILT_IN_ROUTERS.get(path.rsplit(".", 1)[1]) if path.startswith(_HOMES) else None
