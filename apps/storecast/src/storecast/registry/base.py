"""What a model registry does for storecast; the only implementation speaks to MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from storecast.forecasting.base import FittedModel

__all__ = ["ALIAS", "ModelRecord", "Registry", "TrainedModel", "model_name"]

#: The alias of the version that is served.
ALIAS = "production"


def model_name(store_id: int) -> str:
    """Return the registered model of a store."""
    return f"prophet-retail-forecaster-store-{store_id}"


@dataclass(frozen=True)
class TrainedModel:
    """A fitted model, and what is told about it.

    Args:
        model: The model, fitted to all of the series unless training was told otherwise.
        metrics: Errors on the held-out last part: `mae`, `rmse`, `smape`, `mase`, `coverage`.
        trained_at: When, UTC.
        params: Everything that was set: forecaster, share of the test, and so on.
        fit_s: Seconds that fitting took.
    """

    model: FittedModel
    metrics: Mapping[str, float]
    trained_at: datetime
    params: Mapping[str, str]
    fit_s: float

    @property
    def store_id(self) -> int:
        """The store's number."""
        return self.model.store_id


@dataclass(frozen=True)
class ModelRecord:
    """A version of a store's model in the registry.

    Args:
        store_id: The store's number.
        version: Its number in the registry, from 1.
        run_id: The run that trained it.
        forecaster: The name of the forecaster.
        trained_at: When it was trained, UTC.
        data_start: The first day it was fitted to.
        data_end: The last day it was fitted to.
        metrics: As in `TrainedModel`.
        source: Where its artifacts are, as the registry says it.
    """

    store_id: int
    version: int
    run_id: str
    forecaster: str
    trained_at: datetime
    data_start: date
    data_end: date
    metrics: Mapping[str, float]
    source: str


class Registry(Protocol):
    """A registry. Its methods block; they may be called from several threads.

    Every method raises `RegistryUnavailableError` when the registry does not answer, `RegistryError` when it refuses.
    """

    def register(self, trained: TrainedModel, *, promote: bool = True) -> ModelRecord:
        """Keep a model as a new version; with `promote` the alias then names it."""
        ...

    def resolve(self, store_id: int) -> ModelRecord | None:
        """Return the version that the alias names, or None where there is none."""
        ...

    def resolve_all(self) -> dict[int, ModelRecord]:
        """Return the version that the alias names, for each store that has one."""
        ...

    def versions(self, store_id: int) -> list[ModelRecord]:
        """Return all versions of a store, the newest first."""
        ...

    def promote(self, store_id: int, version: int) -> None:
        """Let the alias name a version."""
        ...

    def artifact(self, record: ModelRecord) -> bytes:
        """Return the bytes of the saved model, as `storecast.forecasting.artifact` wrote them."""
        ...

    def ping(self) -> None:
        """Raise unless the registry answers."""
        ...
