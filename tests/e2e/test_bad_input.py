"""Every mistake on the command line gets one paragraph that names the thing and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.command import run

MODULES = {
    "shop.py": """
import threading
from pydantic import BaseModel
from trygon import serve


@serve.deployment
class Shop:
    def __init__(self, *args):
        pass

    def __call__(self, request):
        return "open"


app = Shop.bind()
number = 3
locked = Shop.bind(threading.Lock())
greedy = Shop.options(ray_actor_options={"num_gpus": 4}).bind()


class Args(BaseModel):
    trees: int


def build(args):
    return Shop.bind(args["model"])


def build_two(a, b):
    return app


def build_nothing(args):
    return None


def build_unbound(args):
    return Shop


def build_typed(args: Args):
    return Shop.bind(args.trees)


@serve.deployment
class Fails:
    def __init__(self):
        raise RuntimeError("no weights")


failing = Fails.bind()


@serve.deployment
class Dies:
    def __init__(self):
        import os

        os._exit(7)


dying = Dies.bind()


@serve.deployment
class Circle:
    def __init__(self, other):
        pass


parts = []
circle = Circle.bind(parts)
parts.append(circle)
""",
    "raises.py": "def load():\n    return 1 / 0\n\n\nload()\n",
    "wants.py": "import torchx_not_there\n",
    "torn.py": "def load(:\n    pass\n",
    "leaves.py": "import sys\n\nsys.exit(4)\n",
    "option.py": "from trygon import serve\n\n\n@serve.deployment(num_replicas='many')\nclass X: ...\n\n\napp = X.bind()\n",
    "unknown.py": "from trygon import serve\n\n\n@serve.deployment(num_replica=2)\nclass X: ...\n\n\napp = X.bind()\n",
    "itself.py": "from trygon import serve\n\nfrom shop import app\n\nserve.run(app)\n",
    "config.yaml": "applications: []\n",
}

#: The command line, its exit code, and what the answer must name.
MISTAKES = {
    "no target": ("", 2, ["MODULE:APP", "--help"]),
    "no such module": ("shopp:app", 1, ["no module 'shopp'", "looked for in {folder}", "--app-dir"]),
    "no such attribute": ("shop:apps", 1, ["'shop' has no 'apps'", "did you mean 'app'"]),
    "no attribute": ("shop", 1, ["write 'shop:app'"]),
    "a file": ("shop.py:app", 1, ["'shop:app'"]),
    "two colons": ("shop:app:x", 1, ["one ':'"]),
    "not bound": ("shop:Shop", 1, ["not bound", ".bind()"]),
    "no application": ("shop:number", 1, ["3 of type int", "wanted an application"]),
    "arguments of an application": ("shop:app model=x", 1, ["takes no arguments", "model"]),
    "two parameters": ("shop:build_two", 1, ["one parameter", "build_two takes 2"]),
    "returns nothing": ("shop:build_nothing", 1, ["must return an Application", "None"]),
    "returns a deployment": ("shop:build_unbound", 1, ["must return an Application", "add .bind()"]),
    "missing argument": ("shop:build", 1, ["KeyError: 'model'", 'args["model"]', "raised"]),
    "wrong type of argument": ("shop:build_typed trees=many", 1, ["build_typed", "trees", "'many'"]),
    "not a pair": ("shop:build model", 2, ["name=value", "'model'"]),
    "argument twice": ("shop:build model=a model=b", 2, ["'model' is given twice"]),
    "cannot be pickled": ("shop:locked", 1, ["'Shop' cannot be sent", "lock", "constructor"]),
    "a circle": ("shop:circle", 1, ["Circle -> Circle", "get_deployment_handle"]),
    "too few GPUs": ("shop:greedy", 1, ["4", "the machine has"]),
    "module raises": ("raises:app", 1, ["raises.py", "return 1 / 0", "ZeroDivisionError"]),
    "package missing": ("wants:app", 1, ["'torchx_not_there'", "not installed", "wants.py, line 1"]),
    "syntax error": ("torn:app", 1, ["torn.py", "line 1", "def load(:"]),
    "module runs itself": ("itself:app", 1, ["serve.run is called", "__main__", "itself.py"]),
    "module exits": ("leaves:app", 1, ["SystemExit: 4", "leaves.py, line 3"]),
    "bad option of a deployment": ("option:app", 1, ["num_replicas", "'many'", "option.py, line 4"]),
    "unknown option of a deployment": ("unknown:app", 1, ["'num_replica'", "did you mean 'num_replicas'"]),
    "constructor raises": ("shop:failing", 1, ["RuntimeError: no weights", "shop.py", "'Fails'"]),
    "constructor ends its process": ("shop:dying", 1, ["exit code 7", "'Dies'"]),
    "a configuration without applications": (
        "config.yaml",
        1,
        ["config.yaml:1: applications", "at least one"],
    ),
    "bad route": ("shop:app --route-prefix shop", 1, ["starts with '/'", "'shop'"]),
    "route with a slash at the end": ("shop:app --route-prefix /shop/", 1, ["write '/shop'"]),
    "bad name": ("shop:app --name a#b", 1, ["'a#b'", "'#'"]),
    "port too large": ("shop:app --port 65536", 2, ["--port", "65536"]),
    "port no number": ("shop:app --port http", 2, ["--port", "'http'"]),
    "host not here": ("shop:app --host 192.0.2.1", 1, ["'192.0.2.1'", "127.0.0.1"]),
    "unknown option": ("shop:app --prot 1", 2, ["'--prot'", "--port"]),
    "no such folder": ("shop:app --app-dir nowhere", 2, ["'nowhere'", "--app-dir"]),
    "no such working folder": ("shop:app --working-dir nowhere", 2, ["nowhere", "make it or name another"]),
    "remote working folder": ("shop:app --working-dir s3://x/y.zip", 2, ["s3://x/y.zip", "local folder"]),
    "conda in the environment": ('shop:app --runtime-env-json {"conda":["x"]}', 2, ["'conda'"]),
    "environment no JSON": ("shop:app --runtime-env-json {", 2, ["--runtime-env-json is not JSON"]),
    "environment no mapping": ("shop:app --runtime-env-json [1]", 2, ["env_vars", "[1]"]),
    "no such environment file": ("shop:app --runtime-env env.yaml", 2, ["'env.yaml'", "No such file"]),
    "reload in the background": ("shop:app --reload --non-blocking", 2, ["--reload", "--non-blocking"]),
    "bad log level": ("shop:app --log-level loud", 2, ["--log-level", "'loud'"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_in_one_paragraph(tmp_path: Path, name: str) -> None:
    for file, text in MODULES.items():
        (tmp_path / file).write_text(text)
    arguments, code, wanted = MISTAKES[name]

    done = run("run", *arguments.split(), *([] if "--port" in arguments else ["--port", "0"]), cwd=tmp_path)

    assert done.returncode == code, done.stderr
    missing = [text for text in wanted if text.format(folder=tmp_path) not in done.stderr]
    assert not missing, f"{missing} not in:\n{done.stderr}"
    assert "/trygon/" not in done.stderr, "our own code is shown"
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1


def test_an_unknown_command_gets_a_suggestion(tmp_path: Path) -> None:
    assert "did you mean 'status'" in run("stauts", cwd=tmp_path).stderr
    assert "trygon run shop:app" in run("shop:app", cwd=tmp_path).stderr


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    done = run("status", cwd=tmp_path, env={"TRYGON_RUNTIME_DIR": "/tmp/" + "x" * 100})

    assert done.returncode == 1
    assert "TRYGON_RUNTIME_DIR" in done.stderr
    assert "Traceback" not in done.stderr
