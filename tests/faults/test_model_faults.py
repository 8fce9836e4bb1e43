"""Loads that die with their replica, hang or fail: who waited is told or served, and the model is loaded elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import wait_until
from trygon import serve
from trygon.serve.exceptions import ReplicaDiedError, ReplicaUnavailableError, RequestTimeoutError
from trygon.serve.handle import DeploymentHandle

pytestmark = pytest.mark.timeout(60)


@serve.deployment(num_replicas=2, max_ongoing_requests=2000)
class Many:
    """Loads a model when there is a file of its name, and writes down who began to."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    @serve.multiplexed(max_num_models_per_replica=9, failure_ttl_s=30)
    async def get_model(self, model_id: str) -> str:
        with (self.folder / f"{model_id}.loads").open("a") as file:
            file.write(f"{os.getpid()}\n")
        while not (self.folder / model_id).exists():
            await asyncio.sleep(0.005)
        if model_id.startswith("bad"):
            raise ValueError(f"no such model: {model_id}")
        return model_id

    async def warm(self, pid: int, model_ids: list[str]) -> int:
        if pid == os.getpid():
            for model_id in model_ids:
                async with self.get_model.lease(model_id):
                    pass
        return os.getpid()

    async def __call__(self) -> tuple[str, int]:
        return await self.get_model(serve.get_multiplexed_model_id()), os.getpid()


def loads_of(folder: Path, model_id: str) -> list[int]:
    path = folder / f"{model_id}.loads"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def run(folder: Path, model_id: str, **options: Any) -> DeploymentHandle:
    handle = serve.run(Many.options(**options).bind(str(folder)))
    return handle.options(multiplexed_model_id=model_id)


def test_a_replica_that_dies_while_it_loads_a_model_costs_only_who_waited_there(
    url: str, tmp_path: Path
) -> None:
    handle = run(tmp_path, "m")
    again = [handle.options(retryable=True).remote() for _ in range(20)]
    once = [handle.remote() for _ in range(20)]
    (victim,) = wait_until(lambda: loads_of(tmp_path, "m"), "the load to begin")
    os.kill(victim, signal.SIGKILL)
    for response in once:
        with pytest.raises(ReplicaDiedError):
            response.result(timeout_s=20)
    wait_until(lambda: len(loads_of(tmp_path, "m")) > 1, "the load elsewhere")
    (tmp_path / "m").touch()
    answers = {response.result(timeout_s=20) for response in again}

    assert {"m"} == {model for model, _ in answers}
    assert victim not in {pid for _, pid in answers}
    assert 2 == len(loads_of(tmp_path, "m"))


def test_a_waiter_whose_time_is_over_leaves_the_load_to_the_others(url: str, tmp_path: Path) -> None:
    handle = run(tmp_path, "m")
    late = handle.options(timeout_s=0.3).remote()
    patient = handle.remote()
    with pytest.raises(RequestTimeoutError):
        late.result(timeout_s=20)
    (tmp_path / "m").touch()

    assert "m" == patient.result(timeout_s=20)[0]
    assert 1 == len(loads_of(tmp_path, "m"))


def test_a_load_goes_on_when_all_who_waited_have_left(url: str, tmp_path: Path) -> None:
    handle = run(tmp_path, "m")
    with pytest.raises(RequestTimeoutError):
        handle.options(timeout_s=0.3).remote().result(timeout_s=20)
    (tmp_path / "m").touch()

    assert "m" == handle.remote().result(timeout_s=20)[0]
    assert 1 == len(loads_of(tmp_path, "m"))


def test_a_thousand_waiters_hear_of_one_failed_load(url: str, tmp_path: Path) -> None:
    handle = run(tmp_path, "bad")
    responses = [handle.remote() for _ in range(1000)]
    wait_until(lambda: loads_of(tmp_path, "bad"), "the load to begin")
    (tmp_path / "bad").touch()
    for response in responses:
        with pytest.raises(ValueError, match="no such model: bad"):
            response.result(timeout_s=20)

    assert 1 == len(loads_of(tmp_path, "bad"))


def test_callers_hear_of_the_models_of_a_replacement_too(url: str, tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(8)]
    for name in ["first", *names]:
        (tmp_path / name).touch()
    handle = run(tmp_path, "first")
    victim = handle.remote().result(timeout_s=20)[1]
    before = set(handle.broadcast("warm", 0, []).results(timeout_s=20))
    os.kill(victim, signal.SIGKILL)

    def replacement() -> set[int]:
        try:
            pids = set(handle.broadcast("warm", 0, []).results(timeout_s=20))
        except (ReplicaDiedError, ReplicaUnavailableError):
            return set()
        return pids - before if len(pids) == 2 else set()

    (newcomer,) = wait_until(replacement, "a replacement")
    handle.broadcast("warm", newcomer, names).results(timeout_s=20)
    found = {handle.options(multiplexed_model_id=name).remote().result(timeout_s=20)[1] for name in names}

    assert {newcomer} == found
