"""Run one of the serve programs on Ray Serve: ``ray_main.py module:app --port P`` or ``ray_main.py FILE.py ...``.

The program is the very file that Trygon runs; ``ray_shim`` on PYTHONPATH makes its import mean Ray Serve.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys

import ray
from ray import serve


def main() -> None:
    """Start a Ray of our own on loopback, then run the program or deploy the application and wait."""
    target = sys.argv[1]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Ray takes the machine's cores for its CPUs; four replicas do not fit on two.
    num_cpus = int(os.environ["BENCH_RAY_CPUS"]) if "BENCH_RAY_CPUS" in os.environ else None
    ray.init(
        address="local",
        namespace="serve",
        num_cpus=num_cpus,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=os.environ.get("BENCH_RAY_TEMP"),
    )
    if target.endswith(".py"):
        sys.argv = sys.argv[1:]
        runpy.run_path(target, run_name="__main__")
        return
    port = int(sys.argv[sys.argv.index("--port") + 1])
    logging_config = {"enable_access_log": os.environ.get("BENCH_ACCESS_LOG") == "1"}
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config=logging_config)
    module, _, attribute = target.partition(":")
    serve.run(getattr(importlib.import_module(module), attribute), logging_config=logging_config)
    signal.pause()


if __name__ == "__main__":
    main()
