"""The ledger of deaths: who is suspect, who is cleared, who is refused, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from trygon.dataplane.poison import (
    CAUSE_WAIT_S,
    MAX_DEATHS,
    MAX_KINDS,
    REFUSE_S,
    PoisonLedger,
    Verdict,
    fingerprint,
)

A, B = b"a", b"b"


def _own_death(ledger: PoisonLedger, replica_id: str, *kinds: bytes, now: float) -> None:
    ledger.lose(replica_id, kinds, now)
    ledger.explain(replica_id, now, is_own=True)


def test_what_was_never_lost_passes() -> None:
    ledger = PoisonLedger()

    assert Verdict.PASS is ledger.judge(A, 0.0)
    assert ledger.is_empty


def test_a_lost_kind_waits_for_the_cause_and_others_pass() -> None:
    ledger = PoisonLedger()
    ledger.lose("r1", [A], 10.0)

    assert Verdict.WAIT is ledger.judge(A, 10.0)
    assert Verdict.PASS is ledger.judge(B, 10.0)
    assert 10.0 + CAUSE_WAIT_S == ledger.next_due(10.0)


def test_a_death_from_outside_counts_for_nothing() -> None:
    ledger = PoisonLedger()

    for number in range(50):
        ledger.lose(f"r{number}", [A], float(number))
        ledger.explain(f"r{number}", float(number), is_own=False)
        assert Verdict.PASS is ledger.judge(A, float(number))

    assert ledger.is_empty


def test_a_kind_is_tried_after_one_death_and_refused_after_two() -> None:
    ledger = PoisonLedger()
    _own_death(ledger, "r1", A, now=1.0)

    assert Verdict.TRY is ledger.judge(A, 1.0)
    ledger.begin_try(A)
    assert Verdict.WAIT is ledger.judge(A, 1.0)
    ledger.end_try(A)
    _own_death(ledger, "r2", A, now=2.0)
    assert Verdict.REFUSE is ledger.judge(A, 2.0)
    assert REFUSE_S - 8.0 == ledger.retry_after_s(A, 10.0)


def test_a_completion_clears_a_kind_of_everything() -> None:
    ledger = PoisonLedger()
    _own_death(ledger, "r1", A, now=1.0)
    _own_death(ledger, "r2", A, now=1.0)
    ledger.lose("r3", [A], 1.0)

    ledger.complete(A)

    assert Verdict.PASS is ledger.judge(A, 1.0)
    assert ledger.is_empty
    ledger.explain("r3", 1.0, is_own=True)
    assert Verdict.PASS is ledger.judge(A, 1.0)


def test_a_cause_told_before_the_loss_counts_at_once() -> None:
    ledger = PoisonLedger()
    ledger.explain("r1", 1.0, is_own=True)
    ledger.explain("r2", 1.0, is_own=False)

    ledger.lose("r1", [A], 1.5)
    ledger.lose("r2", [B], 1.5)

    assert Verdict.TRY is ledger.judge(A, 1.5)
    assert Verdict.PASS is ledger.judge(B, 1.5)


def test_one_death_counts_once_however_many_requests_were_lost() -> None:
    ledger = PoisonLedger()
    ledger.lose("r1", [A], 1.0)
    ledger.explain("r1", 1.0, is_own=True)
    ledger.lose("r1", [A, B], 1.0)

    assert Verdict.TRY is ledger.judge(A, 1.0)
    assert Verdict.TRY is ledger.judge(B, 1.0)


def test_the_first_word_about_a_cause_is_the_last() -> None:
    ledger = PoisonLedger()
    ledger.lose("r1", [A], 1.0)

    ledger.explain("r1", 1.0, is_own=False)
    ledger.explain("r1", 1.0, is_own=True)

    assert Verdict.PASS is ledger.judge(A, 1.0)


def test_the_likeliest_are_blamed_alone() -> None:
    ledger = PoisonLedger()
    c = b"c"

    assert {A} == ledger.blame({A}, {B}, {c})
    assert {B} == ledger.blame(set(), {B}, {c})
    assert {c} == ledger.blame(set(), set(), {c})
    ledger.complete(A)
    assert {B} == ledger.blame({A}, {B}, {c})
    assert {B} == ledger.blame(set(), {A, B}, {c})
    assert {A} == ledger.blame({A}, set(), {c})
    assert {A} == ledger.blame(set(), {A}, {c})


@given(*[st.sets(st.sampled_from([A, B, b"c"]))] * 3, st.sets(st.sampled_from([A, B, b"c"])))
def test_somebody_is_blamed_if_anybody_was_there(
    trials: set[bytes], waiting: set[bytes], begun: set[bytes], proven: set[bytes]
) -> None:
    ledger = PoisonLedger()
    for kind in proven:
        ledger.complete(kind)

    blamed = ledger.blame(trials, waiting, begun)

    assert blamed <= trials | waiting | begun
    assert bool(blamed) == bool(trials | waiting | begun)


def test_an_untold_cause_is_waited_for_and_a_late_one_still_counts() -> None:
    ledger = PoisonLedger()
    ledger.lose("r1", [A], 1.0)

    assert Verdict.WAIT is ledger.judge(A, 1.0 + CAUSE_WAIT_S / 2)
    assert Verdict.PASS is ledger.judge(A, 1.0 + CAUSE_WAIT_S)
    ledger.explain("r1", 3.0, is_own=True)
    assert Verdict.TRY is ledger.judge(A, 3.0)


def test_a_cause_that_is_never_told_is_forgotten() -> None:
    ledger = PoisonLedger()
    ledger.lose("r1", [A], 1.0)

    ledger.expire(100.0)

    assert ledger.is_empty
    assert ledger.next_due(100.0) is None


def test_a_refused_kind_gets_one_more_try_when_its_time_is_over() -> None:
    ledger = PoisonLedger()
    _own_death(ledger, "r1", A, now=1.0)
    _own_death(ledger, "r2", A, now=1.0)
    after = 1.0 + REFUSE_S

    assert Verdict.REFUSE is ledger.judge(A, after - 0.01)
    assert Verdict.TRY is ledger.judge(A, after)
    ledger.expire(after)
    assert Verdict.TRY is ledger.judge(A, after)
    _own_death(ledger, "r3", A, now=after)
    assert Verdict.REFUSE is ledger.judge(A, after)


def test_a_suspicion_ends_by_itself() -> None:
    ledger = PoisonLedger()
    _own_death(ledger, "r1", A, now=1.0)

    assert Verdict.PASS is ledger.judge(A, 1.0 + REFUSE_S)
    ledger.expire(1.0 + REFUSE_S)
    assert ledger.is_empty


def test_a_ledger_is_bounded_and_forgets_the_oldest() -> None:
    ledger = PoisonLedger()

    for number in range(MAX_KINDS + 10):
        _own_death(ledger, f"r{number}", number.to_bytes(4, "little"), now=float(number) / 100)
        ledger.lose(f"lost{number}", [A], 0.0)
        ledger.validate()

    now = (MAX_KINDS + 10) / 100
    assert Verdict.TRY is ledger.judge((MAX_KINDS + 9).to_bytes(4, "little"), now)
    assert Verdict.PASS is ledger.judge((0).to_bytes(4, "little"), now)


@given(st.lists(st.binary(max_size=20), max_size=4), st.lists(st.binary(max_size=20), max_size=4))
def test_fingerprints_tell_requests_apart(one: list[bytes], other: list[bytes]) -> None:
    assert (one == other) == (fingerprint(*one) == fingerprint(*other))


def test_a_long_body_counts_by_its_size_and_beginning() -> None:
    long = b"x" * 3_000_000

    assert fingerprint(long) == fingerprint(memoryview(long))
    assert fingerprint(long) != fingerprint(long + b"x")
    assert fingerprint(b"y" + long[1:]) != fingerprint(long)


_kinds = st.sampled_from([b"a", b"b", b"c"])
_replicas = st.integers(0, 5)


class Ledgers(RuleBasedStateMachine):
    """Any order of losses, causes, completions and time."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = PoisonLedger()
        self.now = 0.0
        self.lost: dict[str, set[bytes]] = {}
        self.is_own: dict[str, bool] = {}
        #: Own deaths that can be held against a kind since it last completed.
        self.deaths: dict[bytes, set[str]] = {}

    def _count(self) -> None:
        for name, kinds in self.lost.items():
            if self.is_own.get(name):
                for kind in kinds:
                    self.deaths.setdefault(kind, set()).add(name)

    @rule(replica=_replicas, kinds=st.sets(_kinds, max_size=3))
    def lose(self, replica: int, kinds: set[bytes]) -> None:
        self.ledger.lose(str(replica), kinds, self.now)
        self.lost.setdefault(str(replica), set()).update(kinds)
        self._count()

    @rule(replica=_replicas, is_own=st.booleans())
    def explain(self, replica: int, is_own: bool) -> None:
        self.ledger.explain(str(replica), self.now, is_own=is_own)
        self.is_own.setdefault(str(replica), is_own)
        self._count()

    @rule(kind=_kinds)
    def complete(self, kind: bytes) -> None:
        self.ledger.complete(kind)
        self.deaths.pop(kind, None)
        for kinds in self.lost.values():
            kinds.discard(kind)

        assert self.ledger.judge(kind, self.now) is Verdict.PASS

    @rule(kind=_kinds, is_begin=st.booleans())
    def try_one(self, kind: bytes, is_begin: bool) -> None:
        if is_begin:
            self.ledger.begin_try(kind)
        else:
            self.ledger.end_try(kind)

    @rule(seconds=st.floats(0.0, 400.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.ledger.expire(self.now)

    @invariant()
    def holds(self) -> None:
        self.ledger.validate()
        for kind in (b"a", b"b", b"c"):
            if self.ledger.judge(kind, self.now) is Verdict.REFUSE:
                assert len(self.deaths.get(kind, ())) >= MAX_DEATHS, "refused without its deaths"
        if not any(self.is_own.values()):
            far = self.now + CAUSE_WAIT_S
            assert all(self.ledger.judge(k, far) is Verdict.PASS for k in (b"a", b"b", b"c"))
        due = self.ledger.next_due(self.now)
        assert due is None or due > self.now, "what is due has been done"


TestLedgers = Ledgers.TestCase
