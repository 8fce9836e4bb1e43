"""What one process publishes: its router's numbers, and what its parts add. Wired by composition roots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from trygon.clock import RealClock
from trygon.dataplane.caller_metrics import CallerCollector
from trygon.dataplane.router import Router
from trygon.dataplane.stamps import set_stamping
from trygon.observability.metrics import REGISTRY
from trygon.observability.metrics.publisher import Publisher
from trygon.observability.metrics.traffic import Total

__all__ = ["ProcessMetrics", "set_up_metrics"]


def set_up_metrics(*, has_stages: bool, latency_buckets_ms: tuple[float, ...] | None) -> None:
    """Set what is set once for a process, before it counts.

    Args:
        has_stages: Whether its requests are measured by stage, here and in the replicas they go to.
        latency_buckets_ms: Bounds of latencies that somebody chose; None keeps ours.
    """
    set_stamping(is_on=has_stages)
    if latency_buckets_ms is not None:
        REGISTRY.use_latency_bounds(latency_buckets_ms)


class ProcessMetrics:
    """What one process publishes: its router's numbers, and what its parts add.

    Args:
        router: What it calls deployments with.
        controller_address: Socket of the controller, in the runtime directory.
        role: Begins the name of the page.
        caller: Names this process as a caller.
        is_ingress: Its requests come from outside.
    """

    def __init__(
        self,
        router: Router,
        controller_address: str,
        *,
        role: str,
        caller: str,
        is_ingress: bool = False,
    ) -> None:
        loop = asyncio.get_running_loop()
        folder = Path(controller_address).parent
        self._publisher = Publisher(loop, folder, role, clock=_now)
        self._collectors: list[Callable[[], None]] = []
        self.add(CallerCollector(router.read_callers, caller, is_ingress=is_ingress))

    def add(
        self,
        collector: Callable[[], None],
        traffic: Callable[[], Mapping[tuple[str, str], Total]] | None = None,
    ) -> None:
        """Call `collector` before each publication; `traffic` gives what rates are made of."""
        self._collectors.append(collector)
        REGISTRY.add_collector(collector)
        if traffic is not None:
            self._publisher.traffic = traffic

    def start(self) -> None:
        """Publish from now on."""
        self._publisher.start()

    def close(self) -> None:
        """Publish a last time."""
        self._publisher.close()
        for collector in self._collectors:
            REGISTRY.remove_collector(collector)


def _now() -> tuple[float, float]:
    return RealClock.monotonic(), RealClock.wall()
