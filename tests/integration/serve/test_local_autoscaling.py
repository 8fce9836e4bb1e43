"""Autoscaling in local testing mode: replicas and policies on threads of this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.serve.scaling_apps import QUICK, Busy, Parent, Told
from trygon import serve


@pytest.mark.timeout(60)
def test_local_testing_mode_scales_too(tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_text("2")
    scaling = {
        **QUICK,
        "min_replicas": 0,
        "upscale_delay_s": 0,
        "policy": {"policy_function": Told, "policy_kwargs": {"path": str(said)}},
    }
    zero = {**QUICK, "min_replicas": 0}
    app = Parent.options(autoscaling_config=zero).bind(Busy.options(autoscaling_config=scaling).bind())

    handle = serve.run(app, name="local", route_prefix=None, _local_testing_mode=True)
    try:
        assert isinstance(handle.remote().result(timeout_s=20), int)
    finally:
        serve.shutdown()
