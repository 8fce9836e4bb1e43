"""The errors of storecast. The command line prints their text and no stack trace.

StorecastError
├── DataError            sales that cannot be read, or are not what they should be
├── ArtifactError        a saved model that cannot be read
├── UnknownStoreError    a store that nobody has heard of
├── FitError             a series that a forecaster cannot be fitted to
├── RegistryError        the registry refused
│   └── RegistryUnavailableError   the registry does not answer; try again later
└── UsageError           an option or a request that makes no sense
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "DataError",
    "FitError",
    "RegistryError",
    "RegistryUnavailableError",
    "StorecastError",
    "UnknownStoreError",
    "UsageError",
]


class StorecastError(Exception):
    """Anything that storecast says no to; its text is for users."""


class DataError(StorecastError):
    """The sales cannot be read, or rows of them are wrong."""


class ArtifactError(StorecastError):
    """A saved model cannot be read."""


class UnknownStoreError(StorecastError):
    """Nobody has heard of this store."""


class FitError(StorecastError):
    """A forecaster cannot be fitted to a series."""


class RegistryError(StorecastError):
    """The registry refused what was asked of it."""


class RegistryUnavailableError(RegistryError):
    """The registry does not answer."""


class UsageError(StorecastError):
    """An option or a request makes no sense."""
