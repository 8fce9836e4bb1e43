"""`serve.ingress`: class-based routes, frozen applications, builders."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from trygon.errors import BackPressureError, DeploymentUnavailableError, ServeError
from trygon.graph.asgi import ASGI_HOOK, asgi_ingress_of, ingress
from trygon.graph.deployment import deployment
from trygon.graph.pickling import dumps_definition, loads_definition


class Item(BaseModel):
    x: int


def build(target: Any, *args: object) -> Any:
    """Return the application of a new instance, as a replica makes it."""
    hook = asgi_ingress_of(target)
    assert hook is not None
    return asyncio.run(hook.build(target(*args)))


def ask(app: Any, path: str, method: str = "GET", **options: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


def test_routes_written_as_methods_run_on_the_instance() -> None:
    app = FastAPI()

    @ingress(app)
    class Model:
        def __init__(self, name: str) -> None:
            self.name = name

        @app.get("/")
        def root(self) -> dict[str, str]:
            return {"me": self.name}

        @app.post("/items/{i}")
        async def items(self, i: int, item: Item, q: str = "d", five: int = Depends(lambda: 5)) -> Item:
            return Item(x=i + item.x + five + len(q))

    built = build(Model, "one")

    assert {"me": "one"} == ask(built, "/").json()
    assert {"x": 10} == ask(built, "/items/2?q=xx", "POST", json={"x": 1}).json()
    assert ["path", "i"] == ask(built, "/items/a", "POST", json={"x": 1}).json()["detail"][0]["loc"]


def test_self_is_no_parameter_of_the_documented_routes() -> None:
    app = FastAPI()

    @ingress(app)
    class Model:
        @app.get("/a/{i}")
        def a(self, i: int) -> int:
            return i

    schema = ask(build(Model), "/openapi.json").json()

    assert ["i"] == [parameter["name"] for parameter in schema["paths"]["/a/{i}"]["get"]["parameters"]]
    assert "swagger" in ask(build(Model), "/docs").text
    assert "/docs" == asgi_ingress_of(Model).docs_path


def test_two_instances_in_one_process_answer_for_themselves() -> None:
    app = FastAPI()

    @ingress(app)
    class Model:
        def __init__(self, name: str) -> None:
            self.name = name

        @app.get("/")
        def root(self) -> str:
            return self.name

    first, second = build(Model, "first"), build(Model, "second")

    assert ["first", "second"] == [ask(first, "/").json(), ask(second, "/").json()]


def test_routes_of_base_classes_decorated_methods_and_static_methods_are_found() -> None:
    app = FastAPI()

    def doubled(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            return 2 * await function(self, *args, **kwargs)

        return wrapper

    class Base:
        size = 3

        @app.get("/base")
        def base(self) -> int:
            return self.size

    @ingress(app)
    class Model(Base):
        size = 4

        @app.get("/doubled")
        @doubled
        async def double(self, q: int) -> int:
            return q + self.size

        @doubled
        @app.get("/inner")
        async def inner(self) -> int:
            return self.size

        @app.get("/static")
        @staticmethod
        def static(q: int) -> int:
            return q

        @classmethod
        @app.get("/class")
        def klass(cls) -> int:
            return cls.size

    built = build(Model)

    assert [4, 14, 4, 5, 4] == [
        ask(built, path).json() for path in ("/base", "/doubled?q=3", "/inner", "/static?q=5", "/class")
    ]


def test_routers_with_their_own_route_class_and_dependencies_keep_them() -> None:
    app, router = FastAPI(), None
    seen: list[int] = []

    class Stamped(APIRoute):
        def get_route_handler(self) -> Callable[..., Any]:
            handler = super().get_route_handler()

            async def stamped(request: Request) -> Any:
                response = await handler(request)
                response.headers["x-stamp"] = "1"
                return response

            return stamped

    router = APIRouter(route_class=Stamped, prefix="/in")

    class Base:
        @router.get("/{i}")
        def get(self, i: int) -> int:
            return i + 1

    app.include_router(router, prefix="/pre", dependencies=[Depends(lambda: seen.append(1))])

    answer = ask(build(ingress(app)(type("Model", (Base,), {}))), "/pre/in/4")

    assert (200, 5, "1", [1]) == (answer.status_code, answer.json(), answer.headers["x-stamp"], seen)


def test_streams_background_tasks_and_requests_work_in_methods() -> None:
    app = FastAPI()
    done: list[str] = []

    @ingress(app)
    class Model:
        @app.get("/path")
        def path(self, request: Request, tasks: BackgroundTasks) -> str:
            tasks.add_task(done.append, "later")
            return request.url.path

    assert "/path" == ask(build(Model), "/path").json()
    assert ["later"] == done


def test_websocket_methods_run_on_the_instance() -> None:
    app = FastAPI()

    @ingress(app)
    class Model:
        word = "hi "

        @app.websocket("/ws")
        async def talk(self, socket: WebSocket, name: str) -> None:
            await socket.accept()
            await socket.send_text(self.word + name)
            await socket.close()

    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/ws",
        "query_string": b"name=you",
        "headers": [],
        "subprotocols": [],
    }
    asyncio.run(build(Model)(scope, receive, send))

    assert ["hi you"] == [message["text"] for message in sent if message["type"] == "websocket.send"]


def test_the_lifespan_gets_the_application_that_answers() -> None:
    seen: list[object] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, int]]:
        seen.append(app)
        yield {"a": 1}
        seen.append("down")

    built = build(ingress(FastAPI(lifespan=lifespan))(type("Model", (), {})))
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(events)

    async def send(message: Any) -> None: ...

    asyncio.run(built({"type": "lifespan", "state": {}}, receive, send))

    assert [built, "down"] == seen


def test_startup_handlers_of_the_old_kind_run_too() -> None:
    app = FastAPI()
    seen: list[str] = []
    app.router.on_startup.append(lambda: seen.append("up"))
    built = build(ingress(app)(type("Model", (), {})))
    app.router.on_startup.append(lambda: seen.append("late"))
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(events)

    async def send(message: Any) -> None: ...

    asyncio.run(built({"type": "lifespan", "state": {}}, receive, send))

    assert ["up"] == seen


def test_what_is_added_after_the_decorator_does_not_show() -> None:
    app = FastAPI()

    @ingress(app)
    class Model:
        @app.get("/early")
        def early(self) -> int:
            return 1

    app.get("/late")(lambda: 2)
    app.add_middleware(lambda inner: PlainTextResponse("all"))
    app.add_exception_handler(404, lambda request, error: PlainTextResponse("mine"))
    app.state.late = True
    built = build(Model)

    assert (1, 404, {"detail": "Not Found"}) == (
        ask(built, "/early").json(),
        ask(built, "/late").status_code,
        ask(built, "/late").json(),
    )
    assert not hasattr(built.state, "late")


def test_the_user_s_application_is_left_as_it_was() -> None:
    app = FastAPI()

    @ingress(app)
    class Model:
        @app.get("/")
        def root(self) -> int:
            return 1

    before = list(app.routes)
    build(Model)

    assert before == list(app.routes)
    assert BackPressureError not in app.exception_handlers


def test_two_classes_can_share_an_application() -> None:
    app = FastAPI()
    app.get("/both")(lambda: "both")

    @ingress(app)
    class First:
        @app.get("/first")
        def first(self) -> str:
            return "first"

    @ingress(app)
    class Second:
        @app.get("/second")
        def second(self) -> str:
            return "second"

    built = build(Second)

    assert [404, 200, 200] == [ask(built, path).status_code for path in ("/first", "/second", "/both")]


def test_handles_may_refuse_inside_a_route() -> None:
    app = FastAPI()

    @ingress(app)
    class Model:
        @app.get("/full")
        def full(self) -> None:
            raise BackPressureError(3, 2, 429, 1.2)

        @app.get("/down")
        async def down(self) -> None:
            raise DeploymentUnavailableError("the deployment 'child' is gone")

    built = build(Model)
    full, down = ask(built, "/full"), ask(built, "/down")

    assert (429, "2") == (full.status_code, full.headers["retry-after"])
    assert (503, {"detail": "the deployment 'child' is gone"}) == (down.status_code, down.json())


def test_a_handler_of_the_user_comes_first() -> None:
    app = FastAPI()

    @app.exception_handler(BackPressureError)
    async def mine(request: Request, error: BackPressureError) -> PlainTextResponse:
        return PlainTextResponse("mine", status_code=418)

    @ingress(app)
    class Model:
        @app.get("/full")
        def full(self) -> None:
            raise BackPressureError(3, 2)

    assert (418, "mine") == (lambda r: (r.status_code, r.text))(ask(build(Model), "/full"))


def test_methods_stay_callable_and_the_class_stays_itself() -> None:
    app = FastAPI()

    class Plain:
        @app.get("/")
        def root(self) -> int:
            return 1

    Routed = ingress(app)(Plain)

    assert 1 == Routed().root()
    assert issubclass(Routed, Plain)
    assert not hasattr(Plain, ASGI_HOOK)
    assert (Plain.__name__, Plain.__qualname__, Plain.__module__) == (
        Routed.__name__,
        Routed.__qualname__,
        Routed.__module__,
    )


def test_an_application_without_a_class_is_a_deployment() -> None:
    app = FastAPI()
    app.get("/")(lambda: "alone")
    made = deployment(ingress(app)())

    assert "ASGIIngressDeployment" == made.name
    assert "alone" == ask(build(made.func_or_class), "/").json()


def test_a_starlette_application_with_mounts_and_middleware_works() -> None:
    class Header:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def stamped(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message["headers"].append((b"x-stamp", b"1"))
                await send(message)

            await self.app(scope, receive, stamped)

    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello " + request.path_params.get("name", ""))

    inner = Starlette(routes=[Route("/{name}", hello)])
    app = Starlette(routes=[Route("/", hello), Mount("/sub", inner)], middleware=[Middleware(Header)])
    built = build(ingress(app)(type("Model", (), {})))

    assert ("hello you", "1") == (lambda r: (r.text, r.headers["x-stamp"]))(ask(built, "/sub/you"))


def test_any_other_asgi_application_is_served_as_it_is() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("raw")(scope, receive, send)

    assert app is build(ingress(app)(type("Model", (), {})))


def test_a_builder_is_called_when_a_replica_starts() -> None:
    calls: list[int] = []

    def make() -> FastAPI:
        calls.append(1)
        app = FastAPI()
        app.get("/")(lambda: "built")
        return app

    Model = ingress(make)(type("Model", (), {}))

    assert [] == calls
    assert "built" == ask(build(Model), "/").json()
    assert [1] == calls


@pytest.mark.parametrize("is_async", [False, True])
def test_a_class_can_build_its_application_after_its_constructor(is_async: bool) -> None:
    class Sync:
        def __init__(self, word: str) -> None:
            self.word = word

        def __serve_build_asgi_app__(self) -> FastAPI:
            app = FastAPI()
            app.get("/")(lambda: self.word)
            return app

    class Async(Sync):
        async def __serve_build_asgi_app__(self) -> FastAPI:  # type: ignore[override]
            return super().__serve_build_asgi_app__()

    assert "late" == ask(build(ingress()(Async if is_async else Sync), "late"), "/").json()


def test_a_builder_that_builds_no_application_is_named() -> None:
    def make() -> int:
        return 3

    with pytest.raises(ServeError, match="make must return an ASGI application, found 3 of type int"):
        build(ingress(make)(type("Model", (), {})))


def with_call() -> type:
    return type("Model", (), {"__call__": lambda self: 1})


@pytest.mark.parametrize(
    "use, text",
    [
        (lambda: ingress(FastAPI())(with_call()), "Model has __call__ and @serve.ingress"),
        (lambda: ingress(FastAPI())(lambda request: 1), "decorates a class, found <function"),
        (lambda: ingress(FastAPI), "found the class FastAPI"),
        (lambda: ingress("app"), "found 'app' of type str"),
        (lambda: ingress(lambda a: a), "with 1 parameters"),
        (lambda: ingress()(type("Model", (), {})), "needs the method __serve_build_asgi_app__ in Model"),
        (lambda: ingress(FastAPI())(ingress(FastAPI())(type("Model", (), {}))), "twice"),
    ],
)
def test_a_wrong_use_of_the_decorator_is_a_value_error(use, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        use()

    assert text in str(caught.value)


def test_a_route_method_without_self_is_refused() -> None:
    app = FastAPI()

    class Model:
        @app.get("/")
        def root() -> int:  # type: ignore[misc]
            return 1

    with pytest.raises(ServeError, match=r"Model.root has no parameters; give it `self` first"):
        ingress(app)(Model)


def test_a_class_with_an_included_router_travels_by_value() -> None:
    app, router = FastAPI(), APIRouter()
    app.state.word = "kept"

    class Model:
        @router.get("/{i}")
        def get(self, i: int) -> int:
            return i + 1

        @app.get("/word")
        def word(self, request: Request) -> str:
            return request.app.state.word  # type: ignore[no-any-return]

    app.include_router(router, prefix="/r")

    target, _, _ = loads_definition(dumps_definition(ingress(app)(Model)))
    built = build(target)

    assert [5, "kept"] == [ask(built, "/r/4").json(), ask(built, "/word").json()]


def test_a_plain_deployment_loads_neither_web_framework_nor_pydantic() -> None:
    program = (
        "import sys\n"
        "from trygon.graph.deployment import deployment\n"
        "from trygon.graph.asgi import ingress\n"
        "import trygon.serve.config, trygon.serve.schema, trygon.serve.exceptions\n"
        "@deployment(num_replicas=2, autoscaling_config=None, logging_config={})\n"
        "class A: ...\n"
        "A.bind(A.bind())\n"
        "print([m for m in ('pydantic', 'fastapi', 'starlette', 'cloudpickle', 'numpy') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )

    assert "[]" == done.stdout.strip()


MAIN_PROGRAM = """
from __future__ import annotations
import asyncio, sys
from typing import Annotated
from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import BaseModel
from trygon.graph.asgi import ingress
from trygon.graph.pickling import dumps_definition

class Item(BaseModel):
    x: int

def path_of(request: Request) -> str:
    return request.url.path

class Page:
    def __init__(self, request: Request, size: int = 2) -> None:
        self.size = size

app, router = FastAPI(), APIRouter()

@router.post("/free")
def free(item: Item, path: Annotated[str, Depends(path_of)]) -> Item:
    return item

app.include_router(router, prefix="/r", dependencies=[Depends(path_of)])

@ingress(app)
class Model:
    @app.post("/own")
    def own(self, item: Item, path: Annotated[str, Depends(path_of)], page: Page = Depends()) -> Item:
        return Item(x=item.x + page.size)

sys.stdout.buffer.write(dumps_definition(Model))
"""


def test_annotations_written_as_text_survive_the_way_to_the_replica() -> None:
    done = subprocess.run([sys.executable, "-c", MAIN_PROGRAM], capture_output=True, timeout=30, check=True)

    target, _, _ = loads_definition(done.stdout)
    built = build(target)

    assert [{"x": 5}, {"x": 3}] == [
        ask(built, path, "POST", json={"x": 3}).json() for path in ("/own", "/r/free")
    ]
