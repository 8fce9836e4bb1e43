"""What replicas tell of their models: the present state first, then changes, bounded whatever is asked for."""

from __future__ import annotations

import asyncio
from typing import Any

from trygon.dataplane.frames import HEADER, HEADER_SIZE, FrameKind
from trygon.dataplane.models.board import ModelBoard
from trygon.dataplane.models.news import COMPLETE, MAX_TOLD, ModelState, decode_into
from trygon.serve.multiplexing import ModelCache


class Caller:
    """Keeps what it is told, as a link does."""

    def __init__(self) -> None:
        self.models: dict[str, ModelState] = {}
        self.is_paused = False
        self.num_frames = 0

    def send(self, frame: bytes) -> None:
        _, stream, kind, _, _, _, value = HEADER.unpack_from(frame)
        assert (0, FrameKind.MODELS) == (stream, kind)
        self.num_frames += 1
        if value == COMPLETE:
            self.models.clear()
        decode_into(self.models, frame[HEADER_SIZE:])


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def board_with(**options: Any) -> tuple[ModelBoard, ModelCache, asyncio.Event]:
    door = asyncio.Event()

    async def load(name: str) -> str:
        await door.wait()
        if name == "bad":
            raise ValueError("no such model")
        return name

    board = ModelBoard(asyncio.get_running_loop())
    cache = ModelCache(load, **options)
    board.add(cache)
    return board, cache, door


async def use(cache: ModelCache, name: str) -> None:
    async with cache.lease(name):
        pass


def test_a_caller_hears_of_a_model_that_is_loading_loaded_and_gone() -> None:
    async def test() -> None:
        board, cache, door = board_with(max_models=1)
        caller = Caller()
        board.subscribe(caller)
        first = asyncio.ensure_future(use(cache, "a"))
        await turn()
        assert {"a": ModelState.LOADING} == caller.models
        door.set()
        await first
        await turn()
        assert {"a": ModelState.LOADED} == caller.models
        await use(cache, "b")
        await turn()
        assert {"b": ModelState.LOADED} == caller.models
        await board.close()
        await turn()
        assert not caller.models

    asyncio.run(test())


def test_a_new_caller_hears_the_present_state() -> None:
    async def test() -> None:
        board, cache, door = board_with()
        door.set()
        await use(cache, "a")
        late = Caller()
        board.subscribe(late)

        assert {"a": ModelState.LOADED} == late.models
        await board.close()

    asyncio.run(test())


def test_a_failed_or_abandoned_load_is_taken_back() -> None:
    async def test() -> None:
        board, cache, door = board_with(max_parallel_loads=1)
        caller = Caller()
        board.subscribe(caller)
        bad = asyncio.ensure_future(use(cache, "bad"))
        left = asyncio.ensure_future(use(cache, "left"))
        await turn()
        assert {"bad", "left"} == caller.models.keys()
        left.cancel()
        door.set()
        await asyncio.gather(bad, left, return_exceptions=True)
        await turn()

        assert not caller.models
        await board.close()

    asyncio.run(test())


def test_the_changes_of_a_turn_are_one_frame() -> None:
    async def test() -> None:
        board, cache, door = board_with(max_parallel_loads=100)
        caller = Caller()
        board.subscribe(caller)
        uses = [asyncio.ensure_future(use(cache, str(number))) for number in range(50)]
        await turn()

        assert 2 == caller.num_frames
        door.set()
        await asyncio.gather(*uses)
        await board.close()

    asyncio.run(test())


def test_a_caller_that_does_not_read_gets_the_whole_state_when_it_does() -> None:
    async def test() -> None:
        board, cache, door = board_with(max_models=1)
        door.set()
        caller = Caller()
        board.subscribe(caller)
        caller.is_paused = True
        for name in "abc":
            await use(cache, name)
            await turn()
        assert 1 == caller.num_frames

        caller.is_paused = False
        board.catch_up(caller)
        assert {"c": ModelState.LOADED} == caller.models
        board.unsubscribe(caller)
        await board.close()

    asyncio.run(test())


def test_no_more_models_are_told_than_the_bound_nor_long_names() -> None:
    async def test() -> None:
        board, cache, door = board_with()
        door.set()
        await use(cache, "x" * 1000)
        await use(cache, "half \ud800")
        for number in range(MAX_TOLD + 5):
            await use(cache, str(number))
        caller = Caller()
        board.subscribe(caller)

        assert {str(number) for number in range(MAX_TOLD)} == caller.models.keys()
        await board.close()

    asyncio.run(test())


def test_a_model_in_two_caches_is_there_until_both_gave_it_up() -> None:
    async def test() -> None:
        board, first, door = board_with()
        _, second, other_door = board_with()
        board.add(second)
        door.set()
        other_door.set()
        caller = Caller()
        board.subscribe(caller)
        await use(first, "a")
        await use(second, "a")
        await first.close()
        await turn()
        assert {"a": ModelState.LOADED} == caller.models
        await second.close()
        await turn()
        assert not caller.models

    asyncio.run(test())
