"""`trygon start`: an instance that stays, and comes back with all it held."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Literal

import click
import msgspec

from trygon.cli.file_options import is_config_file
from trygon.cli.joining import connected
from trygon.cli.opening import RunOptions, instance_config
from trygon.cli.report import base_url
from trygon.client.instances import find, place
from trygon.client.launch import begin_launch
from trygon.client.startup import load_startup
from trygon.config import Settings, make_private_dir, read_settings
from trygon.errors import DeployError, InstanceError
from trygon.processes.config_build import BuiltConfig, read_config_file
from trygon.spec.admin import AdminOptions
from trygon.spec.config_file import DeployConfig
from trygon.spec.instance import InstanceConfig, InstanceRecord

__all__ = ["start"]

_DEFAULT_NAME = "default"
#: Processes of a killed instance end within a second of each other.
_ENDING_S = 10.0
_STEP_S = 0.05


@click.command(short_help="Start an instance that stays.")
@click.option("--name", metavar="NAME", help="Its name. [default: TRYGON_INSTANCE, or 'default']")
@click.option("--http-host", help="Address to listen on; 0.0.0.0 for all. [default: as before, or 127.0.0.1]")
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one. [default: as before, or 8000]",
)
@click.option(
    "--admin-port",
    type=click.IntRange(0, 65535),
    help="Port of the admin API; 0 takes a free one. [default: as before, or 8265, or a free one if it is taken]",
)
@click.option(
    "--admin-ssl-keyfile",
    type=click.Path(path_type=Path, resolve_path=True),
    help="Key of a certificate for the admin API, in PEM. [default: as before, or none on 127.0.0.1]",
)
@click.option(
    "--admin-ssl-certfile",
    type=click.Path(path_type=Path, resolve_path=True),
    help="The certificate, in PEM, followed by those that it was signed with.",
)
@click.option(
    "--metrics-prefix",
    type=click.Choice(("trygon", "ray")),
    help="What names of metrics begin with; ray gives them Ray Serve's names. [default: as before, or trygon]",
)
@click.option(
    "-c", "--config", "path", metavar="FILE", help="Configuration file with options of HTTP and applications."
)
@click.option(
    "-d",
    "--app-dir",
    "app_dirs",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Folder that modules are looked for in, besides the file's own; may be given several times.",
)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until its applications serve.")
def start(  # noqa: PLR0913 - the options of a command line
    name: str | None,
    http_host: str | None,
    http_port: int | None,
    admin_port: int | None,
    admin_ssl_keyfile: Path | None,
    admin_ssl_certfile: Path | None,
    metrics_prefix: Literal["trygon", "ray"] | None,
    path: str | None,
    app_dirs: tuple[str, ...],
    *,
    wait: bool,
) -> None:
    r"""Start an instance that stays until `trygon shutdown`, and is found from every folder.

    It brings back every application that it held when it ended, however it ended; only `trygon shutdown`
    makes it forget them. With --config it then runs what the file says.

    \b
    Examples:
      trygon start
      trygon start --name production --http-host 0.0.0.0 --http-port 80
      trygon start --config serve.yaml
    """
    settings = read_settings()
    settings = dataclasses.replace(
        settings,
        admin_ssl_keyfile=admin_ssl_keyfile or settings.admin_ssl_keyfile,
        admin_ssl_certfile=admin_ssl_certfile or settings.admin_ssl_certfile,
    )
    name = name or settings.instance or _DEFAULT_NAME
    config, built = _prepare(path, app_dirs)
    options = RunOptions(
        host=http_host,
        port=http_port,
        http_options=config.http_options if config is not None else {},
        proxy_location=config.proxy_location if config is not None else None,
        instance=name,
        admin_port=admin_port,
        metrics_prefix=metrics_prefix,
        logging=(config.logging if config is not None else None) or {},
        blocking=False,
    )
    record = _running(settings, name)
    if record is not None:
        _tell_running(record, options)
    else:
        record = _launch(options, settings, name)
    _serve(record, config, built, wait=wait)


def _prepare(path: str | None, app_dirs: tuple[str, ...]) -> tuple[DeployConfig | None, BuiltConfig | None]:
    """Build before anything is started: a file with a mistake starts nothing."""
    if path is None:
        return None, None
    from trygon.cli.deploying import build_file

    if not is_config_file(path):
        raise click.UsageError(f"--config wants a file that ends with .yaml, .yml or .json, found {path!r}")
    config = read_config_file(path)
    return config, build_file(config, app_dirs=app_dirs)


def _running(settings: Settings, name: str) -> InstanceRecord | None:
    """Return the instance of that name if it answers; wait for the end of one that was killed just now."""
    record = find(settings.runtime_dir, name)
    pause = threading.Event()
    for _ in range(int(_ENDING_S / _STEP_S)):
        if record is None:
            return None
        try:
            with connected(record):
                return record
        except InstanceError:
            # What it left is being cleared away by its guardian.
            pause.wait(_STEP_S)
        record = find(settings.runtime_dir, name)
    if record is None:
        return None
    raise InstanceError(
        f"the instance {name!r} has not answered for {_ENDING_S:g} s and is not gone; end its process {record.pid}, "
        f"and see its log files in {record.log_dir}"
    )


def _tell_running(record: InstanceRecord, options: RunOptions) -> None:
    if record.attached:
        raise InstanceError(
            f"the instance {record.name!r} runs already and ends with the program that started it "
            f"(process {record.pid}); end that program, or choose another --name"
        )
    for option, wanted, found in (
        ("--http-host", options.host, record.host),
        ("--http-port", options.port, record.port),
    ):
        if wanted not in (None, 0, found):
            raise InstanceError(
                f"the instance {record.name!r} runs already and has {option} {found}, not {wanted}; "
                f"leave out {option}, choose another --name, or shut it down first"
            )
    click.echo(f"the instance {record.name!r} runs already and {_listens(record)}")


def _launch(options: RunOptions, settings: Settings, name: str) -> InstanceRecord:
    make_private_dir(settings.home, what="TRYGON_HOME")
    make_private_dir(settings.runtime_dir, what="TRYGON_RUNTIME_DIR")
    config = place(instance_config(options, settings), name)
    config = _as_before(config, options, is_admin_given=config.admin != AdminOptions())
    launched = begin_launch(config)
    try:
        record = launched.wait_ready()
    except InstanceError:
        # Somebody else may have started it in the same moment.
        other = find(settings.runtime_dir, name)
        if other is None or other.attached:
            raise
        click.echo(f"the instance {name!r} runs already and {_listens(other)}")
        return other
    click.echo(f"the instance {name!r} is started and {_listens(record)}")
    if record.admin_url:
        click.echo(f"its admin API is at {record.admin_url}, `trygon token` prints its token")
    return record


def _as_before(config: InstanceConfig, options: RunOptions, *, is_admin_given: bool) -> InstanceConfig:
    """Keep what the instance had when it was started before, but for what is said now."""
    before = load_startup(Path(config.state_dir))
    if before is not None and not is_admin_given:
        config = msgspec.structs.replace(config, admin=before.admin)
    if before is None or options.http_options or options.proxy_location is not None or options.logging:
        return config
    config = before.applied_to(config)
    return msgspec.structs.replace(
        config,
        host=config.host if options.host is None else options.host,
        port=config.port if options.port is None else options.port,
    )


def _serve(
    record: InstanceRecord, config: DeployConfig | None, built: BuiltConfig | None, *, wait: bool
) -> None:
    from trygon.cli.deploying import deploy_built, tell_unused_options, wait_serving

    with connected(record) as joined:
        revisions = {name: found.revision for name, found in joined.status().applications.items()}
        if config is not None and built is not None:
            tell_unused_options(config, record)
            deployed = deploy_built(joined, built, keep_others=False, origin="trygon start")
            # What the file deletes is not waited for.
            kept = joined.status().applications
            revisions = {**{n: r for n, r in revisions.items() if n in kept}, **deployed}
        if not wait:
            return
        try:
            wait_serving(joined, revisions, timeout_s=None)
        except DeployError as error:
            raise DeployError(
                f"{error}; the instance {record.name!r} runs, `trygon status` shows the rest"
            ) from None


def _listens(record: InstanceRecord) -> str:
    url = base_url(record)
    return f"listens on {url}" if url else "serves no HTTP"
