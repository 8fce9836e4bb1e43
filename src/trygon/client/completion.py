"""Completes what deployments say of their own environment with what only files can tell, before it is deployed."""

from __future__ import annotations

import os

import msgspec

from trygon.client.module_tree import importable_from, modules_below
from trygon.client.requirements import complete_packages
from trygon.errors import DeployError
from trygon.spec.application import ApplicationSpec, DeploymentOptions, DeploymentSpec

__all__ = ["complete_deployments", "existing"]


def complete_deployments(spec: ApplicationSpec, folder: str) -> ApplicationSpec:
    """Return the application with absolute paths, read requirements, and snapshots of the deployments' own modules.

    Args:
        spec: As it was built; what is complete in it stays.
        folder: What relative paths start from.

    Raises:
        DeployError: Something named is not there.
    """
    return spec.with_deployments(tuple(_completed(deployment, folder) for deployment in spec.deployments))


def _completed(deployment: DeploymentSpec, folder: str) -> DeploymentSpec:
    options = deployment.options
    try:
        if options.packages is not None:
            options = msgspec.structs.replace(options, packages=complete_packages(options.packages, folder))
        if not options.module_path:
            return _with_modules(deployment, options, folder)
    except DeployError as error:
        raise DeployError(f"deployment {deployment.name!r}: {error}") from None
    return msgspec.structs.replace(deployment, options=options)


def _with_modules(deployment: DeploymentSpec, options: DeploymentOptions, folder: str) -> DeploymentSpec:
    named = tuple(existing(path, folder, is_module=True) for path in options.py_modules)
    working_dir = None if options.working_dir is None else existing(options.working_dir, folder)
    roots = named if working_dir is None else (*named, working_dir)
    path = tuple(dict.fromkeys(importable_from(root) for root in named))
    if working_dir is not None and working_dir not in path:
        path = (*path, working_dir)
    options = msgspec.structs.replace(options, py_modules=named, module_path=path, working_dir=working_dir)
    return msgspec.structs.replace(deployment, options=options, modules=modules_below(roots))


def existing(written: str, folder: str, *, is_module: bool = False) -> str:
    """Return the absolute path of a folder, or of a module.

    Raises:
        DeployError: It is not there.
    """
    found = os.path.abspath(os.path.join(folder, os.path.expanduser(written)))
    if os.path.isdir(found) or (is_module and found.endswith(".py") and os.path.isfile(found)):
        return found
    wanted = "a local folder, package or .py file" if is_module else "a local folder"
    raise DeployError(f"{found!r} is not there, or is not {wanted}; relative paths start from {folder!r}")
