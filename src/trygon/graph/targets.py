"""From what a user names on a command line to an Application: import paths and application builders."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from trygon.errors import ServeError
from trygon.graph.deployment import Application, Deployment
from trygon.spec.validation import near_names

__all__ = ["TargetError", "call_app_builder", "import_target", "is_loading", "load_application"]


#: Where our own frames are.
_OWN = __file__.rpartition("graph")[0]
#: Calls of `load_application` under way.
_num_loading = 0


class TargetError(ServeError):
    """The application that was named cannot be made; the text is one paragraph for people.

    ``__cause__`` is the user's own exception where there is one.
    """


def load_application(import_path: str, args: Mapping[str, Any] | None = None) -> Application:
    """Import an application, or import its builder and call it with `args`.

    Raises:
        TargetError: It cannot be imported, is neither, or is an application and `args` are given.
        TypeError: The builder takes more or fewer than one parameter, or returns something else.
    """
    global _num_loading
    _num_loading += 1
    try:
        return _load(import_path, args)
    finally:
        _num_loading -= 1


def is_loading() -> bool:
    """Return whether user code runs here only to be loaded, so that it must not deploy anything itself."""
    return _num_loading > 0


def _load(import_path: str, args: Mapping[str, Any] | None) -> Application:
    target = import_target(import_path)
    if isinstance(target, Application):
        if args:
            raise TargetError(
                f"{import_path!r} is an application, so it takes no arguments, found {', '.join(args)}; "
                "name a function that builds the application instead"
            )
        return target
    if isinstance(target, Deployment):
        name = import_path.replace(":", ".").rpartition(".")[2]
        raise TargetError(
            f"{import_path!r} is a deployment that is not bound; add a line such as `app = {name}.bind()` "
            f"to the module and name that"
        )
    if inspect.isfunction(target):
        return call_app_builder(target, dict(args or {}))
    raise TargetError(
        f"{import_path!r} is {target!r} of type {type(target).__name__}; wanted an application (Deployment.bind) "
        "or a function that builds one"
    )


def import_target(import_path: str) -> Any:
    """Return what ``module:attribute`` (or ``module.attribute``) names.

    Raises:
        TargetError: It cannot be found, or its module fails; the text says which.
    """
    module_name, attribute = _split(import_path)
    module = _import(import_path, module_name)
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise TargetError(_missing_attribute(import_path, value, part))
        value = getattr(value, part)
    return value


def _split(import_path: str) -> tuple[str, str]:
    if not isinstance(import_path, str):
        raise TypeError(f"an import path is a string, found {import_path!r}")
    if import_path.count(":") > 1:
        raise TargetError(f"an import path has one ':', as in 'module:app', found {import_path!r}")
    module_name, colon, attribute = import_path.partition(":")
    if not colon:
        module_name, _, attribute = import_path.rpartition(".")
    if module_name.endswith(".py") or "/" in module_name:
        wanted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise TargetError(
            f"{import_path!r} names a file; name the module instead: '{wanted}:{attribute or 'app'}'"
        )
    if not module_name or not attribute or import_path.endswith(".py"):
        module_name = import_path.removesuffix(".py").rstrip(":") or "module"
        raise TargetError(
            f"{import_path!r} does not say which object of the module is the application; "
            f"write '{module_name}:app' if it is called app"
        )
    return module_name, attribute


def _import(import_path: str, module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(missing + "."):
            raise TargetError(_missing_module(import_path, missing)) from None
        raise TargetError(
            f"the module {module_name!r} imports {missing!r}, which is not installed here; "
            f"install it in this environment ({_place(error)})"
        ) from error
    except SyntaxError as error:
        raise TargetError(
            f"the module {module_name!r} has a syntax error in {error.filename}, line {error.lineno}: {error.msg}"
        ) from error
    except (Exception, SystemExit) as error:  # a module runs any code when imported
        raise TargetError(
            f"the module {module_name!r} cannot be imported, because it raised {_short(error)} ({_place(error)})"
        ) from error


def _missing_module(import_path: str, missing: str) -> str:
    import os

    where = sys.path[0] or os.getcwd()
    return (
        f"there is no module {missing!r} for {import_path!r}; it was looked for in {where} and on the rest of "
        "the Python path; go to its folder, name that with --app-dir, or correct the name"
    )


def _missing_attribute(import_path: str, owner: Any, name: str) -> str:
    present = vars(owner) if hasattr(owner, "__dict__") else {}
    usable = [key for key, value in present.items() if isinstance(value, Application)]
    hint = near_names(name, [key for key in present if not key.startswith("_")])
    listed = f"; its applications are {', '.join(map(repr, usable))}" if usable else ""
    unbound = [key for key, value in present.items() if isinstance(value, Deployment)]
    if not usable and unbound:
        listed = f"; it has the deployment {unbound[0]!r}: add `{name} = {unbound[0]}.bind()`"
    owner_name = getattr(owner, "__name__", repr(owner))
    return f"{owner_name!r} has no {name!r}, which {import_path!r} names{hint}{listed}"


def call_app_builder(builder: Callable[..., Any], args: Mapping[str, Any]) -> Application:
    """Call an application builder with its one argument.

    Args:
        builder: A function of one parameter: a dict, or a pydantic model if it is annotated so.
        args: What the user gave, all strings from a command line.

    Raises:
        TypeError: Another number of parameters, or the result is not an Application.
        TargetError: The arguments do not fit the model.
    """
    name = getattr(builder, "__qualname__", repr(builder))
    parameters = list(inspect.signature(builder).parameters.values())
    if len(parameters) != 1:
        raise TypeError(
            f"an application builder takes one parameter, a dict or a pydantic model of the arguments; "
            f"{name} takes {len(parameters)}"
        )
    argument = _validated(builder, name, parameters[0], dict(args))
    app = builder(argument)
    if isinstance(app, Application):
        return app
    if inspect.iscoroutine(app):
        app.close()
        raise TypeError(f"the application builder {name} is async; make it an ordinary function")
    hint = "; add .bind()" if isinstance(app, Deployment) else ""
    raise TypeError(
        f"the application builder {name} must return an Application, found {app!r} of type {type(app).__name__}{hint}"
    )


def _validated(
    builder: Callable[..., Any], name: str, parameter: inspect.Parameter, args: dict[str, Any]
) -> Any:
    try:
        annotation: Any = get_type_hints(builder).get(parameter.name)
    except (NameError, TypeError):
        annotation = parameter.annotation
    # A pydantic model can only be there if the user's module imported pydantic.
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not _is_model(annotation, pydantic):
        return args
    try:
        return annotation.model_validate(args)
    except pydantic.ValidationError as error:
        raise TargetError(f"the arguments of the application builder {name} do not fit: {error}") from error


def _is_model(annotation: object, pydantic: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _place(error: BaseException) -> str:
    """Return the last line of the user's code that `error` went through."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not frame.filename.startswith(_OWN)
    ]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "no line known"
