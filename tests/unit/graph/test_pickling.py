"""What travels by name and what by value, and how a failure is told."""

from __future__ import annotations

import importlib.util
import pickletools
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cloudpickle
import pytest
from fastapi import FastAPI

from trygon.errors import SerializationError
from trygon.graph.asgi import ingress
from trygon.graph.deployment import Deployment, deployment
from trygon.graph.importable import is_importable
from trygon.graph.pickling import dumps_definition, loads_definition

MODULE = """
from trygon.graph.deployment import deployment
from trygon.graph.asgi import ingress

PAYLOAD = "x" * 10_000

@deployment
class Converter:
    def __init__(self, factor=1):
        self.factor = factor
    def __call__(self, value):
        return (value * self.factor, len(PAYLOAD))

@deployment(name="other")
def function(request):
    return len(PAYLOAD)

class Plain:
    def __call__(self):
        return len(PAYLOAD)

async def asgi(scope, receive, send): ...

Nameless = deployment(ingress(asgi)())
"""


def load_module(path: Path, name: str) -> ModuleType:
    path.write_text(MODULE)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module that any process with the same ``sys.path`` can import."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield load_module(tmp_path / "trygon_open_module.py", "trygon_open_module")
    del sys.modules["trygon_open_module"]


@pytest.fixture
def private(tmp_path: Path) -> Iterator[ModuleType]:
    """A module that only this process has, as test runners and notebooks make them."""
    (tmp_path / "hidden").mkdir()
    yield load_module(tmp_path / "hidden" / "trygon_private_module.py", "trygon_private_module")
    sys.modules.pop("trygon_private_module", None)


def in_a_fresh_process(definition: bytes, expression: str, path: str = "") -> str:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]) if sys.argv[1] else None\n"
        "from trygon.graph.pickling import loads_definition\n"
        "target, args, kwargs = loads_definition(sys.stdin.buffer.read())\n"
        f"print({expression})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], input=definition, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def texts(definition: bytes) -> set[object]:
    return {argument for _, argument, _ in pickletools.genops(definition) if isinstance(argument, str)}


def test_a_class_whose_name_its_deployment_took_travels_by_name(importable: ModuleType) -> None:
    definition = dumps_definition(importable.Converter.func_or_class, (2,), {})

    assert len(definition) < 300
    assert {"trygon_open_module", "Converter"} <= texts(definition)
    assert importable.Converter.func_or_class is loads_definition(definition)[0]
    assert "(6, 10000)" == in_a_fresh_process(
        definition, "target(*args)(3)", str(Path(str(importable.__file__)).parent)
    )


@pytest.mark.parametrize("name", ["function", "Plain", "Nameless"])
def test_functions_and_plain_classes_of_a_module_travel_by_name(importable: ModuleType, name: str) -> None:
    held = getattr(importable, name)
    target = held.func_or_class if isinstance(held, Deployment) else held

    definition = dumps_definition(target)

    assert len(definition) < 300
    assert target is loads_definition(definition)[0]


def test_what_a_fresh_process_could_not_import_travels_by_value(private: ModuleType) -> None:
    target = private.Converter.func_or_class

    definition = dumps_definition(target, (2,), {})

    assert "(6, 10000)" == in_a_fresh_process(definition, "target(*args)(3)")


def test_instances_of_private_classes_travel_by_value_among_the_arguments(private: ModuleType) -> None:
    definition = dumps_definition(len, (private.Plain(),), {})

    assert "10000" == in_a_fresh_process(definition, "args[0]()")


def test_the_registry_of_cloudpickle_is_left_as_it_was(private: ModuleType) -> None:
    before = cloudpickle.list_registry_pickle_by_value()

    dumps_definition(private.Converter.func_or_class)

    assert before == cloudpickle.list_registry_pickle_by_value()


def test_a_local_class_travels_by_value() -> None:
    factor = 3

    class Local:
        def __call__(self, value: int) -> int:
            return value * factor

    assert "12" == in_a_fresh_process(dumps_definition(Local), "target()(4)")


def test_a_local_class_of_an_argument_is_the_class_of_the_definition() -> None:
    class Local:
        def __init__(self, other: object = None) -> None:
            self.same = isinstance(other, Local)

    assert "True" == in_a_fresh_process(dumps_definition(Local, (Local(),)), "target(*args).same")


def test_modules_of_this_process_are_judged_as_a_fresh_one_would(
    importable: ModuleType, private: ModuleType
) -> None:
    made_up = ModuleType("trygon_made_up")

    assert [True, False, False, True, True, False] == [
        is_importable(module)
        for module in (importable, private, made_up, sys, importlib.util, sys.modules["__main__"])
    ]


def test_a_module_that_another_file_shadows_is_not_importable(
    importable: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "trygon_open_module.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "first"))

    assert not is_importable(importable)


lock = threading.Lock()


def uses_a_global() -> object:
    return lock


def failing_class() -> type:
    class Failing:
        #: Held by the class itself.
        shared = threading.Lock()

    return Failing


def failing_closure() -> object:
    held = threading.Lock()

    def function(request: object) -> object:
        return held

    return function


def failing_global() -> object:
    def function(request: object) -> object:
        return lock

    return function


@pytest.mark.parametrize(
    "target, args, kwargs, place",
    [
        (len, (1, lock), {}, "argument 1 (of type _thread.lock)"),
        (len, (), {"db": {"x": [lock]}}, "argument 'db'['x'][0] (of type _thread.lock)"),
        (failing_class(), (), {}, "Failing.shared (of type _thread.lock)"),
        (failing_closure(), (), {}, "the variable 'held' around it (of type _thread.lock)"),
        (failing_global(), (), {}, "the global 'lock' it uses (of type _thread.lock)"),
    ],
    ids=["argument", "nested argument", "class attribute", "closure", "global"],
)
def test_what_cannot_be_pickled_is_named_with_the_remedy(target, args, kwargs, place: str) -> None:
    with pytest.raises(SerializationError) as caught:
        dumps_definition(target, args, kwargs, name="mine")

    assert "the deployment 'mine' cannot be sent to its replicas: " in str(caught.value)
    assert place in str(caught.value)
    assert "cannot pickle '_thread.lock' object" in str(caught.value)
    assert "in the constructor" in str(caught.value)
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_web_application_that_cannot_be_pickled_is_named() -> None:
    app = FastAPI()
    app.state.lock = lock

    with pytest.raises(
        SerializationError, match=r"the app given to serve.ingress cannot be pickled .* that builds"
    ):
        dumps_definition(ingress(app)(failing_free()), name="mine")


def failing_free() -> type:
    return type("Local", (), {"__qualname__": "made.<locals>.Local"})


def test_an_error_of_the_user_s_own_reducer_is_told() -> None:
    class Stubborn:
        def __reduce__(self) -> str:
            raise ValueError("never")

    with pytest.raises(SerializationError, match=r"argument 0 \(of type .*Stubborn\).*ValueError: never"):
        dumps_definition(len, (Stubborn(),), name="mine")


def test_pickling_runs_nothing_of_the_definition_in_the_caller() -> None:
    class Loud:
        def __setstate__(self, state: object) -> None:
            raise AssertionError("loaded in the caller")

        def __getstate__(self) -> dict[str, int]:
            return {"a": 1}

    assert dumps_definition(len, (Loud(),))


def test_a_deployment_among_globals_travels_too() -> None:
    made = deployment(failing_free())

    def function() -> str:
        return made.name

    assert "Local" == in_a_fresh_process(dumps_definition(function), "target()")


def test_a_replica_that_misses_a_module_says_what_it_needs(importable: ModuleType) -> None:
    definition = dumps_definition(importable.Plain)
    held = sys.modules.pop("trygon_open_module")
    sys.path.pop(0)

    with pytest.raises(ModuleNotFoundError) as caught:
        loads_definition(definition)

    sys.modules["trygon_open_module"] = held
    assert "--app-dir" in caught.value.__notes__[0]
