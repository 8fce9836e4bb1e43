"""Requests and what RFC 9112, RFC 9110 and RFC 6455 say of them: an own collection, each line a judgement."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["INVALID", "VALID", "Invalid", "Valid"]


class Valid(NamedTuple):
    """Bytes that are one whole request, and what a reader must make of them."""

    name: str
    raw: bytes
    method: str = "GET"
    path: str = "/"
    query: bytes = b""
    body: bytes = b""
    keep_alive: bool = True


class Invalid(NamedTuple):
    """Bytes that must be answered with `status`, and the connection closed."""

    name: str
    raw: bytes
    status: int


def _get(*lines: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join((line, b"Host: a", *lines)) + b"\r\n\r\n"


def _post(body: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join((b"POST / HTTP/1.1", b"Host: a", *lines)) + b"\r\n\r\n" + body


def _chunked(body: bytes) -> bytes:
    return _post(body, b"Transfer-Encoding: chunked")


def _target(target: bytes) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"


def _host(value: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost:" + value + b"\r\n\r\n"


_KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


def _upgrade(*lines: bytes, line: bytes = b"GET /ws HTTP/1.1") -> bytes:
    return _get(b"Upgrade: websocket", b"Connection: Upgrade", *lines, line=line)


VALID = (
    # request lines
    Valid("plain", _get()),
    Valid("http 1.0", b"GET / HTTP/1.0\r\n\r\n", keep_alive=False),
    Valid("http 1.0 with host", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", keep_alive=False),
    Valid("http 1.0 keep-alive", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    Valid("http 1.0 Keep-Alive", b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"),
    Valid("head", _get(line=b"HEAD / HTTP/1.1"), method="HEAD"),
    Valid("options", _get(line=b"OPTIONS /x HTTP/1.1"), method="OPTIONS", path="/x"),
    Valid("options asterisk", _get(line=b"OPTIONS * HTTP/1.1"), method="OPTIONS", path="*"),
    Valid("unknown method", _get(line=b"PROPFIND /x HTTP/1.1"), method="PROPFIND", path="/x"),
    Valid("lower-case method is another method", _get(line=b"get / HTTP/1.1"), method="get"),
    Valid(
        "method of odd token characters",
        _get(line=b"!#$%&'*+-.^_`|~09 / HTTP/1.1"),
        method="!#$%&'*+-.^_`|~09",
    ),
    Valid("empty line first", b"\r\n" + _get()),
    # targets
    Valid("query", _target(b"/a?b=c&d"), path="/a", query=b"b=c&d"),
    Valid("empty query", _target(b"/a?"), path="/a"),
    Valid("query of a question mark", _target(b"/a??"), path="/a", query=b"?"),
    Valid("slash in query", _target(b"/a?/b"), path="/a", query=b"/b"),
    Valid("escaped path", _target(b"/a%20b"), path="/a b"),
    Valid("escaped utf-8", _target(b"/%C3%A9"), path="/\u00e9"),
    Valid("escaped slash", _target(b"/a%2Fb"), path="/a/b"),
    Valid("escaped percent", _target(b"/a%25b"), path="/a%b"),
    Valid("lower-case escape", _target(b"/a%2fb"), path="/a/b"),
    Valid("sloppy escape in query", _target(b"/?a=100%"), query=b"a=100%"),
    Valid("every pchar", _target(b"/aZ09-._~!$&'()*+,;=:@"), path="/aZ09-._~!$&'()*+,;=:@"),
    Valid("what browsers leave in paths", _target(b"/a|[b]"), path="/a|[b]"),
    Valid("what browsers leave in queries", _target(b"/?a={b}|[c]^`\\"), query=b"a={b}|[c]^`\\"),
    Valid("double slash", _target(b"//a"), path="//a"),
    Valid("dot segments stay", _target(b"/a/../b"), path="/a/../b"),
    Valid("absolute form", _target(b"http://b/c?d"), path="/c", query=b"d"),
    Valid("absolute form without path", _target(b"http://b")),
    Valid("absolute form with only a query", _target(b"http://b?d"), query=b"d"),
    Valid("absolute form with port", _target(b"http://b:80/"), path="/"),
    Valid("absolute form upper-case scheme", _target(b"HTTP://b/")),
    Valid("absolute form https", _target(b"https://b/c"), path="/c"),
    Valid("absolute form ipv6", _target(b"http://[::1]:8/c"), path="/c"),
    Valid("long target", _target(b"/" + b"a" * 8000), path="/" + "a" * 8000),
    # header lines
    Valid("no space after colon", b"GET / HTTP/1.1\r\nHost:a\r\n\r\n"),
    Valid("tabs and spaces around a value", _get(b"X: \t v \t ")),
    Valid("empty value", _get(b"X:")),
    Valid("value of spaces", _get(b"X:   ")),
    Valid("tab inside a value", _get(b"X: a\tb")),
    Valid("high bytes in a value", _get(b"X: \xff\x80\xe9")),
    Valid("colon in a value", _get(b"X: a:b:c")),
    Valid("repeated header", _get(b"X: a", b"X: b")),
    Valid("name of odd token characters", _get(b"!#$%&'*+-.^_`|~09aZ: x")),
    Valid("upper-case name", b"GET / HTTP/1.1\r\nHOST: a\r\n\r\n"),
    Valid("underscore in name", _get(b"Content_Length: 5")),
    Valid("128 lines", _get(*[b"X-%d: a" % n for n in range(127)])),
    Valid("large value", _get(b"X: " + b"a" * 30000)),
    # host
    Valid("host with port", _host(b" a:80")),
    Valid("host with empty port", _host(b" a:")),
    Valid("host ipv4", _host(b" 127.0.0.1:8000")),
    Valid("host ipv6", _host(b" [::1]:8000")),
    Valid("host with escape", _host(b" a%20b")),
    Valid("host with underscore", _host(b" a_b.c-d")),
    # connection
    Valid("close", _get(b"Connection: close"), keep_alive=False),
    Valid("Close", _get(b"Connection: Close"), keep_alive=False),
    Valid("close among others", _get(b"Connection: x, close"), keep_alive=False),
    Valid("close in the second line", _get(b"Connection: x", b"Connection: close"), keep_alive=False),
    Valid("keep-alive", _get(b"Connection: keep-alive")),
    Valid("a token that only looks like close", _get(b"Connection: closed")),
    Valid("close and keep-alive", _get(b"Connection: keep-alive, close"), keep_alive=False),
    # bodies
    Valid("length", _post(b"hello", b"Content-Length: 5"), method="POST", body=b"hello"),
    Valid("length zero", _post(b"", b"Content-Length: 0"), method="POST"),
    Valid("length with zeros", _post(b"hello", b"Content-Length: 005"), method="POST", body=b"hello"),
    Valid("get with a body", _get(b"Content-Length: 2") + b"ab", body=b"ab"),
    Valid(
        "http 1.0 with length",
        b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab",
        "POST",
        body=b"ab",
        keep_alive=False,
    ),
    Valid("body of line ends", _post(b"\r\n\r\n", b"Content-Length: 4"), method="POST", body=b"\r\n\r\n"),
    Valid("chunked", _chunked(b"5\r\nhello\r\n0\r\n\r\n"), method="POST", body=b"hello"),
    Valid("Chunked", _post(b"0\r\n\r\n", b"Transfer-Encoding: Chunked"), method="POST"),
    Valid("chunked in spaces", _post(b"0\r\n\r\n", b"Transfer-Encoding:  chunked \t"), method="POST"),
    Valid("chunked empty", _chunked(b"0\r\n\r\n"), method="POST"),
    Valid("chunks", _chunked(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"), method="POST", body=b"abc"),
    Valid("chunk size in hex", _chunked(b"a\r\n0123456789\r\n0\r\n\r\n"), method="POST", body=b"0123456789"),
    Valid(
        "chunk size upper case", _chunked(b"A\r\n0123456789\r\n0\r\n\r\n"), method="POST", body=b"0123456789"
    ),
    Valid("chunk size with zeros", _chunked(b"0001\r\na\r\n000\r\n\r\n"), method="POST", body=b"a"),
    Valid(
        "chunk size of 16 digits", _chunked(b"0000000000000001\r\na\r\n0\r\n\r\n"), method="POST", body=b"a"
    ),
    Valid(
        "chunk data of line ends", _chunked(b"4\r\n\r\n\r\n\r\n0\r\n\r\n"), method="POST", body=b"\r\n\r\n"
    ),
    Valid("chunk extension", _chunked(b"1;a\r\nx\r\n0\r\n\r\n"), method="POST", body=b"x"),
    Valid("chunk extension value", _chunked(b"1;a=b\r\nx\r\n0;c=d\r\n\r\n"), method="POST", body=b"x"),
    Valid("chunk extension quoted", _chunked(b'1;a="b;\\"c"\r\nx\r\n0\r\n\r\n'), method="POST", body=b"x"),
    Valid(
        "chunk extension with bad whitespace",
        _chunked(b"1 ; a = b\r\nx\r\n0\r\n\r\n"),
        method="POST",
        body=b"x",
    ),
    Valid("trailer", _chunked(b"1\r\nx\r\n0\r\nA: b\r\n\r\n"), method="POST", body=b"x"),
    Valid(
        "trailers that would frame are dropped",
        _chunked(b"0\r\nContent-Length: 5\r\nHost: b\r\n\r\n"),
        "POST",
    ),
    Valid("expect", _post(b"ab", b"Expect: 100-continue", b"Content-Length: 2"), method="POST", body=b"ab"),
    Valid("Expect", _post(b"ab", b"Expect: 100-Continue", b"Content-Length: 2"), method="POST", body=b"ab"),
    Valid("expect without body", _get(b"Expect: 100-continue")),
    # upgrades that are none of ours
    Valid("upgrade to h2c is ignored", _get(b"Upgrade: h2c", b"Connection: Upgrade")),
    Valid(
        "websocket upgrade in 1.0 is ignored",
        b"GET / HTTP/1.0\r\nUpgrade: websocket\r\n\r\n",
        keep_alive=False,
    ),
    # handshakes
    Valid("handshake", _upgrade(_KEY, b"Sec-WebSocket-Version: 13"), path="/ws"),
    Valid(
        "handshake in other cases",
        _get(b"UPGRADE: WebSocket", b"connection: keep-alive, UPGRADE", _KEY, b"sec-websocket-version: 13"),
    ),
    Valid(
        "handshake among upgrades",
        _get(b"Upgrade: x, websocket", b"Connection: Upgrade", _KEY, b"Sec-WebSocket-Version: 13"),
    ),
    Valid(
        "handshake with extensions",
        _upgrade(_KEY, b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Extensions: permessage-deflate"),
        path="/ws",
    ),
)

_WRONG_LINES = {
    "two spaces after method": b"GET  / HTTP/1.1",
    "two spaces before version": b"GET /  HTTP/1.1",
    "tab for space": b"GET\t/ HTTP/1.1",
    "space first": b" GET / HTTP/1.1",
    "space last": b"GET / HTTP/1.1 ",
    "no version": b"GET /",
    "no target": b"GET HTTP/1.1",
    "only a method": b"GET",
    "four words": b"GET / / HTTP/1.1",
    "lower-case http": b"GET / http/1.1",
    "mixed-case http": b"GET / Http/1.1",
    "version of two digits": b"GET / HTTP/1.10",
    "version with a leading zero": b"GET / HTTP/01.1",
    "version without minor": b"GET / HTTP/1",
    "version with a comma": b"GET / HTTP/1,1",
    "version with a sign": b"GET / HTTP/+1.1",
    "version without slash": b"GET / HTTP1.1",
    "another protocol": b"GET / HTTPS/1.1",
    "method with a colon": b"GE:T / HTTP/1.1",
    "method with a bracket": b"GE[T / HTTP/1.1",
    "method in quotes": b'"GET" / HTTP/1.1',
    "method of high bytes": b"G\xcbT / HTTP/1.1",
    "vertical tab for space": b"GET\x0b/ HTTP/1.1",
    "form feed for space": b"GET\x0c/ HTTP/1.1",
    "no-break space for space": b"GET\xa0/ HTTP/1.1",
    "NUL in method": b"GE\0T / HTTP/1.1",
}

_WRONG_TARGETS = {
    "fragment": b"/a#b",
    "fragment in query": b"/a?b#c",
    "relative": b"a/b",
    "asterisk": b"*",
    "asterisk path": b"*/a",
    "query only": b"?a",
    "backslash": b"/a\\b",
    "backslash first": b"\\a",
    "quote in path": b'/a"b',
    "angle bracket in path": b"/a<b",
    "NUL": b"/a\0b",
    "control byte": b"/a\x01b",
    "DEL": b"/a\x7fb",
    "high byte": b"/\xc3\xa9",
    "high byte in query": b"/?\xe9",
    "escape of one digit": b"/a%2",
    "escape without digits": b"/a%",
    "escape of other letters": b"/a%zz",
    "unicode escape": b"/a%u00e9",
    "escaped NUL": b"/a%00b",
    "escape that is no utf-8": b"/a%ff",
    "escape of an overlong slash": b"/a%c0%af",
    "escape of a surrogate": b"/a%ed%a0%80",
    "ftp": b"ftp://a/b",
    "empty authority": b"http:///a",
    "user in authority": b"http://u@a/b",
    "user and password in authority": b"http://u:p@a/b",
    "port that is none": b"http://a:b/c",
    "fragment in absolute form": b"http://a/b#c",
    "authority form": b"a:80",
    "scheme only": b"http:",
}

_WRONG_HOSTS = {
    "empty host": b"",
    "host of a space": b" ",
    "host with a path": b" a/b",
    "host with user": b" u@a",
    "two hosts in one": b" a, b",
    "host with a space": b" a b",
    "host with a long port": b" a:123456",
    "host with letters as port": b" a:b",
    "host with two ports": b" a:1:2",
    "bare ipv6 host": b" ::1",
    "open ipv6 host": b" [::1",
    "host with a bad escape": b" a%2",
    "host with a high byte": b" \xe9",
    "host in quotes": b' "a"',
}

_WRONG_LENGTHS = {
    "negative": b"-1",
    "plus": b"+5",
    "hex": b"0x5",
    "word": b"five",
    "empty": b"",
    "decimal": b"5.0",
    "exponent": b"1e1",
    "underscore": b"1_0",
    "space inside": b"1 0",
    "list": b"5, 5",
    "trailing comma": b"5,",
    "other digits": b"\xd9\xa5",
}

_WRONG_CHUNKS = {
    "no digits": b"\r\n",
    "negative": b"-1\r\na\r\n0\r\n\r\n",
    "plus": b"+1\r\na\r\n0\r\n\r\n",
    "hex prefix": b"0x1\r\na\r\n0\r\n\r\n",
    "letter": b"g\r\na\r\n0\r\n\r\n",
    "underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "17 digits": b"00000000000000001\r\na\r\n0\r\n\r\n",
    "space first": b" 1\r\na\r\n0\r\n\r\n",
    "space last": b"1 \r\na\r\n0\r\n\r\n",
    "tab last": b"1\t\r\na\r\n0\r\n\r\n",
    "bare LF after size": b"1\na\r\n0\r\n\r\n",
    "bare CR after size": b"1\ra\r\n0\r\n\r\n",
    "bare LF after data": b"1\r\na\n0\r\n\r\n",
    "no line end after data": b"1\r\na0\r\n\r\n",
    "data longer than size": b"1\r\nab\r\n0\r\n\r\n",
    "data shorter than size": b"3\r\na\r\n0\r\n\r\n",
    "extension without name": b"1;\r\na\r\n0\r\n\r\n",
    "extension with a NUL": b"1;a=\0\r\na\r\n0\r\n\r\n",
    "extension with LF": b"1;a\nb\r\na\r\n0\r\n\r\n",
    "extension with CR": b"1;a\rb\r\na\r\n0\r\n\r\n",
    "extension with an open quote": b'1;a="b\r\na\r\n0\r\n\r\n',
    "extension without semicolon": b"1 a\r\na\r\n0\r\n\r\n",
    "long extension": b"1;a=" + b"b" * 2000 + b"\r\na\r\n0\r\n\r\n",
    "many extensions": (b"1;a=" + b"b" * 1000 + b"\r\na\r\n") * 20 + b"0\r\n\r\n",
    "folded trailer": b"0\r\nA: b\r\n c\r\n\r\n",
    "trailer without colon": b"0\r\nAb\r\n\r\n",
    "trailer with a space in its name": b"0\r\nA : b\r\n\r\n",
    "trailer with bare LF": b"0\r\nA: b\nC: d\r\n\r\n",
    "trailer with NUL": b"0\r\nA: \0\r\n\r\n",
    "bare LF after the last chunk": b"0\n\n",
    "LF for the final line end": b"0\r\n\n",
}

_WRONG_HEADERS = {
    "space before colon": b"X : a",
    "tab before colon": b"X\t: a",
    "folded": b"X: a\r\n b",
    "folded by a tab": b"X: a\r\n\tb",
    "no colon": b"X",
    "no name": b": a",
    "space first": b" X: a",
    "NUL in value": b"X: a\0b",
    "NUL in name": b"X\0: a",
    "control byte in value": b"X: a\x01b",
    "vertical tab in value": b"X: a\x0bb",
    "escape in value": b"X: \x1b[1m",
    "DEL in value": b"X: a\x7f",
    "bare CR in value": b"X: a\rb",
    "bare LF in value": b"X: a\nY: b",
    "CR CR LF": b"X: a\r",
    "bracket in name": b"X[: a",
    "quote in name": b'"X": a',
    "slash in name": b"X/Y: a",
    "high byte in name": b"X\xe9: a",
    "space in name": b"X Y: a",
    "at in name": b"X@: a",
}

_WRONG_CODINGS = {
    "chunked twice": (b"chunked, chunked", 400),
    "empty": (b"", 400),
    "identity": (b"identity", 501),
    "gzip": (b"gzip", 501),
    "gzip and chunked": (b"gzip, chunked", 501),
    "chunked not last": (b"chunked, gzip", 501),
    "a word that only looks like it": (b"xchunked", 501),
    "quoted": (b'"chunked"', 501),
    "with a parameter": (b"chunked;q=1", 501),
    "vertical tab first": (b"\x0bchunked", 400),
    "with a comma": (b"chunked,", 501),
}

INVALID = (
    *(Invalid(name, line + b"\r\nHost: a\r\n\r\n", 400) for name, line in _WRONG_LINES.items()),
    Invalid("http 2", _get(line=b"GET / HTTP/2.0"), 505),
    Invalid("http 1.2", _get(line=b"GET / HTTP/1.2"), 505),
    Invalid("http 0.9 in full", _get(line=b"GET / HTTP/0.9"), 505),
    Invalid("http 3", _get(line=b"GET / HTTP/3.0"), 505),
    Invalid("http 2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    Invalid("very long method", _get(line=b"M" * 40 + b" / HTTP/1.1"), 501),
    Invalid("http 0.9", b"GET /\r\n\r\n", 400),
    Invalid("two empty lines first", b"\r\n\r\n" + _get(), 400),
    Invalid("bare LF first", b"\n" + _get(), 400),
    Invalid("bare CR first", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    Invalid("bare LF throughout", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    Invalid("bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    Invalid("bare LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    Invalid("bare CR at the end", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
    Invalid("tls hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    Invalid("space before the first header", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    *(Invalid("target: " + name, _target(target), 400) for name, target in _WRONG_TARGETS.items()),
    Invalid("connect", b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    Invalid("connect ipv6", b"CONNECT [::1]:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    Invalid("connect without port", b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    Invalid("connect to a path", b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    Invalid("connect to a url", b"CONNECT http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    Invalid("too long target", _target(b"/" + b"a" * 20000), 414),
    Invalid("long query", _target(b"/?" + b"a" * 20000), 414),
    Invalid("long absolute target", _target(b"http://a/" + b"a" * 20000), 414),
    Invalid("endless target", b"GET /" + b"a" * 70000, 414),
    Invalid("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
    Invalid("no host in absolute form", b"GET http://a/ HTTP/1.1\r\n\r\n", 400),
    Invalid("host twice", _get(b"Host: a"), 400),
    Invalid("host twice in 1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    *(Invalid(name, _host(value), 400) for name, value in _WRONG_HOSTS.items()),
    *(Invalid("header: " + name, _get(line), 400) for name, line in _WRONG_HEADERS.items()),
    Invalid("129 lines", _get(*[b"X-%d: a" % n for n in range(128)]), 431),
    Invalid("large head", _get(*[b"X-%d: %b" % (n, b"a" * 1000) for n in range(70)]), 431),
    Invalid("endless head", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70000, 431),
    *(
        Invalid("length: " + name, _post(b"hello", b"Content-Length: " + value), 400)
        for name, value in _WRONG_LENGTHS.items()
    ),
    Invalid("length of 30 digits", _post(b"", b"Content-Length: " + b"9" * 30), 413),
    Invalid("two lengths", _post(b"hello", b"Content-Length: 5", b"Content-Length: 6"), 400),
    Invalid("the same length twice", _post(b"hello", b"Content-Length: 5", b"Content-Length: 5"), 400),
    Invalid(
        "length and chunked", _post(b"0\r\n\r\n", b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400
    ),
    Invalid(
        "chunked and length", _post(b"0\r\n\r\n", b"Transfer-Encoding: chunked", b"Content-Length: 5"), 400
    ),
    Invalid(
        "chunked and length zero",
        _post(b"0\r\n\r\n", b"Transfer-Encoding: chunked", b"Content-Length: 0"),
        400,
    ),
    Invalid("two codings", _post(b"", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
    Invalid(
        "two different codings", _post(b"", b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"), 400
    ),
    Invalid("chunked in 1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    *(
        Invalid("coding: " + name, _post(b"0\r\n\r\n", b"Transfer-Encoding: " + value), status)
        for name, (value, status) in _WRONG_CODINGS.items()
    ),
    *(Invalid("chunk: " + name, _chunked(body), 400) for name, body in _WRONG_CHUNKS.items()),
    Invalid("endless trailer", _chunked(b"0\r\nA: " + b"b" * 10000), 431),
    Invalid("other expectation", _post(b"a", b"Expect: 200-ok", b"Content-Length: 1"), 417),
    Invalid("two expectations", _post(b"a", b"Expect: 100-continue, x", b"Content-Length: 1"), 417),
    # handshakes
    Invalid(
        "handshake by post", _upgrade(_KEY, b"Sec-WebSocket-Version: 13", line=b"POST /ws HTTP/1.1"), 400
    ),
    Invalid(
        "handshake without connection", _get(b"Upgrade: websocket", _KEY, b"Sec-WebSocket-Version: 13"), 400
    ),
    Invalid("handshake without key", _upgrade(b"Sec-WebSocket-Version: 13"), 400),
    Invalid("handshake with two keys", _upgrade(_KEY, _KEY, b"Sec-WebSocket-Version: 13"), 400),
    Invalid(
        "handshake with a short key", _upgrade(b"Sec-WebSocket-Key: YQ==", b"Sec-WebSocket-Version: 13"), 400
    ),
    Invalid(
        "handshake with a key that is no base64",
        _upgrade(b"Sec-WebSocket-Key: " + b"!" * 24, b"Sec-WebSocket-Version: 13"),
        400,
    ),
    Invalid("handshake without version", _upgrade(_KEY), 426),
    Invalid("handshake of version 8", _upgrade(_KEY, b"Sec-WebSocket-Version: 8"), 426),
    Invalid(
        "handshake of two versions",
        _upgrade(_KEY, b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8"),
        426,
    ),
    Invalid(
        "handshake with a body",
        _upgrade(_KEY, b"Sec-WebSocket-Version: 13", b"Content-Length: 1") + b"a",
        400,
    ),
)
