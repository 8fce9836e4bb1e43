"""The variables a replica gets, and which of them need a fresh interpreter."""

from __future__ import annotations

from typing import Any

import pytest

from trygon.engine.environment import changes_for, needs_exec, visible_gpus
from trygon.spec.application import CodeLocation, DeploymentOptions, ResourceRequest
from trygon.spec.launch import ReplicaLaunch


def launch(
    *, code: dict[str, str] | None = None, gpu_ids: tuple[int, ...] | None = None, **options: Any
) -> ReplicaLaunch:
    return ReplicaLaunch(
        replica_id="app#Main#1",
        app_name="app",
        deployment="Main",
        revision=1,
        is_ingress=True,
        route_prefix="/",
        definition=b"",
        options=DeploymentOptions(**options),
        code=CodeLocation(env_vars=code or {}),
        address="",
        controller_address="",
        log_path="",
        gpu_ids=gpu_ids,
    )


@pytest.mark.parametrize("cpus, threads", [(1, "1"), (0.5, "1"), (2.9, "2"), (8, "8"), (0, None)])
def test_thread_counts_follow_num_cpus(cpus: float, threads: str | None) -> None:
    changes = changes_for(launch(resources=ResourceRequest(num_cpus=cpus)), {})

    assert threads == changes.get("OMP_NUM_THREADS")
    assert threads == changes.get("OPENBLAS_NUM_THREADS")


@pytest.mark.parametrize("where", ["environ", "option"])
def test_users_own_thread_count_wins_whole(where: str) -> None:
    given = {"OMP_NUM_THREADS": "3"}

    changes = changes_for(
        launch(env_vars=given if where == "option" else {}), given if where == "environ" else {}
    )

    assert "MKL_NUM_THREADS" not in changes


def test_deployment_variables_win_over_the_applications() -> None:
    changes = changes_for(launch(code={"A": "app", "B": "app"}, env_vars={"A": "deployment"}), {})

    assert ("deployment", "app") == (changes["A"], changes["B"])


@pytest.mark.parametrize(
    "environ, gpu_ids, variable",
    [
        ({}, None, None),
        ({}, (), ""),
        ({}, (0, 2), "0,2"),
        ({"CUDA_VISIBLE_DEVICES": "4,6"}, (6,), "6"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}, (1,), "GPU-b"),
    ],
)
def test_assigned_gpus_are_visible(
    environ: dict[str, str], gpu_ids: tuple[int, ...] | None, variable: str | None
) -> None:
    assert variable == changes_for(launch(gpu_ids=gpu_ids), environ).get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    "name, fresh",
    [
        ("LD_PRELOAD", True),
        ("PYTHONHASHSEED", True),
        ("MALLOC_ARENA_MAX", True),
        ("FLAVOUR", False),
        ("TZ", False),
    ],
)
def test_variables_of_loader_interpreter_and_allocator_need_an_exec(name: str, fresh: bool) -> None:
    assert fresh == needs_exec({name: "1"}, {})
    assert not needs_exec({name: "1"}, {name: "1"})


@pytest.mark.parametrize(
    "environ, devices, expected",
    [
        ({}, [], ()),
        ({}, ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "tty1"], (0, 1)),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, ["nvidia0"], (2, 3)),
        ({"CUDA_VISIBLE_DEVICES": ""}, ["nvidia0"], ()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ["nvidia0"], ()),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}, [], (0, 1)),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, ["nvidia0"], (0,)),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, ["nvidia0"], ()),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, ["nvidia0"], ()),
        ({"NVIDIA_VISIBLE_DEVICES": "5"}, ["nvidia0"], (0,)),
    ],
)
def test_gpus_are_found(environ: dict[str, str], devices: list[str], expected: tuple[int, ...]) -> None:
    assert expected == visible_gpus(environ, devices)
