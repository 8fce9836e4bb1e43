"""The first step of `trygon run`: find the instance, or exec its supervisor, before anything else is imported.

The supervisor takes longest, so this module imports as little as it can.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from trygon.client.instances import find, new_name, place
from trygon.client.launch import Launched, begin_launch
from trygon.config import Settings, admin_options, make_private_dir
from trygon.errors import InstanceError
from trygon.spec.instance import InstanceConfig, InstanceRecord

__all__ = ["Opening", "RunOptions", "instance_config", "open_instance"]


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where an application is to run, and for how long."""

    #: None for both: the default, or what the joined instance has.
    host: str | None = None
    port: int | None = None
    #: The options of a configuration file, which host and port above win over.
    http_options: dict[str, Any] = {}
    proxy_location: str | None = None
    instance: str | None = None
    #: Asks for the admin port; None leaves it to the settings.
    admin_port: int | None = None
    #: What the names of metrics begin with; None leaves it to the settings.
    metrics_prefix: Literal["trygon", "ray"] | None = None
    #: The fields of a LoggingConfig that were given.
    logging: dict[str, Any] = {}
    reload: bool = False
    blocking: bool = True
    grace_s: float = 0.5


class Opening(NamedTuple):
    """An instance: its record when it runs already, its process when it was started here."""

    record: InstanceRecord | None
    launched: Launched | None
    log_dir: str


def open_instance(options: RunOptions, settings: Settings) -> Opening:
    """Find the named instance, or begin to start one.

    Raises:
        InstanceError: It runs and listens elsewhere than wanted, or cannot be started.
    """
    name = options.instance or settings.instance
    record = find(settings.runtime_dir, name) if name is not None else None
    if record is not None:
        _check_address(options, record)
        return Opening(record, None, record.log_dir)
    config = _config(options, settings, name or new_name())
    return Opening(None, begin_launch(config), f"{config.state_dir}/logs")


def _check_address(options: RunOptions, record: InstanceRecord) -> None:
    for option, wanted, found in (
        ("--host", options.host, record.host),
        ("--port", options.port, record.port),
    ):
        if wanted is not None and wanted != found:
            raise InstanceError(
                f"the instance {record.name!r} runs already and has {option} {found}, not {wanted}; "
                f"leave out {option}, or choose another instance"
            )
    wanted = options.admin_port
    if wanted is not None and (
        not record.admin_url or (wanted and not record.admin_url.endswith(f":{wanted}"))
    ):
        raise InstanceError(
            f"the instance {record.name!r} runs already and has {_admin_of(record)}, not --admin-port {wanted}; "
            "leave out --admin-port, or choose another instance"
        )


def _admin_of(record: InstanceRecord) -> str:
    return f"its admin API at {record.admin_url}" if record.admin_url else "no admin port"


def _config(options: RunOptions, settings: Settings, name: str) -> InstanceConfig:
    make_private_dir(settings.home, what="TRYGON_HOME")
    make_private_dir(settings.runtime_dir, what="TRYGON_RUNTIME_DIR")
    return place(instance_config(options, settings), name)


def instance_config(options: RunOptions, settings: Settings) -> InstanceConfig:
    """Return how an instance is started, below the roots that the settings name."""
    http_options: dict[str, Any] = {"session_id_header": settings.session_id_header}
    host, port, num_ingress = settings.default_http_host, 8000, settings.num_ingress
    if options.http_options or options.proxy_location is not None:
        from trygon.cli.file_options import read_file_options

        read = read_file_options(options.http_options, options.proxy_location)
        http_options.update(read.http_options)
        host, port = read.host or host, read.port
        num_ingress = num_ingress if read.serves_http else 0
    if settings.http_keep_alive_timeout_s:
        http_options["keep_alive_timeout_s"] = settings.http_keep_alive_timeout_s
    if options.logging:
        http_options["logging"] = options.logging
    return InstanceConfig(
        name="",
        runtime_dir=str(settings.runtime_dir),
        state_dir=str(settings.home / "instances"),
        host=options.host or host,
        port=port if options.port is None else options.port,
        num_ingress=num_ingress,
        http_options=http_options,
        attached=options.blocking,
        admin=admin_options(
            settings,
            attached=options.blocking,
            port=options.admin_port,
            metrics_prefix=options.metrics_prefix,
        ),
    )
