"""FastAPI behind serve.ingress, complete, and applications of other frameworks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.integration.serve.conftest import RunApp
from tests.integration.serve.fastapi_apps import (
    AsyncShop,
    Bare,
    BrokenStart,
    Built,
    Ending,
    Inheriting,
    Shop,
)
from tests.integration.serve.graph_apps import Child
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.exceptions import DeployError
from trygon.serve.handle import DeploymentHandle

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(scope="module", params=["/shop", "/"])
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shop(url: str, prefix: str) -> Iterator[DeploymentHandle]:
    yield serve.run(Shop.bind("item-", Child.bind("kid")), name="shop", route_prefix=prefix)
    serve.delete("shop")


@pytest.fixture
def at_shop(shop: DeploymentHandle, url: str, prefix: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url + prefix.rstrip("/"), timeout=20) as client:
        yield client


def test_path_and_query_parameters(at_shop: httpx.Client) -> None:
    assert {"item": "item-5", "limit": 10, "q": None} == at_shop.get("/items/5").json()
    assert {"item": "item-5", "limit": 7, "q": "x"} == at_shop.get("/items/5?limit=7&q=x").json()
    assert {"limit": 3} == at_shop.get("/plain-function?limit=3").json()


def test_validation_errors_are_422_and_name_the_field(at_shop: httpx.Client) -> None:
    for path, where in (("/items/five", ["path", "item_id"]), ("/items/5?limit=0", ["query", "limit"])):
        answer = at_shop.get(path)
        assert 422 == answer.status_code
        assert where == answer.json()["detail"][0]["loc"]
    answer = at_shop.post("/items", json={"name": "x", "price": -1})
    assert (422, ["body", "price"]) == (answer.status_code, answer.json()["detail"][0]["loc"])


def test_bodies_and_response_models(at_shop: httpx.Client) -> None:
    answer = at_shop.post("/items", json={"name": "w", "price": 2, "tags": ["a"]})

    assert (201, "w") == (answer.status_code, answer.headers["x-made"])
    assert {"name": "w", "price": 2.0, "tags": ["a"]} == answer.json()


def test_dependencies_headers_and_cookies(at_shop: httpx.Client) -> None:
    assert (401, {"detail": "who are you?"}) == (at_shop.get("/me").status_code, at_shop.get("/me").json())
    answer = at_shop.get("/me", headers={"X-User": "ada", "Cookie": "sid=s1"})
    assert {"name": "ada", "sid": "s1"} == answer.json()
    assert ["open"] == at_shop.get("/yields").json()


def test_lifespan_state_and_root_path(at_shop: httpx.Client, prefix: str) -> None:
    root = prefix.rstrip("/")

    assert {"model": "loaded at startup", "root": root, "path": f"{root}/state"} == at_shop.get(
        "/state"
    ).json()


def test_exception_handlers_and_http_exceptions(at_shop: httpx.Client, prefix: str) -> None:
    gone = at_shop.get("/sold")
    tea = at_shop.get("/teapot")
    failed = at_shop.get("/fails")

    assert (410, f"sold out: wine at {prefix.rstrip('/')}/sold") == (gone.status_code, gone.text)
    assert (418, {"detail": {"short": "stout"}}, "green") == (
        tea.status_code,
        tea.json(),
        tea.headers["x-tea"],
    )
    assert (500, "Internal Server Error") == (failed.status_code, failed.text)


def test_middleware_routers_and_mounted_apps(at_shop: httpx.Client, prefix: str) -> None:
    root = prefix.rstrip("/")
    answer = at_shop.get("/sub/thing/4")

    assert ({"thing": 4}, f"{root}/sub/thing/4") == (answer.json(), answer.headers["x-stamp"])
    assert {"root": f"{root}/mounted", "url": f"{root}/mounted/inside"} == at_shop.get(
        "/mounted/inside"
    ).json()
    assert 404 == at_shop.get("/nothing").status_code
    assert 405 == at_shop.delete("/items/5").status_code


def test_openapi_and_docs_page_know_the_prefix(at_shop: httpx.Client, prefix: str) -> None:
    root = prefix.rstrip("/")
    openapi = at_shop.get("/openapi.json").json()
    docs = at_shop.get("/docs")

    assert "Shop" == openapi["info"]["title"]
    assert {"/items/{item_id}", "/items", "/sub/thing/{number}"} <= set(openapi["paths"])
    parameters = {one["name"] for one in openapi["paths"]["/items/{item_id}"]["get"]["parameters"]}
    assert {"item_id", "limit", "q"} == parameters
    assert root == (openapi.get("servers") or [{"url": ""}])[0]["url"]
    assert f"'{root}/openapi.json'" in docs.text


def test_background_tasks_run(at_shop: httpx.Client, shop: DeploymentHandle) -> None:
    assert "soon" == at_shop.get("/later").json()

    wait_until(lambda: {"async task", "sync task"} <= set(shop.noted.remote().result()), "both tasks")


def test_streams(at_shop: httpx.Client) -> None:
    assert [str(number) for number in range(2000)] == at_shop.get("/stream?count=2000").text.split()


def test_large_uploads(at_shop: httpx.Client) -> None:
    assert 5_000_000 == at_shop.post("/size", content=b"x" * 5_000_000).json()


def test_children_are_called_from_async_and_sync_routes(at_shop: httpx.Client) -> None:
    assert ["kid", "async"] == at_shop.get("/child").json()
    assert ["kid", "sync"] == at_shop.get("/child-sync").json()
    failed = at_shop.get("/child-fails")
    assert 422 == failed.status_code
    assert "ValueError" in failed.json()["detail"]


def test_sync_routes_know_their_request(at_shop: httpx.Client, prefix: str) -> None:
    found = at_shop.get("/context", headers={"X-Request-ID": "mine"}).json()

    assert {"id": "mine", "route": prefix, "app": "shop"} == found


def test_methods_stay_callable_by_handle(shop: DeploymentHandle) -> None:
    assert isinstance(shop.noted.remote().result(), list)


def test_a_gone_client_cancels_a_route(at_shop: httpx.Client, shop: DeploymentHandle) -> None:
    with pytest.raises(httpx.ReadTimeout):
        at_shop.get("/wait?door=gone", timeout=0.2)

    wait_until(lambda: "gone: cancelled" in shop.report.remote().result()["done"], "the CancelledError")


def test_requests_run_at_once(at_shop: httpx.Client, shop: DeploymentHandle) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(at_shop.get, "/wait?door=many") for _ in range(8)]
        wait_until(lambda: shop.count.remote("many").result() == 8, "eight requests at once")
        shop.open.remote("many").result()
        assert ["many"] * 8 == [answer.result().json() for answer in answers]


# ---- other applications


def test_routes_of_base_classes(run_app: RunApp, client: httpx.Client) -> None:
    run_app(Inheriting.bind(), name="base", route_prefix="/base")

    assert "own" == client.get("/base/own").json()
    assert client.get("/base/inherited").json().startswith("Inheriting")


def test_async_constructors(run_app: RunApp) -> None:
    assert "hello" == run_app(AsyncShop.bind("hello"), name="a", route_prefix="/a").say.remote().result()


def test_a_bare_asgi_application(run_app: RunApp, client: httpx.Client) -> None:
    run_app(Bare.bind(), name="bare", route_prefix="/bare")

    answer = client.post("/bare/x", content=b"body")

    assert (202, "bare", "/bare/x body") == (answer.status_code, answer.headers["x-kind"], answer.text)


def test_an_application_factory_finds_handles(run_app: RunApp, client: httpx.Client) -> None:
    run_app(Built.bind(Child.bind("kid")), name="built", route_prefix="/built")

    assert ["kid", "from a factory"] == client.get("/built/built").json()


def test_a_failing_startup_fails_the_deployment(url: str) -> None:
    with pytest.raises(DeployError, match="the database is not there"):
        serve.run(BrokenStart.bind(), name="broken", route_prefix="/broken")
    serve.delete("broken")


def test_startup_runs_before_and_shutdown_after_all_requests(run_app: RunApp, client: httpx.Client) -> None:
    run_app(Ending.bind(), name="ending", route_prefix="/ending")

    assert "started" == client.get("/ending/note").json()
    serve.delete("ending")
