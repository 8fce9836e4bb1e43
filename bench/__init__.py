"""The benchmark harness: starts each system itself, drives it, prints one table, writes one page.

Run it with ``scripts/bench``; ``docs/benchmarks.md`` says what is measured and how to read it.
It imports nothing of Trygon: every system, ours too, is a child process behind a loopback port.
"""
