"""The routers of a process: the routing table it holds, and a pool for each revision of a deployment.

Lives on one event loop; every method is called there. Never asks the controller anything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from trygon.dataplane.caller_metrics import CallerStats
from trygon.dataplane.frames import FrameKind, encode
from trygon.dataplane.gate import Gate
from trygon.dataplane.links import Call, ReplicaLink
from trygon.dataplane.load import LoadPool, LoadReporter
from trygon.dataplane.pool import Pool, PoolHooks, PoolKey
from trygon.dataplane.routing.custom import CustomRouter
from trygon.dataplane.routing.parking import HashRouter, PlainRouter, PoolRouter
from trygon.dataplane.routing.troubles import RouterTroubles
from trygon.errors import DeploymentUnavailableError, ServeError
from trygon.spec.load import DeploymentLoad
from trygon.spec.routers import CONSISTENT_HASH, CUSTOM
from trygon.spec.routing import ApplicationRoute, DeploymentTargets, RoutingTable

__all__ = ["Router"]

#: How often a replica that has our requests and says nothing is asked whether it is alive.
LIVENESS_TICK_S = 0.05
#: A ping unanswered for this long takes the replica out of the rotation until it answers.
SUSPECT_AFTER_S = 0.1
#: First and longest pause between two tries to connect to a listed replica.
CONNECT_BACKOFF_S = (0.01, 0.5)


class Router:
    """Turns (application, deployment, revision) into a replica."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, is_ingress: bool = False) -> None:
        self.loop = loop
        #: Requests from outside come here: how many may wait is bounded.
        self._is_ingress = is_ingress
        self.table = RoutingTable()
        self._applications: dict[str, ApplicationRoute] = {}
        self._pools: dict[PoolKey, Pool] = {}
        self._hooks = PoolHooks(self._connect, self._watch, self._send_again, self._starve, self._new_router)
        #: What is told of routers of the user's that fail; `troubles.send` may be set.
        self.troubles = RouterTroubles(loop)
        #: By application and deployment, so that a revision goes on with the numbers of the one before.
        self._stats: dict[tuple[str, str], CallerStats] = {}
        #: Attempts to connect, by link; ended with the router.
        self._connecting: dict[ReplicaLink, asyncio.Task[None]] = {}
        #: Consecutive lost connections by replica; a table without it clears the entry.
        self._failures: dict[str, int] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self._is_closed = False
        #: Tells the controller of the load; None where nobody asks.
        self._load: LoadReporter | None = None

    # ---- the table

    def apply(self, table: RoutingTable) -> None:
        """Route by `table` from now on, unless a newer one is held."""
        if self._is_closed or (table.version <= self.table.version and self.table.version):
            return
        self.table = table
        self._applications = {app.app_name: app for app in table.applications}
        keys = set()
        for targets in table.deployments:
            key = (targets.app_name, targets.name, targets.revision)
            keys.add(key)
            pool = self._pools.get(key)
            if pool is None:
                pool = self._pools[key] = self._new_pool(key)
            pool.hear_deaths(table.deaths)
            pool.update(targets)
        for key in [key for key in self._pools if key not in keys]:
            self._drop(key)
        listed = {target.replica_id for targets in table.deployments for target in targets.replicas}
        self._failures = {name: n for name, n in self._failures.items() if name in listed}
        if self._load is not None:
            self._load.apply(table)

    def _new_pool(self, key: PoolKey) -> Pool:
        names = key[:2]
        stats = self._stats.get(names)
        if stats is None:
            stats = self._stats[names] = CallerStats(*names)
        return Pool(key, self._hooks, stats=stats, gate=Gate(self.loop.time) if self._is_ingress else None)

    def _new_router(self, pool: Pool, targets: DeploymentTargets) -> PoolRouter | None:
        rule = targets.router
        if rule.name == CONSISTENT_HASH:
            return HashRouter(pool, self.loop, rule)
        if rule.name != CUSTOM:
            return PlainRouter(pool, rule)
        app_name, deployment, _ = pool.key
        return CustomRouter(pool, self.loop, rule, lambda why: self.troubles.count(app_name, deployment, why))

    def read_callers(self) -> dict[tuple[str, str], tuple[CallerStats, int, int]]:
        """Return for each deployment its stats, how many requests wait, and how many are in work."""
        waiting = dict.fromkeys(self._stats, 0)
        ongoing = dict.fromkeys(self._stats, 0)
        for key, pool in self._pools.items():
            waiting[key[:2]] += pool.num_waiting
            ongoing[key[:2]] += sum(link.ongoing + link.lines.num_used for link in pool.links)
        return {names: (stats, waiting[names], ongoing[names]) for names, stats in self._stats.items()}

    def _drop(self, key: PoolKey) -> None:
        for call in self._pools.pop(key).close():
            self._send_again(key, call)

    def _send_again(self, key: PoolKey, call: Call) -> None:
        """Give a request that was never started to the current revision."""
        app_name, deployment, _revision = key
        try:
            pool = self.pool(app_name, deployment)
        except ServeError as error:
            call.on_refused(error)
        else:
            call.on_moved(pool)
            pool.submit(call)

    def pool(self, app_name: str, deployment: str, revision: int | None = None) -> Pool:
        """Return the pool of a deployment: of `revision` while the table lists it, else of the current one.

        Raises:
            DeploymentUnavailableError: The table lists no such deployment.
        """
        if self._is_closed:
            raise DeploymentUnavailableError("the instance that this handle belongs to has ended")
        if revision is not None:
            pool = self._pools.get((app_name, deployment, revision))
            if pool is not None:
                return pool
            if not self.table.version:
                # A replica may call before the first table arrives; the call waits for it.
                key = (app_name, deployment, revision)
                pool = self._pools[key] = self._new_pool(key)
                return pool
        app = self._applications.get(app_name)
        if app is not None:
            pool = self._pools.get((app_name, deployment, app.revision))
            if pool is not None:
                return pool
        raise DeploymentUnavailableError(self._explain_missing(app_name, deployment))

    def known_pool(self, app_name: str, deployment: str, revision: int | None = None) -> Pool | None:
        """Return what `pool` would, if the table lists it; may be called by any thread."""
        if revision is not None:
            pool = self._pools.get((app_name, deployment, revision))
            if pool is not None:
                return pool
        app = self._applications.get(app_name)
        return self._pools.get((app_name, deployment, app.revision)) if app is not None else None

    def _explain_missing(self, app_name: str, deployment: str) -> str:
        if app_name not in self._applications:
            known = ", ".join(sorted(self._applications)) or "none"
            return (
                f"application {app_name!r} is not running (it was deleted or never deployed); "
                f"running applications: {known}"
            )
        names = sorted({name for app, name, _ in self._pools if app == app_name})
        return (
            f"application {app_name!r} has no deployment {deployment!r}; it has: {', '.join(names) or 'none'}"
        )

    def application(self, app_name: str) -> ApplicationRoute | None:
        """Return the route of an application, or None."""
        return self._applications.get(app_name)

    # ---- connections

    def _connect(self, pool: Pool, replica_id: str, address: str) -> ReplicaLink:
        link = ReplicaLink(self.loop, pool, replica_id, address, pool.max_ongoing_requests)
        pool.stats.watch(link.lines)
        self._connecting[link] = self.loop.create_task(self._keep_trying(pool, link, address))
        return link

    async def _keep_trying(self, pool: Pool, link: ReplicaLink, address: str) -> None:
        first, longest = CONNECT_BACKOFF_S
        failures = self._failures.get(link.replica_id, 0)
        try:
            while link in pool.links:
                if failures:
                    await asyncio.sleep(min(first * 2 ** (failures - 1), longest))
                failures += 1
                with contextlib.suppress(OSError):
                    await self.loop.create_unix_connection(lambda: link, address)
                    # One that is lost again at once is not tried in a spin.
                    failures = 1
                    return
        finally:
            self._failures[link.replica_id] = failures
            self._connecting.pop(link, None)

    async def close(self) -> None:
        """Close every connection; waiting and open calls fail."""
        self._is_closed = True
        self.troubles.close()
        if self._load is not None:
            self._load.close()
        if self._ticker is not None:
            self._ticker.cancel()
        for task in list(self._connecting.values()):
            task.cancel()
        if self._connecting:
            await asyncio.gather(*self._connecting.values(), return_exceptions=True)
        for pool in self._pools.values():
            pool.end(DeploymentUnavailableError("the router is closed: the instance was shut down"))
            for link in pool.links:
                link.lines.abort()
                link.abort()
            pool.links.clear()

    # ---- load

    def report_load(self, send: Callable[[tuple[DeploymentLoad, ...]], None]) -> None:
        """Tell `send` how much load there is for each deployment of which the table asks it."""
        self._load = LoadReporter(self.loop, self._pools_of, send)
        self._load.apply(self.table)

    def _pools_of(self, app_name: str, deployment: str) -> list[LoadPool]:
        return [pool for key, pool in self._pools.items() if key[0] == app_name and key[1] == deployment]

    def _starve(self) -> None:
        if self._load is not None:
            self._load.hurry()

    # ---- liveness

    def _watch(self) -> None:
        if self._ticker is None:
            if self._load is not None:
                self._load.wake()
            self._ticker = self.loop.call_later(LIVENESS_TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticker = None
        now = self.loop.time()
        is_busy = False
        for pool in self._pools.values():
            woke = False
            for link in pool.links:
                woke = self._check(link, now) or woke
                is_busy = is_busy or link.ongoing > 0 or link.others > 0 or link.is_suspect
            if woke:
                pool.pump()
        if is_busy and not self._is_closed:
            self._watch()
        else:
            for pool in self._pools.values():
                for link in pool.links:
                    link.is_watched = False

    def _check(self, link: ReplicaLink, now: float) -> bool:
        """Update one link's suspicion; return True if it came back."""
        if link.heard:
            link.heard = False
            link.ping_sent_at = 0.0
            woke = link.is_suspect
            link.is_suspect = False
            return woke
        # Others' work that was heard of long ago must not keep requests from an idle replica for ever.
        link.others >>= 1
        if link.ongoing and link.is_open:
            if not link.ping_sent_at:
                link.ping_sent_at = now
                link.send(encode(FrameKind.PING, 0))
            elif now - link.ping_sent_at >= SUSPECT_AFTER_S:
                link.is_suspect = True
        return False
