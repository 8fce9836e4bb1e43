"""The sales of one store, day by day: what a forecaster is fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Days", "Series"]

Days = NDArray[np.datetime64]


@dataclass(frozen=True, slots=True)
class Series:
    """The sales of one store.

    Args:
        store_id: The store's number.
        ds: Days (`datetime64[D]`), ascending, none twice; shape (n,).
        y: Sales of each day, 0 on closed days; float64, shape (n,).
        is_open: Whether the store was open; bool, shape (n,).
    """

    store_id: int
    ds: Days
    y: NDArray[np.float64]
    is_open: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ds)

    def open_days(self) -> Series:
        """Return the days on which the store was open: closed days say nothing about demand."""
        mask = self.is_open
        return Series(self.store_id, self.ds[mask], self.y[mask], self.is_open[mask])

    def head(self, n: int) -> Series:
        """Return the first `n` days."""
        return Series(self.store_id, self.ds[:n], self.y[:n], self.is_open[:n])

    def tail(self, n: int) -> Series:
        """Return what comes after the first `n` days."""
        return Series(self.store_id, self.ds[n:], self.y[n:], self.is_open[n:])
