"""What a replica tells the router of the user's: its `record_routing_stats`, and the models that it has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from trygon.dataplane.models.cache import ModelCache
from trygon.dataplane.routing.helper_link import HelperLink
from trygon.dataplane.user_callable import UserCallable
from trygon.spec.helper import RoutingStats
from trygon.spec.routers import CUSTOM, RouterRule
from trygon.spec.routing import RoutingTable

__all__ = ["RoutingStatsTeller"]

logger = logging.getLogger("trygon.replica")

#: What is told before the routing table lists this replica would reach nobody.
_UNLISTED_PAUSE_S = 0.25
_HOOK = "record_routing_stats"


class RoutingStatsTeller:
    """Asks the user's method now and then, and tells the helper that the routing table names.

    Args:
        replica_id: Whose numbers these are.
        user: The user's code.
        caches: The replica's models; the list may grow.
        rule: Returns the options as they are now.
        table: Returns the routing table.
    """

    def __init__(
        self,
        replica_id: str,
        user: UserCallable,
        caches: list[ModelCache],
        *,
        rule: Callable[[], RouterRule],
        table: Callable[[], RoutingTable],
    ) -> None:
        self._replica_id = replica_id
        self._user = user
        self._caches = caches
        self._rule = rule
        self._table = table
        self._link: HelperLink | None = None
        self._address = ""
        self._last = RoutingStats(replica_id)

    async def run(self) -> None:
        """Tell until the options name no router of the user's any more, or the task is cancelled."""
        try:
            while self._rule().name == CUSTOM:
                if not self._find_helper():
                    await asyncio.sleep(_UNLISTED_PAUSE_S)
                    continue
                stats = await self._ask()
                if stats is not None:
                    self._last = stats
                    self._tell()
                await asyncio.sleep(self._rule().stats_period_s)
        finally:
            if self._link is not None:
                self._link.close()

    async def _ask(self) -> RoutingStats | None:
        """Return what there is to tell; None when the user's method failed, whose last numbers stay."""
        found: dict[str, Any] = {}
        if self._user.has_method(_HOOK):
            timeout_s = self._rule().stats_timeout_s
            try:
                async with asyncio.timeout(timeout_s):
                    found = dict(await self._user.run_hook(_HOOK))
                msgspec.msgpack.encode(found)
            except TimeoutError:
                logger.warning("%s did not return within %g s", _HOOK, timeout_s)
                return None
            except Exception:  # a user's method raises and returns anything
                logger.exception("%s failed; it returns a dict of plain data", _HOOK)
                return None
        models = [str(model) for cache in self._caches for model in cache.models]
        return RoutingStats(self._replica_id, found, models)

    def _find_helper(self) -> bool:
        address = next(
            (
                targets.router.address
                for targets in reversed(self._table().deployments)
                if targets.router.name == CUSTOM
                and any(target.replica_id == self._replica_id for target in targets.replicas)
            ),
            "",
        )
        if address and address != self._address:
            if self._link is not None:
                self._link.close()
            self._address = address
            _, deployment, _ = self._replica_id.split("#", 2)
            loop = asyncio.get_running_loop()
            self._link = HelperLink(loop, address, deployment, lambda _: None, self._tell)
        return bool(address)

    def _tell(self) -> None:
        """Tell what is known; also a helper that is new."""
        if self._link is not None and self._link.is_open:
            self._link.tell(self._last)
