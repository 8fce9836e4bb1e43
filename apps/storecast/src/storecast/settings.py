"""Where things are; the only reader of the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What the environment says.

    Args:
        home: The folder of everything that storecast keeps: `STORECAST_HOME`, or `storecast-home` in the current
            folder. It holds `mlflow.db` and `mlartifacts/` (the embedded registry), `jobs.db`, `monitor.db`,
            `actuals.db` and `token`.
        tracking_uri: The MLflow server: `MLFLOW_TRACKING_URI`, or the embedded SQLite file in `home`.
    """

    home: Path
    tracking_uri: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the environment."""
        home = Path(environment.get("STORECAST_HOME") or "storecast-home").absolute()
        return cls(home, environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}")
