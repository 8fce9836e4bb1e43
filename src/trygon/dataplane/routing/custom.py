"""The caller's side of a router of the user's: asks the helper, and goes by power of two choices when that fails.

No request waits for user code longer than `ANSWER_S`, and none is lost with the helper: what was asked and not
answered is sent by power of two choices. While the helper is slow or gone nobody waits for it at all; one request
in a while tries whether it is back.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from trygon.dataplane.balancing import choose
from trygon.dataplane.links import Call, ReplicaLink
from trygon.dataplane.routing.helper_link import HelperLink
from trygon.dataplane.routing.parking import ANY, UNROUTED, ParkingRouter, RoutedPool
from trygon.dataplane.routing.rules import best_of
from trygon.observability.metrics import REGISTRY
from trygon.spec.helper import Answer, RoutingAnswer, RoutingBatch, RoutingQuestion, RoutingReplica
from trygon.spec.routers import RouterRule

__all__ = ["ANSWER_S", "MAX_ARGUMENT_BYTES", "MAX_ASKED", "CustomRouter"]

#: What a router may take for one request; and for the very first, which waits for the helper and its imports.
ANSWER_S = 0.25
FIRST_ANSWER_S = 5.0
#: While the helper is slow or gone, a request tries it this often.
TRY_S = 1.0
#: Questions under way; more requests than that go by power of two choices.
MAX_ASKED = 4096
#: A request that is larger is routed without its arguments.
MAX_ARGUMENT_BYTES = 64 * 1024

_FALLBACKS = REGISTRY.counter(
    "request_router_fallbacks",
    "Requests that a router of the user's did not route, and power of two choices did.",
    ("application", "deployment", "reason"),
)
_randbits = random.getrandbits


class _Asked(NamedTuple):
    call: Call
    #: None for one that waits in the pool's queue.
    links: Sequence[ReplicaLink] | None
    due: float


class CustomRouter(ParkingRouter):
    """Asks the helper where requests go.

    Args:
        pool: Whose requests they are.
        loop: Where everything here runs.
        rule: Names the helper.
        on_trouble: Hears why a request was not routed by the user's class.
    """

    is_asking = True

    def __init__(
        self,
        pool: RoutedPool,
        loop: asyncio.AbstractEventLoop,
        rule: RouterRule,
        on_trouble: Callable[[str], None],
    ) -> None:
        super().__init__(pool, loop, rule)
        self._on_trouble = on_trouble
        self._seq = itertools.count(1)
        #: Questions under way, oldest first; those of requests that were given up are gone.
        self._asked: OrderedDict[int, _Asked] = OrderedDict()
        self._numbers_of: dict[Call, int] = {}
        self._unsent: list[RoutingQuestion] = []
        #: Where answered requests went, to be told with the next questions.
        self._routed: dict[int, str] = {}
        self._is_flushing = False
        self._deadline: asyncio.TimerHandle | None = None
        self._has_answered = False
        #: True from a question that was not answered in time until an answer.
        self._is_slow = False
        self._patient_until = loop.time() + FIRST_ANSWER_S
        self._next_try = 0.0
        self._link = HelperLink(loop, rule.address, pool.key[1], self._take_answer, self._take_change)

    # ---- PoolRouter

    @property
    def num_held(self) -> int:
        return sum(asked.links is not None for asked in self._asked.values())

    def submit(self, call: Call, links: Sequence[ReplicaLink]) -> None:
        if not links:
            self._let_wait(call, UNROUTED)
            return
        reason = self._why_not_ask()
        if reason:
            self._fall_back(call, links, reason)
        else:
            self._ask(call, links)

    def pick(self, links: Sequence[ReplicaLink], call: Call) -> ReplicaLink | None:
        # A trial of what is suspected of ending replicas: where it goes is for us to say.
        return self._pool.place(links, call.model_id)

    def _route_again(self, calls: list[Call]) -> None:
        for call in calls:
            if call in self._numbers_of:
                continue
            if not self._pool.links:
                self._park(call, UNROUTED)
                continue
            reason = self._why_not_ask()
            if reason:
                self._fall_back(call, None, reason)
            else:
                self._ask(call, None)

    def forget(self, call: Call) -> None:
        super().forget(call)
        number = self._numbers_of.pop(call, None)
        if number is not None:
            self._asked.pop(number, None)

    def take_held(self) -> list[Call]:
        super().take_held()
        held = [asked.call for asked in self._asked.values() if asked.links is not None]
        self._asked.clear()
        self._numbers_of.clear()
        return held

    def close(self) -> None:
        super().close()
        if self._deadline is not None:
            self._deadline.cancel()
        self._link.close()

    # ---- asking

    def _why_not_ask(self) -> str:
        """Return why power of two choices takes the next request; empty to ask."""
        if len(self._asked) >= MAX_ASKED or self._link.is_stuffed:
            return "busy"
        now = self._loop.time()
        if not self._link.is_open and now >= self._patient_until:
            return "down"
        if self._is_slow:
            if now < self._next_try:
                return "slow"
            self._next_try = now + TRY_S
        return ""

    def _ask(self, call: Call, links: Sequence[ReplicaLink] | None) -> None:
        number = next(self._seq)
        wait_s = ANSWER_S
        if not self._has_answered:
            wait_s = max(ANSWER_S, self._patient_until - self._loop.time())
        self._asked[number] = _Asked(call, links, self._loop.time() + wait_s)
        self._numbers_of[call] = number
        is_http, head, body = call.question()
        is_whole = len(body) <= MAX_ARGUMENT_BYTES
        self._unsent.append(RoutingQuestion(number, is_http, head, body if is_whole else b"", is_whole))
        self._flush_soon()
        self._watch(self._loop.time() + wait_s)

    def _flush_soon(self) -> None:
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        if not self._link.is_open:
            return  # sent when it is
        questions = tuple(one for one in self._unsent if one.seq in self._asked)
        self._unsent.clear()
        if not questions and not self._routed:
            return
        replicas = tuple(
            RoutingReplica(link.replica_id, link.ongoing + link.others, link.max_ongoing)
            for link in self._pool.links
            if not link.is_suspect and not link.is_leaving
        )
        routed, self._routed = self._routed, {}
        self._link.ask(RoutingBatch(replicas, questions, routed))

    def _look_at_deadlines(self) -> None:
        self._deadline = None
        now = self._loop.time()
        late = deque(number for number, asked in self._asked.items() if asked.due <= now)
        if late:
            self._is_slow = True
            self._next_try = now + TRY_S
        for number in late:
            asked = self._take(number)
            if asked is not None:
                self._fall_back(asked.call, asked.links, "late")
        due = min((asked.due for asked in self._asked.values()), default=0.0)
        if due:
            self._watch(due)

    def _watch(self, due: float) -> None:
        """Look at deadlines at `due`; the timer may be set for a first answer, which has more time."""
        if self._deadline is not None:
            if self._deadline.when() <= due:
                return
            self._deadline.cancel()
        self._deadline = self._loop.call_at(due, self._look_at_deadlines)

    def _take(self, number: int) -> _Asked | None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            del self._numbers_of[asked.call]
        return asked

    # ---- answers

    def _take_answer(self, answer: Answer) -> None:
        self._is_slow = False
        if not self._has_answered:
            self._has_answered = True
            self._patient_until = 0.0
        asked = self._take(answer.seq)
        if asked is None:
            return
        if answer.error:
            self._fall_back(asked.call, asked.links, "error", answer.error)
            return
        try:
            found = msgspec.convert(answer.body, RoutingAnswer)
        except msgspec.ValidationError as error:
            self._fall_back(asked.call, asked.links, "error", f"the helper answered with nonsense: {error}")
            return
        self._follow(answer.seq, asked, found)

    def _follow(self, number: int, asked: _Asked, found: RoutingAnswer) -> None:
        """Send a request where the router says, or let it wait for that."""
        links = {link.replica_id: link for link in asked.links or self._pool.links}
        link = None
        for rank in found.ranks:
            link = best_of([links[name] for name in rank if name in links])
            if link is not None:
                break
        if link is not None:
            if found.wants_routed:
                self._routed[number] = link.replica_id
                self._flush_soon()
            self._start(asked, link)
            return
        known = {one.replica_id for one in self._pool.links}
        wants = tuple(dict.fromkeys(name for rank in found.ranks for name in rank if name in known))
        self._wait(asked, wants or UNROUTED)

    def _start(self, asked: _Asked, link: ReplicaLink) -> None:
        if asked.links is None:
            self._start_waiting(asked.call, link)
        else:
            self._start_new(asked.call, link)

    def _wait(self, asked: _Asked, wants: tuple[str, ...]) -> None:
        if asked.links is None:
            self._park(asked.call, wants)
        else:
            self._let_wait(asked.call, wants)

    # ---- when the helper fails

    def _take_change(self) -> None:
        if self._link.is_open:
            self._flush_soon()
            return
        if self._has_answered or self._loop.time() >= self._patient_until:
            self._patient_until = 0.0
            for number in list(self._asked):
                asked = self._take(number)
                if asked is not None:
                    self._fall_back(asked.call, asked.links, "down")
        else:
            # It may be the first that ended before it could answer, and another one comes.
            self._ask_again()

    def _ask_again(self) -> None:
        sent = {one.seq for one in self._unsent}
        for number, asked in self._asked.items():
            if number not in sent:
                is_http, head, body = asked.call.question()
                is_whole = len(body) <= MAX_ARGUMENT_BYTES
                self._unsent.append(
                    RoutingQuestion(number, is_http, head, body if is_whole else b"", is_whole)
                )

    def _fall_back(
        self, call: Call, links: Sequence[ReplicaLink] | None, reason: str, detail: str = ""
    ) -> None:
        app_name, deployment, _ = self._pool.key
        _FALLBACKS.cell(app_name, deployment, reason).value += 1
        if REGISTRY.is_quiet:
            REGISTRY.wake()
        self._on_trouble(detail or _REASONS[reason])
        link = choose(self._pool.links if links is None else links, _randbits(32))
        asked = _Asked(call, links, 0.0)
        if link is not None:
            self._start(asked, link)
        else:
            self._wait(asked, ANY)


_REASONS = {
    "busy": f"more than {MAX_ASKED} requests wait to be routed",
    "down": "its process ended, and another is on its way",
    "late": f"it did not answer within {ANSWER_S:g} s",
    "slow": f"it did not answer within {ANSWER_S:g} s, and is tried every {TRY_S:g} s",
}
