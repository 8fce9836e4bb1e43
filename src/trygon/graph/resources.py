"""What a replica needs and where it runs: `ray_actor_options` and placement, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from trygon.spec.application import ResourceRequest
from trygon.spec.packages import PackageEnvironment, check_pip
from trygon.spec.validation import (
    Check,
    OptionError,
    check_value,
    list_of,
    mapping,
    near_names,
    number,
    one_of,
    optional,
    string,
)

__all__ = ["ActorOptions", "check_actor_options", "check_placement", "read_actor_options"]

_AMOUNT = optional(number())


def _amounts(value: Any) -> dict[str, float]:
    amounts: dict[str, float] = {}
    for name, amount in mapping.convert(value).items():
        if not isinstance(name, str):
            raise OptionError(f"the name of a resource is a string, found {name!r}")
        amounts[name] = check_value("", repr(name), amount, number())
    return amounts


def _custom_amounts(value: Any) -> dict[str, float]:
    amounts = _amounts(value)
    for name, keyword in (("CPU", "num_cpus"), ("GPU", "num_gpus"), ("memory", "memory")):
        if name in amounts:
            raise OptionError(
                f"{name!r} is not a custom resource; write {keyword}={amounts[name]:g} beside it"
            )
    return amounts


def _gpus(value: Any) -> float:
    gpus: float = number().convert(value)
    if gpus > 1 and not gpus.is_integer():
        raise OptionError(f"a replica gets a part of one GPU or whole GPUs, found {gpus:g}")
    return gpus


def _strings(value: Any) -> dict[str, str]:
    pairs: dict[str, str] = mapping.convert(value)
    for key, item in pairs.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise OptionError(f"wanted a dict of strings, found the pair {key!r}: {item!r}; write str(...)")
    return pairs


_STRINGS = Check("a dict of strings", _strings)

_HONOURED = ("env_vars", "working_dir", "py_modules", "pip")
#: Keys of a runtime_env whose work is done already on one machine: nothing to fetch, nothing to wait for.
_HARMLESS_ENV = frozenset({"config", "excludes", *_HONOURED})


def _runtime_env(value: Any) -> dict[str, Any]:
    runtime_env: dict[str, Any] = mapping.convert(value)
    refused = sorted(name for name, item in runtime_env.items() if name not in _HARMLESS_ENV and item)
    if refused:
        raise OptionError(
            f"{', '.join(map(repr, refused))} cannot be provided, and the code may need it; "
            f"{_instead(refused[0])} ({', '.join(map(repr, _HONOURED))} are honoured)"
        )
    checked = {name: item for name, item in runtime_env.items() if name in _HONOURED and item}
    if "env_vars" in checked:
        checked["env_vars"] = check_value("", "env_vars", checked["env_vars"], _STRINGS)
    if "working_dir" in checked:
        checked["working_dir"] = _working_dir(checked["working_dir"])
    if "py_modules" in checked:
        checked["py_modules"] = check_value("", "py_modules", checked["py_modules"], _MODULES)
    if runtime_env.get("pip") is not None:
        # An empty list too: it takes back what the application asks for.
        check_value("", "pip", runtime_env["pip"], _PIP)
        checked["pip"] = runtime_env["pip"]
    return checked


def _instead(name: str) -> str:
    if name == "uv":
        return "write 'pip', which takes the same list"
    if name == "conda":
        return "write 'pip' with the packages, or start Trygon in that conda environment and remove the entry"
    return "remove the entry, and install what the replica needs in the environment that starts Trygon"


def _local_modules(value: Any) -> list[str]:
    if not isinstance(value, list | tuple):
        raise OptionError(f"wanted a list of local folders, packages or .py files, found {value!r}")
    for item in value:
        if not isinstance(item, str | os.PathLike):
            raise OptionError(
                f"wanted local paths, found {item!r} of type {type(item).__name__}; write where its files are"
            )
        if "://" in str(item):
            raise OptionError(f"{str(item)!r} is not a local path; fetch it first and give the path")
        if str(item).endswith((".whl", ".zip")):
            raise OptionError(f"{str(item)!r} is an archive; name it in 'pip', which installs it")
    return [str(item) for item in value]


_MODULES = Check("a list of local folders, packages or .py files", _local_modules)
_PIP = Check("a list of requirements", check_pip)


def _working_dir(value: Any) -> str:
    path = str(value)
    if "://" in path or path.endswith(".zip"):
        raise OptionError(
            f"working_dir {path!r} is not a local folder; fetch it first and give the folder's path"
        )
    return path


_ACTOR_CHECKS = {
    "num_cpus": _AMOUNT,
    "num_gpus": optional(Check("a number of 0 or more", _gpus)),
    "memory": optional(number()),
    "resources": optional(Check("a dict of resource names and amounts", _custom_amounts)),
    "accelerator_type": optional(string),
    "runtime_env": optional(Check("a dict such as {'env_vars': {...}}", _runtime_env)),
    "label_selector": optional(_STRINGS),
    "fallback_strategy": optional(list_of(mapping)),
}


def check_actor_options(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return `ray_actor_options` as checked values, with ``num_cpus`` filled in.

    Raises:
        OptionError: An unknown name, or a value that cannot be.
    """
    checked: dict[str, Any] = {}
    for name, value in (given or {}).items():
        check = _ACTOR_CHECKS.get(name)
        if check is None:
            raise OptionError(
                f"there is no option {name!r}{near_names(str(name), _ACTOR_CHECKS)}; "
                f"it takes {', '.join(sorted(_ACTOR_CHECKS))}"
            )
        checked[name] = check_value("", name, value, check)
    checked.setdefault("num_cpus", 1)
    return checked


class ActorOptions(NamedTuple):
    """Checked `ray_actor_options` in the words of the specification."""

    resources: ResourceRequest
    env_vars: dict[str, str]
    working_dir: str | None
    py_modules: tuple[str, ...]
    packages: PackageEnvironment | None
    #: Selectors of hosts, which change nothing on one machine.
    selectors: dict[str, Any]


def read_actor_options(checked: Mapping[str, Any]) -> ActorOptions:
    """Translate what `check_actor_options` returned."""
    runtime_env = checked.get("runtime_env") or {}
    num_cpus = checked.get("num_cpus")
    return ActorOptions(
        ResourceRequest(
            num_cpus=1.0 if num_cpus is None else num_cpus,
            num_gpus=checked.get("num_gpus") or 0.0,
            memory_bytes=checked.get("memory") or 0.0,
            accelerator_type=checked.get("accelerator_type"),
            resources=checked.get("resources") or {},
        ),
        runtime_env.get("env_vars", {}),
        runtime_env.get("working_dir"),
        tuple(runtime_env.get("py_modules") or ()),
        check_pip(runtime_env.get("pip")),
        {name: checked[name] for name in ("label_selector", "fallback_strategy") if checked.get(name)},
    )


_STRATEGY = one_of("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
_BUNDLES = Check("a list of dicts of resource amounts", list_of(Check("a dict", _amounts)).convert)


def check_placement(given: Mapping[str, Any], actor_options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the placement options as checked values, only those that were given.

    Raises:
        OptionError: Bundles are missing, empty, or too small for the replica.
    """
    bundles = given.get("placement_group_bundles")
    strategy = given.get("placement_group_strategy")
    selector = given.get("placement_group_bundle_label_selector")
    for name, value in (
        ("placement_group_strategy", strategy),
        ("placement_group_bundle_label_selector", selector),
    ):
        if value is not None and bundles is None:
            raise OptionError(f"{name} is given without placement_group_bundles; add them or remove it")
    checked: dict[str, Any] = {}
    if bundles is not None:
        checked["placement_group_bundles"] = _check_bundles(bundles, actor_options)
    if strategy is not None:
        checked["placement_group_strategy"] = check_value("", "placement_group_strategy", strategy, _STRATEGY)
    if selector is not None:
        checked["placement_group_bundle_label_selector"] = check_value(
            "", "placement_group_bundle_label_selector", selector, list_of(_STRINGS)
        )
    return checked


def _check_bundles(bundles: object, actor_options: Mapping[str, Any]) -> list[dict[str, float]]:
    checked: list[dict[str, float]] = check_value("", "placement_group_bundles", bundles, _BUNDLES)
    if not checked:
        raise OptionError("placement_group_bundles is empty; give at least one, such as [{'CPU': 1}]")
    needs = {"CPU": actor_options.get("num_cpus"), "GPU": actor_options.get("num_gpus")}
    needs |= actor_options.get("resources") or {}
    for name, amount in needs.items():
        if amount and checked[0].get(name, 0.0) < amount:
            raise OptionError(
                f"the first of placement_group_bundles holds the replica, which needs {amount:g} {name}, "
                f"but it has {checked[0].get(name, 0.0):g}; enlarge it or lower ray_actor_options"
            )
    return checked
