"""Which application an external scaler's call means, and what it is in its new size. Pure."""

from __future__ import annotations

from trygon.control.state import Application, Revision
from trygon.errors import DeployError
from trygon.spec.control import ScaleDeployment

__all__ = ["scaled_base"]


def scaled_base(application: Application | None, request: ScaleDeployment) -> Revision:
    """Return the revision that is to get another size.

    Raises:
        DeployError: There is none, or nobody but a deploy may change it.
    """
    base = application.goal if application is not None else None
    if base is None:
        raise DeployError(f"there is no application {request.application!r} that could be scaled")
    if request.deployment not in base.by_name:
        raise DeployError(f"application {request.application!r} has no deployment {request.deployment!r}")
    if not base.spec.external_scaler_enabled:
        raise DeployError(
            f"application {request.application!r} does not have external_scaler_enabled; set it in its "
            "configuration, or deploy another num_replicas"
        )
    return base
