"""Who may pass to the admin application: names, origins, tokens, revisions; tables in, verdicts out."""

from __future__ import annotations

import pytest

from trygon.errors import RevisionConflictError
from trygon.protocols.admin import ROUTES, Access
from trygon.protocols.admin.preconditions import expected_revision
from trygon.protocols.admin.routes import APPLICATION, APPLICATIONS, METRICS, SCALE, find_route
from trygon.spec.admin import AdminOptions, is_loopback

TOKEN = "t" * 43
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW")
PATH = b"/api/serve/applications/"
OFF_LOOPBACK = AdminOptions(host="10.0.0.5", allow_plaintext=True)


def verdict(
    *lines: tuple[str, str],
    method: str = "GET",
    path: bytes = PATH,
    options: AdminOptions | None = None,
    scheme: str = "http",
    address: str = "127.0.0.1",
) -> int:
    """Return the status of the refusal, 200 when the request may pass."""
    access = Access(TOKEN, options or AdminOptions(), scheme=scheme)
    headers = [(name.encode(), value.encode("latin-1")) for name, value in lines]
    refusal = access.refuse(method, path, headers, address)
    return 200 if refusal is None else refusal.status


HOST = ("host", "127.0.0.1:8265")
GOOD = ("authorization", f"Bearer {TOKEN}")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_every_route_and_method_needs_a_token_but_for_health_and_metrics(method: str, route: object) -> None:
    path = route.path.replace("{name}", "default").encode()  # type: ignore[attr-defined]
    is_open = route.open_on_loopback and method in ("GET", "HEAD")  # type: ignore[attr-defined]

    assert (200 if is_open else 401) == verdict(HOST, method=method, path=path)
    assert 401 == verdict(("host", "10.0.0.5"), method=method, path=path, options=OFF_LOOPBACK)
    assert 200 == verdict(HOST, GOOD, method=method, path=path)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.2", "10.0.0.5"),
        *("", "[::2]:8265", "0.0.0.0", "127.0.0.1@evil.example", "xn--lcalhost-13a"),
    ],
)
def test_a_forged_host_is_refused_before_anything_else(method: str, host: str) -> None:
    for path in (PATH, b"/metrics", b"/-/healthz", b"*"):
        assert 421 == verdict(("host", host), GOOD, method=method, path=path)


def test_no_host_and_two_hosts_are_refused() -> None:
    assert 421 == verdict(GOOD)
    assert 421 == verdict(HOST, ("host", "localhost"), GOOD)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8265", "[::1]", "localhost."]
)
def test_loopback_names_pass_with_any_port(host: str) -> None:
    assert 200 == verdict(("host", host), GOOD)


def test_the_bound_address_and_configured_names_pass() -> None:
    options = AdminOptions(host="10.0.0.5", allowed_hosts=("Serve.Example",), allow_plaintext=True)
    everywhere = AdminOptions(host="0.0.0.0", allow_plaintext=True)

    assert 200 == verdict(("host", "10.0.0.5:8265"), GOOD, options=options)
    assert 200 == verdict(("host", "serve.example:8265"), GOOD, options=options)
    assert 421 == verdict(("host", "other.example"), GOOD, options=options)
    assert 200 == verdict(("host", "192.168.1.7:8265"), GOOD, options=everywhere, address="192.168.1.7")
    assert 421 == verdict(("host", "0.0.0.0"), GOOD, options=everywhere, address="192.168.1.7")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "line",
    [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("origin", ""),
        ("origin", "http://127.0.0.1:8000"),
        ("origin", "http://localhost:8265"),
        ("origin", "https://127.0.0.1:8265"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "sideways"),
    ],
)
def test_a_page_of_another_origin_is_refused_even_with_the_token(method: str, line: tuple[str, str]) -> None:
    for path in (PATH, b"/metrics", b"/-/healthz"):
        assert 403 == verdict(HOST, GOOD, line, method=method, path=path)


def test_the_own_origin_and_typed_addresses_pass() -> None:
    assert 200 == verdict(HOST, GOOD, ("origin", "http://127.0.0.1:8265"), ("sec-fetch-site", "same-origin"))
    assert 200 == verdict(HOST, GOOD, ("origin", "https://127.0.0.1:8265"), scheme="https")
    assert 200 == verdict(HOST, ("sec-fetch-site", "none"), path=b"/metrics")


@pytest.mark.parametrize(
    "value",
    [
        *("", "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN),
        *(f"Bearer{TOKEN}", f"Bearer {TOKEN} {TOKEN}", f"Bearer {TOKEN}\xe9", f"Bearer {TOKEN.upper()}"),
    ],
)
def test_a_wrong_token_is_refused(value: str) -> None:
    assert 401 == verdict(HOST, ("authorization", value))


def test_a_token_is_taken_once_and_whatever_the_case_of_its_scheme() -> None:
    assert 200 == verdict(HOST, ("authorization", f"bearer {TOKEN}"))
    assert 401 == verdict(HOST, GOOD, GOOD)


@pytest.mark.parametrize(
    "path, route, name",
    [
        (b"/api/serve/applications/", APPLICATIONS, ""),
        (b"/api/serve/applications", APPLICATIONS, ""),
        (b"/api/serve/applications/shop", APPLICATION, "shop"),
        (b"/api/serve/applications/shop/", APPLICATION, "shop"),
        (b"/api/serve/applications/a%2Fb%20c", APPLICATION, "a/b c"),
        (b"/api/serve/applications/%ff", APPLICATION, "�"),
        (b"/metrics", METRICS, ""),
    ],
)
def test_paths_are_split_before_they_are_decoded(path: bytes, route: object, name: str) -> None:
    assert (route, name, "") == find_route(path)


def test_a_path_may_name_an_application_and_a_deployment() -> None:
    found = find_route(b"/api/v1/applications/a%2Fb/deployments/Till/scale")

    assert (SCALE, "a/b", "Till") == found


@pytest.mark.parametrize(
    "path",
    [b"/", b"", b"*", b"/api/serve", b"/api/serve/applications//", b"/api%2Fserve/applications", b"/x"],
)
def test_other_paths_have_no_route(path: bytes) -> None:
    assert find_route(path) is None


@pytest.mark.parametrize(
    "if_match, if_none_match, current, seen",
    [
        (None, None, 3, None),
        ('"3"', None, 3, 3),
        ('"2", "3"', None, 3, 3),
        ("*", None, 3, 3),
        (None, "*", 0, 0),
        (None, '"2"', 3, 3),
    ],
)
def test_preconditions_become_the_revision_that_was_seen(
    if_match: str | None, if_none_match: str | None, current: int, seen: int | None
) -> None:
    assert seen == expected_revision(if_match, if_none_match, current)


@pytest.mark.parametrize(
    "if_match, if_none_match, current",
    [('"2"', None, 3), ("*", None, 0), ('"3"', None, 0), ("3", None, 3), (None, "*", 3), (None, '"3"', 3)],
)
def test_a_precondition_that_does_not_hold_is_told_with_the_revision(
    if_match: str | None, if_none_match: str | None, current: int
) -> None:
    with pytest.raises(RevisionConflictError, match=r"at revision 3|no such application"):
        expected_revision(if_match, if_none_match, current)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]"])
def test_loopback_needs_neither_tls_nor_a_waiver(host: str) -> None:
    assert is_loopback(host)
    assert "" == AdminOptions(host=host).problem(has_tls=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.1.2.3", "serve.example", "localhost.example"])
def test_off_loopback_wants_tls_or_a_waiver(host: str) -> None:
    assert "admin_allow_plaintext" in AdminOptions(host=host).problem(has_tls=False)
    assert "" == AdminOptions(host=host).problem(has_tls=True)
    assert "" == AdminOptions(host=host, allow_plaintext=True).problem(has_tls=False)
