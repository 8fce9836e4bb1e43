"""Who holds which GPU and which custom resource of one machine. Pure.

CPUs and memory are hints and never counted: a laptop must run more one-CPU deployments than it has cores.
A fraction of a GPU goes to the fullest GPU that still has room, so that whole ones stay free.
"""

from __future__ import annotations

from collections.abc import Mapping

from trygon.engine.base import Holding, Resources
from trygon.spec.application import ResourceRequest

__all__ = ["Ledger", "Shortage"]

#: Sums of fractions such as 0.1 are not exact.
_EPSILON = 1e-6


class Shortage(Exception):
    """What was asked for is not free; the text says what is wanted, what there is, and who holds it."""


class Ledger:
    """The exclusive resources of one machine.

    Args:
        cpus: Number of CPUs, for showing only.
        gpu_ids: The GPUs that may be assigned.
        custom: Custom resources by name.
    """

    def __init__(self, *, cpus: float, gpu_ids: tuple[int, ...] = (), custom: Mapping[str, float]) -> None:
        self._cpus = cpus
        self._custom = dict(custom)
        #: Free share of each GPU, 0 to 1.
        self._free_gpus = dict.fromkeys(gpu_ids, 1.0)
        self._free_custom = dict(custom)
        #: What each replica holds: its share of each GPU, and custom resources.
        self._held: dict[str, tuple[dict[int, float], dict[str, float]]] = {}

    def acquire(self, replica_id: str, request: ResourceRequest) -> tuple[int, ...] | None:
        """Take what `request` names; return the GPU ids, () to hide all GPUs, or None to leave them alone.

        Raises:
            Shortage: Something is not free; nothing was taken.
        """
        for name, amount in request.resources.items():
            if amount > self._free_custom.get(name, 0.0) + _EPSILON:
                raise Shortage(self._explain(name, amount))
        shares = self._choose_gpus(request.num_gpus)
        self._take(replica_id, shares, request.resources)
        if shares:
            return tuple(sorted(shares))
        # Without GPUs on the machine the variable is left alone, as CPU-only programs expect.
        return () if self._free_gpus else None

    def adopt(self, replica_id: str, request: ResourceRequest, gpu_ids: tuple[int, ...] | None) -> None:
        """Book what a replica found running holds already."""
        ids = gpu_ids or ()
        share = request.num_gpus / len(ids) if ids else 0.0
        self._take(replica_id, {gpu: share for gpu in ids if gpu in self._free_gpus}, request.resources)

    def release(self, replica_id: str) -> None:
        """Give back what a replica held; unknown ids hold nothing."""
        shares, custom = self._held.pop(replica_id, ({}, {}))
        for gpu, share in shares.items():
            self._free_gpus[gpu] = min(1.0, self._free_gpus[gpu] + share)
        for name, amount in custom.items():
            if name in self._free_custom:
                self._free_custom[name] = min(self._custom[name], self._free_custom[name] + amount)

    def resources(self) -> Resources:
        """Return the totals and who holds what."""
        return Resources(
            cpus=self._cpus,
            gpus=float(len(self._free_gpus)),
            custom=dict(self._custom),
            holdings=tuple(
                Holding(replica_id, sum(shares.values()), dict(custom))
                for replica_id, (shares, custom) in self._held.items()
                if shares or custom
            ),
        )

    def _choose_gpus(self, wanted: float) -> dict[int, float]:
        if wanted <= 0:
            return {}
        if wanted < 1:
            fitting = [gpu for gpu, free in self._free_gpus.items() if free + _EPSILON >= wanted]
            if not fitting:
                raise Shortage(self._explain("GPU", wanted))
            return {min(fitting, key=lambda gpu: (self._free_gpus[gpu], gpu)): wanted}
        whole = [gpu for gpu, free in self._free_gpus.items() if free >= 1.0 - _EPSILON]
        if len(whole) < wanted:
            raise Shortage(self._explain("GPU", wanted))
        return dict.fromkeys(sorted(whole)[: int(wanted)], 1.0)

    def _take(self, replica_id: str, shares: dict[int, float], custom: dict[str, float]) -> None:
        for gpu, share in shares.items():
            self._free_gpus[gpu] -= share
        for name, amount in custom.items():
            if name in self._free_custom:
                self._free_custom[name] -= amount
        self._held[replica_id] = (shares, {name: amount for name, amount in custom.items() if amount > 0})

    def _explain(self, name: str, wanted: float) -> str:
        gpu = name == "GPU"
        have = float(len(self._free_gpus)) if gpu else self._custom.get(name, 0.0)
        users = []
        for replica_id, (shares, custom) in self._held.items():
            amount = sum(shares.values()) if gpu else custom.get(name, 0.0)
            if amount:
                users.append(f"{replica_id} holds {amount:g}")
        in_use = "; ".join(users) or "nobody holds any"
        return f"a replica wants {wanted:g} of {name!r}, the machine has {have:g}: {in_use}"
