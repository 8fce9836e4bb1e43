"""The request parser against RFC 9112 and RFC 9110, whole and in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.protocols.vectors import INVALID, VALID, Invalid, Valid
from trygon.protocols.http.errors import ProtocolError
from trygon.protocols.http.head import HeaderBlock, HeadParser, RequestHead
from trygon.protocols.http.parser import RequestParser
from trygon.protocols.http.settings import HttpSettings

SETTINGS = HttpSettings()
RULES = HeadParser(SETTINGS)


def make_parser() -> RequestParser:
    return RequestParser(RULES, SETTINGS)


def pull(parser: RequestParser, data: bytes, state: list[object]) -> None:
    """Feed and read all there is; `state` collects heads, bodies and the error."""
    parser.feed(data)
    try:
        while True:
            if parser.body_done:
                head = parser.next_head()
                if head is None:
                    return
                state.append(describe(head))
                state.append(b"")
                if not head.has_body:
                    continue
            before = parser.buffered
            body = parser.read_body()
            assert isinstance(state[-1], bytes)
            state[-1] += body
            if not parser.body_done and not parser.has_more:
                return
            assert before or parser.body_done or parser.has_more
    except ProtocolError as error:
        state.append(error.status)
        parser.clear()


def describe(head: RequestHead) -> tuple[object, ...]:
    return head.method, head.path, head.query, head.keep_alive, tuple(head.fields)


def judge(raw: bytes, sizes: list[int] | None = None) -> list[object]:
    """Return what the parser makes of `raw`, cut into pieces of these sizes."""
    parser = make_parser()
    state: list[object] = []
    rest = raw
    for size in sizes or []:
        pull(parser, rest[:size], state)
        rest = rest[size:]
        if state and isinstance(state[-1], int):
            return state
    if rest and not (state and isinstance(state[-1], int)):
        pull(parser, rest, state)
    return state


def settled(state: list[object]) -> list[object]:
    """Leave out the part of a broken body, which depends on what had arrived when it broke."""
    if len(state) > 1 and isinstance(state[-1], int):
        return [*state[:-2], state[-1]]
    return state


@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector.name)
def test_valid_request_is_understood(vector: Valid) -> None:
    parser = make_parser()
    parser.feed(vector.raw)

    head = parser.next_head()
    assert head is not None
    body = b"" if parser.body_done else parser.read_body()

    assert (vector.method, vector.path, vector.query) == (head.method, head.path, head.query)
    assert vector.keep_alive == head.keep_alive
    assert vector.body == body
    assert parser.body_done
    assert parser.buffered == 0


@pytest.mark.parametrize("vector", INVALID, ids=lambda vector: vector.name)
def test_invalid_request_is_refused(vector: Invalid) -> None:
    assert vector.status == judge(vector.raw)[-1]


@pytest.mark.parametrize("vector", [*VALID, *INVALID], ids=lambda vector: vector.name)
def test_one_byte_at_a_time_gives_the_same(vector: Valid | Invalid) -> None:
    raw = vector.raw[:3000]

    assert settled(judge(raw)) == settled(judge(raw, [1] * len(raw)))


@given(st.data())
def test_any_cut_gives_the_same(data: st.DataObject) -> None:
    vectors = data.draw(st.lists(st.sampled_from(VALID), min_size=1, max_size=4))
    last = data.draw(st.sampled_from([*VALID, *INVALID]))
    raw = b"".join(vector.raw for vector in vectors if not vector.raw.startswith(b"\r\n")) + last.raw[:2000]
    sizes = data.draw(st.lists(st.integers(1, max(2, len(raw))), max_size=12))

    assert settled(judge(raw)) == settled(judge(raw, sizes))


@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_else(raw: bytes) -> None:
    judge(raw)


@given(st.sampled_from(VALID), st.data())
def test_changed_request_never_raises_anything_else(vector: Valid, data: st.DataObject) -> None:
    raw = bytearray(vector.raw[:500])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))

    judge(bytes(raw))


def test_pipelined_requests_wait_their_turn() -> None:
    parser = make_parser()
    parser.feed(
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nxGET /3 "
    )

    first = parser.next_head()
    second = parser.next_head()

    assert first is not None
    assert second is not None
    assert ("/1", "/2") == (first.path, second.path)
    assert parser.read_body() == b"x"
    assert parser.next_head() is None
    assert parser.buffered == len(b"GET /3 ")


def test_repeated_head_is_not_judged_again() -> None:
    parser = make_parser()
    raw = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
    parser.feed(raw * 2)

    first = parser.next_head()

    assert first is parser.next_head()


def test_repeated_lines_under_another_target_share_their_block() -> None:
    parser = make_parser()
    parser.feed(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n")

    first = parser.next_head()
    second = parser.next_head()

    assert first is not None
    assert second is not None
    assert first.block is second.block
    assert "/b" == second.path


def test_kept_block_does_not_let_a_new_line_form_through() -> None:
    parser = make_parser()
    parser.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    parser.next_head()
    parser.read_body()
    parser.feed(b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")

    with pytest.raises(ProtocolError) as caught:
        parser.next_head()

    assert 400 == caught.value.status


def test_absolute_target_replaces_the_host() -> None:
    parser = make_parser()
    parser.feed(b"GET http://real:81/x HTTP/1.1\r\nX: y\r\nHost: other\r\n\r\n")

    head = parser.next_head()

    assert head is not None
    assert [(b"host", b"real:81"), (b"x", b"y")] == head.fields
    assert b"/x" == head.raw_path


@pytest.mark.parametrize(
    "line, expected",
    [
        (b"X-Request-ID: abc-123", "abc-123"),
        (b"X-Request-ID: " + b"a" * 128, "a" * 128),
        (b"X-Request-ID: " + b"a" * 129, ""),
        (b"X-Request-ID: a b", ""),
        (b"X-Request-ID: caf\xe9", ""),
        (b"X-Request-ID:", ""),
    ],
)
def test_request_id_is_taken_over_only_when_clean(line: bytes, expected: str) -> None:
    assert expected == block_of(line).request_id


@pytest.mark.parametrize(
    "value, expected",
    [
        (b"5", 5.0),
        (b"0.5", 0.5),
        (b"0", 0.0),
        (b"-1", 0.0),
        (b"nan", 0.0),
        (b"inf", 0.0),
        (b"x", 0.0),
        (b"1e5", 0.0),
    ],
)
def test_timeout_header(value: bytes, expected: float) -> None:
    assert expected == block_of(b"X-Request-Timeout-Seconds: " + value).timeout_s


@pytest.mark.parametrize("name", [b"serve_multiplexed_model_id", b"Serve-Multiplexed-Model-ID"])
def test_model_id_is_found_under_both_spellings(name: bytes) -> None:
    assert "m1" == block_of(name + b": m1").model_id


@pytest.mark.parametrize("name", [b"x-session-id", b"X_Session_ID"])
def test_session_id_is_found_under_both_spellings(name: bytes) -> None:
    assert "s1" == block_of(name + b": s1").session_id


def test_session_header_can_be_renamed() -> None:
    rules = HeadParser(HttpSettings(session_id_header="X-Shop-Visit"))

    assert "v" == rules.parse_block(b"x_shop_visit: v\r\n").session_id


def block_of(line: bytes) -> HeaderBlock:
    return RULES.parse_block(b"Host: a\r\n" + line + b"\r\n")


def test_large_head_is_not_kept() -> None:
    parser = make_parser()
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 5000 + b"\r\n\r\n"
    parser.feed(raw * 2)

    assert parser.next_head() is not parser.next_head()


def test_many_small_chunks_are_read_in_turns() -> None:
    parser = make_parser()
    parser.feed(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\na\r\n" * 3000
        + b"0\r\n\r\n"
    )
    parser.next_head()

    sizes = []
    while not parser.body_done:
        sizes.append(len(parser.read_body()))

    assert [1024, 1024, 952] == sizes


def test_limits_follow_the_settings() -> None:
    settings = HttpSettings(max_head_bytes=200, max_headers=2, max_target_bytes=50)
    rules = HeadParser(settings)

    def status(raw: bytes) -> int:
        parser = RequestParser(rules, settings)
        parser.feed(raw)
        with pytest.raises(ProtocolError) as caught:
            parser.next_head()
        return caught.value.status

    assert 431 == status(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200 + b"\r\n\r\n")
    assert 431 == status(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\nY: b\r\n\r\n")
    assert 414 == status(b"GET /" + b"a" * 60 + b" HTTP/1.1\r\nHost: a\r\n\r\n")


def test_rest_is_given_up_for_another_protocol() -> None:
    parser = make_parser()
    parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nmore")
    parser.next_head()

    assert b"more" == parser.take_rest()
    assert 0 == parser.buffered


def test_there_are_enough_vectors() -> None:
    assert 150 <= len(VALID) + len(INVALID)
    assert len({vector.name for vector in (*VALID, *INVALID)}) == len(VALID) + len(INVALID)
