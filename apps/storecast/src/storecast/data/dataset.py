"""The sales of all stores in one table, sorted by store and day, so that each store is a slice of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from storecast.data.series import Series
from storecast.errors import UnknownStoreError

__all__ = ["Dataset"]


class Dataset:
    """The sales of all stores.

    Args:
        table: The columns Store, Date, Sales, Open and what else there is, sorted by Store and Date,
            each pair once.
    """

    def __init__(self, table: pl.DataFrame) -> None:
        self.table = table
        stores, first = np.unique(table["Store"].to_numpy(), return_index=True)
        ends = np.append(first[1:], len(table))
        self._slices = {
            int(store): (int(start), int(end)) for store, start, end in zip(stores, first, ends, strict=True)
        }

    def __len__(self) -> int:
        return len(self._slices)

    def __iter__(self) -> Iterator[int]:
        return iter(self._slices)

    def __contains__(self, store_id: object) -> bool:
        return store_id in self._slices

    def history(self, store_id: int) -> pl.DataFrame:
        """Return the rows of a store.

        Raises:
            UnknownStoreError: The data has no such store.
        """
        try:
            start, end = self._slices[store_id]
        except KeyError:
            raise UnknownStoreError(f"the data has no store {store_id}; it has {len(self)} stores") from None
        return self.table.slice(start, end - start)

    def series(self, store_id: int) -> Series:
        """Return the series of a store.

        Raises:
            UnknownStoreError: The data has no such store.
        """
        rows = self.history(store_id)
        return Series(
            store_id,
            rows["Date"].to_numpy().astype("datetime64[D]"),
            rows["Sales"].to_numpy().astype(np.float64),
            rows["Open"].to_numpy().astype(np.bool_),
        )
