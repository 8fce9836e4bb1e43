"""`serve.batch` on a loop: who gets which answer, errors, cancelling, deadlines, streams, options."""

from __future__ import annotations

import asyncio
import gc
import inspect
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import cloudpickle
import pytest

from trygon import serve
from trygon.dataplane.batch_items import MAX_UNREAD
from trygon.dataplane.batch_statistics import BatchReport, set_batch_observer
from trygon.dataplane.context import RequestContext, request_context
from trygon.dataplane.replica_context import ReplicaContext, ReplicaID, ReplicaRank, enter_replica
from trygon.serve.context import _get_serve_batch_request_context
from trygon.serve.exceptions import RayServeException, RequestCancelledError


class Door:
    """A batch function stops here until it is opened."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def pass_through(self) -> None:
        self.entered.set()
        await self.opened.wait()


class Model:
    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.door: Door | None = None

    @serve.batch
    async def double(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        return [2 * number for number in numbers]

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0)
    async def guarded(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        if self.door is not None:
            await self.door.pass_through()
        if any(number < 0 for number in numbers):
            raise ValueError(f"negative among {numbers}")
        return numbers

    @serve.batch(max_batch_size=8, bisect_on_error=True)
    async def careful(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        if any(number < 0 for number in numbers):
            raise ValueError(f"negative among {numbers}")
        return numbers

    @serve.batch(max_batch_size=3)
    async def add(self, lefts: list[int], rights: list[int] | None = None, *, scale: Any = None) -> list[Any]:
        self.batches.append((lefts, rights, scale))
        return [(left, right) for left, right in zip(lefts, rights or lefts, strict=True)]

    @serve.batch(max_batch_size=3)
    async def count(self, limits: list[int]) -> AsyncIterator[list[Any]]:
        self.batches.append(limits)
        for step in range(max(limits) + 1):
            yield [StopIteration if step >= limit else step for limit in limits]
        self.batches.append("end")


async def read(stream: Any, into: list[Any]) -> None:
    async for value in stream:
        into.append(value)


def run(main: Any) -> Any:
    return asyncio.run(main)


def test_calls_are_collected_and_each_gets_its_own_answer() -> None:
    model = Model()

    async def main() -> list[int]:
        return await asyncio.gather(*(model.double(number) for number in range(25)))

    assert [2 * number for number in range(25)] == run(main())
    assert [10, 10, 5] == [len(batch) for batch in model.batches]
    assert list(range(25)) == [number for batch in model.batches for number in batch]


def test_a_plain_function_is_batched_too() -> None:
    sizes: list[int] = []

    @serve.batch(max_batch_size=2)
    async def triple(numbers: list[int]) -> list[int]:
        sizes.append(len(numbers))
        return [3 * number for number in numbers]

    async def main() -> list[int]:
        return await asyncio.gather(*(triple(number) for number in range(4)))

    assert [0, 3, 6, 9] == run(main())
    assert [2, 2] == sizes
    assert [0, 3, 6, 9] == run(main())


def test_what_comes_in_one_turn_of_the_loop_shares_a_batch_without_a_wait() -> None:
    model = Model()

    async def main() -> list[int]:
        return await asyncio.gather(*(model.guarded(number) for number in range(3)))

    assert [0, 1, 2] == run(main())
    assert [[0, 1, 2]] == model.batches


def test_each_object_has_a_queue_of_its_own() -> None:
    one, two = Model(), Model()

    async def main() -> list[int]:
        return await asyncio.gather(one.double(1), two.double(2), one.double(3))

    assert [2, 4, 6] == run(main())
    assert [[1, 3]] == one.batches
    assert [[2]] == two.batches


def test_a_child_class_inherits_the_batched_method() -> None:
    class Child(Model):
        async def both(self, number: int) -> tuple[int, int]:
            return await self.double(number), await super().double(number)

    child = Child()

    assert (8, 8) == run(child.both(4))
    assert [[4], [4]] == child.batches


def test_a_class_method_is_called_with_its_class() -> None:
    class Kind:
        @classmethod
        @serve.batch(max_batch_size=2)
        async def names(cls, numbers: list[int]) -> list[str]:
            return [f"{cls.__name__} {number}" for number in numbers]

    async def main() -> list[str]:
        return await asyncio.gather(Kind.names(1), Kind.names(2))

    assert ["Kind 1", "Kind 2"] == run(main())


def test_an_object_that_is_dropped_is_not_kept_by_its_queue() -> None:
    class Slotted:
        __slots__ = ("__weakref__",)

        @serve.batch(max_batch_size=1)
        async def same(self, numbers: list[int]) -> list[int]:
            return numbers

    async def main() -> None:
        for number in range(3):
            model = Slotted()
            assert number == await model.same(number)
            del model
            gc.collect()
        assert not vars(Slotted.same)["_trygon_batched"]._batchers

    run(main())


def test_an_object_without_weak_references_is_served() -> None:
    class Bare:
        __slots__ = ()

        @serve.batch(max_batch_size=1)
        async def same(self, numbers: list[int]) -> list[int]:
            return numbers

    assert 7 == run(Bare().same(7))


def test_parameters_become_lists_whether_they_are_named_or_not() -> None:
    model = Model()

    async def main() -> list[Any]:
        return await asyncio.gather(model.add(1, 10), model.add(2, rights=20), model.add(rights=30, lefts=3))

    assert [(1, 10), (2, 20), (3, 30)] == run(main())
    assert [([1, 2, 3], [10, 20, 30], None)] == model.batches


def test_calls_of_another_shape_go_in_another_batch() -> None:
    model = Model()

    async def main() -> list[Any]:
        return await asyncio.gather(model.add(1), model.add(2, 20), model.add(3, scale=5))

    assert [(1, 1), (2, 20), (3, 3)] == run(main())
    assert [([1], None, None), ([2], [20], None), ([3], None, [5])] == sorted(model.batches, key=str)


def test_a_wrong_argument_is_the_callers_error_alone() -> None:
    model = Model()

    async def main() -> list[Any]:
        return await asyncio.gather(
            model.double(1), model.double(), model.double(2, wrong=1), return_exceptions=True
        )

    answer, missing, unknown = run(main())

    assert 2 == answer
    assert isinstance(missing, TypeError)
    assert isinstance(unknown, TypeError)


def test_an_error_is_everybodys_of_that_batch_only() -> None:
    model = Model()

    async def main() -> list[Any]:
        calls = (model.guarded(number) for number in (1, -2, 3, 4, 5))
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = run(main())

    assert ["negative among [1, -2, 3, 4]"] * 4 == [str(answer) for answer in answers[:4]]
    assert 5 == answers[4]


def test_bisection_leaves_only_the_bad_items_failed() -> None:
    model = Model()

    async def main() -> list[Any]:
        calls = (model.careful(number) for number in (0, 1, -2, 3, 4, 5, 6, -7))
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = run(main())

    assert [0, 1, 3, 4, 5, 6] == [answer for answer in answers if isinstance(answer, int)]
    assert "negative among [-2]" == str(answers[2])
    assert "negative among [-7]" == str(answers[7])


@pytest.mark.parametrize(
    "result, found", [([1], "found 1"), (None, "NoneType"), ("ab", "str"), ({1: 1, 2: 2}, "dict")]
)
def test_a_result_that_is_no_list_of_the_right_length_fails_all(result: Any, found: str) -> None:
    @serve.batch(max_batch_size=2)
    async def wrong(items: list[int]) -> Any:
        return result

    async def main() -> list[Any]:
        return await asyncio.gather(wrong(1), wrong(2), return_exceptions=True)

    for error in run(main()):
        assert isinstance(error, RayServeException)
        assert found in str(error)


def test_a_cancelled_caller_never_reaches_the_function() -> None:
    model = Model()

    async def main() -> list[Any]:
        tasks = [asyncio.ensure_future(model.double(number)) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = run(main())

    assert (0, 4) == (answers[0], answers[2])
    assert [[0, 2]] == model.batches


def test_a_caller_that_leaves_a_running_batch_harms_nobody() -> None:
    model = Model()

    async def main() -> list[Any]:
        model.door = Door()
        tasks = [asyncio.ensure_future(model.guarded(number)) for number in range(3)]
        await model.door.entered.wait()
        tasks[0].cancel()
        model.door.opened.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = run(main())

    assert isinstance(answers[0], asyncio.CancelledError)
    assert [1, 2] == answers[1:]


def test_a_batch_that_nobody_waits_for_is_cancelled_and_its_place_is_free() -> None:
    model = Model()

    async def main() -> int:
        model.door = Door()
        tasks = [asyncio.ensure_future(model.guarded(number)) for number in range(3)]
        await model.door.entered.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        model.door = None
        return await model.guarded(9)

    assert 9 == run(main())
    assert [[0, 1, 2], [9]] == model.batches


def test_a_request_whose_deadline_passed_is_refused_before_the_batch_runs() -> None:
    model = Model()

    async def call(number: int, deadline: float) -> int:
        context = RequestContext(request_id=f"request {number}")
        context.deadline = deadline
        request_context.set(context)
        return await model.guarded(number)

    async def main() -> list[Any]:
        now = asyncio.get_running_loop().time()
        calls = [asyncio.ensure_future(call(1, now + 0.001)), asyncio.ensure_future(call(2, now + 60))]
        await asyncio.sleep(0)
        time.sleep(0.002)  # the loop is blocked, so that no timeout is seen
        return await asyncio.gather(*calls, return_exceptions=True)

    late, answer = run(main())

    assert isinstance(late, RequestCancelledError)
    assert "request 1" in str(late)
    assert 2 == answer
    assert [[2]] == model.batches


def test_a_batch_has_one_model_id_and_knows_its_requests() -> None:
    seen: list[Any] = []

    @serve.batch(max_batch_size=4)
    async def ask(numbers: list[int]) -> list[str]:
        own = request_context.get()
        assert own is not None
        seen.append(
            (own.multiplexed_model_id, [each.request_id for each in _get_serve_batch_request_context()])
        )
        return [own.multiplexed_model_id] * len(numbers)

    async def call(number: int) -> str:
        request_context.set(RequestContext("", str(number), "", "ab"[number % 2]))
        return await ask(number)

    async def main() -> list[str]:
        return await asyncio.gather(*(call(number) for number in range(4)))

    assert ["a", "b", "a", "b"] == run(main())
    assert [("a", ["0", "2"]), ("b", ["1", "3"])] == seen
    assert [] == _get_serve_batch_request_context()


def test_streams_of_one_batch_end_one_by_one() -> None:
    model = Model()

    async def main() -> list[list[int]]:
        streams = [model.count(limit) for limit in (2, 0, 4)]
        return [[step async for step in stream] for stream in streams]

    assert [[0, 1], [], [0, 1, 2, 3]] == run(main())
    assert [2, 0, 4] == model.batches[0]


def test_a_reader_that_leaves_does_not_end_the_others_stream() -> None:
    model = Model()

    async def main() -> list[int]:
        one, two = model.count(1000), model.count(50)
        async for _ in one:
            break
        await one.aclose()
        return [step async for step in two]

    assert list(range(50)) == run(main())


def test_a_stream_that_was_forgotten_does_not_hold_up_its_batch() -> None:
    model = Model()

    async def main() -> list[int]:
        one, two = model.count(1000), model.count(500)
        await asyncio.sleep(0)
        del one
        gc.collect()
        return [step async for step in two]

    assert list(range(500)) == run(main())


def test_a_reader_that_falls_too_far_behind_loses_its_stream() -> None:
    model = Model()

    async def main() -> tuple[int, int]:
        slow, fast = model.count(MAX_UNREAD + 50), model.count(MAX_UNREAD + 50)
        num_fast = len([step async for step in fast])
        seen: list[int] = []
        with pytest.raises(RayServeException, match="behind"):
            await read(slow, seen)
        return num_fast, len(seen)

    assert (MAX_UNREAD + 50, MAX_UNREAD) == run(main())


def test_an_error_in_a_stream_comes_after_what_was_yielded() -> None:
    @serve.batch(max_batch_size=2)
    async def broken(items: list[int]) -> AsyncIterator[list[int]]:
        yield items
        raise ValueError("no more")

    async def main() -> list[Any]:
        seen: list[Any] = []
        for stream in [broken(1), broken(2)]:
            with pytest.raises(ValueError, match="no more"):
                await read(stream, seen)
        return seen

    assert [1, 2] == run(main())


def test_setters_count_from_the_next_decision_on() -> None:
    model = Model()
    assert 4 == model.guarded._get_max_batch_size()

    async def main() -> list[int]:
        model.guarded.set_max_batch_size(2)
        model.guarded.set_batch_wait_timeout_s(0.5)
        return await asyncio.gather(*(model.guarded(number) for number in range(4)))

    try:
        assert [0, 1, 2, 3] == run(main())
        assert [2, 2] == [len(batch) for batch in model.batches]
        assert (2, 0.5) == (
            model.guarded._get_max_batch_size(),
            model.guarded._get_batch_wait_timeout_s(),
        )
    finally:
        model.guarded.set_max_batch_size(4)
        model.guarded.set_batch_wait_timeout_s(0)


@pytest.mark.parametrize(
    "options, error",
    [
        ({"max_batch_size": 0}, ValueError),
        ({"max_batch_size": 1.5}, TypeError),
        ({"max_batch_size": "3"}, TypeError),
        ({"max_batch_size": True}, TypeError),
        ({"batch_wait_timeout_s": -1}, ValueError),
        ({"batch_wait_timeout_s": float("nan")}, ValueError),
        ({"batch_wait_timeout_s": "1"}, TypeError),
        ({"batch_wait_timeout_s": None}, TypeError),
        ({"max_concurrent_batches": 0}, TypeError),
        ({"max_concurrent_batches": 1.0}, TypeError),
        ({"batch_size_fn": 3}, TypeError),
        ({"target_latency_s": 0.1}, ValueError),
        ({"batch_wait_timeout_s": "auto", "target_latency_s": -0.1}, ValueError),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=list(options)[-1]):
        serve.batch(**options)


def test_a_whole_float_passes_as_a_size() -> None:
    @serve.batch(max_batch_size=8.0)
    async def same(items: list[int]) -> list[int]:
        return items

    assert 8 == same._get_max_batch_size()


@pytest.mark.parametrize("with_arguments", [False, True])
def test_a_function_that_is_not_async_is_refused(with_arguments: bool) -> None:
    def plain(items: list[int]) -> list[int]:
        return items

    with pytest.raises(TypeError, match="async def"):
        (serve.batch(max_batch_size=2) if with_arguments else serve.batch)(plain)
    with pytest.raises(TypeError, match="functions and methods"):
        serve.batch(max_batch_size=2)(3)


def test_the_decorated_function_looks_like_the_original() -> None:
    assert inspect.iscoroutinefunction(Model.double)
    assert "double" == Model.double.__name__
    assert ["self", "numbers"] == list(inspect.signature(Model.double).parameters)


def test_a_class_of_a_notebook_is_pickled_with_its_batched_methods() -> None:
    class Local:
        @serve.batch(max_batch_size=2)
        async def double(self, numbers: list[int]) -> list[int]:
            return [2 * number for number in numbers]

    run(Local().double(1))
    copy = cloudpickle.loads(cloudpickle.dumps(Local))

    assert 4 == run(copy().double(2))


def test_statistics_and_the_observer_see_each_batch() -> None:
    reports: list[BatchReport] = []

    @serve.batch(max_batch_size=2)
    async def same(items: list[int]) -> list[int]:
        return items

    async def main() -> None:
        await asyncio.gather(*(same(number) for number in range(3)))

    set_batch_observer(reports.append)
    try:
        run(main())
    finally:
        set_batch_observer(None)

    assert [("same", 2, 2), ("same", 1, 2)] == [
        (each.function_name, each.size, each.max_batch_size) for each in reports
    ]
    statistics = same.statistics()
    assert (2, 3, 0, 0) == (
        statistics.num_batches,
        statistics.num_items,
        statistics.num_waiting,
        statistics.num_running,
    )
    assert 1.5 == statistics.mean_size
    assert statistics.wait_s > 0


def test_what_runs_can_be_looked_at() -> None:
    model = Model()

    async def main() -> None:
        assert model.guarded._get_curr_iteration_start_times().min_start_time is None
        model.door = Door()
        call = asyncio.ensure_future(model.guarded(1))
        await model.door.entered.wait()
        times = model.guarded._get_curr_iteration_start_times()
        assert 1 == times.num_requests
        assert times.min_start_time == times.max_start_time == times.mean_start_time
        stack = await model.guarded._get_handling_task_stack()
        assert "in guarded" in stack
        assert "in pass_through" in stack
        assert await model.guarded._is_batching_task_alive()
        model.door.opened.set()
        await call

    run(main())


def test_the_wait_that_tunes_itself_answers_everybody_and_somebody_alone_at_once() -> None:
    @serve.batch(max_batch_size=64, batch_wait_timeout_s="auto", target_latency_s=0.05)
    async def same(numbers: list[int]) -> list[int]:
        time.sleep(0.002)
        return numbers

    async def client(number: int) -> None:
        for each in range(5):
            assert number + each == await same(number + each)

    async def main() -> None:
        for number in range(10):
            assert number == await same(number)
        assert 1.0 == same.statistics().mean_size
        await asyncio.gather(*(client(number) for number in range(40)))

    run(main())

    assert same.statistics().mean_size > 2
    assert "auto" == same._get_batch_wait_timeout_s()


def test_what_user_code_cancels_is_told_to_its_callers_and_the_next_batch_runs() -> None:
    @serve.batch(max_batch_size=1)
    async def moody(numbers: list[int]) -> list[int]:
        if numbers == [0]:
            raise asyncio.CancelledError
        return numbers

    async def main() -> list[Any]:
        return await asyncio.gather(moody(0), moody(1), return_exceptions=True)

    cancelled, answer = run(main())

    assert isinstance(cancelled, asyncio.CancelledError)
    assert 1 == answer


def test_many_model_ids_wait_side_by_side() -> None:
    @serve.batch(max_batch_size=2, batch_wait_timeout_s=0.01, max_concurrent_batches=4)
    async def ask(numbers: list[int]) -> list[str]:
        own = request_context.get()
        assert own is not None
        return [f"{own.multiplexed_model_id} {number}" for number in numbers]

    async def call(number: int) -> str:
        request_context.set(RequestContext("", "", "", f"model {number % 50}"))
        return await ask(number)

    async def main() -> list[str]:
        return await asyncio.gather(*(call(number) for number in range(130)))

    assert [f"model {number % 50} {number}" for number in range(130)] == run(main())
    assert 50 * 2 - 20 == ask.statistics().num_batches


def test_a_batch_that_can_never_be_full_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    replica = ReplicaContext(
        ReplicaID("tag", "Model", "app"), None, ReplicaRank(0, 0, 0), 1, max_ongoing_requests=8
    )

    @serve.batch(max_batch_size=4, max_concurrent_batches=2)
    async def same(items: list[int]) -> list[int]:
        return items

    async def main() -> None:
        enter_replica(replica)
        await same(1)
        assert not caplog.records
        same.set_max_batch_size(5)

    with caplog.at_level("WARNING", logger="ray.serve"):
        run(main())

    (record,) = caplog.records
    assert "is 10, above the 8 max_ongoing_requests of deployment Model" in record.getMessage()
    assert 4 == same._get_max_batch_size()


def test_an_error_of_batch_size_fn_is_one_callers_and_batching_goes_on() -> None:
    @serve.batch(max_batch_size=10, batch_size_fn=lambda texts: sum(len(text) for text in texts))
    async def upper(texts: list[str]) -> list[str]:
        return [text.upper() for text in texts]

    async def main() -> list[Any]:
        calls = (upper(text) for text in ("abc", 5, "d" * 11, "efg", "hijkl"))
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = run(main())

    assert ["ABC", "EFG", "HIJKL"] == [answer for answer in answers if isinstance(answer, str)]
    assert isinstance(answers[1], TypeError)
    assert isinstance(answers[2], RuntimeError)


@pytest.mark.parametrize("seed", range(3))
def test_every_answer_goes_to_its_own_caller_whatever_fails_or_leaves(seed: int) -> None:
    chance = random.Random(seed)

    @serve.batch(
        max_batch_size=16, batch_wait_timeout_s=0.001, max_concurrent_batches=3, bisect_on_error=True
    )
    async def work(numbers: list[int], names: list[str]) -> list[tuple[int, str]]:
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        if any(number % 97 == 0 for number in numbers):
            raise ValueError(str(numbers))
        return list(zip(numbers, names, strict=True))

    async def main() -> list[Any]:
        tasks = []
        for number in range(3334):
            tasks.append(asyncio.ensure_future(work(number, names=str(number))))
            if number % 7 == 0:
                await asyncio.sleep(0)
                chance.choice(tasks).cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    for number, answer in enumerate(run(main())):
        if isinstance(answer, asyncio.CancelledError):
            continue
        if number % 97 == 0:
            assert f"[{number}]" == str(answer)
        else:
            assert (number, str(number)) == answer
