"""Series and the table of all stores."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from storecast.data.dataset import Dataset
from storecast.errors import UnknownStoreError


@pytest.fixture
def dataset() -> Dataset:
    return Dataset(
        pl.DataFrame(
            {
                "Store": [3, 3, 3, 7],
                "Date": [date(2026, 1, day) for day in (1, 2, 3, 1)],
                "Sales": [10, 0, 30, 5],
                "Open": [1, 0, 1, 1],
            }
        )
    )


def test_each_store_is_a_series(dataset: Dataset) -> None:
    assert [3, 7] == list(dataset)

    series = dataset.series(3)

    assert [10.0, 0.0, 30.0] == series.y.tolist()
    assert np.datetime64("2026-01-03") == series.ds[-1]
    assert [10.0, 30.0] == series.open_days().y.tolist()
    assert (1, 2) == (len(series.head(1)), len(series.tail(1)))


def test_a_store_that_is_not_there_is_an_error_that_says_so(dataset: Dataset) -> None:
    with pytest.raises(UnknownStoreError, match="no store 4; it has 2 stores"):
        dataset.series(4)
