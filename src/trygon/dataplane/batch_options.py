"""The options of a batched function, checked, with what a replica changed of them while it runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from trygon.dataplane.batch_wait import AdaptiveWait
from trygon.dataplane.batching import BatchSettings, FixedWait, WaitPolicy
from trygon.dataplane.replica_context import current_replica_context

__all__ = ["DEFAULT_TARGET_LATENCY_S", "BatchOptions", "LiveOptions", "Wait"]

logger = logging.getLogger("ray.serve")

Wait = float | Literal["auto"]

#: What people call immediate, and what most web budgets leave to one call.
DEFAULT_TARGET_LATENCY_S = 0.1


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What the decorator was given."""

    max_batch_size: int = 10
    batch_wait_timeout_s: Wait = 0.01
    max_concurrent_batches: int = 1
    batch_size_fn: Callable[[list[Any]], int] | None = None
    target_latency_s: float | None = None
    bisect_on_error: bool = False

    @classmethod
    def checked(cls, **options: Any) -> BatchOptions:
        """Return options that can be served.

        Raises:
            TypeError: A value of a type that cannot be.
            ValueError: A value out of range.
        """
        size_fn = options["batch_size_fn"]
        if size_fn is not None and not callable(size_fn):
            raise TypeError(f"batch_size_fn must be a callable or None, found {size_fn!r}")
        concurrent = options["max_concurrent_batches"]
        if not isinstance(concurrent, int) or concurrent < 1:
            raise TypeError(f"max_concurrent_batches must be an integer of at least 1, found {concurrent!r}")
        options["max_batch_size"] = _checked_size(options["max_batch_size"])
        options["batch_wait_timeout_s"] = _checked_wait(options["batch_wait_timeout_s"])
        target = options["target_latency_s"]
        if target is not None:
            if options["batch_wait_timeout_s"] != "auto":
                raise ValueError(
                    f"target_latency_s={target!r} needs batch_wait_timeout_s='auto', found "
                    f"{options['batch_wait_timeout_s']!r}"
                )
            options["target_latency_s"] = _checked_seconds("target_latency_s", target)
        return cls(**options)


class LiveOptions:
    """The options as they are now in one replica; queues look at `settings` for every decision."""

    def __init__(self, name: str, options: BatchOptions) -> None:
        self._name = name
        self._target_latency_s = options.target_latency_s or DEFAULT_TARGET_LATENCY_S
        self.batch_wait_timeout_s: Wait = options.batch_wait_timeout_s
        self.settings = BatchSettings(
            options.max_batch_size,
            self._policy(),
            options.max_concurrent_batches,
            options.batch_size_fn,
        )
        self._warn_if_never_full()

    def set_max_batch_size(self, new: int) -> None:
        """Make batches of at most `new` items from now on."""
        self.settings.max_batch_size = _checked_size(new)
        self._warn_if_never_full()

    def set_batch_wait_timeout_s(self, new: Wait) -> None:
        """Wait so long for a batch to fill from now on."""
        self.batch_wait_timeout_s = _checked_wait(new)
        self.settings.wait = self._policy()

    def _policy(self) -> WaitPolicy:
        wait = self.batch_wait_timeout_s
        return AdaptiveWait(self._target_latency_s) if wait == "auto" else FixedWait(float(wait))

    def _warn_if_never_full(self) -> None:
        replica = current_replica_context()
        if replica is None or not replica.max_ongoing_requests or self.settings.size_fn is not None:
            return
        wanted = self.settings.max_batch_size * self.settings.max_concurrent_batches
        if wanted > replica.max_ongoing_requests:
            logger.warning(
                "max_batch_size * max_concurrent_batches of %s is %d, above the %d max_ongoing_requests of deployment "
                "%s: its batches cannot all be full, and each waits batch_wait_timeout_s; raise max_ongoing_requests",
                self._name,
                wanted,
                replica.max_ongoing_requests,
                replica.deployment,
            )


def _checked_size(value: Any) -> int:
    """Return a batch size; 8.0 passes, as in Ray Serve.

    Raises:
        TypeError: No whole number.
        ValueError: Less than 1.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"max_batch_size must be an integer of at least 1, found {value!r}")
    if value < 1:
        raise ValueError(f"max_batch_size must be an integer of at least 1, found {value!r}")
    return value


def _checked_wait(value: Any) -> Wait:
    """Return a wait.

    Raises:
        TypeError: No number.
        ValueError: Negative, or a word other than "auto".
    """
    if value == "auto":
        return "auto"
    if isinstance(value, str):
        raise TypeError(f"batch_wait_timeout_s must be seconds of at least 0, or 'auto', found {value!r}")
    return _checked_seconds("batch_wait_timeout_s", value)


def _checked_seconds(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds of at least 0, found {value!r}")
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a number of seconds of at least 0, found {value!r}")
    return value
