"""Sessions that stay where they are: consistent hashing by the session's id.

    trygon run examples.sessions:app
    curl -H "x-session-id: ann" localhost:8000/?item=bread
    curl -H "x-session-id: ann" localhost:8000/?item=milk

You will see ["bread"], then ["bread","milk"]: the basket is in the memory of one replica.
"""

from __future__ import annotations

from collections import defaultdict

from starlette.requests import Request

from trygon import serve


@serve.deployment(
    num_replicas=3,
    request_router_config={
        "request_router_class": "consistent_hash",
        "request_router_kwargs": {"num_virtual_nodes": 100, "num_fallback_replicas": 2},
    },
)
class Baskets:
    """Keeps what was put into the baskets of its sessions."""

    def __init__(self) -> None:
        self.baskets: defaultdict[str, list[str]] = defaultdict(list)

    async def __call__(self, request: Request) -> list[str]:
        """Put one thing into the basket of the session."""
        basket = self.baskets[request.headers["x-session-id"]]
        basket.append(request.query_params["item"])
        return basket


app = Baskets.bind()
