"""`trygon run`: what may be said on its command line."""

from __future__ import annotations

import os
import queue
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from trygon.cli.file_options import is_config_file, refuse_single_options
from trygon.cli.opening import RunOptions, open_instance
from trygon.cli.runtime_env import RuntimeEnv, read_runtime_env, runtime_env_options
from trygon.clock import RealClock
from trygon.config import read_settings

if TYPE_CHECKING:
    from trygon.processes.builder import BuildRequest
    from trygon.spec.config_file import DeployConfig

__all__ = ["parse_arguments", "run"]

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def parse_arguments(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return the NAME=VALUE pairs for an application builder."""
    arguments: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(
                f"wanted name=value for the application builder, found {text!r}; "
                "one application is served by one command"
            )
        if name in arguments:
            raise click.UsageError(f"the argument {name!r} is given twice; give it once")
        arguments[name] = value
    return arguments


@click.command(
    short_help="Serve an application until Ctrl-C.",
    epilog="Exit codes: 0 stopped by Ctrl-C, SIGTERM or `trygon shutdown` while serving; 1 the application or "
    "the instance failed; 2 wrong usage; 128 + signal interrupted before it served, or forced.",
)
@click.argument("target", metavar="MODULE:APP|FILE")
@click.argument("arguments", metavar="[NAME=VALUE]...", nargs=-1, callback=parse_arguments)
@click.option(
    "--host",
    help="Address to listen on; 0.0.0.0 for all. [default: 127.0.0.1, or RAY_SERVE_DEFAULT_HTTP_HOST]",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one. [default: 8000]"
)
@click.option(
    "--admin-port",
    type=click.IntRange(0, 65535),
    help="Port of the admin API; 0 takes a free one. [default: none, 8265 with --non-blocking, or TRYGON_ADMIN_PORT]",
)
@click.option(
    "--route-prefix", default="/", show_default=True, help="Path that the application answers under."
)
@click.option("--name", default="default", show_default=True, help="Name of the application.")
@click.option(
    "-d",
    "--app-dir",
    default=".",
    show_default=True,
    type=click.Path(exists=True, file_okay=False),
    help="Folder that modules are looked for in.",
)
@click.option("--working-dir", help="Folder that replicas run in. [default: this one]")
@runtime_env_options
@click.option("-r", "--reload", is_flag=True, help="Start the new code whenever a Python file is saved.")
@click.option(
    "--blocking/--non-blocking",
    default=True,
    show_default=True,
    help="Stay until Ctrl-C, or return when it serves and leave it running (see `trygon shutdown`).",
)
@click.option("--instance", metavar="NAME", help="Serve in this instance; it is started if it does not run.")
@click.option(
    "--log-level",
    type=click.Choice(_LEVELS, case_sensitive=False),
    help="Least level of log lines of ingress and replicas. [default: INFO]",
)
@click.option("--access-log/--no-access-log", default=True, show_default=True, help="Log each request.")
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(0, 3600),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="What requests in work get to finish when it is stopped.",
)
def run(**given: Any) -> int:
    r"""Serve an application until Ctrl-C.

    MODULE:APP names a bound application (`app = Converter.bind()` in converter.py is converter:app), or an
    application builder: a function of one argument, a dict or a pydantic model of the NAME=VALUE pairs,
    that returns one. FILE is a configuration file (.yaml, .yml or .json) with several applications.

    It runs in an instance of its own, which ends with this command and never joins another by chance; a second
    `trygon run` needs another --port. With --instance NAME (or TRYGON_INSTANCE) it joins the running
    instance of that name, and Ctrl-C deletes the application there.

    Log lines of ingress and replicas, and what they print, appear here. A second Ctrl-C ends everything at once.

    \b
    Examples:
      trygon run converter:app
      trygon run converter:app --port 9000 --reload
      trygon run --app-dir src wine.serve:build model=forest trees=100
      trygon run shop:app --host 0.0.0.0 --no-access-log --grace 20
      trygon run serve.yaml --reload
    """
    if given["reload"] and not given["blocking"]:
        raise click.UsageError("--reload watches files for as long as it runs; leave out --non-blocking")
    logging: dict[str, str | bool] = {}
    if given["log_level"] is not None:
        logging["log_level"] = given["log_level"].upper()
    if not given["access_log"]:
        logging["enable_access_log"] = False
    is_file = is_config_file(given["target"])
    config = _read_file(given) if is_file else None
    options = RunOptions(
        host=given["host"],
        port=given["port"],
        http_options=config.http_options if config is not None else {},
        proxy_location=config.proxy_location if config is not None else None,
        instance=given["instance"],
        admin_port=given["admin_port"],
        logging={**((config.logging if config is not None else None) or {}), **logging},
        reload=given["reload"],
        blocking=given["blocking"],
        grace_s=given["grace_s"],
    )
    build_request = None if is_file else _request(given, logging)
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: events.put(number))
    settings = read_settings()
    opening = open_instance(options, settings)

    # The supervisor is starting by now; what is imported here is imported meanwhile.
    from trygon.cli.report import Report
    from trygon.cli.session import Session
    from trygon.cli.terminal import Terminal
    from trygon.cli.work import ConfigWork, ModuleWork, Work

    work: Work
    if build_request is None:
        # What a file means must not depend on the folder that the command is typed in.
        source = click.get_current_context().get_parameter_source("app_dir")
        is_named = source is not ParameterSource.DEFAULT
        app_dirs = (os.path.abspath(given["app_dir"]),) if is_named else ()
        work = ConfigWork(given["target"], app_dirs, logging)
    else:
        work = ModuleWork(build_request())
    report = Report(Terminal(sys.stderr), given["target"], RealClock())
    code = Session(opening, work, options, report, events).run(shows_logs=settings.log_to_stderr)
    for number in (signal.SIGINT, signal.SIGTERM):
        # All is done: a signal that comes while the interpreter ends must not change the exit code.
        signal.signal(number, signal.SIG_IGN)
    return code


def _request(given: dict[str, Any], logging: dict[str, str | bool]) -> Callable[[], BuildRequest]:
    """Check the runtime environment now; make the request when there is time to import what it needs."""
    env = RuntimeEnv({}, None)
    if any(given[name] is not None for name in ("runtime_env", "runtime_env_json", "working_dir")):
        env = read_runtime_env(given["runtime_env"], given["runtime_env_json"], given["working_dir"])
    working_dir = env.working_dir or os.getcwd()

    def make() -> BuildRequest:
        from trygon.client.module_tree import importable_from
        from trygon.processes.builder import BuildRequest

        return BuildRequest(
            import_path=given["target"],
            args=given["arguments"],
            name=given["name"],
            route_prefix=given["route_prefix"],
            sys_path=tuple(
                dict.fromkeys(
                    (*map(importable_from, env.py_modules), os.path.abspath(given["app_dir"]), working_dir)
                )
            ),
            working_dir=working_dir,
            env_vars=env.env_vars,
            packages=env.packages,
            logging=dict(logging),
        )

    return make


def _read_file(given: dict[str, Any]) -> DeployConfig:
    """Read a configuration file, whose applications say themselves what options say of a single one."""
    refuse_single_options(
        given["arguments"],
        {
            "--route-prefix": given["route_prefix"] != "/",
            "--name": given["name"] != "default",
            "--working-dir": given["working_dir"] is not None,
            "--runtime-env": given["runtime_env"] is not None,
            "--runtime-env-json": given["runtime_env_json"] is not None,
        },
    )
    from trygon.processes.config_build import read_config_file

    config = read_config_file(given["target"])
    if not config.applications:
        raise config.error("applications", "there is no application to serve; write at least one")
    return config
