"""The environment variables of a replica, and whether they can still act after a fork. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from trygon.spec.launch import ReplicaLaunch

__all__ = ["changes_for", "needs_exec", "visible_gpus"]

#: Read once, when a program is exec'ed: by the dynamic loader, the interpreter, the allocator.
_ACT_AT_EXEC = ("LD_", "PYTHON", "MALLOC_", "GLIBC_TUNABLES", "DYLD_")
_THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def changes_for(launch: ReplicaLaunch, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a replica has on top of `environ`, the supervisor's own."""
    changes = {**launch.code.env_vars, **launch.options.env_vars}
    num_cpus = launch.options.resources.num_cpus
    if num_cpus > 0 and not any(name in environ or name in changes for name in _THREAD_COUNTS):
        changes.update(dict.fromkeys(_THREAD_COUNTS, str(max(1, int(num_cpus)))))
    if launch.gpu_ids is not None and "CUDA_VISIBLE_DEVICES" not in changes:
        changes["CUDA_VISIBLE_DEVICES"] = _cuda_devices(launch.gpu_ids, environ)
    # Lets the supervisor recognise what a replica started in a session of its own.
    changes["TRYGON_REPLICA_ID"] = launch.replica_id
    return changes


def needs_exec(changes: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    """Return whether a change acts only on a program that is exec'ed."""
    return any(
        name.startswith(_ACT_AT_EXEC) and environ.get(name) != value for name, value in changes.items()
    )


def visible_gpus(environ: Mapping[str, str], device_names: list[str]) -> tuple[int, ...]:
    """Return the ids of the GPUs that replicas may be given.

    Args:
        environ: The supervisor's environment; CUDA_VISIBLE_DEVICES narrows, then NVIDIA_VISIBLE_DEVICES.
        device_names: The names in /dev.
    """
    for variable in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        value = environ.get(variable)
        if value is None or value.strip() == "all":
            continue
        names = [name.strip() for name in value.split(",") if name.strip()]
        if not names or names[0] in {"none", "void", "-1", "NoDevFiles"}:
            return ()
        if variable == "CUDA_VISIBLE_DEVICES" and all(name.isdigit() for name in names):
            return tuple(int(name) for name in names)
        # NVIDIA_VISIBLE_DEVICES renumbers from 0 inside a container; UUIDs are named by their position.
        return tuple(range(len(names)))
    count = sum(1 for name in device_names if name.startswith("nvidia") and name[6:].isdigit())
    return tuple(range(count))


def _cuda_devices(gpu_ids: tuple[int, ...], environ: Mapping[str, str]) -> str:
    names = [name.strip() for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if names and not all(name.isdigit() for name in names):
        return ",".join(names[gpu] for gpu in gpu_ids if gpu < len(names))
    return ",".join(str(gpu) for gpu in gpu_ids)
