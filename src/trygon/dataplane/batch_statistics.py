"""What is counted of batches, for users and for whoever exports it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["BatchCounter", "BatchReport", "BatchStatistics", "observe", "set_batch_observer"]


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One batch that ran.

    Attributes:
        function_name: The batched function.
        size: Items in it.
        max_batch_size: Items there could have been.
        waits_s: Seconds each item waited before the batch began.
        execution_s: Seconds the batch ran, with its bisections.
        queue_length: Items that waited when it was done.
    """

    function_name: str
    size: int
    max_batch_size: int
    waits_s: list[float]
    execution_s: float
    queue_length: int


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """Totals of one batched function in this process.

    Attributes:
        num_batches: Batches that ran.
        num_items: Items in them.
        num_expired: Items dropped because their deadline passed before they could run.
        num_bisected: Batches, or parts of them, that failed and were run again in halves.
        wait_s: Seconds that items waited, summed over the items.
        execution_s: Seconds that batches ran, summed over the batches.
        num_waiting: Items that wait now.
        num_running: Batches that run now.
    """

    num_batches: int = 0
    num_items: int = 0
    num_expired: int = 0
    num_bisected: int = 0
    wait_s: float = 0.0
    execution_s: float = 0.0
    num_waiting: int = 0
    num_running: int = 0

    @property
    def mean_size(self) -> float:
        """Items of a batch on average; 0 when none ran."""
        return self.num_items / self.num_batches if self.num_batches else 0.0


class BatchCounter:
    """Counts the batches of one function."""

    __slots__ = ("_execution_s", "_num_batches", "_num_bisected", "_num_expired", "_num_items", "_wait_s")

    def __init__(self) -> None:
        self._num_batches = self._num_items = self._num_expired = self._num_bisected = 0
        self._wait_s = self._execution_s = 0.0

    def ran(self, report: BatchReport) -> None:
        """Count a batch."""
        self._num_batches += 1
        self._num_items += report.size
        self._wait_s += sum(report.waits_s)
        self._execution_s += report.execution_s

    def expired(self, count: int) -> None:
        """Count items that came too late to run."""
        self._num_expired += count

    def bisected(self) -> None:
        """Count a failure that was run again in halves."""
        self._num_bisected += 1

    def statistics(self, *, num_waiting: int, num_running: int) -> BatchStatistics:
        """Return the totals so far."""
        return BatchStatistics(
            self._num_batches,
            self._num_items,
            self._num_expired,
            self._num_bisected,
            self._wait_s,
            self._execution_s,
            num_waiting,
            num_running,
        )


_observer: Callable[[BatchReport], None] | None = None


def set_batch_observer(observer: Callable[[BatchReport], None] | None) -> None:
    """Set what is called with each batch that ran in this process, on its loop; it must be quick."""
    global _observer
    _observer = observer


def observe(report: BatchReport) -> None:
    """Tell the observer, if there is one."""
    if _observer is not None:
        _observer(report)
