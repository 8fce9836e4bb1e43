"""Deployments that call each other: hello, canary, ensemble, pipeline, resilient model."""

from __future__ import annotations

from collections import Counter

import httpx
import pytest

from examples import canary, ensemble, hello, pipeline, resilient
from tests.examples.conftest import RunApp
from trygon import serve


def test_hello_greets_over_http_and_through_the_handle(run_app: RunApp, client: httpx.Client) -> None:
    handle = run_app(hello.app)

    assert "Hello, World!" == client.get("/").text
    assert "Bonjour, Ada!" == client.get("/", params={"language": "fr", "name": " ada"}).text
    assert "Hallo, Ada!" == handle.greet.remote("nl", "ada").result(timeout_s=10)


def test_a_composed_deployment_has_a_handle_of_its_own(run_app: RunApp) -> None:
    run_app(hello.app)

    greeting = serve.get_deployment_handle("Greeting", app_name="default")

    assert "Hello" == greeting.word.remote("xx").result(timeout_s=10)


@pytest.mark.parametrize("share", [0.0, 0.8, 1.0])
def test_canary_sends_the_given_share_to_version_one(
    share: float, run_app: RunApp, client: httpx.Client
) -> None:
    handle = run_app(canary.build({"share": str(share), "seed": "1"}))

    answers = [client.post("/", content="to be or not to be").json() for _ in range(150)]
    calls = [handle.predict.remote("to be or not to be") for _ in range(150)]
    answers += [call.result(timeout_s=10) for call in calls]

    counts = Counter(answer["version"] for answer in answers)
    assert share * 300 == pytest.approx(counts["one"], abs=0 if share in {0.0, 1.0} else 30)
    assert {6} >= {answer["words"] for answer in answers if answer["version"] == "one"}
    assert {4} >= {answer["words"] for answer in answers if answer["version"] == "two"}


def test_canary_refuses_a_share_that_is_none(run_app: RunApp) -> None:
    with pytest.raises(RuntimeError, match="share must be between 0 and 1"):
        run_app(canary.build({"share": "1.5"}))


def test_ensemble_weighs_its_members(run_app: RunApp, client: httpx.Client) -> None:
    handle = run_app(ensemble.app)
    expected = {"forecast": 75.5, "used": ["mean", "last", "growth"], "failed": {}}

    assert expected == client.post("/", json=[2, 8, 32]).json()
    assert expected == handle.forecast.remote([2, 8, 32]).result(timeout_s=10)


def test_ensemble_survives_a_failing_member_and_names_it(run_app: RunApp, client: httpx.Client) -> None:
    run_app(ensemble.app)

    answer = client.post("/", json=[0, 4, 8]).json()

    assert 6.0 == answer["forecast"]
    assert ["mean", "last"] == answer["used"]
    assert {"growth": "ValueError: a value is not above zero"} == answer["failed"]


def test_ensemble_whose_members_all_fail_answers_500(run_app: RunApp, client: httpx.Client) -> None:
    run_app(ensemble.app)

    assert 500 == client.post("/", json=[]).status_code


@pytest.mark.parametrize(
    "text, label, confidence",
    [
        ("Good food, lovely people!", "positive", 0.953),
        ("It was bad.", "negative", 0.818),
        ("", "neutral", 0.5),
    ],
)
def test_pipeline_labels_text(
    text: str, label: str, confidence: float, run_app: RunApp, client: httpx.Client
) -> None:
    handle = run_app(pipeline.app)
    expected = {"label": label, "confidence": confidence}

    assert expected == client.post("/", content=text).json()
    assert expected == handle.classify.remote(text).result(timeout_s=10)


def test_pipeline_error_in_the_first_stage_reaches_the_caller(run_app: RunApp) -> None:
    handle = run_app(pipeline.app)

    with pytest.raises(AttributeError, match="lower"):
        handle.classify.remote(7).result(timeout_s=10)


@pytest.mark.parametrize(
    "refusals, model, tries, price",
    [(0, "trained", 1, 195.0), (2, "trained", 3, 195.0), (99, "fallback", 4, 150.0)],
)
def test_resilient_model_loads_late_or_falls_back(
    refusals: int, model: str, tries: int, price: float, run_app: RunApp, client: httpx.Client
) -> None:
    handle = run_app(resilient.build({"refusals": str(refusals)}))
    expected = {"model": model, "tries": tries, "price": price}

    assert expected == client.get("/", params={"rooms": 3, "size": 70}).json()
    assert expected == handle.price.remote(3, 70).result(timeout_s=10)


def test_resilient_model_that_cannot_answer_falls_back(run_app: RunApp, client: httpx.Client) -> None:
    run_app(resilient.app)

    answer = client.get("/", params={"rooms": 3}).json()

    assert {"model": "fallback", "tries": 3, "price": 150.0} == answer
