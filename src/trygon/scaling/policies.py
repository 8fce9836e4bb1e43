"""The built-in autoscaling policies as functions of a context, for policies of the user's that build on them."""

from __future__ import annotations

from typing import Any

from trygon.scaling.context import AutoscalingContext
from trygon.scaling.decision import Demand, propose
from trygon.spec.autoscaling import AutoscalingConfig

__all__ = ["default_autoscaling_policy", "replica_queue_length_autoscaling_policy"]


def replica_queue_length_autoscaling_policy(ctx: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Ask for as many replicas as bring the requests of each one to `target_ongoing_requests`.

    Requests are counted over the look-back period, those that wait and those in work. From zero, the first
    request asks for `upscaling_factor` replicas. The gains, delays and bounds of the configuration are laid
    over the result, as over that of any policy.

    Args:
        ctx: What there is to decide by.

    Returns:
        The number of replicas, and an empty state: this policy remembers nothing.
    """
    config = ctx.config or AutoscalingConfig()
    if ctx.target_num_replicas:
        # The gain comes on top of what a policy returns: here it would count twice.
        config = config.replace(
            smoothing_factor=1.0,
            **dict.fromkeys(
                (
                    "upscaling_factor",
                    "downscaling_factor",
                    "upscale_smoothing_factor",
                    "downscale_smoothing_factor",
                )
            ),
        )
    demand = Demand(
        total=ctx.total_num_requests,
        now_total=ctx.total_num_requests,
        ready=ctx.current_num_replicas,
        target=ctx.target_num_replicas,
    )
    return propose(config, demand), {}


#: The policy of a deployment that names none.
default_autoscaling_policy = replica_queue_length_autoscaling_policy
