"""The model of the batching scenario: a random forest on scikit-learn's wine data, the same for every system."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier

__all__ = ["MAX_BATCH_SIZE", "WAIT_S", "predict", "train"]

#: The settings of everybody's batching.
MAX_BATCH_SIZE = 64
WAIT_S = 0.01


def train() -> RandomForestClassifier:
    """Return the trained model: 100 trees, seeded, so that every process has the same."""
    features, targets = load_wine(return_X_y=True)
    return RandomForestClassifier(n_estimators=100, random_state=0).fit(features, targets)


def predict(model: RandomForestClassifier, rows: list[list[float]]) -> list[Any]:
    """Return the class of each row."""
    classes: list[Any] = model.predict(np.asarray(rows)).tolist()
    return classes
