"""The longest prefix of whole path segments wins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trygon.dataplane.gateway import RouteMatch
from trygon.dataplane.routes import match_prefix

segments = st.lists(st.sampled_from(["a", "ab", "b", ""]), max_size=4)


def table(prefixes: list[str]) -> tuple[dict[str, RouteMatch], list[int]]:
    routes = {
        prefix: RouteMatch(app_name=prefix, route_prefix=prefix, root_path=prefix, deployment="d", revision=1)
        for prefix in prefixes
    }
    return routes, sorted({len(prefix) for prefix in routes}, reverse=True)


@given(st.lists(segments.filter(lambda parts: "" not in parts), max_size=5), segments)
def test_the_longest_prefix_of_whole_segments_wins(prefixes: list[list[str]], path: list[str]) -> None:
    keys = ["".join(f"/{part}" for part in parts) for parts in prefixes]
    routes, lengths = table(keys)

    found = match_prefix(routes, lengths, "/" + "/".join(path))

    parts = list(path)
    fitting = [key for key, one in zip(keys, prefixes, strict=True) if parts[: len(one)] == one]
    assert (max(fitting, key=len) if fitting else None) == (found.app_name if found else None)
