"""Policies of autoscaling, as `ray.serve.autoscaling_policy` names them, and the adaptive one."""

from __future__ import annotations

from trygon.scaling.policies import default_autoscaling_policy, replica_queue_length_autoscaling_policy
from trygon.spec.autoscaling import AdaptivePolicy

__all__ = ["AdaptivePolicy", "default_autoscaling_policy", "replica_queue_length_autoscaling_policy"]
