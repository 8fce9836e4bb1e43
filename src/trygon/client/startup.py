"""How a detached instance was started, kept beside its store, so that `trygon start` brings it back as it was."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec

from trygon.errors import InstanceError
from trygon.spec.admin import AdminOptions
from trygon.spec.instance import InstanceConfig

__all__ = ["Startup", "forget_startup", "load_startup", "save_startup"]

_NAME = "start.json"


class Startup(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how it serves HTTP, and its admin port."""

    host: str
    port: int
    num_ingress: int = 1
    http_options: dict[str, Any] = {}
    admin: AdminOptions | None = None

    def applied_to(self, config: InstanceConfig) -> InstanceConfig:
        """Return a configuration with this way to serve HTTP."""
        return msgspec.structs.replace(
            config,
            host=self.host,
            port=self.port,
            num_ingress=self.num_ingress,
            http_options=self.http_options,
        )


def save_startup(config: InstanceConfig) -> None:
    """Keep how an instance is started, whole or not at all; nothing is written when it is as before.

    Raises:
        InstanceError: The state directory cannot be written to.
    """
    startup = Startup(
        host=config.host,
        port=config.port,
        num_ingress=config.num_ingress,
        http_options=config.http_options,
        admin=config.admin,
    )
    path = Path(config.state_dir) / _NAME
    with contextlib.suppress(InstanceError):
        if load_startup(path.parent) == startup:
            # A restart must work on a full disk.
            return
    new = path.with_suffix(".new")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(msgspec.json.encode(startup))
        os.replace(new, path)
    except OSError as error:
        raise InstanceError(
            f"how the instance was started cannot be saved in {str(path)!r}: {error.strerror}; make room there"
        ) from None


def load_startup(state_dir: Path) -> Startup | None:
    """Return how an instance was started before; None without a time before.

    Raises:
        InstanceError: What was kept cannot be read.
    """
    path = state_dir / _NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Startup)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise InstanceError(
            f"how the instance was started before cannot be read from {str(path)!r} ({error}); remove that file "
            "to start with the options of the command line"
        ) from None


def forget_startup(state_dir: Path) -> None:
    """Forget it: the next start is a first one."""
    with contextlib.suppress(OSError):
        (state_dir / _NAME).unlink(missing_ok=True)
