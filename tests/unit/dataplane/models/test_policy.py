"""A cache never gives up what is in use, and keeps its bounds whenever it can."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trygon.dataplane.models.policy import MAX_FAILURES, Admission, CachePolicy


def policy(**options: object) -> CachePolicy:
    values = {"max_models": 2, "max_bytes": None, "max_parallel_loads": 2, "failure_ttl_s": 1.0, **options}
    return CachePolicy(**values)  # type: ignore[arg-type]


def load(cache: CachePolicy, key: str, size: int = 1) -> list[str]:
    assert Admission.WAIT is cache.admit(key, 0.0)
    begun = cache.next_load()
    assert begun is not None
    assert key == begun[0]
    return [*begun[1], *cache.loaded(key, size)]


def test_the_longest_unused_model_goes_first() -> None:
    cache = policy()
    for key in "ab":
        load(cache, key)
        cache.release(key)
    cache.admit("a", 0.0)
    cache.release("a")

    assert ["b"] == load(cache, "c")


def test_a_leased_model_stays_until_its_lease_ends() -> None:
    cache = policy(max_models=1)
    load(cache, "a")

    assert [] == load(cache, "b")
    assert ["a"] == cache.release("a")


def test_a_pinned_model_is_never_given_up() -> None:
    cache = policy(max_models=1, pin=["a"])
    load(cache, "a")
    cache.release("a")
    load(cache, "b")

    assert ["b"] == cache.release("b")


def test_a_failed_load_is_remembered_for_its_time() -> None:
    cache = policy()
    cache.admit("a", 0.0)
    cache.next_load()
    cache.failed("a", 0.0)

    assert Admission.FAILED is cache.admit("a", 0.9)
    assert Admission.WAIT is cache.admit("a", 1.0)


def test_remembered_failures_are_bounded() -> None:
    cache = policy(failure_ttl_s=100.0)
    forgotten = []
    for number in range(MAX_FAILURES + 1):
        cache.admit(str(number), 0.0)
        cache.next_load()
        forgotten += cache.failed(str(number), 0.0)

    assert ["0"] == forgotten
    cache.validate()


def test_a_load_nobody_waits_for_is_dropped_unless_it_was_begun() -> None:
    cache = policy(max_parallel_loads=1)
    for key in "ab":
        cache.admit(key, 0.0)
    cache.next_load()
    cache.leave("a")
    cache.leave("b")

    assert "a" in cache
    assert "b" not in cache
    assert [] == cache.loaded("a", 1)
    assert ["a"] == cache.keys


@given(
    st.lists(st.tuples(st.sampled_from("uulllrrfx"), st.integers(0, 5), st.integers(1, 9)), max_size=120),
    st.sampled_from([None, 1, 3]),
    st.sampled_from([None, 8, 20]),
)
def test_any_order_of_events_keeps_the_invariants(
    events: list[tuple[str, int, int]], max_models: int | None, max_bytes: int | None
) -> None:
    cache = policy(max_models=max_models, max_bytes=max_bytes, pin=["5"])
    leases: list[str] = []
    waiting: dict[str, int] = {}
    loading: list[str] = []
    for now, (what, key, size) in enumerate(events):
        given_up: list[str] = []
        if what == "u":
            admission = cache.admit(str(key), now)
            if admission is Admission.HELD:
                leases.append(str(key))
            elif admission is Admission.WAIT:
                waiting[str(key)] = waiting.get(str(key), 0) + 1
        elif what == "l":
            begun = cache.next_load()
            if begun is not None:
                loading.append(begun[0])
                given_up = begun[1]
            elif loading:
                name = loading.pop(0)
                given_up = cache.loaded(name, size)
                leases += [name] * waiting.pop(name, 0)
        elif what == "r" and leases:
            given_up = cache.release(leases.pop(key % len(leases)))
        elif what == "f" and loading:
            waiting.pop(loading[0], None)
            cache.failed(loading.pop(0), now)
        elif what == "x" and waiting.get(str(key)):
            waiting[str(key)] -= 1
            cache.leave(str(key))

        assert not set(given_up) & {*leases, "5"}
        if max_bytes is not None and "5" not in cache.keys:
            assert cache.held_bytes <= max_bytes + cache.leased_bytes
        assert len(set(leases)) == cache.num_leased
        assert sum(waiting.values()) == cache.num_waiting
        cache.validate()
