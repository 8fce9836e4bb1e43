"""Who else has a say in the numbers of replicas: `target_capacity`, and external scalers. Pure.

A `target_capacity` is the share of all replicas that a configuration asks for.
Ray Serve's rule: a count is scaled by the percentage and rounded, half up; what had a replica keeps one, but at 0.
"""

from __future__ import annotations

import math

import msgspec

from trygon.spec.application import ApplicationSpec

__all__ = ["at_capacity", "external_scaler_problem", "scaled", "with_replicas"]


def scaled(count: int, capacity: float | None) -> int:
    """Return a number of replicas at a percentage from 0 to 100; bounds of autoscaling follow the same rule."""
    if capacity is None or capacity == 100:
        return count
    if capacity == 0 or count == 0:
        return 0
    return max(1, math.floor(count * capacity / 100 + 0.5))


def at_capacity(spec: ApplicationSpec, capacity: float | None) -> ApplicationSpec:
    """Return an application with the numbers of replicas that it has at a percentage.

    Whatever percentage it had before counts no more. Where another program sets the numbers, they are its own.
    """
    full = {d.name: spec.full_replicas.get(d.name, d.options.num_replicas) for d in spec.deployments}
    wanted = full if spec.external_scaler_enabled else {n: scaled(c, capacity) for n, c in full.items()}
    return msgspec.structs.replace(
        spec,
        deployments=tuple(
            d if d.options.num_replicas == wanted[d.name] else d.with_options(num_replicas=wanted[d.name])
            for d in spec.deployments
        ),
        target_capacity=capacity,
        full_replicas={name: count for name, count in full.items() if count != wanted[name]},
    )


def external_scaler_problem(spec: ApplicationSpec) -> str:
    """Return why another program may not set the numbers of replicas of an application; empty when it may."""
    scaled_here = [d.name for d in spec.deployments if d.options.autoscaling is not None]
    if spec.autoscaling_policy is None and not scaled_here:
        return ""
    what = (
        "an autoscaling_policy" if not scaled_here else f"deployment {scaled_here[0]!r} an autoscaling_config"
    )
    return (
        f"application {spec.name!r} has external_scaler_enabled, so another program sets its numbers of replicas, "
        f"but it gives {what}; remove one of the two"
    )


def with_replicas(spec: ApplicationSpec, deployment: str, count: int) -> ApplicationSpec:
    """Return an application with another number of replicas of one of its deployments."""
    return spec.with_deployments(
        tuple(d.with_options(num_replicas=count) if d.name == deployment else d for d in spec.deployments)
    )
