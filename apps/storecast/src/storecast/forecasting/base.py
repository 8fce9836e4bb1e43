"""What every forecaster is: `fit` takes a series, `predict` and `quantiles` answer for days.

Words follow statsforecast: `ds`, `y`, `h`, `level`. A fitted model is plain numbers: it goes through JSON
(`storecast.forecasting.artifact`), never through pickle, and is evaluated without the library that fitted it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from storecast.data.series import Days, Series

__all__ = ["LEVEL", "FittedModel", "Forecast", "Forecaster"]

#: The share of days that the interval of a forecast should hold.
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Forecast:
    """Demand on some days.

    Args:
        ds: Days (`datetime64[D]`), shape (h,).
        value: The expected demand if the store is open, shape (h,).
        lower: Lower end of the interval of `level`, shape (h,).
        upper: Upper end of it, shape (h,).
    """

    ds: Days
    value: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


class FittedModel(Protocol):
    """A model of one store. Frozen; safe to use from several threads."""

    #: The name of the forecaster that fitted it, as in `storecast.forecasting.catalog`.
    forecaster: ClassVar[str]

    @property
    def store_id(self) -> int:
        """The store's number."""
        ...

    @property
    def data_start(self) -> np.datetime64:
        """The first day it was fitted to."""
        ...

    @property
    def data_end(self) -> np.datetime64:
        """The last day it was fitted to."""
        ...

    def predict(self, ds: Days) -> Forecast:
        """Return the forecast for days, which need not follow the data or one another."""
        ...

    def quantiles(self, ds: Days, levels: Sequence[float]) -> NDArray[np.float64]:
        """Return quantiles of demand, shape (len(levels), len(ds)); levels lie within 0 and 1."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as what JSON can hold; `from_dict` of its class is the way back."""
        ...


class Forecaster(Protocol):
    """A way to fit models. Stateless, cheap to make, safe to send to another process."""

    #: Its name, as users write it.
    name: ClassVar[str]

    def fit(self, series: Series) -> FittedModel:
        """Fit to the open days of a series.

        Raises:
            FitError: The series is too short, or has no open day, or the numbers do not converge.
        """
        ...
