"""`RequestRouter` and what it works with: the base of routers that users write, with Ray Serve's names.

A class of the user's runs in the helper process of its application, once for each deployment. Callers ask it, and go
by power of two choices while it does not answer.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from trygon.dataplane.replica_context import ReplicaID
from trygon.dataplane.routing.rules import HashRing

__all__ = [
    "ConsistentHashRouter",
    "FIFOMixin",
    "LeastLoadedRouter",
    "LocalityMixin",
    "LocalityRouter",
    "MultiplexMixin",
    "PendingRequest",
    "PowerOfTwoChoicesRequestRouter",
    "ReplicaResult",
    "RequestMetadata",
    "RequestRouter",
    "RoundRobinRouter",
    "RunningReplica",
]


@dataclass(frozen=True)
class RequestMetadata:
    """What is known of a request beside its arguments."""

    request_id: str = ""
    #: The method that is called.
    call_method: str = "__call__"
    #: The route prefix of the application it came in by; empty for calls that no HTTP request caused.
    route: str = ""
    app_name: str = ""
    multiplexed_model_id: str = ""
    session_id: str = ""
    is_http_request: bool = False


class PendingRequest:
    """A request that needs a replica.

    Attributes:
        metadata: Its ids, its session and its model.
        created_at: Wall-clock seconds.
        routing_context: A dict for the router's own notes, kept until `on_request_routed`.
    """

    def __init__(
        self,
        metadata: RequestMetadata,
        load: Callable[[], tuple[tuple[Any, ...], dict[str, Any]]] = lambda: ((), {}),
        created_at: float = 0.0,
    ) -> None:
        self.metadata = metadata
        self.created_at = created_at
        self.routing_context: dict[str, Any] = {}
        self._load = load
        self._arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments; a copy. Of a request over HTTP its Starlette request. Empty where it is too large."""
        return self._loaded()[0]

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments; a copy."""
        return self._loaded()[1]

    def _loaded(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # Most routers never look, so nothing is unpickled before one does.
        if self._arguments is None:
            self._arguments = self._load()
        return self._arguments


@dataclass
class RunningReplica:
    """A replica that takes requests.

    Attributes:
        replica_id: Its name.
        max_ongoing_requests: Requests that it works on at a time.
        queue_len: Requests that it has in work, as far as the caller that asks knows.
        multiplexed_model_ids: Models that it had loaded when it last said so.
        routing_stats: What its `record_routing_stats` returned last.
        node_id: The host; all replicas are on one.
    """

    replica_id: ReplicaID
    max_ongoing_requests: int = 1
    queue_len: int = 0
    multiplexed_model_ids: set[str] = field(default_factory=set)
    routing_stats: dict[str, Any] = field(default_factory=dict)
    node_id: str = "local"
    availability_zone: str | None = None
    replica_metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def actor_id(self) -> str:
        """The replica's tag; there are no actors."""
        return self.replica_id.unique_id

    @property
    def has_room(self) -> bool:
        """Whether it would take a request now."""
        return self.queue_len < self.max_ongoing_requests


class ReplicaResult:
    """Stands in annotations of `on_request_routed`, which gets None: results do not pass through the router."""


class RequestRouter(ABC):
    """Says which replica takes a request; the base of routers of your own.

    One object is made for each deployment, in a process of its own kind (`trygon-helper`), for all callers together.
    Its methods run on one event loop, so one that blocks holds up the others; a request waits 0.25 s at most for its
    answer. State is lost when that process ends.

    Args:
        deployment_id: The deployment whose requests are routed.
    """

    def __init__(self, deployment_id: Any = None, *_args: Any, **_kwargs: Any) -> None:
        self._deployment_id = deployment_id
        self._replicas: dict[ReplicaID, RunningReplica] = {}

    @property
    def deployment_id(self) -> Any:
        """Name and application of the deployment."""
        return self._deployment_id

    @property
    def app_name(self) -> str:
        """The application."""
        return str(getattr(self._deployment_id, "app_name", ""))

    @property
    def curr_replicas(self) -> dict[ReplicaID, RunningReplica]:
        """The replicas that take requests, by id."""
        return self._replicas

    @property
    def supports_rejection_protocol(self) -> bool:
        """True: a full replica does not take a request, which is then routed again."""
        return True

    def initialize_state(self, **kwargs: Any) -> None:
        """Take `request_router_kwargs`; called once, before anything else."""
        return

    @abstractmethod
    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return replicas in ranks, best first.

        Of the first rank that has one with room, the least busy takes the request. When none has, it waits for one of
        those that were named, and is routed again after a while (`initial_backoff_s`, `max_backoff_s`). An empty
        list lets it wait and asks again.

        Args:
            candidate_replicas: The replicas that take requests; busy ones are among them.
            pending_request: The request.
        """

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        """Hear where a request went that this router routed; `result` is None. Told a moment later, in batches."""
        return

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Exist for Ray Serve's sake: not called here; `queue_len` of the replicas says who is done."""
        return

    def on_new_queue_len_info(self, replica_id: ReplicaID, queue_len_info: Any) -> None:
        """Exist for Ray Serve's sake: not called here; candidates carry their `queue_len`."""
        return

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Forget a replica."""
        self._replicas.pop(replica_id, None)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Take the replicas that take requests from now on; call the base class if you override this."""
        self._replicas = {replica.replica_id: replica for replica in replicas}

    def select_available_replicas(
        self, candidates: list[RunningReplica] | None = None
    ) -> list[RunningReplica]:
        """Return those of `candidates`, or of all replicas, that have room."""
        found = self._replicas.values() if candidates is None else candidates
        return [replica for replica in found if replica.has_room]


class FIFOMixin:
    """Requests that wait are routed in the order they came; that is so with and without this class."""


class LocalityMixin:
    """Prefers replicas on the caller's host. All are on one, so that nothing is left out."""

    curr_replicas: dict[ReplicaID, RunningReplica]

    def apply_locality_routing(self, pending_request: PendingRequest | None = None) -> set[ReplicaID]:
        """Return the ids of the replicas on the caller's host."""
        del pending_request
        return set(self.curr_replicas)

    def rank_replicas_via_locality(self, replicas: Iterable[RunningReplica]) -> list[list[RunningReplica]]:
        """Return `replicas` in ranks: those on the caller's host, then the others."""
        found = list(replicas)
        return [found] if found else []


class MultiplexMixin:
    """Prefers replicas that have the model of a request."""

    curr_replicas: dict[ReplicaID, RunningReplica]

    def apply_multiplex_routing(self, pending_request: PendingRequest | None = None) -> set[ReplicaID]:
        """Return the ids of the replicas with the request's model, or else of those with the fewest models."""
        model_id = pending_request.metadata.multiplexed_model_id if pending_request is not None else ""
        ranks = self.rank_replicas_via_multiplex(list(self.curr_replicas.values()), model_id)
        return {replica.replica_id for replica in ranks[0]} if ranks else set()

    def rank_replicas_via_multiplex(
        self, replicas: list[RunningReplica], multiplexed_model_id: str
    ) -> list[list[RunningReplica]]:
        """Return `replicas` in ranks: those with the model, then the others, those with the fewest models first."""
        if not multiplexed_model_id:
            return [replicas] if replicas else []
        ranks: dict[int, list[RunningReplica]] = {}
        for replica in replicas:
            has_it = multiplexed_model_id in replica.multiplexed_model_ids
            ranks.setdefault(-1 if has_it else len(replica.multiplexed_model_ids), []).append(replica)
        return [ranks[rank] for rank in sorted(ranks)]


class PowerOfTwoChoicesRequestRouter(FIFOMixin, LocalityMixin, MultiplexMixin, RequestRouter):
    """Of two replicas drawn at random the one with less work. Named in a configuration it needs no helper process."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        if not candidate_replicas:
            return []
        return [random.sample(candidate_replicas, min(2, len(candidate_replicas))), candidate_replicas]


class LocalityRouter(PowerOfTwoChoicesRequestRouter):
    """As its base: replicas of the caller's host, which all are."""


class RoundRobinRouter(RequestRouter):
    """One replica after the other. Named in a configuration it needs no helper process."""

    _last = ""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        able = sorted(self.select_available_replicas(candidate_replicas), key=_tag)
        if not able:
            return [candidate_replicas]
        chosen = next((one for one in able if _tag(one) > self._last), able[0])
        self._last = _tag(chosen)
        return [[chosen], able]


class LeastLoadedRouter(RequestRouter):
    """The replica with the least work. Named in a configuration it needs no helper process."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        return [candidate_replicas]


class ConsistentHashRouter(RequestRouter):
    """A session's requests go to one replica. Named in a configuration it needs no helper process.

    Its `request_router_kwargs` are `num_virtual_nodes` (100), the points of a replica on the ring, and
    `num_fallback_replicas` (2), how many others may take a request when that one has too much work.
    """

    def initialize_state(  # type: ignore[override]  # its options, by name
        self, num_virtual_nodes: int = 100, num_fallback_replicas: int = 2
    ) -> None:
        """Take the options."""
        self._num_virtual_nodes = num_virtual_nodes
        self._num_fallback_replicas = num_fallback_replicas
        self._ring = HashRing((), 1)
        self._ring_of: frozenset[str] = frozenset()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        metadata = pending_request.metadata if pending_request is not None else RequestMetadata()
        key = metadata.session_id or metadata.multiplexed_model_id
        if not key:
            return [candidate_replicas]
        by_tag = {_tag(replica): replica for replica in candidate_replicas}
        if by_tag.keys() != self._ring_of:
            self._ring_of = frozenset(by_tag)
            self._ring = HashRing(by_tag, self._num_virtual_nodes)
        return [[by_tag[tag]] for tag in self._ring.holders(key, 1 + self._num_fallback_replicas)]


def _tag(replica: RunningReplica) -> str:
    return replica.replica_id.unique_id
