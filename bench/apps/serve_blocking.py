"""Three applications side by side; two of them block on request: ``serve_blocking.py --port P``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

from starlette.requests import Request

from trygon import serve

_QUIET = {"enable_access_log": False}


@serve.deployment(num_replicas=2, max_ongoing_requests=100, logging_config=_QUIET)
class BlocksInSync:
    """Sleeps `block` seconds in a plain method."""

    def __call__(self, request: Request) -> dict[str, int]:
        time.sleep(float(request.query_params.get("block", 0)))
        return {"pid": os.getpid()}


@serve.deployment(num_replicas=2, max_ongoing_requests=100, logging_config=_QUIET)
class BlocksInAsync:
    """Sleeps `block` seconds on the event loop, which it should not."""

    async def __call__(self, request: Request) -> dict[str, int]:
        time.sleep(float(request.query_params.get("block", 0)))
        return {"pid": os.getpid()}


@serve.deployment(max_ongoing_requests=100, logging_config=_QUIET)
class Other:
    """Has nothing to do with the others."""

    async def __call__(self, _: Request) -> dict[str, int]:
        return {"pid": os.getpid()}


def main() -> None:
    """Deploy and wait for a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Other.bind(), name="other", route_prefix="/other")
    serve.run(BlocksInSync.bind(), name="sync", route_prefix="/sync")
    serve.run(BlocksInAsync.bind(), name="async", route_prefix="/async")
    try:
        signal.pause()
    finally:
        serve.shutdown()


if __name__ == "__main__":
    main()
