"""One revision of a deployment as a caller sees it: its replicas, and the requests that wait for one."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from trygon.dataplane.admission import Pace
from trygon.dataplane.balancing import choose
from trygon.dataplane.caller_metrics import CallerStats
from trygon.dataplane.fairness import PLAIN, CallQueue, FairQueue
from trygon.dataplane.gate import Gate
from trygon.dataplane.links import Call, ReplicaLink
from trygon.dataplane.models.places import ModelPlaces
from trygon.dataplane.replay import ReplayDesk
from trygon.dataplane.routing.parking import PoolRouter
from trygon.dataplane.stamps import monotonic
from trygon.errors import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from trygon.observability.metrics import REGISTRY
from trygon.spec.routing import DeploymentTargets, ReplicaDeath

__all__ = ["Pool", "PoolHooks", "PoolKey"]

#: Application, deployment, revision.
PoolKey = tuple[str, str, int]

_randbits = random.getrandbits


class PoolHooks(NamedTuple):
    """What a pool asks of its owner."""

    #: Opens a link to a replica at an address.
    connect: Callable[[Pool, str, str], ReplicaLink]
    #: Hears of each request, so that replicas which have some are watched.
    on_busy: Callable[[], None]
    #: Sends a request elsewhere whose revision is gone.
    on_orphan: Callable[[PoolKey, Call], None]
    #: Hears that a request begins to wait while there is no replica at all.
    on_starved: Callable[[], None] = lambda: None
    #: Makes what routes by another rule than power of two choices.
    new_router: Callable[[Pool, DeploymentTargets], PoolRouter | None] = lambda _pool, _targets: None


class Pool:
    """Sends each request to the best replica with room, or keeps it in order until there is one."""

    __slots__ = (
        "_deaths",
        "_desk",
        "_hooks",
        "_is_closed",
        "_num_started_before",
        "_targeted",
        "_targets",
        "desk",
        "gate",
        "key",
        "links",
        "models",
        "num_replicas",
        "returned",
        "router",
        "stats",
        "waiting",
    )

    def __init__(
        self, key: PoolKey, hooks: PoolHooks, *, stats: CallerStats | None = None, gate: Gate | None = None
    ) -> None:
        self.key = key
        self._hooks = hooks
        #: Shared by all revisions of the deployment.
        self.stats = stats or CallerStats(key[0], key[1])
        self._is_closed = False
        self._targets: DeploymentTargets | None = None
        self.links: list[ReplicaLink] = []
        #: Requests not started yet, oldest first, and since when they wait; never longer than
        #: max_queued_requests when that is set.
        self.waiting: CallQueue[Call] = OrderedDict[Call, float]()
        #: Requests that a replica did not take, in the order of their rejects; they go before `waiting`.
        self.returned: OrderedDict[Call, float] = OrderedDict()
        #: Of an ingress: who may wait.
        self.gate = gate
        #: Requests for one replica only that wait for room there; rare, so a plain list.
        self._targeted: list[tuple[ReplicaLink, Call]] = []
        #: Most replicas that the table ever listed.
        self.num_replicas = 0
        #: Of `num_started`, those of links that are gone.
        self._num_started_before = 0
        #: Where the models are; made by the first request that names one.
        self.models: ModelPlaces | None = None
        self._deaths: tuple[ReplicaDeath, ...] = ()
        #: Made by the first death.
        self._desk: ReplayDesk | None = None
        #: Takes every request while some are suspected of ending replicas; None as long as all is well.
        self.desk: ReplayDesk | None = None
        #: Says who takes a request; None is power of two choices, and costs nothing.
        self.router: PoolRouter | None = None

    @property
    def num_waiting(self) -> int:
        """Requests of this caller that no replica has."""
        held = self.desk.num_held if self.desk is not None else 0
        if self.router is not None:
            held += self.router.num_held
        return len(self.waiting) + len(self.returned) + len(self._targeted) + held

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
        if self.gate is not None:
            self.gate.configure(targets)
        if targets.queue.is_fair:
            self.order_fairly()
        if targets.router.name and self.router is None:
            self.router = self._hooks.new_router(self, targets)
        self.num_replicas = max(self.num_replicas, len(targets.replicas))
        listed = {target.replica_id: target for target in targets.replicas}
        for link in self.links:
            if link.replica_id in listed:
                link.max_ongoing = targets.max_ongoing_requests
        for link in [link for link in self.links if link.replica_id not in listed]:
            self.links.remove(link)
            self._num_started_before += link.num_begun
            self._dismiss(link)
        known = {link.replica_id for link in self.links}
        for target in targets.replicas:
            if target.replica_id not in known:
                self.links.append(self._hooks.connect(self, target.replica_id, target.address))
        if targets.unavailable and not targets.replicas:
            self.refuse_waiting(DeploymentUnavailableError(targets.unavailable))
        self.pump()

    def close(self) -> list[Call]:
        """Leave every replica; return the requests that never started."""
        self._is_closed = True
        for link in self.links:
            self._dismiss(link)
        self.links.clear()
        left = self.take_waiting()
        if self._desk is not None:
            left = [*self._desk.close(), *left]
        if self.router is not None:
            self.router.close()
        return left

    def end(self, error: Exception) -> None:
        """Refuse what waits; the instance was shut down."""
        self.refuse_waiting(error)
        self._is_closed = True
        if self._desk is not None:
            self._desk.close()
        if self.router is not None:
            self.router.close()

    def _dismiss(self, link: ReplicaLink) -> None:
        link.leave()
        # The others go when they have room, or with the link.
        if link.transport is None:
            self._refuse_targeted(link)

    def _refuse_targeted(self, link: ReplicaLink) -> None:
        lost = [call for target, call in self._targeted if target is link]
        self._targeted = [entry for entry in self._targeted if entry[0] is not link]
        for call in lost:
            call.on_refused(ReplicaUnavailableError(f"replica {link.replica_id!r} is gone"))

    def take_waiting(self) -> list[Call]:
        """Return every request that waits, in order, and let none wait."""
        left = [*self.returned, *self.waiting]
        self.returned.clear()
        self.waiting.clear()
        return [*left, *self.router.take_held()] if self.router is not None else left

    def refuse_waiting(self, error: Exception) -> None:
        """Refuse every waiting request."""
        waiting = self.take_waiting()
        if self.desk is not None:
            waiting = [*self.desk.take_held(), *waiting]
        for call in waiting:
            call.on_refused(error)

    # ---- the queue

    @property
    def num_queued(self) -> int:
        """Requests that no replica has begun."""
        queued = len(self.waiting) + len(self.returned)
        return queued + self.desk.num_held if self.desk is not None else queued

    @property
    def pace(self) -> Pace:
        """How many requests a second are served."""
        return self.stats.pace

    @property
    def num_slots(self) -> int:
        """Requests that the replicas together work on at a time."""
        targets = self._targets
        if targets is not None and targets.tunes_ongoing_requests:
            # Only the replicas know; while requests wait they work on all they take.
            return sum(link.ongoing for link in self.links)
        return self.max_ongoing_requests * len(self.links)

    @property
    def num_started(self) -> int:
        """Requests ever sent to a replica, those that came back included."""
        return self._num_started_before + sum(link.num_begun for link in self.links)

    @property
    def fair_queue(self) -> FairQueue[Call] | None:
        """The queue, when tenants take turns in it."""
        return self.waiting if isinstance(self.waiting, FairQueue) else None

    def order_fairly(self) -> None:
        """Let tenants take turns, and priorities go first, from now on."""
        before = self.waiting
        if isinstance(before, OrderedDict):
            self.waiting = FairQueue()
            for call, since in before.items():
                self.waiting[call] = since

    # ---- requests

    def submit(self, call: Call) -> None:
        """Start `call` now, let it wait, or refuse it."""
        self._hooks.on_busy()
        if REGISTRY.is_quiet:
            REGISTRY.wake()
        links = self.links
        if self.desk is not None:
            admitted = self.desk.admit(call)
            if admitted is None:
                return
            call, links = admitted
        if self.router is not None:
            self.router.submit(call, links)
            return
        if not self.waiting and not self.returned:
            model_id = call.model_id
            link = self.place(links, model_id) if model_id else choose(links, _randbits(32))
            if link is not None:
                self.stats.num_immediate += 1
                link.begin(call)
                return
        self.enqueue(call)

    def enqueue(self, call: Call) -> bool:
        """Let `call` wait, or refuse it; return whether it waits."""
        if self.is_unavailable(call) or self.is_over_bound(call):
            return False
        self.stats.num_queued += 1
        if self.gate is not None:
            self._watch_queue(self.gate)
        if call.ticket is not PLAIN:
            self.order_fairly()
        self.waiting[call] = monotonic()
        if not self.links:
            self._hooks.on_starved()
        return True

    def pick(self, links: Sequence[ReplicaLink], call: Call) -> ReplicaLink | None:
        """Return who takes `call` at once; None when it is to wait."""
        if self.router is not None:
            return self.router.pick(links, call)
        return self.place(links, call.model_id)

    def _watch_queue(self, gate: Gate) -> None:
        """Measure from here on how fast it drains, if a first request comes to wait."""
        if not self.waiting and not self.returned and self._is_reachable:
            stats = self.stats
            stats.pace.look(stats.num_immediate + stats.num_queued, gate.now())
            gate.begin()

    @property
    def _is_reachable(self) -> bool:
        return any(link.is_open for link in self.links)

    def place(self, links: Sequence[ReplicaLink], model_id: str) -> ReplicaLink | None:
        """Return the link of `links` that takes a request for a model, or for none; None if it has to wait."""
        if not model_id:
            return choose(links, _randbits(32))
        if self.models is None:
            self.models = ModelPlaces()
            for link in self.links:
                link.ask_models()
        return self.models.choose(links, model_id, _randbits(32), monotonic())

    def is_unavailable(self, call: Call) -> bool:
        """Refuse `call` if no replica will come."""
        targets = self._targets
        if targets is None or not targets.unavailable or self.links:
            return False
        call.on_refused(DeploymentUnavailableError(targets.unavailable))
        return True

    def is_over_bound(self, call: Call) -> bool:
        """Refuse `call` if the queue is as long as this caller's may be."""
        targets = self._targets
        if targets is None or targets.max_queued_requests < 0:
            return False
        queued = self.num_queued
        if queued < targets.max_queued_requests:
            return False
        after_s = targets.backpressure_retry_after_s
        if after_s is None and self.gate is not None:
            after_s = self.gate.retry_after_s(queued)
        error = BackPressureError(
            queued, targets.max_queued_requests, targets.backpressure_status_code, after_s
        )
        fair = self.fair_queue
        victim = fair.victim_for(call.ticket) if fair is not None else None
        if victim is None:
            call.on_refused(error)
            return True
        self.withdraw(victim)
        victim.on_refused(error)
        return False

    def submit_to(self, link: ReplicaLink, call: Call) -> None:
        """Start `call` on `link` as soon as it has room."""
        self._hooks.on_busy()
        if link.has_room:
            self.stats.num_immediate += 1
            link.begin(call)
        elif link.is_leaving:
            call.on_refused(ReplicaUnavailableError(f"replica {link.replica_id!r} is leaving"))
        else:
            self._targeted.append((link, call))

    def withdraw(self, call: Call) -> None:
        """Forget a request that waits; one that does not is left alone."""
        self.waiting.pop(call, None)
        self.returned.pop(call, None)
        if self.router is not None:
            self.router.forget(call)
        if self._targeted:
            self._targeted = [entry for entry in self._targeted if entry[1] is not call]

    def pump(self) -> None:
        """Start waiting requests while there is room."""
        if self.desk is not None:
            self.desk.pump()
        if self.router is not None:
            self.router.pump()
            return
        while queue := self.returned or self.waiting:
            # The turns of tenants are not given up for the place of a model.
            is_ordered = self.models is not None and isinstance(queue, OrderedDict)
            link = self.place(self.links, next(iter(queue)).model_id if is_ordered else "")
            if link is None:
                return
            self.start_next(link)

    def start_next(self, link: ReplicaLink) -> None:
        """Start the request that is next, unless it is too late for it."""
        self._start(link, *(self.returned or self.waiting).popitem(last=False))

    def start_queued(self, call: Call, link: ReplicaLink) -> bool:
        """Start a request that waits, unless it is too late for it; False when it does not wait any more."""
        since = self.returned.pop(call, None)
        if since is None:
            since = self.waiting.pop(call, None)
        if since is None:
            return False
        self._start(link, call, since)
        return True

    def _start(self, link: ReplicaLink, call: Call, since: float) -> None:
        self.stats.waited(monotonic() - since)
        if self.gate is None or self.gate.may_start(call):
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
        if self.desk is not None:
            self.desk.pump()
        # This link alone: choosing among a thousand replicas for each answer costs more than it gains.
        while (queue := self.returned or self.waiting) and link.has_room and not link.is_suspect:
            if self.router is not None:
                if not self.router.start_next(link):
                    break
            elif self.models is not None and isinstance(queue, OrderedDict):
                self._start(link, *self.models.take_next(queue, link, monotonic()))
            else:
                self.start_next(link)
        if link.is_leaving:
            link.close_if_idle()

    def on_rejected(self, link: ReplicaLink, call: Call) -> None:
        """Send a rejected request elsewhere; it keeps its place before those that were never sent."""
        if self.gate is not None:
            self.gate.undo_start()
        call.on_moved(self)
        if getattr(call, "is_targeted", False):
            if link.is_leaving:
                call.on_refused(ReplicaUnavailableError(f"replica {link.replica_id!r} is leaving"))
            else:
                self._targeted.insert(0, (link, call))
        elif self._is_closed:
            # The reject crossed the table that dropped this revision; nobody would pump its queue again.
            self._hooks.on_orphan(self.key, call)
        elif self.desk is not None and self.desk.take_back(call):
            pass
        elif not self.is_unavailable(call) and not self.is_over_bound(call):
            if self.gate is not None:
                self._watch_queue(self.gate)
            self.returned[call] = monotonic()
            if self.router is not None:
                self.router.requeue(call)
            self.pump()
            if not self.links:
                self._hooks.on_starved()
        link.close_if_idle()

    def on_busy(self) -> None:
        """Watch whether replicas answer while they have requests."""
        self._hooks.on_busy()

    def take_back(self, call: Call) -> None:
        """Start a request again that a replica did not take from the thread that sent it."""
        call.on_moved(self)
        if self._is_closed:
            self._hooks.on_orphan(self.key, call)
        else:
            self.submit(call)

    def on_calls_lost(self, link: ReplicaLink, calls: list[Call]) -> None:
        """Send again what may be, and find out what ended the replica; the other calls fail at once."""
        desk = self._desk
        if desk is None:
            desk = self._desk = ReplayDesk(self, link.loop)
            desk.explain(self._deaths)
        if self._is_closed:
            for call in desk.fail_lost(link.replica_id, calls):
                self._hooks.on_orphan(self.key, call)
        else:
            desk.take_lost(link.replica_id, calls)

    def hear_deaths(self, deaths: tuple[ReplicaDeath, ...]) -> None:
        """Take what the routing table says of replicas that died."""
        self._deaths = deaths
        if self._desk is not None:
            self._desk.explain(deaths)

    def on_link_lost(self, link: ReplicaLink) -> None:
        """Connect again while the table lists the replica; the router paces the tries."""
        self._refuse_targeted(link)
        if self.gate is not None and not self._is_reachable:
            self.gate.pause()
        if link in self.links and self._targets is not None:
            self.links.remove(link)
            self._num_started_before += link.num_begun
            for target in self._targets.replicas:
                if target.replica_id == link.replica_id:
                    successor = self._hooks.connect(self, target.replica_id, target.address)
                    successor.is_doubted = True
                    self.links.append(successor)
