"""One revision of a deployment as a caller sees it: its replicas, and the requests that wait for one."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable

from trygon.dataplane.balancing import choose
from trygon.dataplane.links import Call, ReplicaLink
from trygon.errors import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from trygon.spec.routing import DeploymentTargets

__all__ = ["Pool", "PoolKey"]

#: Application, deployment, revision.
PoolKey = tuple[str, str, int]

_randbits = random.getrandbits


class Pool:
    """Sends each request to the best replica with room, or keeps it in order until there is one."""

    __slots__ = ("_connect", "_is_closed", "_on_busy", "_on_orphan", "_targeted", "_targets", "key", "links", "waiting")

    def __init__(
        self,
        key: PoolKey,
        connect: Callable[[Pool, str, str], ReplicaLink],
        on_busy: Callable[[], None],
        on_orphan: Callable[[PoolKey, Call], None],
    ) -> None:
        self.key = key
        self._connect = connect
        self._on_busy = on_busy
        self._on_orphan = on_orphan
        self._is_closed = False
        self._targets: DeploymentTargets | None = None
        self.links: list[ReplicaLink] = []
        #: Requests not started yet, oldest first; never longer than max_queued_requests when that is set.
        self.waiting: OrderedDict[Call, None] = OrderedDict()
        #: Requests for one replica only that wait for room there; rare, so a plain list.
        self._targeted: list[tuple[ReplicaLink, Call]] = []

    # ---- what the table says

    @property
    def targets(self) -> DeploymentTargets | None:
        """What the routing table last said of this revision; None before it said anything."""
        return self._targets

    @property
    def max_ongoing_requests(self) -> int:
        """The bound that a link respects."""
        return self._targets.max_ongoing_requests if self._targets is not None else 1

    def update(self, targets: DeploymentTargets) -> None:
        """Connect to new replicas, leave the ones that are gone."""
        self._targets = targets
        listed = {target.replica_id: target for target in targets.replicas}
        for link in self.links:
            if link.replica_id in listed:
                link.max_ongoing = targets.max_ongoing_requests
        for link in [link for link in self.links if link.replica_id not in listed]:
            self.links.remove(link)
            link.leave()
        known = {link.replica_id for link in self.links}
        for target in targets.replicas:
            if target.replica_id not in known:
                self.links.append(self._connect(self, target.replica_id, target.address))
        if targets.unavailable and not targets.replicas:
            self.refuse_waiting(DeploymentUnavailableError(targets.unavailable))
        self.pump()

    def close(self) -> list[Call]:
        """Leave every replica; return the requests that never started."""
        self._is_closed = True
        for link in self.links:
            link.leave()
        self.links.clear()
        left = list(self.waiting)
        self.waiting.clear()
        return left

    def refuse_waiting(self, error: Exception) -> None:
        """Refuse every waiting request."""
        left = list(self.waiting)
        self.waiting.clear()
        for call in left:
            call.on_refused(error)

    # ---- requests

    def submit(self, call: Call) -> None:
        """Start `call` now, let it wait, or refuse it."""
        self._on_busy()
        if not self.waiting:
            link = choose(self.links, _randbits(32))
            if link is not None:
                link.begin(call)
                return
        targets = self._targets
        if targets is not None:
            if targets.unavailable and not self.links:
                call.on_refused(DeploymentUnavailableError(targets.unavailable))
                return
            bound = targets.max_queued_requests
            if 0 <= bound <= len(self.waiting):
                call.on_refused(
                    BackPressureError(
                        len(self.waiting),
                        bound,
                        targets.backpressure_status_code,
                        targets.backpressure_retry_after_s,
                    )
                )
                return
        self.waiting[call] = None

    def submit_to(self, link: ReplicaLink, call: Call) -> None:
        """Start `call` on `link` as soon as it has room."""
        self._on_busy()
        if link.has_room:
            link.begin(call)
        else:
            self._targeted.append((link, call))

    def withdraw(self, call: Call) -> None:
        """Forget a request that waits; one that does not is left alone."""
        self.waiting.pop(call, None)
        if self._targeted:
            self._targeted = [entry for entry in self._targeted if entry[1] is not call]

    def pump(self) -> None:
        """Start waiting requests while there is room."""
        waiting = self.waiting
        while waiting:
            link = choose(self.links, _randbits(32))
            if link is None:
                return
            call, _ = waiting.popitem(last=False)
            link.begin(call)

    def _pump_targeted(self, link: ReplicaLink) -> None:
        for entry in [entry for entry in self._targeted if entry[0] is link]:
            if not link.has_room:
                return
            self._targeted.remove(entry)
            link.begin(entry[1])

    # ---- what links say

    def on_room(self, link: ReplicaLink) -> None:
        """Start what waits; a leaving link closes when it is idle."""
        if self._targeted:
            self._pump_targeted(link)
        if self.waiting:
            self.pump()
        if link.is_leaving:
            link.close_if_idle()

    def on_rejected(self, link: ReplicaLink, call: Call) -> None:
        """Send a rejected request elsewhere; it keeps its place at the head of the queue."""
        if getattr(call, "is_targeted", False):
            call.on_moved(self)
            self._targeted.insert(0, (link, call))
            return
        if self._is_closed:
            # The reject crossed the table that dropped this revision; nobody would pump its queue again.
            self._on_orphan(self.key, call)
            link.close_if_idle()
            return
        call.on_moved(self)
        self.waiting[call] = None
        self.waiting.move_to_end(call, last=False)
        self.pump()
        if link.is_leaving:
            link.close_if_idle()

    def on_link_lost(self, link: ReplicaLink) -> None:
        """Connect again while the table lists the replica; the router paces the tries."""
        lost = [call for target, call in self._targeted if target is link]
        self._targeted = [entry for entry in self._targeted if entry[0] is not link]
        for call in lost:
            call.on_refused(ReplicaUnavailableError(f"replica {link.replica_id!r} is gone"))
        if link in self.links and self._targets is not None:
            self.links.remove(link)
            for target in self._targets.replicas:
                if target.replica_id == link.replica_id:
                    self.links.append(self._connect(self, target.replica_id, target.address))
