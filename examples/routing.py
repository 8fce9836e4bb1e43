"""A router of your own: each shop's requests go to the replica that keeps the shop's things.

    trygon run examples.routing:app
    curl "localhost:8000/?shop=17"
    curl "localhost:8000/?shop=17"

The first answer says {"shop":"17","visits":1}, the second {"shop":"17","visits":2}: both went to one replica.
"""

from __future__ import annotations

import zlib
from collections import Counter

from starlette.requests import Request

from trygon import serve
from trygon.serve.config import RequestRouterConfig
from trygon.serve.request_router import PendingRequest, RequestRouter, RunningReplica


class ByShop(RequestRouter):
    """Runs in a process of its own; requests go by power of two choices while it cannot answer."""

    def initialize_state(self, argument: str = "shop") -> None:
        """Take `request_router_kwargs`."""
        self.argument = argument

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return one replica, which is waited for when it is full."""
        if pending_request is None or not pending_request.args:
            return [candidate_replicas]
        request = pending_request.args[0]
        shop = request.query_params.get(self.argument, "")
        ordered = sorted(candidate_replicas, key=lambda replica: replica.replica_id.unique_id)
        return [[ordered[zlib.crc32(shop.encode()) % len(ordered)]]]


@serve.deployment(
    num_replicas=3,
    request_router_config=RequestRouterConfig(
        request_router_class=ByShop, request_router_kwargs={"argument": "shop"}
    ),
)
class Shops:
    """Counts the visits of the shops that it is asked about."""

    def __init__(self) -> None:
        self.visits: Counter[str] = Counter()

    async def __call__(self, request: Request) -> dict[str, object]:
        """Count one visit."""
        shop = request.query_params["shop"]
        self.visits[shop] += 1
        return {"shop": shop, "visits": self.visits[shop]}


app = Shops.bind()
