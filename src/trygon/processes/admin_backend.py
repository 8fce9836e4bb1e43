"""What the admin API is done with: calls over the control link, and builds in processes of their own."""

from __future__ import annotations

import msgspec

from trygon.client.link import ControlLink
from trygon.errors import DeployError
from trygon.spec.control import DeleteApplication, GetDetails
from trygon.spec.details import InstanceDetails

__all__ = ["BUILD_S", "ControllerBackend"]

#: Importing user code may load models; longer is a hang.
BUILD_S = 300.0
#: The controller answers these from memory, or when its disk has; longer means that it is being restarted.
_ANSWER_S = 30.0


class ControllerBackend:
    """Implements `protocols.admin.AdminBackend` for one instance.

    Args:
        link: The open control link.
    """

    def __init__(self, link: ControlLink) -> None:
        self._link = link

    async def details(self) -> InstanceDetails:
        """Return everything that runs."""
        answer = await self._link.call(GetDetails(), timeout_s=_ANSWER_S)
        return msgspec.convert(answer, InstanceDetails)

    async def deploy(self, config: bytes) -> None:
        """Make the applications those of a configuration file."""
        raise DeployError("not yet")

    async def deploy_one(self, name: str, config: bytes, *, seen: int | None) -> int:
        """Deploy one application."""
        raise DeployError("not yet")

    async def delete(self, name: str, *, seen: int | None = None) -> None:
        """Delete an application; it finishes what it has."""
        await self._link.call(DeleteApplication(name=name, expected_revision=seen), timeout_s=_ANSWER_S)
