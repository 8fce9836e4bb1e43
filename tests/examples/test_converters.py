"""The temperature converters."""

from __future__ import annotations

import httpx
import pytest

from examples import converter, converter_fastapi, converter_methods, converter_replicas
from tests.examples.conftest import RunApp


def test_converter_answers_query_parameters_with_json(run_app: RunApp, client: httpx.Client) -> None:
    run_app(converter.app)

    answer = client.get("/", params={"celsius": -40})

    assert 200 == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert {"celsius": -40.0, "fahrenheit": -40.0} == answer.json()


def test_converter_answers_500_to_what_is_no_number_and_goes_on(
    run_app: RunApp, client: httpx.Client
) -> None:
    run_app(converter.app)

    assert 500 == client.get("/", params={"celsius": "warm"}).status_code
    assert 32.0 == client.get("/").json()["fahrenheit"]


def test_methods_of_a_deployment_are_called_through_its_handle(run_app: RunApp, client: httpx.Client) -> None:
    handle = run_app(converter_methods.app)

    assert {"fahrenheit": 212.0} == client.get("/", params={"celsius": 100}).json()
    assert 212.0 == handle.to_fahrenheit.remote(100).result(timeout_s=10)
    assert 100.0 == handle.to_celsius.remote(fahrenheit=212).result(timeout_s=10)
    assert [(0, 32.0), (100, 212.0)] == handle.table.remote([0, 100]).result(timeout_s=10)


def test_an_error_in_a_method_reaches_the_caller_as_its_own_type(run_app: RunApp) -> None:
    handle = run_app(converter_methods.app)

    with pytest.raises(TypeError):
        handle.to_fahrenheit.remote("warm").result(timeout_s=10)


def test_three_replicas_answer_and_show_their_ids(run_app: RunApp, client: httpx.Client) -> None:
    handle = run_app(converter_replicas.app)

    answers = [client.get("/", params={"celsius": celsius}).json() for celsius in range(100)]
    calls = [handle.convert.remote(celsius) for celsius in range(100)]
    results = [call.result(timeout_s=10) for call in calls]

    assert [celsius * 9 / 5 + 32 for celsius in range(100)] == [answer["fahrenheit"] for answer in answers]
    replicas = {answer["replica"] for answer in answers}
    assert 3 == len(replicas)
    assert replicas == {result["replica"] for result in results}


def test_fastapi_routes_convert_in_both_directions(run_app: RunApp, client: httpx.Client) -> None:
    handle = run_app(converter_fastapi.app)

    assert {"fahrenheit": 212.0} == client.get("/cf", params={"temp": 100}).json()
    assert {"celsius": 100.0} == client.get("/fc", params={"temp": 212}).json()
    assert 212.0 == handle.celsius_to_fahrenheit.remote(100).result(timeout_s=10)["fahrenheit"]


def test_fastapi_checks_arguments_and_has_a_documentation_page(run_app: RunApp, client: httpx.Client) -> None:
    run_app(converter_fastapi.app, name="converter", route_prefix="/temperature")

    wrong = client.get("/temperature/cf", params={"temp": "warm"})
    missing = client.get("/temperature/cf")
    page = client.get("/temperature/docs")
    schema = client.get("/temperature/openapi.json").json()

    assert 422 == wrong.status_code == missing.status_code
    assert ["query", "temp"] == wrong.json()["detail"][0]["loc"]
    assert 200 == page.status_code
    assert {"/cf", "/fc"} == set(schema["paths"])
