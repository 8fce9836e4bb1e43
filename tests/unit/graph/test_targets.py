"""Import paths and application builders, and one paragraph for each way they fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from trygon.errors import ServeError
from trygon.graph.deployment import Application, deployment
from trygon.graph.targets import TargetError, call_app_builder, import_target, load_application

MODULES = {
    "tgt_good": """
from trygon.graph.deployment import deployment

@deployment
class Converter: ...

application = Converter.bind()
class holder:
    app = application
def build(args): return Converter.bind(args)
number = 3
""",
    "tgt_unbound": """
from trygon.graph.deployment import deployment

@deployment
class Converter: ...
""",
    "tgt_fails": "x = 1\nraise KeyError('gone')\n",
    "tgt_needs": "import tgt_not_installed\n",
    "tgt_syntax": "def (:\n",
    "tgt_exits": "import sys\nsys.exit(3)\n",
}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("path", ["tgt_good:application", "tgt_good.application", "tgt_good:holder.app"])
def test_an_application_is_imported_by_its_path(path: str) -> None:
    assert isinstance(import_target(path), Application)
    assert import_target(path) is load_application(path)


def test_a_builder_is_called_with_the_arguments() -> None:
    app = load_application("tgt_good:build", {"model": "a"})

    assert ({"model": "a"},) == app.bound_args


@pytest.mark.parametrize(
    "path, text",
    [
        ("tgt_good:applicatoin", "did you mean 'application'?; its applications are 'application'"),
        ("tgt_good:holder.nothing", "'holder' has no 'nothing'"),
        ("tgt_good:Converter", "add a line such as `app = Converter.bind()`"),
        ("tgt_good:number", "is 3 of type int; wanted an application (Deployment.bind) or a function"),
        ("tgt_unbound:app", "it has the deployment 'Converter': add `app = Converter.bind()`"),
        ("tgt_nowhere:app", "there is no module 'tgt_nowhere' for 'tgt_nowhere:app'; it was looked for in "),
        ("tgt_good.inner:app", "there is no module 'tgt_good.inner'"),
        ("tgt_fails:app", "it raised KeyError: 'gone' ("),
        ("tgt_needs:app", "imports 'tgt_not_installed', which is not installed here"),
        ("tgt_syntax:app", "has a syntax error in "),
        ("tgt_exits:app", "it raised SystemExit: 3"),
        ("tgt_good.py:application", "name the module instead: 'tgt_good:application'"),
        ("./folder/tgt_good.py:application", "name the module instead: 'folder.tgt_good:application'"),
        ("tgt_good", "write 'tgt_good:app' if it is called app"),
        ("tgt_good:", "write 'tgt_good:app' if it is called app"),
        ("a:b:c", "an import path has one ':'"),
    ],
)
def test_a_path_that_gives_no_application_says_what_to_do(path: str, text: str) -> None:
    with pytest.raises(TargetError) as caught:
        load_application(path)

    assert text in str(caught.value)
    assert 1 == len(str(caught.value).splitlines())
    assert isinstance(caught.value, ServeError)


def test_an_error_in_the_module_keeps_its_cause_and_place() -> None:
    with pytest.raises(TargetError, match=r"tgt_fails.py, line 2") as caught:
        import_target("tgt_fails:app")

    assert isinstance(caught.value.__cause__, KeyError)


def test_an_application_takes_no_arguments() -> None:
    with pytest.raises(TargetError, match="it takes no arguments, found model"):
        load_application("tgt_good:application", {"model": "a"})


def test_an_import_path_is_a_string() -> None:
    with pytest.raises(TypeError, match="an import path is a string, found 3"):
        import_target(3)  # type: ignore[arg-type]


@deployment
class Model:
    def __init__(self, *args: object) -> None: ...


class Arguments(BaseModel):
    size: int
    name: str = "small"


def build_from_model(args: Arguments) -> Application:
    return Model.bind(args.size, args.name)


def test_a_builder_that_asks_for_a_model_gets_validated_arguments() -> None:
    assert (3, "small") == call_app_builder(build_from_model, {"size": "3"}).bound_args


def test_arguments_that_do_not_fit_the_model_are_named() -> None:
    with pytest.raises(TargetError, match=r"build_from_model do not fit: (?s:.*)size"):
        call_app_builder(build_from_model, {"size": "big"})


async def async_builder(args: dict) -> Application:
    return Model.bind()


@pytest.mark.parametrize(
    "builder, text",
    [
        (lambda: Model.bind(), "takes one parameter"),
        (lambda a, b: Model.bind(), "takes 2"),
        (lambda args: Model, "must return an Application, found Deployment.*add .bind"),
        (lambda args: 3, "must return an Application, found 3 of type int"),
        (async_builder, "is async; make it an ordinary function"),
    ],
)
def test_a_builder_of_another_shape_is_a_type_error(builder, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        call_app_builder(builder, {})


def test_an_error_inside_a_builder_is_the_user_s_own() -> None:
    def builder(args: dict) -> Application:
        raise LookupError(args["model"])

    with pytest.raises(LookupError, match="a"):
        call_app_builder(builder, {"model": "a"})
