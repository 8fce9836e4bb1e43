"""Red wine: training, models on routes of their own, consensus, and the demonstration's parts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import httpx
import joblib
import numpy as np
import pytest

from examples import demo
from examples.wine import consensus, routes
from examples.wine.data import COLUMNS, features, load_wines, sample_wines
from examples.wine.train import METHODS
from tests.examples.conftest import RunApp


def test_the_sample_is_the_same_for_the_same_seed_and_has_its_share_of_good_wines() -> None:
    wines, again, other = sample_wines(seed=3), sample_wines(seed=3), sample_wines(seed=4)

    assert np.array_equal(wines.measurements, again.measurements)
    assert not np.array_equal(wines.measurements, other.measurements)
    assert 0.13 < wines.good.mean() < 0.14
    assert {3, 4, 5, 6, 7, 8} == set(wines.quality.tolist())


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_csv_is_read_as_it_was_written(delimiter: str, tmp_path: Path) -> None:
    wines = sample_wines(count=50)
    path = tmp_path / "wines.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow([*COLUMNS, "quality"])
        writer.writerows(
            [*row, quality] for row, quality in zip(wines.measurements, wines.quality, strict=True)
        )

    read = load_wines(path)

    assert np.array_equal(wines.measurements, read.measurements)
    assert np.array_equal(wines.quality, read.quality)


@pytest.mark.parametrize(
    "text, named",
    [
        ("", "lacks the columns fixed acidity"),
        ("alcohol,quality\n9,5\n", "lacks the columns fixed acidity"),
        (",".join([*COLUMNS, "quality"]) + "\n" + "1," * 11 + "\n", "line 2 of"),
        (",".join([*COLUMNS, "quality"]) + "\n1,2\n", "line 2 of"),
    ],
)
def test_a_csv_that_cannot_be_used_is_named(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "wines.csv"
    path.write_text(text)

    with pytest.raises(ValueError, match=named):
        load_wines(path)


def test_training_saves_the_best_three_and_their_scores(wine_models: Path) -> None:
    listing = json.loads((wine_models / "models.json").read_text())

    assert 3 == len(listing)
    assert {entry["name"] for entry in listing} <= set(METHODS)
    assert sorted((entry["F1"] for entry in listing), reverse=True) == [entry["F1"] for entry in listing]
    assert all((wine_models / entry["file"]).exists() for entry in listing)


def test_missing_models_are_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="python -m examples"):
        routes.saved_models(tmp_path)


def test_each_model_answers_1_or_0_on_its_own_route(
    wine_models: Path, run_app: RunApp, client: httpx.Client
) -> None:
    wines = sample_wines(count=20, seed=11)

    for name, path in routes.saved_models(wine_models).items():
        handle = run_app(routes.build({"model": str(path)}), name=name, route_prefix=f"/{name}")

        expected = [str(int(answer)) for answer in joblib.load(path).predict(wines.measurements)]
        bodies = [wines.as_json(row) for row in range(20)]
        assert expected == [client.post(f"/{name}", json=body).text for body in bodies]
        assert expected[0] == handle.predict.remote(bodies[0]).result(timeout_s=10)

    assert set(routes.saved_models(wine_models)) == set(client.get("/-/routes").json().values())


@pytest.mark.parametrize(
    "body, named",
    [
        ({"alcohol": 12}, "measurements missing: fixed acidity"),
        (dict.fromkeys(COLUMNS, "much"), "not a number: fixed acidity"),
    ],
)
def test_a_wine_that_lacks_measurements_is_refused_with_400(
    body: dict[str, object], named: str, wine_models: Path, run_app: RunApp, client: httpx.Client
) -> None:
    path = next(iter(routes.saved_models(wine_models).values()))
    handle = run_app(routes.build({"model": str(path)}))

    answer = client.post("/", json=body)

    assert 400 == answer.status_code
    assert answer.text.startswith(named)
    with pytest.raises(ValueError, match=named):
        handle.predict.remote(body).result(timeout_s=10)


def test_consensus_answers_with_the_methods_that_agreed(
    wine_models: Path, run_app: RunApp, client: httpx.Client
) -> None:
    models = {name: joblib.load(path) for name, path in routes.saved_models(wine_models).items()}
    handle = run_app(consensus.build({"models": str(wine_models)}))
    wines = sample_wines(count=40, seed=12)

    for row in range(40):
        wine = wines.as_json(row)
        votes = {name: str(int(model.predict([features(wine)])[0])) for name, model in models.items()}
        answer = client.post("/", json=wine).json()
        assert list(votes.values()).count(answer["answer"]) >= 2
        assert [name for name in votes if votes[name] == answer["answer"]] == answer["agreed"]
        assert [name for name in votes if votes[name] != answer["answer"]] == answer["disagreed"]
        assert answer == handle.vote.remote(wine).result(timeout_s=10)
    assert 400 == client.post("/", json={"alcohol": 12}).status_code


def test_consensus_needs_an_odd_number_of_members() -> None:
    with pytest.raises(ValueError, match="odd number"):
        consensus.Consensus.func_or_class({})


def test_the_demo_computes_the_majority_by_itself(wine_models: Path) -> None:
    wines = sample_wines(count=30, seed=13)
    models = [joblib.load(path) for path in routes.saved_models(wine_models).values()]

    expected = demo.consensus_of_files(wine_models, wines)

    for row, answer in enumerate(expected):
        votes = [str(int(model.predict(wines.measurements[row : row + 1])[0])) for model in models]
        assert votes.count(answer) >= 2


def test_the_demo_shows_good_wines_and_others() -> None:
    wines = sample_wines(count=200)

    rows = demo.choose_rows(wines)

    assert [1, 1, 1, 1, 0, 0, 0, 0] == wines.good[rows].tolist()
