"""The wines: eleven measurements of each and a quality from 0 to 10, read from a CSV or made up.

The made-up sample has the columns, the ranges and the share of good wines of the public data set
(P. Cortez and others, 2009, UCI Machine Learning Repository), so everything runs without a download.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["COLUMNS", "GOOD_QUALITY", "Wines", "features", "load_wines", "sample_wines"]

#: Each measurement with its mean, standard deviation, smallest and largest value in the public data.
COLUMNS: dict[str, tuple[float, float, float, float]] = {
    "fixed acidity": (8.32, 1.74, 4.6, 15.9),
    "volatile acidity": (0.528, 0.179, 0.12, 1.58),
    "citric acid": (0.271, 0.195, 0.0, 1.0),
    "residual sugar": (2.54, 1.41, 0.9, 15.5),
    "chlorides": (0.0875, 0.0471, 0.012, 0.611),
    "free sulfur dioxide": (15.9, 10.5, 1.0, 72.0),
    "total sulfur dioxide": (46.5, 32.9, 6.0, 289.0),
    "density": (0.9967, 0.0019, 0.9901, 1.0037),
    "pH": (3.31, 0.154, 2.74, 4.01),
    "sulphates": (0.658, 0.170, 0.33, 2.0),
    "alcohol": (10.42, 1.07, 8.4, 14.9),
}

#: A wine of this quality or more is a good one.
GOOD_QUALITY = 7

#: How much a standard deviation of each measurement matters to the people who taste the sample.
_TASTE = {
    "alcohol": 1.0,
    "volatile acidity": -0.7,
    "sulphates": 0.6,
    "citric acid": 0.3,
    "total sulfur dioxide": -0.3,
}

#: Share of the wines below quality 4, 5, 6, 7 and 8.
_SHARE_BELOW = (0.006, 0.039, 0.465, 0.864, 0.989)


@dataclass(frozen=True)
class Wines:
    """Measurements, one row a wine in the order of `COLUMNS`, and the qualities."""

    measurements: npt.NDArray[np.float64]
    quality: npt.NDArray[np.int64]

    @property
    def good(self) -> npt.NDArray[np.int64]:
        """1 for a good wine, 0 for another: what the models learn."""
        return (self.quality >= GOOD_QUALITY).astype(np.int64)

    def as_json(self, row: int) -> dict[str, float]:
        """Return one wine's measurements as a client sends them."""
        return dict(zip(COLUMNS, self.measurements[row].tolist(), strict=True))


def features(wine: Mapping[str, Any]) -> list[float]:
    """Put one wine's measurements in order; a ValueError names what is missing or no number."""
    missing = [name for name in COLUMNS if name not in wine]
    if missing:
        raise ValueError(f"measurements missing: {', '.join(missing)}")
    wrong = [
        name for name in COLUMNS if isinstance(wine[name], bool) or not isinstance(wine[name], int | float)
    ]
    if wrong:
        raise ValueError(f"not a number: {', '.join(wrong)}")
    return [float(wine[name]) for name in COLUMNS]


def load_wines(path: Path) -> Wines:
    """Read a CSV with the columns above and ``quality``, separated by commas or semicolons."""
    with path.open(newline="") as file:
        header = file.readline()
        file.seek(0)
        rows = list(csv.DictReader(file, delimiter=";" if ";" in header else ","))
    missing = [name for name in [*COLUMNS, "quality"] if not rows or name not in rows[0]]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}, or has no rows")
    table = []
    for line, row in enumerate(rows, start=2):
        try:
            table.append([float(row[name]) for name in (*COLUMNS, "quality")])
        except (TypeError, ValueError) as error:  # a short line has None in it
            raise ValueError(f"line {line} of {path} holds something that is no number: {row}") from error
    numbers = np.array(table)
    return Wines(measurements=numbers[:, :-1], quality=numbers[:, -1].round().astype(np.int64))


def sample_wines(count: int = 1600, seed: int = 7) -> Wines:
    """Make up `count` wines; the same seed gives the same wines."""
    random = np.random.default_rng(seed)
    scaled = random.standard_normal((count, len(COLUMNS)))
    mean, deviation, smallest, largest = np.array(list(COLUMNS.values())).T
    measurements = np.clip(mean + deviation * scaled, smallest, largest).round(4)
    liking = 0.35 * random.standard_normal(count)
    for name, weight in _TASTE.items():
        liking += weight * scaled[:, list(COLUMNS).index(name)]
    quality = 3 + np.searchsorted(np.quantile(liking, _SHARE_BELOW), liking, side="right")
    return Wines(measurements=measurements, quality=quality.astype(np.int64))
