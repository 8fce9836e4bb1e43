"""Train five kinds of models on red wine, print their scores, and save the best three.

Run ``python -m examples.wine.train`` (with ``--data winequality-red.csv`` for real wines) and you will see::

    1600 wines, 218 of them good; 320 are held out for the scores
    [1/5] decision-tree        ... s
    [2/5] random-forest        ... s
    [3/5] adaboost             ... s
    [4/5] gradient-boosting    ... s
    [5/5] xgboost              ... s
    ...

and then a table of scores and where the best three are saved: ``wine-models``, or what ``--out`` says.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import AdaBoostClassifier, GradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

from examples.wine.data import Wines, load_wines, sample_wines

__all__ = ["METHODS", "Trained", "main", "save_best", "score_table", "split", "train"]

#: Each method, made for a seed and a number of trees. One thread each: serving makes the processes.
METHODS: dict[str, Callable[[int, int], Any]] = {
    "decision-tree": lambda seed, trees: DecisionTreeClassifier(random_state=seed),
    "random-forest": lambda seed, trees: RandomForestClassifier(trees, random_state=seed, n_jobs=1),
    "adaboost": lambda seed, trees: AdaBoostClassifier(n_estimators=trees, random_state=seed),
    "gradient-boosting": lambda seed, trees: GradientBoostingClassifier(
        n_estimators=trees, random_state=seed
    ),
    "xgboost": lambda seed, trees: XGBClassifier(n_estimators=trees, random_state=seed, n_jobs=1),
}


@dataclass(frozen=True)
class Trained:
    """A model and how it did on the wines it had not seen."""

    name: str
    model: Any
    scores: dict[str, float]


def split(wines: Wines, seed: int) -> tuple[Wines, Wines]:
    """Hold a fifth of the wines out, with the same share of good ones."""
    train_x, test_x, train_y, test_y = train_test_split(
        wines.measurements, wines.quality, test_size=0.2, random_state=seed, stratify=wines.good
    )
    return Wines(train_x, train_y), Wines(test_x, test_y)


def train(learn: Wines, held_out: Wines, *, seed: int = 7, trees: int = 100) -> list[Trained]:
    """Train every method, showing the progress; the best comes first."""
    trained = []
    for number, (name, make) in enumerate(METHODS.items(), start=1):
        print(f"[{number}/{len(METHODS)}] {name:20}", end=" ", flush=True)
        started = time.perf_counter()
        model = make(seed, trees).fit(learn.measurements, learn.good)
        print(f"{time.perf_counter() - started:.1f} s", flush=True)
        trained.append(Trained(name, model, _scores(model, held_out)))
    return sorted(trained, key=lambda one: (one.scores["F1"], one.scores["ROC AUC"]), reverse=True)


def _scores(model: Any, wines: Wines) -> dict[str, float]:
    answers = model.predict(wines.measurements)
    return {
        "accuracy": float(accuracy_score(wines.good, answers)),
        "precision": float(precision_score(wines.good, answers, zero_division=0)),
        "recall": float(recall_score(wines.good, answers)),
        "F1": float(f1_score(wines.good, answers)),
        "ROC AUC": float(roc_auc_score(wines.good, model.predict_proba(wines.measurements)[:, 1])),
    }


def score_table(trained: list[Trained], num_saved: int = 3) -> Table:
    """Write the scores as a table, with a mark at the models that are saved."""
    table = Table(title="Scores on the wines held out, best F1 first")
    table.add_column("method")
    for score in trained[0].scores:
        table.add_column(score, justify="right")
    table.add_column("saved")
    for rank, one in enumerate(trained):
        table.add_row(
            one.name, *(f"{value:.3f}" for value in one.scores.values()), "yes" if rank < num_saved else ""
        )
    return table


def save_best(trained: list[Trained], out: Path, num_saved: int = 3) -> list[Path]:
    """Save the first models with joblib, and list them in ``models.json``, which servers read."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{one.name}.joblib" for one in trained[:num_saved]]
    for one, path in zip(trained, paths, strict=False):
        joblib.dump(one.model, path)
    listing = [
        {"name": one.name, "file": path.name, **one.scores} for one, path in zip(trained, paths, strict=False)
    ]
    (out / "models.json").write_text(json.dumps(listing, indent=2) + "\n")
    return paths


def main() -> None:
    """Train, print and save, as the command line says."""
    parser = argparse.ArgumentParser(
        description="Train models that tell good red wines, and save the best three."
    )
    parser.add_argument("--data", type=Path, help="CSV of wines (default: a made-up sample)")
    parser.add_argument("--out", type=Path, default=Path("wine-models"), help="folder for the models")
    parser.add_argument("--seed", type=int, default=7, help="of the sample, the split and the models")
    parser.add_argument("--trees", type=int, default=100, help="trees in each ensemble")
    args = parser.parse_args()
    try:
        wines = load_wines(args.data) if args.data else sample_wines(seed=args.seed)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    learn, held_out = split(wines, args.seed)
    print(
        f"{len(wines.good)} wines, {wines.good.sum()} of them good; {len(held_out.good)} are held out for the scores"
    )
    trained = train(learn, held_out, seed=args.seed, trees=args.trees)
    Console().print(score_table(trained))
    for path in save_best(trained, args.out):
        print("saved", path)


if __name__ == "__main__":
    main()
